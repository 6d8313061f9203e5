"""The fields of a function: what a config section may hold, and how it is checked.

`config.model`, `config.loss`, `config.data` ... are splatted into functions. Their
signatures and the `Args:` part of their docstrings are the schema: the same text
checks a config, suggests the nearest name for a typo and prints `--help`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from jvae import import_paths, ranges
from jvae.errors import ConfigError, nearest, require

Function = TypeVar("Function", bound=Callable)
Names = tuple[str, ...]
Values = Mapping[str, Any]

REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Field:
    """One keyword of a function.

    Attributes:
      name: the keyword.
      type: its annotation.
      default: its default value, `REQUIRED` if it has none.
      meaning: its text in the docstring's Args section, '' if it has none.
    """

    name: str
    type: Any
    default: Any
    meaning: str

    @property
    def type_name(self) -> str:
        """The annotation as a person reads it: 'int >= 1', "'a' | 'b'"."""
        return _type_name(self.type)


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        marks = ", ".join(filter(None, map(repr, args[1:])))
        return f"{_type_name(args[0])} {marks}".rstrip()
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, args))
    if origin is typing.Literal:
        return " | ".join(map(repr, args))
    name = inspect.formatannotation(origin or annotation).rpartition(".")[2]
    if isinstance(annotation, list):  # the arguments of a Callable
        return f"[{', '.join(map(_type_name, annotation))}]"
    inner = ["..." if arg is ... else _type_name(arg) for arg in args]
    name = "None" if annotation is type(None) else name
    return f"{name}[{', '.join(inner)}]" if inner else name


def meanings(function: Callable) -> dict[str, str]:
    """Returns {argument: meaning} from the Args section of a Google docstring."""
    doc = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.M | re.S)
    if not section:
        return {}
    pattern = re.compile(r"^  (\w+):\s*(.*?)(?=^  \S|\Z)", re.M | re.S)
    entries = pattern.findall(section.group(1))
    return {name: " ".join(text.split()) for name, text in entries}


def of(function: Callable, skip: Names = ()) -> dict[str, Field]:
    """Returns the fields of `function` by name, in order, without those in `skip`.

    Args:
      function: a function, or a dataclass (a Flax module) taken as its constructor.
      skip: arguments that callers pass themselves.
    """
    texts = meanings(function)
    annotated = function.__init__ if inspect.isclass(function) else function
    try:
        types_ = typing.get_type_hints(annotated, include_extras=True)
    except NameError:  # of a function of a user's own, imported for type checkers alone
        types_ = {}
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: Field(p.name, types_.get(p.name, Any), p.default, texts.get(p.name, ""))
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in (*skip, "self", "parent", "name")
    }


def base_type(annotation: Any) -> Any:
    """Returns an annotation without its range."""
    is_range = typing.get_origin(annotation) is typing.Annotated
    return typing.get_args(annotation)[0] if is_range else annotation


def accepts(annotation: Any, value: Any) -> bool:
    """Returns whether `value` may stand for `annotation`; an int passes as a float."""
    annotation = base_type(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(accepts(arg, value) for arg in args)
    if annotation in (None, type(None)):
        return value is None
    if annotation in (float, int):
        return isinstance(value, int | annotation) and not isinstance(value, bool)
    if origin is typing.Literal:
        return any(value == a and isinstance(value, type(a)) for a in args)
    if origin in (collections.abc.Sequence, tuple, list):
        return isinstance(value, list | tuple) and all(
            accepts(args[0], item) for item in value
        )
    if origin in (collections.abc.Mapping, dict) or annotation in (Mapping, dict):
        return isinstance(value, Mapping)
    return isinstance(value, origin or annotation)


def _broken_rule(annotation: Any, value: Any) -> str:
    """Returns the range that `value` is outside of, 'be at least 1'; '' if in range.

    Args:
      annotation: a type with or without ranges, see `jvae.ranges`.
      value: what the type accepts.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _broken_rule(args[0], value) or ranges.broken_rule(args[1:], value)
    if origin in (typing.Union, types.UnionType):
        kind = next(arg for arg in args if accepts(arg, value))
        rule = _broken_rule(kind, value)
        if not rule.startswith("be "):
            return rule
        others = [a for a in args if typing.get_origin(a) is typing.Literal]
        others += [a for a in args if a is type(None)]
        either = [*map(_type_name, others), rule.removeprefix("be ")]
        return f"be {' or '.join(either)}"
    if origin in (collections.abc.Sequence, tuple, list):
        rules = (_broken_rule(args[0], item) for item in value)
        rule = next(filter(None, rules), "")
        return rule and f"hold numbers that are {rule.removeprefix('be ')}"
    return ""


