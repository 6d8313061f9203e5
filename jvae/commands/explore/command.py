"""Moves through the latent space of a trained model, in a page in the browser.

jvae explore WORKDIR

Sliders move the most active dimensions, a click on the map decodes that place, two test
images are interpolated, samples are drawn at a temperature, of a class or a cluster; a
hierarchy keeps its coarse scales, a model of sentences writes them. The page is served
to this machine alone unless --host says otherwise, and asks nothing of any other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from types import ModuleType

from etils import epath

from jvae import import_paths
from jvae.commands.explore.explorer import Explorer
from jvae.commands.flags import Parser, add_model, model_of, parse
from jvae.data import datasets
from jvae.errors import ConfigError
from jvae.pretrained.restore import restore

LOOPBACK = ("127.0.0.1", "localhost")
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae explore", __doc__)
    parser.add_argument("workdir", nargs="?", help="folder of the run")
    parser.add_argument("--split", default="test", help="whose examples are shown")
    parser.add_argument("--num_examples", type=int, default=1000, help="how many")
    parser.add_argument("--host", default=LOOPBACK[0], help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    parser.add_argument("--no_browser", action="store_true", help="open no browser")
    add_model(parser)

    flags = parse(parser, arguments)
    if not flags.workdir:
        raise ConfigError("WORKDIR is missing", where=parser.prog)

    page, server = _web()
    model = restore(flags.workdir, **model_of(flags))
    section, words = model.config["data"], model.vocabulary
    with import_paths.allowed(flags.allow_imports):
        source = datasets.load_split(section, flags.split, words)

    is_local = flags.host in LOOPBACK
    listener = server.bound(flags.host, flags.port)

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(listener):
        os.environ["GRADIO_TEMP_DIR"] = folder  # the page's pictures, gone at the end
        explorer = Explorer.of(model, source, flags.num_examples)
        title = f"{epath.Path(flags.workdir).name}, step {model.step}"
        app = server.application(page.build(explorer, title), is_local)
        url = f"http://{flags.host}:{listener.getsockname()[1]}"
        print(f"{title}: {url} (Ctrl-C ends it)", flush=True)
        if not is_local:
            print("anyone who reaches this address can use the page", file=sys.stderr)
        displays = any(map(os.environ.get, DISPLAYS))
        if not flags.no_browser and (displays or sys.platform in ("darwin", "win32")):
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve(app, listener)


def _web() -> tuple[ModuleType, ModuleType]:
    """Returns the modules that need Gradio, which is told first to send nothing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from jvae.commands.explore import page, server
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the explorer needs one more package: {error}",
            fix="pip install 'jvae[app]'.",
        ) from error
    return page, server
