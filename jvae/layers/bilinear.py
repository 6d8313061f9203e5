"""Operations that are linear in each of two arguments, in a form for each platform."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jvae.layers.manual_axes import varying_alike
from jvae.types import Array

Shape = tuple[int, ...]
Function = Callable[..., Array]


@dataclasses.dataclass(frozen=True)
class Form:
    """How an operation and its transposes are computed.

    Each function takes the options of a call by keyword.

    Attributes:
      product: (x, kernel) to y.
      to_x: (g, kernel, shape of x) to the gradient of x; None for the transpose of
        `product` that JAX finds.
      to_kernel: (x, g, shape of the kernel) to the gradient of the kernel; None as
        before.
    """

    product: Function
    to_x: Function | None = None
    to_kernel: Function | None = None

    def functions(self) -> tuple[Function, Function, Function]:
        """Returns all three, those of JAX in the place of None."""
        to_x = self.to_x or functools.partial(transpose_to_x, self.product)
        to_kernel = self.to_kernel or functools.partial(
            transpose_to_kernel, self.product
        )
        return self.product, to_x, to_kernel


def transpose_to_x(
    product: Function, g: Array, kernel: Array, *, shape: Shape, **options: Hashable
) -> Array:
    """Returns the gradient of x where that of `product(x, kernel)` is g."""
    x = _like(g, shape)
    return jax.linear_transpose(lambda x: product(x, kernel, **options), x)(g)[0]


def transpose_to_kernel(
    product: Function, x: Array, g: Array, *, shape: Shape, **options: Hashable
) -> Array:
    """Returns the gradient of the kernel where that of `product(x, kernel)` is g."""
    kernel = _like(g, shape)
    return jax.linear_transpose(lambda k: product(x, k, **options), kernel)(g)[0]


def _like(g: Array, shape: Shape) -> jax.ShapeDtypeStruct:
    """Returns an array of this shape, else as g, in `jax.shard_map` too."""
    kind = jax.typeof(g)
    return jax.ShapeDtypeStruct(
        shape,
        g.dtype,
        sharding=NamedSharding(kind.sharding.mesh, PartitionSpec()),
        manual_axis_type=kind.manual_axis_type,
    )


class Bilinear:
    """y = f(x, kernel), linear in each, by the form of the platform it is compiled for.

    The form is chosen when a program is lowered, not when it is traced: one that is
    exported, or compiled for devices that are not there, has that of its own platform.
    Derivatives of any order, forward and reverse, are made of f and its two transposes.

    A batch of `x` under `jax.vmap` is more rows of its first axis; a batch of kernels
    is computed by the default form.
    """

    def __init__(self, name: str, default: Form, **platforms: Form):
        """Adds the three operations to JAX.

        Args:
          name: in jaxprs.
          default: the form of all platforms but those in `platforms`.
          **platforms: forms by platform, as `cpu`.
        """
        defaults = default.functions()
        others = {platform: form.functions() for platform, form in platforms.items()}
        self.product, self.to_x, self.to_kernel = (
            _primitive(name + suffix, defaults[i], {p: f[i] for p, f in others.items()})
            for i, suffix in enumerate(("", "_to_x", "_to_kernel"))
        )
        self._define_transposes()
        self._define_batches(defaults)

    def __call__(self, x: Array, kernel: Array, **options: Hashable) -> Array:
        """Returns y.

        Args:
          x: [B, ...].
          kernel: of the same dtype.
          **options: of the forms.
        """
        return self.product.bind(*varying_alike(x, kernel), **options)

    def _define_transposes(self) -> None:
        """<g, f(x, kernel)> is linear in each of three: each has a gradient."""
        product, to_x, to_kernel = self.product, self.to_x, self.to_kernel

        def of_product_to_x(g, x, kernel, **options):
            return to_x.bind(g, kernel, shape=x.aval.shape, **options)

        def of_product_to_kernel(g, x, kernel, **options):
            return to_kernel.bind(x, g, shape=kernel.aval.shape, **options)

        def of_to_x_to_g(x, g, kernel, *, shape, **options):
            return product.bind(x, kernel, **options)

        def of_to_x_to_kernel(x, g, kernel, *, shape, **options):
            return to_kernel.bind(x, g, shape=kernel.aval.shape, **options)

        def of_to_kernel_to_x(kernel, x, g, *, shape, **options):
            return to_x.bind(g, kernel, shape=x.aval.shape, **options)

        def of_to_kernel_to_g(kernel, x, g, *, shape, **options):
            return product.bind(x, kernel, **options)

        ad.defbilinear(product, of_product_to_x, of_product_to_kernel)
        ad.defbilinear(to_x, of_to_x_to_g, of_to_x_to_kernel)
        ad.defbilinear(to_kernel, of_to_kernel_to_x, of_to_kernel_to_g)

    def _define_batches(self, defaults: tuple[Function, Function, Function]) -> None:
        """What is batched along x, or g, and not along the kernel is more rows."""

        def of_any(function, arrays, axes, **options):
            return jax.vmap(functools.partial(function, **options), axes)(*arrays), 0

        def of_product(arrays, axes, **options):
            if axes[1] is not None:
                return of_any(defaults[0], arrays, axes, **options)
            x, count = _merged(arrays[0], axes[0])
            y = self.product.bind(x, arrays[1], **options)
            return _split(y, count), 0

        def of_to_x(arrays, axes, *, shape, **options):
            if axes[1] is not None:
                return of_any(defaults[1], arrays, axes, shape=shape, **options)
            g, count = _merged(arrays[0], axes[0])
            shape = (count * shape[0], *shape[1:])
            x = self.to_x.bind(g, arrays[1], shape=shape, **options)
            return _split(x, count), 0

        batching.primitive_batchers[self.product] = of_product
        batching.primitive_batchers[self.to_x] = of_to_x
        of_to_kernel = functools.partial(of_any, defaults[2])
        batching.primitive_batchers[self.to_kernel] = of_to_kernel


def _merged(x: Array, axis: int) -> tuple[Array, int]:
    """Returns (x [n B, ...], n) of a batch of n."""
    x = jnp.moveaxis(x, axis, 0)
    return x.reshape(-1, *x.shape[2:]), len(x)


def _split(x: Array, count: int) -> Array:
    return x.reshape(count, -1, *x.shape[1:])


def default_program(equation: Any) -> Any:
    """Returns the jaxpr of the default form of an equation; None if it has no forms."""
    function = _DEFAULTS.get(equation.primitive)
    if function is None:
        return None
    arrays = [variable.aval for variable in equation.invars]
    return jax.make_jaxpr(functools.partial(function, **equation.params))(*arrays)


_DEFAULTS: dict[Primitive, Function] = {}


def _primitive(
    name: str, function: Function, platforms: Mapping[str, Function]
) -> Primitive:
    """Returns an operation that is `function`, on some platforms another."""
    primitive = Primitive(name)
    _DEFAULTS[primitive] = function

    def abstract(*arrays, **options):
        traced = jax.make_jaxpr(functools.partial(function, **options))(*arrays)
        return traced.out_avals[0]

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(functools.partial(_run, primitive))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    for platform, other in platforms.items():
        rule = mlir.lower_fun(other, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)
    return primitive


def _run(primitive: Primitive, *arrays: Array, **options: Hashable) -> Array:
    """Returns the result of a call outside `jax.jit`."""
    return _compiled(primitive, tuple(sorted(options.items())))(*arrays)


@functools.cache
def _compiled(primitive: Primitive, options: tuple) -> Callable[..., Array]:
    return jax.jit(functools.partial(primitive.bind, **dict(options)))