def check(function: Callable, values: Values, where: str, skip: Names = ()) -> None:
    """Checks that `values` holds fields of `function` with values of their types.

    Args:
      function: what `values` is splatted into.
      values: field values by name.
      where: the config section, for the message ('model', 'loss', ...).
      skip: arguments that the caller passes itself.

    Raises:
      ConfigError: an unknown or missing field, a wrong type, a number that is nan.
    """
    check_against(of(function, skip), values, where)


def check_against(
    known: Mapping[str, Field], values: Values, where: str, is_config: bool = True
) -> None:
    """Checks `values` against these fields; see `check`.

    Values that come from no config may be NumPy's numbers, too.
    """
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{where}.{name} is unknown", fix=nearest(name, known))
        _check_value(known[name], value if is_config else _plain(value), where)
    for name, field in known.items():
        if field.default is REQUIRED and name not in values:
            raise ConfigError(f"{where}.{name} is missing", fix="Give it a value.")


def _check_value(field: Field, value: Any, where: str) -> None:
    """Raises ConfigError unless `value` has the type of a field and is in its range."""
    name = f"{where}.{field.name}" if where else field.name
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{name} must be a number, got nan")
    if not accepts(field.type, value):
        raise ConfigError(f"{name} must be {field.type_name}, got {value!r}")
    rule = _broken_rule(field.type, value)
    require(not rule, name, rule, value)


def values(instance: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by name, as they are."""
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance)}


def check_instance(instance: Any, where: str) -> None:
    """Raises ConfigError for a field of a dataclass that has another type, or range."""
    known = of(type(instance))
    for name, value in values(instance).items():
        _check_value(known[name], _plain(value), where)


def _plain(value: Any) -> Any:
    """Returns a value of a direct call as a config would have it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, range):
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def checked(where: str) -> Callable[[Function], Function]:
    """A decorator: the arguments of a direct call are checked as those of a config.

    Args:
      where: the config section, for messages: 'model', 'optimizer', ...
    """

    def mark(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **fields):
            known = of(function)
            for name, value in signature.bind(*args, **fields).arguments.items():
                if name in known:
                    _check_value(known[name], _plain(value), where)
            return function(*args, **fields)

        return call

    return mark


def resolve(registry: Mapping[str, Callable], name: str, where: str) -> Callable:
    """Returns `registry[name]`, or what an import path 'package.module:Name' names.

    Args:
      registry: builders by name.
      name: a key of `registry`, or an import path (then that module is imported and
        its code runs).
      where: the config section, for the message.

    Raises:
      ConfigError: there is no such name, module or attribute, or imports are not
        allowed here, see `import_paths.allowed`.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{where}.name must be str, got {name!r}")
    if name in registry:
        return registry[name]
    if not import_paths.is_one(name):
        raise ConfigError(
            f"{where}.name {name!r} is unknown", fix=nearest(name, registry)
        )
    found = import_paths.imported(name, where)
    if not callable(found):
        raise ConfigError(f"{where}.name {name!r} is nothing that can be called")
    return found


def build_part(registry: Mapping[str, Callable], where: str, part: str | Values) -> Any:
    """Returns what a name, or {'name': ..., fields}, builds; see `build`."""
    fields = {"name": part} if isinstance(part, str) else {"name": "", **part}
    return build(registry, where, **fields)


def build(
    registry: Mapping[str, Callable], where: str, name: str, *args: Any, **fields: Any
) -> Any:
    """Returns `registry[name](*args, **fields)` after checking the fields.

    Args:
      registry: builders by name; see `resolve` for names outside it.
      where: the config section, for messages.
      name: the builder's name.
      *args: what the caller passes itself, not checked.
      **fields: the config's fields.

    Raises:
      ConfigError: unknown name, unknown or missing field, wrong type.
    """
    function = resolve(registry, name, where)
    skip = tuple(list(inspect.signature(function).parameters)[: len(args)])
    check(function, fields, where, skip)
    return function(*args, **fields)
