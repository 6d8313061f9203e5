"""Every pixel format has one meaning."""

import struct
import subprocess
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from jvae.data.datasets import image_files
from jvae.errors import DataError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def save(tmp_path, array_or_picture, name="a.png", **options):
    picture = array_or_picture
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def pixels(file, channels):
    return np.asarray(image_files.decode(file).convert("L" if channels == 1 else "RGB"))


def test_gray_and_color_are_kept(tmp_path):
    np.testing.assert_array_equal(pixels(save(tmp_path, RAMP), 1), RAMP)
    color = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    np.testing.assert_array_equal(pixels(save(tmp_path, color), 3), color)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_is_scaled_and_rounded(tmp_path, name):
    deep = np.linspace(0, 65535, 300).astype(np.uint16).reshape(15, 20)
    found = pixels(save(tmp_path, deep, name), 1)
    np.testing.assert_array_equal(found, np.round(deep / 257))
    assert found.min() == 0 and found.max() == 255


def test_deep_gray_that_is_no_16_bits_from_black_is_refused(tmp_path):
    """A TIFF whose 0 is white, which Pillow does not turn, and one of 32 bits."""
    PIL.Image.fromarray(np.zeros((2, 2), "int32")).save(tmp_path / "long.tif")
    white = PIL.Image.fromarray(np.zeros((2, 2), np.uint16))
    white.save(tmp_path / "white.tif", tiffinfo={262: 0})
    for name in ("long.tif", "white.tif"):
        with pytest.raises(DataError, match="no defined conversion"):
            pixels(tmp_path / name, 1)


def test_transparent_parts_show_white(tmp_path):
    color = np.zeros((1, 3, 4), np.uint8)
    color[0, :, 0] = 200
    color[0, :, 3] = [255, 0, 51]
    found = pixels(save(tmp_path, color), 3)[0]
    alpha = np.array([[1.0], [0.0], [0.2]])
    expected = alpha * [200, 0, 0] + (1 - alpha) * 255
    np.testing.assert_allclose(found, expected, atol=1)


def test_a_transparent_palette_entry_shows_white(tmp_path):
    picture = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    plain = save(tmp_path, picture)
    np.testing.assert_array_equal(pixels(plain, 3)[0], [[10, 20, 30], [40, 50, 60]])
    masked = save(tmp_path, picture, transparency=1)
    np.testing.assert_array_equal(pixels(masked, 3)[0], [[10, 20, 30], [255, 255, 255]])


def test_gray_with_alpha_shows_white(tmp_path):
    picture = PIL.Image.merge(
        "LA", [PIL.Image.new("L", (2, 1), 100), PIL.Image.new("L", (2, 1), 0)]
    )
    np.testing.assert_array_equal(pixels(save(tmp_path, picture), 1), [[255, 255]])


def test_two_levels_become_black_and_white(tmp_path):
    picture = PIL.Image.fromarray(RAMP >= 128)
    assert picture.mode == "1"
    np.testing.assert_array_equal(
        pixels(save(tmp_path, picture), 1), np.where(RAMP >= 128, 255, 0)
    )


def test_cmyk_becomes_the_color_it_prints(tmp_path):
    cyan = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found = pixels(save(tmp_path, cyan, "a.jpg", quality=95), 3)
    np.testing.assert_allclose(
        found, np.broadcast_to([0, 255, 255], found.shape), atol=4
    )


def test_16_bit_gray_with_transparency_is_refused(tmp_path):
    deep = np.zeros((2, 2), np.uint16)
    file = save(tmp_path, deep, transparency=0)
    with pytest.raises(DataError, match="16-bit gray with transparency"):
        image_files.decode(file)


def test_a_format_without_a_meaning_is_refused(tmp_path):
    file = save(tmp_path, np.zeros((2, 2), np.float32), "a.tiff")
    with pytest.raises(DataError, match="pixel format F has no defined conversion"):
        image_files.decode(file)


