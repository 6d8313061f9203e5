"""Operations that are linear in each of two arguments, in a form for each platform."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from jvae.layers.manual_axes import varying_alike
from jvae.types import Array

Shape = tuple[int, ...]
Like = Any
"""The type (`jax.typeof`) of the array that a gradient is of."""
Function = Callable[..., Array]


@dataclasses.dataclass(frozen=True)
class Form:
    """How an operation and its transposes are computed.

    Each function takes the options of a call by keyword.

    Attributes:
      product: (x, kernel) to y.
      to_x: (g, kernel, like=the type of x) to the gradient of x; None for the transpose
        of `product` that JAX finds.
      to_kernel: (x, g, like=the type of the kernel) to the gradient of the kernel; None
        as before.
    """

    product: Function
    to_x: Function | None = None
    to_kernel: Function | None = None

    def functions(self) -> tuple[Function, Function, Function]:
        """Returns all three, those of JAX in the place of None, at a precision."""
        to_x = self.to_x or functools.partial(transpose_to_x, self.product)
        to_kernel = self.to_kernel or functools.partial(
            transpose_to_kernel, self.product
        )
        return _at(self.product), _at(to_x), _at(to_kernel)


def transpose_to_x(
    product: Function, g: Array, kernel: Array, *, like: Like, **options: Hashable
) -> Array:
    """Returns the gradient of x where that of `product(x, kernel)` is g."""
    return _transpose(lambda x: product(x, kernel, **options), g, like)


def transpose_to_kernel(
    product: Function, x: Array, g: Array, *, like: Like, **options: Hashable
) -> Array:
    """Returns the gradient of the kernel where that of `product(x, kernel)` is g."""
    return _transpose(lambda kernel: product(x, kernel, **options), g, like)


def _transpose(linear: Function, g: Array, like: Like) -> Array:
    """Returns the transpose of a linear function at g, an array of the type `like`."""
    argument = jax.ShapeDtypeStruct(
        like.shape,
        like.dtype,
        sharding=like.sharding,
        manual_axis_type=like.manual_axis_type,
    )
    return jax.linear_transpose(linear, argument)(g)[0]


def _at(function: Function) -> Function:
    """Returns a form with JAX's default precision of products as an option.

    What was the default when an operation was traced may not be when it is lowered.
    """

    def call(*arrays, default_precision, **options):
        with jax.default_matmul_precision(default_precision):
            return function(*arrays, **options)

    return call


class Bilinear:
    """y = f(x, kernel), linear in each, by the form of the platform it is compiled for.

    The form is chosen when a program is lowered, not when it is traced: one that is
    exported, or compiled for devices that are not there, has that of its own platform.
    Derivatives of any order, forward and reverse, are made of f and its two transposes.

    A batch of `x` under `jax.vmap` is more rows of its first axis. A batch of kernels,
    and gradients of kernels for each of a batch, are computed by the default form.
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

        Raises:
          TypeError: dtypes that differ.
        """
        x, kernel = jnp.asarray(x), jnp.asarray(kernel)
        if x.dtype != kernel.dtype:
            raise TypeError(f"dtypes must be the same, got {x.dtype}, {kernel.dtype}")
        default = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        options["default_precision"] = default
        return self.product.bind(*varying_alike(x, kernel), **options)

    def _define_transposes(self) -> None:
        """<g, f(x, kernel)> is linear in each of three: each has a gradient."""
        product, to_x, to_kernel = self.product, self.to_x, self.to_kernel

        def of_product_to_x(g, x, kernel, **options):
            return to_x.bind(g, kernel, like=x.aval, **options)

        def of_product_to_kernel(g, x, kernel, **options):
            return to_kernel.bind(x, g, like=kernel.aval, **options)

        def of_to_x_to_g(x, g, kernel, *, like, **options):
            return product.bind(x, kernel, **options)

        def of_to_x_to_kernel(x, g, kernel, *, like, **options):
            return to_kernel.bind(x, g, like=kernel.aval, **options)

        def of_to_kernel_to_x(kernel, x, g, *, like, **options):
            return to_x.bind(g, kernel, like=x.aval, **options)

        def of_to_kernel_to_g(kernel, x, g, *, like, **options):
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
            x = jnp.moveaxis(arrays[0], axes[0], 1)
            y = self.product.bind(_merged(x), arrays[1], **options)
            return _split(y, x.shape[:2]), 1

        def of_to_x(arrays, axes, *, like, **options):
            if axes[1] is not None:
                return of_any(defaults[1], arrays, axes, like=like, **options)
            g = jnp.moveaxis(arrays[0], axes[0], 1)
            rows = g.shape[0] * g.shape[1]
            like = like.update(shape=(rows, *like.shape[1:]))
            x = self.to_x.bind(_merged(g), arrays[1], like=like, **options)
            return _split(x, g.shape[:2]), 1

        batching.primitive_batchers[self.product] = of_product
        batching.primitive_batchers[self.to_x] = of_to_x
        of_to_kernel = functools.partial(of_any, defaults[2])
        batching.primitive_batchers[self.to_kernel] = of_to_kernel


def _merged(x: Array) -> Array:
    """Returns x [B, n, ...] as [B n, ...], of which devices keep their rows of B."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _split(y: Array, sizes: Shape) -> Array:
    """Returns y [B n, ...] as [B, n, ...]."""
    return y.reshape(*sizes, *y.shape[1:])


def default_program(equation: Any) -> Any:
    """Returns the jaxpr of the default form of an equation; None if it has no forms."""
    function = _DEFAULTS.get(equation.primitive)
    if function is None:
        return None
    kinds = [_placeless(variable.aval) for variable in equation.invars]
    options = dict(equation.params)
    if "like" in options:
        options["like"] = _placeless(options["like"])
    return jax.make_jaxpr(functools.partial(function, **options))(*kinds)


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
    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    mlir.register_lowering(primitive, _lowering(function))
    for platform, other in platforms.items():
        mlir.register_lowering(primitive, _lowering(other), platform=platform)
    return primitive


def _lowering(function: Function) -> Callable[..., Any]:
    """Returns the rule by which a form becomes a program.

    Where its arrays lie is a matter of their types, which have been found: a form is
    traced with arrays that lie nowhere, and may make and join others.
    """
    lowered = mlir.lower_fun(function, multiple_results=False)

    def rule(context, *arrays, **options):
        if "like" in options:
            options["like"] = _placeless(options["like"])
        avals = [_placeless(aval) for aval in context.avals_in]
        return lowered(context.replace(avals_in=avals), *arrays, **options)

    return rule


def _placeless(kind: Like) -> Like:
    """Returns the type of arrays of this shape and dtype that lie nowhere."""
    return jax.core.ShapedArray(kind.shape, kind.dtype)
