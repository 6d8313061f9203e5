"""What a page may ask of a model is what the model says, and nothing else is."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.commands.explore.chart import SIZE, Chart
from jvae.commands.explore.explorer import COLUMNS, LARGE_TILE, ROWS, Explorer
from jvae.data.sources import ArraySource
from jvae.data.vocabulary import SentenceSource
from jvae.errors import ConfigError
from jvae.pretrained import image_grid
from tests.commands.test_export import inputs, restored

NUM = 12


def explorer(name):
    """A model that was never trained, beside examples with labels."""
    model = restored(name)
    batch = inputs(model.model, model.vocabulary, NUM)
    if model.vocabulary is not None:
        tokens = batch["tokens"]
        tokens[:, -2:] = 0
        source = SentenceSource(tokens, batch["length"] - 2, (tokens.shape[1],))
    else:
        pixels = (255 * batch["image"]).astype(np.uint8)
        source = ArraySource({"image": pixels, "label": np.arange(NUM) % 3})
    return Explorer.of(model, source, NUM)


@pytest.fixture(scope="module")
def plain():
    return explorer("plain")


@pytest.fixture(scope="module")
def text():
    return explorer("text")


def drawn(explorer, images, tile=image_grid.MIN_TILE, edge=4):
    unit = np.asarray(explorer.model.transform.to_unit(jnp.asarray(images)))
    return image_grid.grid(unit, COLUMNS, edge, tile)


def test_sliders_move_their_dimensions_and_no_other(plain):
    z = np.array([0.1, -0.2, 0.3], np.float32)
    wanted = {d: 0.5 + d for d in plain.dims[:2]}
    values = [wanted.get(d, float(z[d])) for d in plain.dims]
    moved = plain.moved(z, values)
    for d in range(3):
        assert moved[d] == pytest.approx(wanted.get(d, float(z[d])))
    assert z.tolist() == pytest.approx([0.1, -0.2, 0.3])  # not changed in place


def test_the_dimensions_with_sliders_come_by_kl(plain):
    kl = [plain.kl(d) for d in plain.dims]
    assert kl == sorted(kl, reverse=True)
    assert len(kl) == max(1, plain.latents.active.sum())
    np.testing.assert_allclose(kl, sorted(plain.latents.kl, reverse=True)[: len(kl)])


def test_a_point_is_decoded_to_the_mean(plain):
    z = np.array([0.4, -1.0, 0.7], np.float32)
    shown = plain.decoded(z)
    image = plain.model.decode(jnp.asarray(z)[None])
    np.testing.assert_array_equal(shown.sheet, drawn(plain, image, LARGE_TILE, 0))
    for d in plain.dims:
        assert f"z_{d} = {z[d]:.2f}" in shown.words


def test_an_example_starts_at_the_mean_of_its_posterior(plain):
    mean = plain.model.encode(jnp.asarray(plain.x)).mean
    np.testing.assert_allclose(plain.code(4), mean[4], atol=1e-6)


def test_a_place_of_the_map_is_a_point_of_its_plane(plain):
    place = np.array([0.05, -0.03])
    z = plain.point_at(place)
    again = plain.chart.plane.place(z[None])[0]
    np.testing.assert_allclose(again, place, atol=1e-5)
    far = plain.point_at(np.array([1e4, 0.0]))
    assert np.abs(far).max() == plain.reach


def test_pixels_and_places_are_each_others_inverse(plain):
    chart = plain.chart
    for pixel in ((0.0, 0.0), (SIZE, 100.0), (123.0, 400.0)):
        assert chart.pixel(chart.place(*pixel)) == pytest.approx(pixel)
    assert chart.place(0.0, SIZE) == pytest.approx(chart.low)
    assert chart.place(SIZE, 0.0) == pytest.approx(chart.high)
    assert chart.image.size == (SIZE, SIZE)


def test_the_map_shows_codes_where_it_says_they_are():
    codes = np.array([[-1.0, 0.0], [1.0, 0.0], [0.2, 0.9]], np.float32)
    chart = Chart.of(codes)
    alpha = np.asarray(chart.image)[..., 3]
    for place in chart.places:
        column, row = (round(v) for v in chart.pixel(place))
        assert alpha[row - 2 : row + 3, column - 2 : column + 3].max() > 100
    assert alpha[:20, :20].max() < 100  # nobody is in the corner
    assert [chart.nearest(p + 0.01) for p in chart.places] == [0, 1, 2]
    marked = np.asarray(chart.marked(chart.places[1]))
    changed = np.argwhere((marked != np.asarray(chart.image)).any(-1))
    column, row = chart.pixel(chart.places[1])
    np.testing.assert_allclose(changed.mean(0), [row, column], atol=3.0)


def test_a_path_goes_from_one_reconstruction_to_the_other(plain):
    shown = plain.interpolate(3, 7)
    ends = plain.model.reconstruct(jnp.asarray(plain.x[[3, 7]]))
    strip = drawn(plain, ends)
    width = strip.shape[1] // 2
    np.testing.assert_array_equal(shown.sheet[:, :width], strip[:, :width])
    np.testing.assert_array_equal(shown.sheet[:, -width:], strip[:, -width:])
    assert "example 3 (label 0) to 7 (label 1)" in shown.words


def test_samples_are_those_of_the_model(plain):
    shown = plain.drawn(5, 0.7)
    images = plain.model.sample(jax.random.key(5), ROWS * COLUMNS, 0.7)
    np.testing.assert_array_equal(shown.sheet, drawn(plain, images))
    cold = plain.drawn(6, 0.0).sheet
    tile = (cold.shape[1] - 4) // COLUMNS
    np.testing.assert_array_equal(cold[:tile, :tile], cold[:tile, tile : 2 * tile])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "count"), [("conditional", "class", 10), ("mixture", "cluster", 4)]
)
def test_samples_of_one_class_or_cluster(name, kind, count):
    explored = explorer(name)
    assert explored.choices == (kind, count)
    shown = explored.drawn(1, 0.5, 2)
    images = explored.model.sample(jax.random.key(1), ROWS * COLUMNS, 0.5, label=2)
    np.testing.assert_array_equal(shown.sheet, drawn(explored, images))
    with pytest.raises(ConfigError, match=f"{kind} must be a whole number"):
        explored.drawn(1, 0.5, count)


@pytest.mark.slow
def test_codes_on_a_sphere_are_found_not_moved():
    explored = explorer("sphere")
    assert explored.dims == () and explored.chart is not None
    with pytest.raises(ConfigError, match="cannot be moved"):
        explored.point_at(np.zeros(2))
    pair = explored.beside(2)
    again = explored.model.reconstruct(jnp.asarray(explored.x[2:3]))
    both = np.concatenate([explored.x[2:3], again])
    np.testing.assert_array_equal(pair.sheet, drawn(explored, both, LARGE_TILE))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["infomax", "bottleneck"])
def test_without_a_decoder_there_is_a_map_of_examples(name):
    explored = explorer(name)
    assert explored.chart is not None and explored.dims == ()
    assert not (explored.has_paths or explored.has_samples)
    sheet = drawn(explored, explored.x[5:6], LARGE_TILE, 0)
    np.testing.assert_array_equal(explored.beside(5).sheet, sheet)


@pytest.mark.slow
def test_sentences_are_read_and_written(text):
    sentence = text.model.detokenize(jnp.asarray(text.x[2:3]))[0]
    np.testing.assert_allclose(text.code_of_sentence(sentence), text.code(2), atol=1e-5)
    z = text.code(2)
    assert list(text.decoded(z).sentences) == text.model.detokenize(
        text.model.decode(z[None])
    )
    assert text.decoded(z).sheet is None
    typed = text.between_sentences(sentence, sentence)
    assert len(set(typed.sentences)) == 1 and len(typed.sentences) == COLUMNS
    other = text.model.detokenize(jnp.asarray(text.x[3:4]))[0]
    path = text.between_sentences(sentence, other)
    assert path.sentences == text.interpolate(2, 3).sentences


@pytest.mark.slow
@pytest.mark.parametrize("sentence", ["", "   ", "w1 " * 500])
def test_sentences_of_no_or_too_many_words_are_refused(text, sentence):
    with pytest.raises(ConfigError, match="a sentence must have from 1 to"):
        text.code_of_sentence(sentence)


@pytest.mark.slow
def test_a_language_model_has_samples_alone():
    explored = explorer("language")
    assert explored.has_samples and explored.chart is None and not explored.has_paths
    assert len(explored.drawn(0, 1.0).sentences) == COLUMNS


BAD = [None, "3", "x", [], {}, -1, NUM, 1.5, float("nan"), float("inf"), 10**30]


@pytest.mark.parametrize("index", BAD)
def test_numbers_that_no_example_has_are_refused(plain, index):
    for ask in (plain.code, plain.beside, lambda i: plain.interpolate(0, i)):
        with pytest.raises(ConfigError, match="example must be a whole number within"):
            ask(index)


@pytest.mark.parametrize("value", [None, "1", [1], float("nan"), float("inf"), 1e9])
def test_values_that_are_no_numbers_in_range_are_refused(plain, value):
    z = plain.code(0)
    others = [0.0] * (len(plain.dims) - 1)
    with pytest.raises(ConfigError, match="slider must be a number within"):
        plain.moved(z, [value, *others])
    with pytest.raises(ConfigError, match="temperature must be a number within"):
        plain.drawn(0, value)
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        plain.drawn(-1, 1.0)


@pytest.mark.parametrize("z", [[], [0.0] * 99, ["a", "b", "c"], [float("nan")] * 3])
def test_codes_of_another_kind_are_refused(plain, z):
    with pytest.raises(ConfigError, match="z must"):
        plain.decoded(z)


@pytest.mark.parametrize("name", ["no_such", "../../etc/passwd", ""])
def test_samplers_go_by_their_names_alone(plain, name):
    with pytest.raises(ConfigError, match="sampler must be one of"):
        plain.drawn(0, 1.0, None, name)


def test_answers_do_not_depend_on_who_else_asks(plain):
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (32, 3)).astype(np.float32)
    alone = [plain.decoded(z).sheet for z in points]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda z: plain.decoded(z).sheet, points))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_scales_of_a_hierarchy_stay_along_a_row():
    explored = explorer("nvae")
    assert explored.num_scales == 2 and explored.dims == () and explored.chart is None
    kept = explored.varied(3, 1.0, 2).sheet
    tile = (kept.shape[1] - 4) // COLUMNS
    for i in range(1, COLUMNS):  # all scales kept: nothing is left to draw
        left, right = kept[:, 4:tile], kept[:, i * tile + 4 : (i + 1) * tile]
        np.testing.assert_array_equal(left, right)
    free = explored.varied(3, 1.0, 0).sheet
    assert (free[:, :tile] == kept[:, :tile]).all() and (free != kept).any()
    with pytest.raises(ConfigError, match="kept must be a whole number within 0 and 2"):
        explored.varied(3, 1.0, 3)
