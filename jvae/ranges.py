"""Ranges of numbers in signatures, as in `latent_dim: Annotated[int, Ge(1)]`.

`jvae.registry` reads them: a value outside is refused in a config as in a direct call,
and `--help` prints the range.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

HOLDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclasses.dataclass(frozen=True, repr=False)
class Bound:
    """One end of a range of finite numbers."""

    bound: float
    sign: ClassVar[str]

    def __repr__(self) -> str:  # noqa: D105
        return f"{self.sign} {self.end}" if math.isfinite(self.bound) else ""

    @property
    def end(self) -> str:
        """The number as text."""
        is_whole = isinstance(self.bound, int)
        return str(self.bound) if is_whole else f"{self.bound:g}"


class Ge(Bound):
    """At least `bound`."""

    sign = ">="


class Gt(Bound):
    """Above `bound`."""

    sign = ">"


class Le(Bound):
    """At most `bound`."""

    sign = "<="


class Lt(Bound):
    """Below `bound`."""

    sign = "<"


@dataclasses.dataclass(frozen=True, repr=False)
class Len:
    """At least `least` and at most `most` entries, which are `what`."""

    least: int
    most: float
    what: str

    def __repr__(self) -> str:  # noqa: D105
        return f"({self.what})"


FiniteFloat = Annotated[float, Gt(-math.inf)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""JAX takes larger seeds modulo 2^32, so that they would repeat."""
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Bits = Annotated[int, Ge(1), Le(8)]
VocabularySize = Annotated[int, Ge(3)]
Widths = Sequence[PositiveInt]
SomeWidths = Annotated[Widths, Len(1, math.inf, "at least one width")]
ImageShape = Annotated[Widths, Len(3, 3, "height, width and channels")]


def broken_rule(marks: Sequence[Bound | Len], value: Any) -> str:
    """Returns the rule of `Annotated[..., *marks]` that a value breaks; '' for none."""
    for mark in marks:
        if isinstance(mark, Len) and not mark.least <= len(value) <= mark.most:
            return f"be {mark.what}"
    bounds = [mark for mark in marks if isinstance(mark, Bound)]
    if bounds and not (isinstance(value, int) or math.isfinite(value)):
        return "be finite"
    if all(HOLDS[b.sign](value, b.bound) for b in bounds):
        return ""
    return f"be {_in_words(bounds)}"


def _in_words(bounds: Sequence[Bound]) -> str:
    """Returns 'at least 1', 'within [0, 1)', ..."""
    ends = {bound.sign[0]: bound for bound in bounds}
    lower, upper = ends.get(">"), ends.get("<")
    if lower and upper:
        left = "[" if lower.sign == ">=" else "("
        right = "]" if upper.sign == "<=" else ")"
        return f"within {left}{lower.end}, {upper.end}{right}"
    if lower == Gt(0):
        return "positive"
    words = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
    only = lower or upper
    assert only is not None, "a range has an end"
    return f"{words[only.sign]} {only.end}"
