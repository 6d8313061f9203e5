"""Signatures and docstrings as the schema of a config."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from flax import linen as nn

from jvae import ranges
from jvae import registry as fields
from jvae.errors import ConfigError


def example(
    key,
    latent_dim: int,
    rate: float = 1e-3,
    hidden: Sequence[int] = (8,),
    kind: Literal["a", "b"] = "a",
    label: int | None = None,
    *args: Any,
    wide: bool = False,
    **rest: Any,
):
    """Returns nothing.

    Args:
      key: what the caller passes.
      latent_dim: latent dimensions,
        at least 1.
      rate: step size: positive.
      hidden: widths.
      kind: which.
      *args: more of them.
      wide: whether it is wide.

    Returns:
      label: not an argument's text.
    """


class Net(nn.Module):
    """A module of a user."""

    width: int
    scale: float = 1.0


def test_meanings_are_read_from_the_args_section_alone():
    assert fields.meanings(example) == {
        "key": "what the caller passes.",
        "latent_dim": "latent dimensions, at least 1.",
        "rate": "step size: positive.",
        "hidden": "widths.",
        "kind": "which.",
        "wide": "whether it is wide.",
    }
    assert fields.meanings(Net) == {}
    assert fields.meanings(lambda x: x) == {}


def test_fields_are_the_keywords_in_order_with_types_and_defaults():
    known = fields.of(example, skip=("key",))
    names = ["latent_dim", "rate", "hidden", "kind", "label", "wide"]
    assert list(known) == names
    assert known["latent_dim"].default is fields.REQUIRED
    assert known["rate"] == fields.Field("rate", float, 1e-3, "step size: positive.")
    assert known["label"].type_name == "int | None"
    assert known["hidden"].type_name == "Sequence[int]"


def test_a_modules_fields_are_those_of_its_constructor():
    assert list(fields.of(Net)) == ["width", "scale"]


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (int, [3, 0], [1.0, True, "3", None]),
        (float, [1.0, 3, float("inf")], [True, "1", None]),
        (bool, [True], [1, "yes"]),
        (str, ["a"], [1, ["a"]]),
        (int | None, [None, 2], [2.5, "none"]),
        (Literal["a", "b"], ["a"], ["c", 1, ["a"]]),
        (Sequence[int], [(), [1], (1, 2)], [3, "12", (1, 2.5)]),
        (tuple[int, ...], [[1, 2]], [[None]]),
        (Mapping[str, Any], [{}, {"name": "x"}], ["x", [("name", "x")]]),
        (str | Mapping[str, Any], ["x", {"name": "x"}], [3]),
        (dict, [{}], [[]]),
        (Callable, [len], [3]),
        (Any, [b"anything"], []),
    ],
    ids=str,
)
def test_a_value_is_accepted_where_its_type_may_stand(annotation, right, wrong):
    assert [value for value in right if not fields.accepts(annotation, value)] == []
    assert [value for value in wrong if fields.accepts(annotation, value)] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent_dims": 3}, "model.latent_dims is unknown. Did you mean 'latent_dim'"),
        ({"latent_dim": "3"}, "model.latent_dim must be int, got '3'."),
        ({"latent_dim": 3, "rate": float("nan")}, "model.rate must be a number"),
        ({"latent_dim": 3, "kind": "c"}, "model.kind must be 'a' | 'b', got"),
        ({"rate": 1.0}, "model.latent_dim is missing. Give it a value."),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(given, message):
    with pytest.raises(ConfigError) as error:
        fields.check(example, given, "model", skip=("key",))
    assert message in str(error.value)


def test_right_fields_pass():
    fields.check(example, {"latent_dim": 3, "rate": 1}, "model", skip=("key",))


def test_names_resolve_to_the_registry_or_to_an_import_path():
    registry = {"net": Net}
    assert fields.resolve(registry, "net", "model") is Net
    assert fields.resolve(registry, "jvae.errors:ConfigError", "model") is ConfigError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nett", "model.name 'nett' is unknown. Did you mean 'net'? Known: net."),
        (3, "model.name must be str, got 3."),
        ("no_such_package.x:Net", "cannot be imported"),
        ("jvae.errors:Nothing", "cannot be imported"),
        (":Net", "cannot be imported"),
        (".net:Net", "Write 'package.module:Name'"),
    ],
)
def test_a_name_that_nobody_knows_is_a_config_error(name, message):
    with pytest.raises(ConfigError) as error:
        fields.resolve({"net": Net}, name, "model")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_build_checks_the_fields_but_not_what_the_caller_passes():
    def make(model, width: int = 1):
        return model, width

    assert fields.build({"make": make}, "loss", "make", "any", width=2) == ("any", 2)
    with pytest.raises(ConfigError, match=r"loss\.model is unknown"):
        fields.build({"make": make}, "loss", "make", "any", model=1)
    with pytest.raises(ConfigError, match=r"loss\.width must be int"):
        fields.build({"make": make}, "loss", "make", "any", width="2")


def test_what_is_named_must_be_there_and_callable():
    assert fields.resolve({}, "math:sqrt", "loss") is math.sqrt
    for name, words in (
        ("math:pi", "is nothing that can be called"),
        ("math:", "cannot be imported"),
        ("no-such-module:Name", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=words):
            fields.resolve({}, name, "loss")


def test_a_direct_call_takes_numpys_numbers_and_paths(tmp_path):
    @fields.checked("part")
    def part(n: ranges.PositiveInt, x: ranges.PositiveFloat, path: str = ""):
        """Returns them."""
        return n, x, path

    assert part(np.int64(3), np.float32(0.5), tmp_path) == (3, 0.5, tmp_path)
    with pytest.raises(ConfigError, match="part.n must be at least 1, got 0"):
        part(np.int64(0), 1.0)
    with pytest.raises(ConfigError, match="part.n must be int"):
        part(np.float32(2.0), 1.0)


def test_types_are_printed_as_they_are_written():
    def part(a: Callable[[int], str], b: tuple[int, ...], c: ranges.FiniteFloat):
        """Does nothing."""

    names = [field.type_name for field in fields.of(part).values()]
    assert names == ["Callable[[int], str]", "tuple[int, ...]", "float"]
