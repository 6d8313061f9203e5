import io

import numpy as np
import pytest
from PIL import Image

from jvae.errors import ConfigError
from jvae.pretrained.image_grid import GAP, encode_png, grid, write_png
from jvae.reports.latent_plots import kl_bars
from jvae.reports.plots import curves


def test_tiles_are_whole_multiples_row_by_row_with_gaps_around():
    images = np.linspace(0.0, 1.0, 3)[:, None, None, None] * np.ones((1, 8, 8, 1))
    sheet = grid(images, columns=2, pad=4, min_tile=16)
    assert sheet.shape == (2 * 20 + 4, 2 * 20 + 4, 1) and sheet.dtype == np.uint8
    assert np.all(sheet[4:20, 4:20] == 0) and np.all(sheet[4:20, 24:40] == 128)
    assert np.all(sheet[24:40, 4:20] == 255)
    assert np.all(sheet[:4] == GAP) and np.all(sheet[24:, 24:] == GAP)


def test_a_magnified_pixel_is_a_square_of_its_level():
    image = np.array([[0.0, 1.0], [0.25, 0.5]])[None, :, :, None]
    sheet = grid(image, 1, pad=0, min_tile=5)
    assert sheet.shape == (6, 6, 1)
    levels = np.array([[0, 255], [64, 128]])
    np.testing.assert_array_equal(sheet[..., 0], np.kron(levels, np.ones((3, 3))))


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (4, 1)])
def test_three_channels_are_colors_and_others_gray(channels, shown):
    assert grid(np.zeros((1, 64, 64, channels)), 1).shape[-1] == shown


def test_values_outside_the_range_and_nan_are_drawn_as_its_ends():
    image = np.array([-1.0, 2.0, np.nan, 1.0]).reshape(1, 2, 2, 1)
    sheet = grid(image, 1, pad=0, min_tile=1)
    np.testing.assert_array_equal(sheet.reshape(-1), [0, 255, 0, 255])


@pytest.mark.parametrize(("images", "columns"), [(np.zeros((0, 8, 8, 1)), 1)] * 1)
def test_no_images_are_refused(images, columns):
    with pytest.raises(ConfigError, match="images must be"):
        grid(images, columns)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(tmp_path, channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 4, channels), np.uint8)
    write_png(tmp_path / "picture.png", pixels)
    with Image.open(tmp_path / "picture.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture).reshape(5, 4, -1), pixels)
    assert (tmp_path / "picture.png").read_bytes() == encode_png(pixels)


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_bars_that_are_not_active_look_different_without_color():
    kl = np.array([1.0, 1.0, 1.0])
    one, all_ = (decoded(kl_bars(kl, np.array(a))) for a in ([1, 1, 0], [1, 1, 1]))
    assert one.shape == all_.shape
    ink = [picture[..., 3].astype(int).sum() for picture in (one, all_)]
    assert ink[0] < 0.9 * ink[1]  # a hollow bar


@pytest.mark.parametrize("kl", [np.zeros(3), np.array([np.nan, 1.0]), np.ones(40)])
def test_bars_are_drawn_whatever_the_kl(kl):
    assert decoded(kl_bars(kl, kl > 0.5)).size and decoded(kl_bars(kl)).size


def test_curves_leave_out_what_is_not_a_number():
    rows = [
        {"step": 1, "split": "train", "loss": 3.0, "elbo": None},
        {"step": 2, "split": "train", "loss": float("nan"), "elbo": -2.0},
        {"step": 2, "split": "validation", "elbo": -2.5},
    ]
    tall, short = decoded(curves(rows)), decoded(curves(rows[:1]))
    assert tall.shape[0] == 2 * short.shape[0]  # a panel for each of the two metrics


def test_a_single_evaluation_can_be_seen_among_the_curves():
    """The validation is orange: without a mark a line of one point draws nothing."""
    rows = [{"step": i, "split": "train", "elbo": -3.0 + i} for i in (1, 2)]
    rows.append({"step": 2, "split": "validation", "elbo": -1.5})
    red, _, blue, alpha = np.moveaxis(decoded(curves(rows)).astype(int), -1, 0)
    orange = (red > 200) & (blue < 80) & (alpha > 200)
    right = orange[:, orange.shape[1] // 2 :]  # the legend is on the left
    assert right.sum() > 50


def test_the_axis_of_a_curve_fits_what_comes_after_the_first_tenth():
    losses = [1000.0] * 5 + [1.0 - i / 95 for i in range(95)]
    rows = [{"step": i + 1, "split": "train", "loss": v} for i, v in enumerate(losses)]
    red, _, blue, alpha = np.moveaxis(decoded(curves(rows)).astype(int), -1, 0)
    line = (blue > 180) & (red < 90) & (alpha > 200)
    late = np.flatnonzero(line[:, line.shape[1] // 2 :].any(1))
    assert len(late) > 0.25 * len(line)  # else all but the start would be flat


def test_no_curves_come_from_no_numbers():
    assert curves([]) is None
    assert curves([{"step": 1, "split": "train", "loss": None}]) is None
