"""What a person gives a model is looked at first."""

from types import SimpleNamespace

import numpy as np
import pytest

from jvae.errors import ConfigError
from jvae.pretrained.inputs import checked_input


def of(support):
    transform = SimpleNamespace(support=support)
    return SimpleNamespace(transform=transform, vocabulary=None)


def test_zeros_and_ones_may_be_off_by_rounding_and_are_clipped():
    x = np.array([[0.0, 1.0, np.nextafter(1, 2, dtype="f4"), -1e-7]], "f4")
    np.testing.assert_array_equal(checked_input(of("binary"), x), [[0, 1, 1, 0]])
    inside = x[:, :2]
    assert checked_input(of("binary"), inside) is inside
    assert checked_input(of("unit"), x) is x
    with pytest.raises(ConfigError, match=r"within \[0, 1\], got 0 to 1\.0001"):
        checked_input(of("binary"), np.array([0.0, 1.0001]))
