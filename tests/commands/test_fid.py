"""FID from files of features that are the user's own."""

import numpy as np
import pytest

from jvae.commands import fid
from jvae.errors import ConfigError, DataError
from jvae.evaluation import frechet


def moments(path, mean, covariance):
    np.savez(path, mu=mean, sigma=covariance)
    return path


def values(seed=0, n=60, d=4):
    return np.random.default_rng(seed).normal(size=(n, d)) + seed


def test_moments_of_gaussians_have_their_distance(tmp_path):
    eye, zero = np.eye(8), np.zeros(8)
    normal = moments(tmp_path / "a.npz", zero, eye)
    shifted = moments(tmp_path / "b.npz", zero + 3.0, eye)
    wide = moments(tmp_path / "c.npz", zero, 4.0 * eye)
    for other, wanted in ((normal, 0.0), (shifted, 72.0), (wide, 8.0)):
        found = fid.compare(fid.load_features(normal), fid.load_features(other))
        assert found == {"fid": pytest.approx(wanted, abs=1e-9)}


def test_features_and_their_moments_are_the_same(tmp_path):
    first, second = values(), values(1)
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "second.npy", second.astype(np.float32))
    file = moments(tmp_path / "m.npz", first.mean(0), np.cov(first.T))
    one, two, both = map(
        fid.load_features, (tmp_path / "first.npy", tmp_path / "second.npy", file)
    )
    assert fid.compare(one, both) == {"fid": pytest.approx(0.0, abs=1e-9)}
    found = fid.compare(one, two)
    wanted = frechet.frechet_distance(
        frechet.Moments.of(first), frechet.Moments.of(second)
    )
    assert found["fid"] == pytest.approx(wanted, rel=1e-6)
    assert found["precision"] == frechet.overlap(first, second)["precision"]


def test_one_feature_and_few_images_will_do(tmp_path):
    np.save(tmp_path / "a.npy", values(n=3, d=1))
    found = fid.load_features(tmp_path / "a.npy")
    assert fid.compare(found, found) == {"fid": pytest.approx(0.0, abs=1e-9)}


def test_the_command_says_what_it_compared(tmp_path, capsys):
    np.save(tmp_path / "a.npy", values(n=3))
    np.save(tmp_path / "b.npy", values(1))
    fid.command([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")])
    out = capsys.readouterr().out
    assert "a.npy: 3 images, 4 features (fewer than the covariance needs)" in out
    assert "b.npy: 60 images, 4 features\n" in out and "fid " in out


class Anything:
    """An object that a pickle would bring to life."""


BAD = {
    "pickled": np.array([Anything()], dtype=object),
    "flat": np.zeros(5),
    "nan": np.full((4, 2), np.nan),
    "one": np.zeros((1, 2)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_features_is_one_line(tmp_path, name):
    np.save(tmp_path / "a.npy", BAD[name], allow_pickle=True)
    with pytest.raises(DataError) as error:
        fid.load_features(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros(2)},
        {"mu": np.zeros(2)},
        {"mu": np.zeros(2), "sigma": np.eye(3)},
        {"mu": np.zeros((2, 2)), "sigma": np.eye(2)},
        {"mu": np.zeros(2), "sigma": np.full((2, 2), np.inf)},
    ],
    ids=str,
)
def test_what_is_no_moments_is_one_line(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="'mu' and 'sigma'"):
        fid.load_features(tmp_path / "a.npz")


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    for name, shape in (("bool.npy", "(True, 8)"), ("deep.npy", "(" * 900)):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
        size = len(header).to_bytes(2, "little")
        (tmp_path / name).write_bytes(b"\x93NUMPY\x01\x00" + size + header.encode())
    for name in ("missing.npy", "text.npy", "cut.npz", "bool.npy", "deep.npy"):
        with pytest.raises(DataError, match="cannot be read"):
            fid.load_features(tmp_path / name)


def test_features_of_two_sizes_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", values(d=3))
    np.save(tmp_path / "b.npy", values(d=4))
    with pytest.raises(DataError, match="have 3 and 4 numbers"):
        fid.compare(
            fid.load_features(tmp_path / "a.npy"), fid.load_features(tmp_path / "b.npy")
        )
    with pytest.raises(ConfigError, match="name two files"):
        fid.command([str(tmp_path / "a.npy")])
