"""The page, laid out with Gradio: a tab for each thing that the model can be asked."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import jax.numpy as jnp
import numpy as np

from jvae.commands.explore.chart import Chart
from jvae.commands.explore.explorer import (
    COLUMNS,
    MAX_SEED,
    MAX_TEMPERATURE,
    Explorer,
    Shown,
)
from jvae.errors import ConfigError, JvaeError
from jvae.pretrained import image_grid

NUM_THUMBNAILS = 64
"""Examples that can be picked with a click; any other by its number."""
ALL, PRIOR = "all", "prior"
MAX_MESSAGE = 300
"""Characters of an error that the page shows: a request may be long."""
CSS = """
.gradio-container { max-width: 72rem !important; margin: 0 auto !important;
  width: 100%; }
#map img, #examples img { width: 100%; height: auto; }
.shown img { max-width: 100%; height: auto; image-rendering: pixelated; }
.shown p, .shown li { margin: 0 0 .4rem; }
#alert p { position: fixed; left: 50%; bottom: 1.5rem; transform: translateX(-50%);
  z-index: 10; max-width: 90vw; padding: .8rem 1rem; border-left: 4px solid #b3261e;
  background: #1d2025; color: #ffffff; }
.shown ol { padding-left: 1.5rem; list-style: decimal; }
"""


def build(explorer: Explorer, title: str) -> gr.Blocks:
    """Returns the page of a model.

    Args:
      explorer: answers what the page asks.
      title: of the page.

    Raises:
      ConfigError: there is nothing to explore.
    """
    tabs = {
        "Latent space": (_latent_space, explorer.chart is not None),
        "Between two": (_paths, explorer.has_paths),
        "Samples": (_samples, explorer.has_samples),
        "Scales": (_scales, explorer.num_scales > 0),
    }
    if not any(there for _, there in tabs.values()):
        raise ConfigError("this model has nothing to explore", where=title)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown(f"# {title}")
        ask = Asking(gr.HTML("", elem_id="alert", render=False))
        for name, (lay_out, there) in tabs.items():
            if there:
                with gr.Tab(name):
                    lay_out(explorer, ask)
        ask.alert.render()
    return page


def html_of(shown: Shown) -> str:
    """Returns an answer as HTML: a picture with its words, or a list of sentences."""
    words = html.escape(shown.words)
    if shown.sheet is None:
        rows = (html.escape(text) or "(no word)" for text in shown.sentences)
        return f"<p>{words}</p><ol>{''.join(f'<li>{row}</li>' for row in rows)}</ol>"
    data = image_grid.data_uri(image_grid.encode_png(shown.sheet))
    return f'<p>{words}</p><img src="{data}" alt="{words}">'


@dataclasses.dataclass(frozen=True)
class Asking:
    """How the page asks, and where it says that a request was a bad one.

    Attributes:
      alert: the place for what was wrong with the last request.
    """

    alert: gr.HTML

    def on(
        self,
        event: Callable,
        answer: Callable,
        given: Any,
        shown: Any,
        is_slow: bool = False,
    ) -> None:
        """Has the page ask `answer` at an event.

        The next request waits until the last one is answered and those between are left
        out, so that a slider that is dragged never runs ahead of the model.

        Args:
          event: of a component.
          answer: (values of `given`) -> what `shown` shows.
          given: components.
          shown: one component, or a list of them.
          is_slow: whether the page says that it waits.
        """
        places = shown if isinstance(shown, list) else [shown]

        @functools.wraps(answer)
        def answered(*args: Any) -> Any:
            try:
                values = answer(*args)
            except (JvaeError, ValueError, TypeError, LookupError) as error:
                text = html.escape(str(error)[:MAX_MESSAGE])
                return {self.alert: f'<p role="alert">{text}</p>'}
            return [*(values if isinstance(shown, list) else [values]), ""]

        event(
            answered,
            given,
            [*places, self.alert],
            queue=False,
            show_progress="full" if is_slow else "hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )


def _answer_box(shown: Shown | None = None) -> gr.HTML:
    return gr.HTML("" if shown is None else html_of(shown), elem_classes=["shown"])


def _clickable(image: Any, name: str, words: str) -> gr.Image:
    """A picture that tells where it was clicked on."""
    return gr.Image(
        image,
        format="png",
        image_mode="RGBA",
        interactive=False,
        show_label=False,
        buttons=[],
        elem_id=name,
        alt_text=words,
    )


def _pixel(event: gr.SelectData) -> tuple[float, float]:
    """Returns (column, row) of a click on a picture."""
    column, row = event.index
    return float(column), float(row)


def _latent_space(explorer: Explorer, ask: Asking) -> None:
    """The map of the examples, and what is at a place of it."""
    chart: Any = explorer.chart
    with gr.Row():
        with gr.Column():
            gr.Markdown(_about_map(explorer, chart))
            words = "Map of the codes. A click shows what is there."
            picture = _clickable(chart.marked(chart.places[0]), "map", words)
        with gr.Column():
            (_moving if explorer.dims else _finding)(explorer, ask, chart, picture)


def _about_map(explorer: Explorer, chart: Chart) -> str:
    share = f"{100.0 * float(np.sum(chart.plane.explained)):.0f}%"
    numbers = "clusters" if explorer.labels is None else "labels"
    signs = "" if explorer.signs is None else f" Their numbers are {numbers}."
    shows = "decodes that point of it" if explorer.dims else "finds the nearest example"
    return (
        f"{len(explorer.x):,} examples: means of q(z|x) in the plane of their two "
        f"principal components, {share} of the variance.{signs} A click {shows}."
    )


def _finding(explorer: Explorer, ask: Asking, chart: Chart, picture: gr.Image) -> None:
    """Shows the example that is nearest to a click."""
    box = _answer_box(explorer.beside(0))

    def clicked(event: gr.SelectData) -> Any:
        index = chart.nearest(chart.place(*_pixel(event)))
        return html_of(explorer.beside(index)), chart.marked(chart.places[index])

    ask.on(picture.select, clicked, None, [box, picture])


def _moving(explorer: Explorer, ask: Asking, chart: Chart, picture: gr.Image) -> None:
    """Decodes the point of a click, of the sliders, of an example."""
    start = explorer.code(0)

    def at(z: Any) -> list[Any]:
        """Returns what all parts show at z: itself, the answer, map and sliders."""
        place = chart.plane.place(np.asarray(z)[None])[0]
        values = [round(float(z[d]), 2) for d in explorer.dims]
        shown = html_of(explorer.decoded(z))
        return [list(map(float, z)), shown, chart.marked(place), *values]

    def clicked(event: gr.SelectData) -> Any:
        return at(explorer.point_at(chart.place(*_pixel(event))))

    def slid(z: Any, *values: Any) -> Any:
        return at(explorer.moved(z, values))[:3]

    z = gr.State(list(map(float, start)))
    box = _answer_box(explorer.decoded(start))
    sliders = [_slider(explorer, d, float(start[d])) for d in explorer.dims]
    number = gr.Number(0, label="From example", precision=0)
    everything = [z, box, picture, *sliders]
    ask.on(picture.select, clicked, None, everything)
    ask.on(number.input, lambda i: at(explorer.code(i)), number, everything)
    for slider in sliders:
        ask.on(slider.input, slid, [z, *sliders], everything[:3])
    if explorer.is_text:
        text = gr.Textbox(label="From a sentence")
        ask.on(
            text.submit, lambda s: at(explorer.code_of_sentence(s)), text, everything
        )


def _slider(explorer: Explorer, dim: int, value: float) -> gr.Slider:
    label = f"z_{dim} ({explorer.kl(dim):.2f} nats)"
    ends = (-explorer.reach, explorer.reach)
    return gr.Slider(*ends, round(value, 2), step=0.01, label=label, buttons=[])


def _paths(explorer: Explorer, ask: Asking) -> None:
    """Two examples or sentences, and what is decoded between their codes."""
    if explorer.is_text:
        _between_sentences(explorer, ask)
        return
    with gr.Row():
        with gr.Column():
            ends = _picked(explorer, ask)
        with gr.Column():
            box = _answer_box(explorer.interpolate(0, 1))
    for end in ends:
        ask.on(end.change, lambda *e: html_of(explorer.interpolate(*e)), ends, box)


def _between_sentences(explorer: Explorer, ask: Asking) -> None:
    first, second = explorer.model.detokenize(jnp.asarray(explorer.x[:2]))
    ends = [gr.Textbox(first, label="From"), gr.Textbox(second, label="To")]
    box = _answer_box(explorer.interpolate(0, 1))
    button = gr.Button("Interpolate", variant="primary")

    def answer(*sentences: str) -> str:
        return html_of(explorer.between_sentences(*sentences))

    for event in (ends[0].submit, ends[1].submit, button.click):
        ask.on(event, answer, ends, box)


def _picked(explorer: Explorer, ask: Asking) -> list[gr.Number]:
    """A sheet of examples: clicks pick the first and the second in turn."""
    count = min(NUM_THUMBNAILS, len(explorer.x))
    shown = explorer.thumbnails(count)
    sheet: Any = shown.sheet
    height, width = sheet.shape[:2]
    rows = -(-count // COLUMNS)
    gr.Markdown("Click on two images in turn, or give their numbers.")
    image = sheet[..., 0] if sheet.shape[-1] == 1 else sheet
    chart = _clickable(image, "examples", shown.words)
    with gr.Row():
        start = gr.Number(0, label="From", precision=0)
        end = gr.Number(1, label="To", precision=0)

    def clicked(second: Any, event: gr.SelectData) -> tuple[Any, int]:
        column, row = _pixel(event)
        place = int(row * rows // height) * COLUMNS + int(column * COLUMNS // width)
        return second, min(place, len(explorer.x) - 1)

    ask.on(chart.select, clicked, end, [start, end])
    return [start, end]


def _samples(explorer: Explorer, ask: Asking) -> None:
    """Draws from the prior, or from what was fitted in its place."""
    kind, count = explorer.choices
    names, offered = [ALL, *map(str, range(count))], [PRIOR, *explorer.samplers]
    heat = _temperature(explorer)
    choice = gr.Dropdown(names, value=ALL, label=kind, visible=count > 0)
    name = gr.Dropdown(offered, value=PRIOR, label="from", visible=len(offered) > 1)

    def drawn(seed: Any, heat: Any, choice: str, name: str) -> str:
        label = None if choice == ALL else int(choice)
        sampler = None if name == PRIOR else name
        return html_of(explorer.drawn(seed, heat, label, sampler))

    _drawing(ask, drawn, [heat, choice, name])


def _scales(explorer: Explorer, ask: Asking) -> None:
    """A hierarchy's coarse scales kept, the finer ones drawn again."""
    most = explorer.num_scales
    kept = gr.Slider(0, most, 1, step=1, label="scales kept, the coarsest", buttons=[])
    heat = _temperature(explorer)
    _drawing(ask, lambda *given: html_of(explorer.varied(*given)), [heat, kept])


def _temperature(explorer: Explorer) -> gr.Slider:
    visible = not explorer.model.has_uniform_prior
    ends = (0.0, MAX_TEMPERATURE)
    return gr.Slider(
        *ends, 1.0, step=0.05, label="temperature", buttons=[], visible=visible
    )


def _drawing(ask: Asking, answer: Callable, given: Sequence[Any]) -> None:
    """A seed, a button that draws with it, another that takes the next one first."""
    seed = gr.Number(0, label="seed", precision=0)
    with gr.Row():
        again = gr.Button("Draw", variant="primary")
        more = gr.Button("Draw others")
    box = _answer_box()

    def others(seed: Any, *values: Any) -> tuple[int, str]:
        following = (int(seed) + 1) % MAX_SEED
        return following, answer(following, *values)

    ask.on(again.click, answer, [seed, *given], box, is_slow=True)
    ask.on(more.click, others, [seed, *given], [seed, box], is_slow=True)
    for part in given:
        ask.on(part.input, answer, [seed, *given], box)
