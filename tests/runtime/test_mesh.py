"""Where arrays lie, and meshes and batches that cannot be."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jvae.errors import ConfigError
from jvae.runtime import mesh


@pytest.mark.parametrize(
    "shape, spec",
    [
        ((128, 256), P(None, "params")),
        ((256, 128), P("params", None)),
        ((3, 3, 64, 72), P(None, None, None, "params")),
        ((130, 256), P(None, "params")),  # 130 is no multiple of 8
        ((131, 257), P()),
        ((8, 8), P()),  # too small to be worth it
        ((), P()),
    ],
)
def test_a_large_array_is_split_along_its_largest_divisible_dimension(shape, spec):
    devices = mesh.build(data=1, params=8)
    tree = {"a": jax.ShapeDtypeStruct(shape, np.float32)}
    assert mesh.parameter_shardings(tree, devices)["a"].spec == spec


def test_without_devices_for_parameters_every_device_holds_all():
    tree = {"a": jax.ShapeDtypeStruct((256, 256), np.float32)}
    assert mesh.parameter_shardings(tree, mesh.build())["a"].spec == P()


@pytest.mark.parametrize(
    "sizes", [{"data": 3}, {"params": 3}, {"data": 8, "params": 2}]
)
def test_a_mesh_that_is_not_the_devices_names_both_numbers(sizes):
    with pytest.raises(ConfigError, match="must fit the 8 devices"):
        mesh.build(**sizes)


@pytest.mark.parametrize("sizes", [{"data": 0}, {"params": 0}, {"data": -2}])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ConfigError, match="must be"):
        mesh.build(**sizes)


@pytest.mark.parametrize("batch_size", [0, 4, 12])
def test_a_batch_that_devices_cannot_share_is_refused(batch_size):
    with pytest.raises(ConfigError, match="a positive multiple of the 8 devices"):
        mesh.check_batch_size(batch_size, mesh.build())
