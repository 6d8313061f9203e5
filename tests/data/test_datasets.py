"""A config's data section becomes a checked data set."""

import subprocess
import sys

import numpy as np
import pytest

from jvae import data
from jvae.data.sources import ArraySource, Splits
from jvae.errors import ConfigError, DataError
from tests.tiers import others_slow


def counted(size: int = 40, validation: int = 0) -> Splits:
    """Returns numbered images.

    Args:
      size: how many.
      validation: how many in a validation split.
    """

    def source(n):
        label = np.arange(n, dtype=np.int32)
        return ArraySource({"image": np.zeros((n, 2, 2, 1), np.uint8), "label": label})

    own = source(validation) if validation else None
    return Splits(source(size), source(10), own, num_classes=max(size, 10))


def nothing() -> None:
    """Returns nothing."""


@pytest.fixture
def mine(monkeypatch):
    module = type(sys)("my_data")
    module.counted, module.nothing = counted, nothing
    monkeypatch.setitem(sys.modules, "my_data", module)
    return "my_data:counted"


def numbers(source):
    return source.read(np.arange(len(source)))["label"]


def test_held_out_examples_leave_training_and_are_always_the_same(mine):
    whole = data.build(mine)
    assert whole.validation is None
    first, second = (data.build(mine, num_validation=7) for _ in range(2))
    train, validation = numbers(first.train), numbers(first.validation)
    assert len(validation) == 7 and len(train) == 33
    assert sorted([*train, *validation]) == list(range(40))
    np.testing.assert_array_equal(validation, numbers(second.validation))
    assert sorted(validation) != list(range(33, 40))
    np.testing.assert_array_equal(numbers(first.test), numbers(whole.test))


def test_a_longer_hold_out_contains_the_shorter(mine):
    few, many = (
        set(numbers(data.build(mine, num_validation=n).validation)) for n in (3, 9)
    )
    assert few < many


def test_a_validation_split_of_its_own_is_kept(mine):
    splits = data.build(mine, validation=5, num_validation=7)
    assert len(splits.validation) == 5 and len(splits.train) == 40


@pytest.mark.parametrize("num_validation", [40, 41])
def test_training_examples_must_be_left(mine, num_validation):
    with pytest.raises(DataError, match="less than the 40 training examples"):
        data.build(mine, num_validation=num_validation)


@pytest.mark.parametrize(
    "name, fields, words",
    [
        ("digit", {}, "Did you mean 'digits'"),
        ("idx", {}, "data.path is missing"),
        ("idx", {"pth": "x"}, "Did you mean 'path'"),
        ("digits", {"path": "x"}, "data.path is unknown"),
        ("my_data:counted", {"size": "x"}, "data.size must be int"),
        ("my_data:nothing", {}, "returns Splits, got None"),
        ("digits", {"num_validation": -1}, "num_validation must be at least 0"),
    ],
)
def test_wrong_fields_are_named(mine, name, fields, words):
    with pytest.raises(ConfigError, match=words):
        data.build(name, **fields)


def test_an_empty_data_set_is_refused(mine):
    with pytest.raises(DataError, match="the train split is empty"):
        data.build(mine, size=0)


@pytest.mark.parametrize(
    "module", others_slow(["jvae.data", "jvae.data.transforms"], "jvae.data")
)
def test_importing_pulls_in_no_library_that_may_be_absent(module):
    code = f"""
import sys, {module}
heavy = ["grain", "tensorflow_datasets", "sklearn", "PIL", "tensorflow", "google"]
assert not set(heavy) & set(sys.modules), sorted(set(heavy) & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
