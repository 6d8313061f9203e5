"""The command that prepares TensorFlow data sets."""

import importlib.util

import numpy as np
import pytest

from jvae import data
from jvae.commands.main import main
from jvae.errors import DataError

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
def test_without_tensorflow_it_says_how_to_install_it(capsys):
    assert main(["prepare", "mnist"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("jvae: error: TensorFlow is not installed")
    assert "pip install 'jvae[tf]'" in err and err.count("\n") == 1 and not out


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
def test_tfrecord_becomes_readable(make_squares, prepared, tmp_path):
    make_squares(tmp_path, "tfrecord")
    with pytest.raises(DataError, match="Convert it"):
        data.build("tfds", dataset="squares", data_dir=str(tmp_path))
    for _ in range(2):
        assert main(["prepare", "squares", "--data_dir", str(tmp_path)]) == 0
    converted, expected = (
        data.build("tfds", dataset="squares", data_dir=str(root)).train.read(
            np.arange(30)
        )
        for root in (tmp_path, prepared)
    )
    np.testing.assert_array_equal(converted["image"], expected["image"])
    np.testing.assert_array_equal(converted["label"], expected["label"])


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
def test_a_damaged_tfrecord_is_named_and_not_converted(make_squares, tmp_path, capsys):
    make_squares(tmp_path, "tfrecord")
    file = next(tmp_path.glob("squares/*/squares-train.tfrecord-00001*"))
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)
    assert main(["prepare", "squares", "--data_dir", str(tmp_path)]) == 3
    assert file.name in capsys.readouterr().err
    with pytest.raises(DataError, match="Convert it"):
        data.build("tfds", dataset="squares", data_dir=str(tmp_path))
