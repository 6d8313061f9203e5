"""What a step costs, read from its program: floating-point operations, collectives.

XLA's own cost analysis counts the body of a loop once, so both are counted here: the
operations on the jaxpr, where the lengths of loops are known, and the collectives on
the compiled program, where XLA has written them down. Both agree with XLA's account
where there is no loop (tests/test_benchmarks.py).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jvae.layers.bilinear import default_program

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute",)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRUE_FALSE = re.compile(r"(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")


def matrix_flops(program: Any) -> int:
    """Returns the operations of all matrix products and convolutions of a jaxpr.

    Two for each multiplication and addition; everything else is left out, which is the
    usual count of a model's operations. A loop counts as often as it runs, of two
    branches the dearer one, and what has forms by its default one.

    Args:
      program: from `jax.make_jaxpr(function)(...)`, or of `jax.jit(...).trace(...)`.
    """
    return _flops(program.jaxpr)


def _flops(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            sizes = (equation.invars[0].aval.shape[i] for i in contracted)
            total += 2 * equation.outvars[0].aval.size * math.prod(sizes)
        elif name == "conv_general_dilated":
            total += _convolution_flops(equation)
        elif (form := default_program(equation)) is not None:
            total += _flops(form.jaxpr)
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in params["branches"])
        elif name == "while":
            total += _flops(params["body_jaxpr"].jaxpr)
        else:
            times = params.get("length", 1) if name == "scan" else 1
            total += times * sum(map(_flops, _inner(params)))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among the parameters of an equation."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns"):
                yield one
            elif hasattr(one, "jaxpr") and hasattr(one.jaxpr, "eqns"):
                yield one.jaxpr


def _convolution_flops(equation: Any) -> int:
    """Returns 2 x (products that are no product with padding), like XLA."""
    params = equation.params
    numbers = params["dimension_numbers"]
    x, kernel = (v.aval.shape for v in equation.invars)
    out = equation.outvars[0].aval.shape
    places = 1
    for d, (into, of, to) in enumerate(
        zip(
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            numbers.out_spec[2:],
            strict=True,
        )
    ):
        stride, spread = params["window_strides"][d], params["lhs_dilation"][d]
        step, before = params["rhs_dilation"][d], params["padding"][d][0]
        at = np.arange(out[to])[:, None] * stride - before
        at = at + np.arange(kernel[of])[None] * step
        inside = (at >= 0) & (at <= (x[into] - 1) * spread) & (at % spread == 0)
        places *= int(inside.sum())
    # The kernel's input channels are those of one group.
    c_in, c_out = kernel[numbers.rhs_spec[1]], kernel[numbers.rhs_spec[0]]
    return 2 * out[numbers.out_spec[0]] * places * c_in * c_out


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: one of `KINDS`.
      size: bytes of its result on one device.
      devices: how many take part together.
      times: how often it runs in a step.
    """

    kind: str
    size: int
    devices: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends by the best ring algorithm, in all its runs."""
        share = (self.devices - 1) / self.devices
        factor = {
            "all-reduce": 2 * share,
            "all-gather": share,
            "reduce-scatter": self.devices - 1,
            "all-to-all": share,
            "collective-permute": 1.0,
        }[self.kind]
        return factor * self.size * self.times


def collectives(text: str, num_devices: int) -> list[Collective]:
    """Returns the collectives of a compiled program, `compiled.as_text()`.

    Args:
      text: the program.
      num_devices: those that take part where it names no groups.
    """
    bodies, entry = _computations(text)
    found: list[Collective] = []

    def walk(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            kind = _kind(line)
            if kind is not None:
                found.append(
                    Collective(kind, _size(line), _group(line, num_devices), times)
                )
            trips = _TRIPS.search(line) if " while(" in line else None
            for called in _called(line):
                walk(called, times * (int(trips[1]) if trips else 1))

    walk(entry, 1)
    return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns ({name of a computation: its lines}, the name of the first)."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", []
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            current = bodies[head[2]] = []
            entry = head[2] if head[1] else entry
        else:
            current.append(line)
    return bodies, entry


def _called(line: str) -> list[str]:
    """Returns the computations that an instruction runs; of branches the first."""
    branches = _BRANCHES.search(line)
    if branches:
        return [branches[1].split(",")[0].strip().lstrip("%")]
    return _CALLED.findall(line) + _TRUE_FALSE.findall(line)[:1]


def _kind(line: str) -> str | None:
    """Returns the kind of a collective, None of other instructions."""
    for kind in KINDS:
        if f" {kind}(" in line or f" {kind}-start(" in line:
            return kind
    return None


def _size(line: str) -> int:
    """Returns the bytes of an instruction's result."""
    result = line.partition("=")[2]
    result = result[: min(result.find(f" {kind}") for kind in KINDS if kind in result)]
    return sum(
        BYTES.get(dtype, 0) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in _SHAPE.findall(result)
    )


def _group(line: str, num_devices: int) -> int:
    """Returns how many devices take part together."""
    iota, listed = _IOTA_GROUPS.search(line), _LISTED_GROUPS.search(line)
    if iota:
        return int(iota[2])
    if listed and listed[1]:
        return listed[1].count(",") + 1
    return num_devices
