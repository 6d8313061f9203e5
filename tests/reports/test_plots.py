"""What figures show, read back from their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from jvae.reports import latent_plots, plots, style
from jvae.reports.latent_plots import latent_map
from jvae.reports.plots import Point, rate_distortion


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def middle(mask):
    """(column, row) of the middle of a mask, in parts of the picture."""
    rows, columns = np.nonzero(mask)
    return columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]


def test_images_stand_at_the_places_of_their_codes():
    places = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    red = np.zeros((6, 6, 3)) + np.array([1.0, 0.0, 0.0])
    r, g, b, alpha = np.moveaxis(
        decoded(latent_map(places, None, ("x", "y"), [(1, red)])), -1, 0
    )
    column, row = middle((r > 240) & (g < 20) & (b < 20) & (alpha > 200))
    assert column > 0.85 and row < 0.15  # the upper right
    assert latent_map(places, None, ("x", "y"), [(0, np.ones((6, 6, 1)))])


@pytest.mark.slow
def test_codes_are_numbers_of_their_own_or_dots_if_there_are_many():
    places = np.random.default_rng(0).normal(size=(40, 2))
    few, many = np.arange(40) % 3, np.arange(40)
    by_number = decoded(latent_map(places, few, ("x", "y")))
    as_dots = decoded(latent_map(places, many, ("x", "y")))
    np.testing.assert_array_equal(
        as_dots, decoded(latent_map(places, None, ("x", "y")))
    )
    assert (by_number != as_dots).any()
    other = decoded(latent_map(places, few + 1, ("x", "y")))  # 1 to 3: other shapes
    opaque = [image[..., 3] > 100 for image in (by_number, other)]
    assert (opaque[0] != opaque[1]).sum() > 200


def test_models_with_one_elbo_are_on_one_line():
    """The first is at the lower right of the second, in the middle of the figure."""
    points = [Point("a", 20.0, 80.0), Point("b", 10.0, 90.0)]
    image = decoded(rate_distortion(points))
    colors = [np.array(style.color(i)[:3]) * 255 for i in (0, 1)]
    at = [
        middle(np.abs(image[..., :3] - c).max(-1) + (255 - image[..., 3]) < 30)
        for c in colors
    ]
    assert at[0][0] > at[1][0] and at[0][1] > at[1][1]


@pytest.mark.parametrize(
    ("length", "step"), [(1.0, 1.0), (1.9, 1.0), (2.0, 2.0), (0.7, 0.5), (990.0, 500.0)]
)
def test_lines_have_round_distances(length, step):
    assert plots._round_step(length) == pytest.approx(step)


def test_a_model_without_rate_has_a_place_too():
    assert decoded(rate_distortion([Point("a", 0.0, 0.0)])).shape[2] == 4


@pytest.mark.slow
def test_codes_like_the_prior_fill_its_density():
    """Blue under the dashed line for N(0, 1), far from it for a narrow q(z)."""
    rng = np.random.default_rng(1)
    wide, narrow = rng.normal(size=(5000, 2)), 0.1 * rng.normal(size=(5000, 2))

    def blue(draws):
        r, _, b, alpha = np.moveaxis(
            decoded(latent_plots.aggregate(draws, [0, 1])), -1, 0
        )
        half = (b - r > 60) & (alpha > 150)
        return half[half.shape[0] // 2 :].sum()

    assert blue(wide) > 2 * blue(narrow)


def test_a_dollar_in_the_name_of_a_run_is_a_dollar():
    """Not the beginning of a formula, which may be a wrong one."""
    figure, (axes,) = style.panels(1, 2.0)
    axes.plot([0, 1], label="run$x^{$")
    style.legend(axes)
    style.title(axes, "run$x^{$")
    assert style.png(figure, dpi=40).startswith(b"\x89PNG")