def png(width, height):
    """A PNG of one gray level, far smaller than what it unpacks to."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * min((width + 1) * height, 10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("side", [10_000, 20_000])
@pytest.mark.parametrize("read", [image_files.decode, image_files.size])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path, side, read
):
    image_files.refuse_bombs()
    file = tmp_path / "a.png"
    file.write_bytes(png(side, side))
    with pytest.raises(DataError, match=r"exceeds limit.*a\.png"):
        read(file)


def noise(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return save(tmp_path, array, name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("cut", [0, 10, 200, -1000])
def test_a_picture_cut_short_is_named(tmp_path, name, cut):
    file = noise(tmp_path, name)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"cannot be read: .*{name}\)\. Remove it"):
        image_files.decode(file)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_a_data_error_or_a_picture(tmp_path, seed):
    random = np.random.default_rng(seed)
    file = noise(tmp_path, ["a.png", "a.jpg"][seed % 2])
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    content[random.integers(0, 600, 8)] = random.integers(0, 256, 8)
    file.write_bytes(content.tobytes())
    try:
        image_files.decode(file)
    except DataError as error:
        assert "a." in str(error) and "\n" not in str(error)


def test_a_size_comes_from_the_header(tmp_path):
    assert image_files.size(save(tmp_path, np.zeros((3, 7), np.uint8))) == (3, 7)


def fit(array, height, width, crop=None):
    return image_files.fit(PIL.Image.fromarray(array), height, width, crop, "here")


def test_a_picture_of_the_right_size_is_unchanged():
    np.testing.assert_array_equal(fit(RAMP, 16, 16)[..., 0], RAMP)


@pytest.mark.parametrize("crop", [16, 10, 7, 1])
def test_a_crop_that_needs_no_resizing_is_a_slice(crop):
    start = (16 - crop) // 2
    expected = RAMP[start : start + crop, start : start + crop]
    np.testing.assert_array_equal(fit(RAMP, crop, crop, crop)[..., 0], expected)


def test_only_the_center_of_the_right_proportions_is_used():
    striped = np.zeros((8, 20), np.uint8)
    striped[:, 6:14] = 100
    np.testing.assert_array_equal(fit(striped, 4, 4), 100)
    np.testing.assert_array_equal(fit(striped.T.copy(), 4, 4), 100)


def test_a_crop_is_cut_before_resizing():
    framed = np.zeros((12, 10), np.uint8)
    framed[3:9, 2:8] = 50
    np.testing.assert_array_equal(fit(framed, 3, 3, crop=6), 50)


def test_colors_keep_their_channels():
    assert fit(np.zeros((6, 9, 3), np.uint8), 2, 5).shape == (2, 5, 3)


@pytest.mark.parametrize("height, width", [(3, 7), (13, 17), (29, 31), (1, 1)])
def test_any_size_fits_any_size(height, width):
    assert (
        fit(np.full((23, 37), 9, np.uint8), height, width).tolist()
        == [[[9]] * width] * height
    )


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(
        DataError, match=r"at most the picture's 16x16, got 17 \(here\)"
    ):
        fit(RAMP, 8, 8, crop=17)


def test_a_file_of_another_format_starts_no_program(tmp_path, monkeypatch):
    """PostScript by its content: Pillow would hand it to Ghostscript."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    file = tmp_path / "picture.png"
    file.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    for read in (image_files.size, image_files.decode):
        with pytest.raises(DataError, match="the picture cannot be read"):
            read(file)
    assert started == []


@pytest.mark.parametrize("kind", image_files.FORMATS)
def test_every_format_that_is_named_is_read(tmp_path, kind):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    file = tmp_path / "picture.png"  # whatever it is called
    PIL.Image.fromarray(levels).save(file, kind)
    found = np.asarray(image_files.decode(file).convert("L")).astype(int)
    assert np.abs(found - levels).max() <= 8 and image_files.size(file) == (8, 8)


def turned_picture(file, orientation, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    tag = PIL.Image.Exif()
    tag[image_files.ORIENTATION] = orientation
    PIL.Image.fromarray(pixels).save(file, exif=tag, **options)
    return file


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_viewers_do(tmp_path, ending, orientation):
    file = turned_picture(tmp_path / f"x.{ending}", orientation)
    with PIL.Image.open(file) as picture:
        stored = np.asarray(picture.convert("RGB"))
    with PIL.Image.open(file) as picture:
        picture.load()
        viewed = PIL.ImageOps.exif_transpose(picture).convert("RGB")
    picture = image_files.decode(file)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(viewed))
    assert image_files.size(file) == (viewed.height, viewed.width)
    if ending != "tif":  # which Pillow turns
        as_stored = image_files.decode(file, turned=False)
        np.testing.assert_array_equal(np.asarray(as_stored), stored)
        assert image_files.size(file, turned=False) == (8, 16)


def exif_with(kind, value, count=1):
    """EXIF whose only tag is an orientation of some kind of number or text."""
    entry = struct.pack(">HHHI", 1, image_files.ORIENTATION, kind, count)
    return b"Exif\0\0MM\0*\0\0\0\x08" + entry + value + b"\0\0\0\0"


@pytest.mark.parametrize(
    "exif",
    [
        b"junk",
        b"Exif\0\0" + b"junk" * 5,
        b"Exif\0\0MM\0*",
        exif_with(2, b"up\0\0", count=3),
        exif_with(11, b"\x7f\x80\0\0"),
        exif_with(3, b"\0\0\0\0"),
        exif_with(3, b"\0\x09\0\0"),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_is_none_turns_nothing(tmp_path, exif):
    PIL.Image.new("RGB", (8, 4), "red").save(tmp_path / "x.jpg", exif=exif)
    assert image_files.decode(tmp_path / "x.jpg").size == (8, 4)
    assert image_files.size(tmp_path / "x.jpg") == (4, 8)


@pytest.mark.parametrize("error", [SyntaxError, struct.error])
def test_exif_that_pillow_gives_up_on_turns_nothing(tmp_path, monkeypatch, error):
    """As some of its versions do."""
    file = turned_picture(tmp_path / "x.jpg", 6)

    def getexif(picture):
        raise error("not a TIFF file")

    monkeypatch.setattr(PIL.Image.Image, "getexif", getexif)
    assert image_files.decode(file).size == (16, 8)
    assert image_files.size(file) == (8, 16)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"it is empty \(.*x\.png\)"):
        image_files.size(tmp_path / "x.png")
