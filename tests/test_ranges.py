"""Every number of a config has a range, said once and enforced wherever it is given."""

import typing
from typing import Annotated

import jax
import pytest

from jvae import contract, data, losses, models, ranges, registry
from jvae.data.options import DataOptions
from jvae.data.transforms import TRANSFORMS
from jvae.errors import ConfigError
from jvae.evaluation.settings import Settings
from jvae.models.cluster import clusters
from jvae.models.latents import LATENTS
from jvae.models.likelihoods import LIKELIHOODS
from jvae.runtime import mesh
from jvae.training import config as configs
from jvae.training import optimizers, schedules
from jvae.training.schedules import SCHEDULES

KEY = jax.random.key(0)
REQUIRED = {
    "image_shape": (32, 32, 3),
    "vocabulary_size": 10,
    "num_steps": 10,
    "steps": 5,
    "end": 1.0,
    "decay": 0.9,
    "path": "no/such/folder",
    "dataset": "none",
    "data": {},
    "model": {},
    "loss": {},
}


def in_section(section):
    """Returns how a config says a value: in a section of fields, or in one of these."""

    def given(name, fields):
        if section == "model.latent":
            return models.build("mlp", latent={"name": name, **fields})
        if section == "model.likelihood":
            return models.build("mlp", likelihood={"name": name, **fields})
        if section == "model.clusters":
            return models.build("mlp", clusters=fields)
        if section == "schedules":
            return schedules.build({"beta": {"name": name, **fields}}, {"beta": 1.0})
        if section == "config":
            return configs.parse_experiment(fields)
        if section == "eval":
            return registry.check(Settings, fields, "eval")
        named = {"name": name} if section in (*configs.NAMED, "optimizer") else {}
        return configs.complete_section(section, {**named, **fields})

    return given


def kinds():
    """Yields (section, name, function, how it is built from a registry or None)."""
    yield "config", "", configs.Experiment, None
    yield "eval", "", Settings, None
    yield "mesh", "", mesh.build, None
    yield "optimizer", "adam", optimizers.build, None
    yield "model.clusters", "", clusters, None
    yield "data", "digits", DataOptions, None
    for section, known, build in (
        ("data", data.DATASETS, data.build),
        ("model", models.MODELS, models.build),
        ("model.latent", LATENTS, None),
        ("model.likelihood", LIKELIHOODS, None),
        ("schedules", SCHEDULES, None),
    ):
        for name, function in known.items():
            yield section, name, function, build


def numbers(annotation):
    """Yields the numbers in an annotation: (type, bounds)."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if args[0] in (int, float):
            yield args[0], args[1:]
        else:
            yield from numbers(args[0])
    elif annotation in (int, float):
        yield annotation, ()
    elif origin is not typing.Literal:
        for arg in args:
            yield from numbers(arg)


def outside(annotation):
    """Returns a value that no bound allows."""
    ((kind, bounds),) = numbers(annotation)
    first = bounds[0]
    step = 0 if isinstance(first, ranges.Gt | ranges.Lt) else 1
    value = first.bound - step if first.sign[0] == ">" else first.bound + step
    is_sequence = "Sequence" in str(annotation)
    return [kind(value)] * 3 if is_sequence else kind(value)


def fields():
    for section, name, function, build in kinds():
        for field in registry.of(function).values():
            if [*numbers(field.type)]:
                place = ".".join(filter(None, (section, name, field.name)))
                yield pytest.param(section, name, function, build, field, id=place)


def required(function, field):
    missing = [f.name for f in registry.of(function).values() if f.name != field]
    defaults = {f.name: f.default for f in registry.of(function).values()}
    return {
        name: REQUIRED[name] for name in missing if defaults[name] is registry.REQUIRED
    }


def rule(call, *args, **values):
    """Returns what a refusal says after the name of the field."""
    with pytest.raises(ConfigError) as error:
        call(*args, **values)
    return str(error.value).partition(" must ")[2]


@pytest.mark.parametrize("section, name, function, build, field", list(fields()))
def test_a_number_out_of_range_is_refused_wherever_it_is_given(
    section, name, function, build, field
):
    assert all(bounds for _, bounds in numbers(field.type)), "there is no range"
    given = {**required(function, field.name), field.name: outside(field.type)}
    said = rule(function, **given)
    assert said
    by_config = given
    if section == "optimizer":
        by_config = {k: v for k, v in given.items() if k != "num_steps"}
        if field.name == "num_steps":  # the trainer passes that of the run
            return
    assert rule(in_section(section), name, by_config) == said
    if build is not None:
        assert rule(build, name, **given) == said


@pytest.mark.parametrize("name", losses.LOSSES)
def test_options_and_coefficients_of_an_objective_have_ranges(name):
    """Coefficients of a direct call are arrays, whose values nobody may ask for."""
    function, coefficients = losses.LOSSES[name], losses.coefficients_of
    model = contract.Model()
    for field in losses.config_fields(function).values():
        if not [*numbers(field.type)]:
            continue
        given = {field.name: outside(field.type)}
        said = rule(losses.build, name, model, **given)
        assert said == rule(in_section("loss"), name, given)
        if field.name not in coefficients(function):
            nothing = ({}, {}, KEY, {}, {})
            assert said == rule(function, *nothing, model=model, **given)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_bits_of_a_transform_have_a_range(name):
    said = rule(TRANSFORMS[name], num_bits=9)
    assert said == "be within [1, 8], got 9."
    assert said == rule(data.transforms.build, name, num_bits=9)
    assert said == rule(DataOptions, transform=name, num_bits=9)


@pytest.mark.parametrize(
    ("bounds", "inside", "beyond", "words"),
    [
        ((ranges.Ge(1),), 1, 0, "be at least 1"),
        ((ranges.Gt(0),), 1e-9, 0.0, "be positive"),
        ((ranges.Gt(2),), 3, 2, "be above 2"),
        ((ranges.Le(8),), 8, 9, "be at most 8"),
        ((ranges.Lt(8),), 7, 8, "be below 8"),
        ((ranges.Ge(0), ranges.Lt(1)), 0.0, 1.0, "be within [0, 1)"),
        ((ranges.Gt(0), ranges.Le(1)), 1.0, 0.0, "be within (0, 1]"),
        ((ranges.Ge(0),), 10**400, float("inf"), "be finite"),
        ((ranges.Gt(-float("inf")),), -1e300, float("-inf"), "be finite"),
    ],
    ids=str,
)
def test_a_range_holds_its_ends_or_not(bounds, inside, beyond, words):
    assert ranges.broken_rule(bounds, inside) == ""
    assert ranges.broken_rule(bounds, beyond) == words


def test_words_of_types_that_are_not_one_number():
    @registry.checked("part")
    def part(
        widths: ranges.SomeWidths = (1,),
        size: ranges.PositiveInt | None = None,
        ways: typing.Literal[-1] | ranges.PositiveInt = -1,
    ):
        """Does nothing."""

    assert rule(part, widths=()) == "be at least one width, got ()."
    assert rule(part, (1, 0)) == "hold numbers that are at least 1, got (1, 0)."
    assert rule(part, size=0) == "be None or at least 1, got 0."
    assert rule(part, ways=0) == "be -1 or at least 1, got 0."
    assert rule(part, ways="all") == "be -1 | int >= 1, got 'all'."
    known = {name: field.type_name for name, field in registry.of(part).items()}
    assert known == {
        "widths": "Sequence[int >= 1] (at least one width)",
        "size": "int >= 1 | None",
        "ways": "-1 | int >= 1",
    }
    assert part((3,), size=2) is None
