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


class Gpu:
    """What a mesh reads of a device: the GPUs of a node are a slice."""

    platform = "gpu"
    device_kind = "NVIDIA H100 80GB HBM3"

    def __init__(self, number, per_node=8):
        self.id = number
        self.process_index = self.slice_index = number // per_node
        self.local_hardware_id = number % per_node


class Chip:
    """A TPU of slices of 4 x 4."""

    platform = "tpu"
    device_kind = "TPU v6 lite"
    core_on_chip = 0

    def __init__(self, number):
        self.id = number
        self.slice_index, place = divmod(number, 16)
        self.coords = (place % 4, place // 4, 0)
        self.process_index = number // 4


@pytest.mark.parametrize("params", [1, 2, 4, 8])
@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize(("kind", "in_slice"), [(Gpu, 8), (Chip, 16)])
def test_parameters_are_split_within_slices_and_data_over_all(
    kind, in_slice, slices, params
):
    """Of all nodes of GPUs, and of TPUs whose rows `params` splits or exceeds."""
    devices = [kind(number) for number in range(slices * in_slice)]
    found = mesh.over(devices, params=params)
    assert found.axis_names == ("data", "params")
    assert found.shape == {"data": len(devices) // params, "params": params}
    assert sorted(d.id for d in found.devices.flat) == [d.id for d in devices]
    for row in found.devices:
        assert len({device.slice_index for device in row}) == 1
    for column in found.devices.T:  # as neighbours: slice by slice
        numbers = [device.slice_index for device in column]
        assert numbers == sorted(numbers)


def test_parameters_over_several_slices_are_refused():
    devices = [Gpu(number) for number in range(32)]
    rule = "mesh.params must divide the 8 devices of each of 4 slices, got 16"
    with pytest.raises(ConfigError, match=rule):
        mesh.over(devices, params=16)


@pytest.mark.parametrize("sizes", [{"data": 0}, {"params": 0}, {"data": -2}])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ConfigError, match="must be"):
        mesh.build(**sizes)


@pytest.mark.parametrize("batch_size", [0, 4, 12])
def test_a_batch_that_devices_cannot_share_is_refused(batch_size):
    with pytest.raises(ConfigError, match="a positive multiple of the 8 devices"):
        mesh.check_batch_size(batch_size, mesh.build())
