"""The mesh of devices: rows of a batch are sharded, and large parameters if asked.

Axis 'data' splits the batch; axis 'params' splits the batch too, and also the
parameters and the optimizer state, each along its largest divisible dimension.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jvae import registry
from jvae.errors import ConfigError, require
from jvae.ranges import PositiveInt
from jvae.types import Batch

AXES = ("data", "params")
MIN_SHARDED_SIZE = 2**14
"""Arrays with fewer elements are replicated: gathering them would cost more."""


@registry.checked("mesh")
def build(data: Literal[-1] | PositiveInt = -1, params: PositiveInt = 1) -> Mesh:
    """Returns a mesh over all devices with axes 'data' and 'params'.

    Args:
      data: devices along which the batch alone is split; -1 for all that are left.
      params: devices along which parameters and optimizer state are split, all of one
        slice.

    Raises:
      ConfigError: sizes that do not multiply to the number of devices, or parameters
        split over several slices.
    """
    return over(jax.devices(), data, params)


def over(devices: Sequence[jax.Device], data: int = -1, params: int = 1) -> Mesh:
    """Returns a mesh over `devices`, as `build` does over those that are there.

    A slice is a set of devices that are joined by fast links: a slice of a TPU pod, or
    a node of GPUs. Parameters are split within slices, and 'data' goes over all.

    Args:
      devices: of `jax.devices()`, or of a topology that programs are compiled for.
      data: as for `build`.
      params: as for `build`.

    Raises:
      ConfigError: as for `build`.
    """
    count = len(devices)
    size = count // params if data == -1 else data
    if size * params != count:
        sizes = f"{'all' if data == -1 else data} x {params}"
        raise ConfigError(
            f"mesh of {sizes} devices must fit the {count} devices there are",
            where="mesh",
            fix="Set mesh.data to -1 and mesh.params to a divisor.",
        )

    slices = len({_slice_of(device) for device in devices})
    in_slice = count // slices
    rule = f"divide the {in_slice} devices of each of {slices} slices"
    require(in_slice % params == 0, "mesh.params", rule, params)

    # Splitting physical axes is for TPUs whose rows are longer than `params`.
    options: Any = {"devices": devices, "allow_split_physical_axes": True}
    if slices == 1:
        grid = mesh_utils.create_device_mesh((size, params), **options)
    else:
        shape = (in_slice // params, params)
        grid = mesh_utils.create_hybrid_device_mesh(shape, (slices, 1), **options)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def _slice_of(device: jax.Device) -> int:
    """Returns the number of a device's slice; not all CPUs have one."""
    return getattr(device, "slice_index", 0)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ConfigError unless the devices can share `batch_size` rows equally."""
    fits = batch_size >= 1 and batch_size % mesh.size == 0
    rule = f"be a positive multiple of the {mesh.size} devices"
    require(fits, "data.batch_size", rule, batch_size)


def platform(mesh: Mesh) -> str:
    """Returns 'cpu', 'gpu' or 'tpu', what the devices are."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def all_gathered(tree: Any, mesh: Mesh) -> Any:
    """Returns a traced tree with every array whole on every device.

    Split arrays are what a device holds, not what it computes with: left to itself XLA
    splits the layers that they belong to, and exchanges activations.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def split(tree: Any, mesh: Mesh) -> Any:
    """Returns a traced tree, such as gradients, with every array as parameters lie.

    XLA for TPUs then sums the gradients of devices into the part that each one keeps, a
    reduce-scatter in the place of an all-reduce. XLA for CPUs has none, and would only
    gather the parameters of loops twice.
    """
    if mesh.shape["params"] == 1 or platform(mesh) == "cpu":
        return tree
    return jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, mesh))


def rows(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Returns the sharding of a batch: its rows over all devices.

    Args:
      mesh: the devices.
      leading: axes before the rows, each whole on every device.
    """
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, AXES))


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns a sharding for every array (or shape) of `tree`, over axis 'params'."""
    ways = mesh.shape["params"]

    def leaf(x):
        shape = np.shape(x)
        divisible = [i for i, n in enumerate(shape) if n % ways == 0]
        if ways == 1 or math.prod(shape) < MIN_SHARDED_SIZE or not divisible:
            return replicated(mesh)
        axis = max(divisible, key=lambda i: shape[i])
        spec: list[str | None] = [None] * len(shape)
        spec[axis] = "params"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(leaf, tree)


def placed_shapes(tree: Any, mesh: Mesh) -> Any:
    """Returns the shapes and dtypes of `tree`, each with its sharding."""

    def placed(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(placed, tree, parameter_shardings(tree, mesh))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, leading: int = 0) -> Batch:
    """Returns the global batch on the mesh, from this process's rows of it.

    Args:
      batch: numpy arrays, this process's rows.
      mesh: the devices.
      leading: axes before the rows, as for `rows`.
    """
    sharding = rows(mesh, leading)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    whole = functools.partial(jax.make_array_from_process_local_data, sharding)
    return {name: whole(array) for name, array in batch.items()}
