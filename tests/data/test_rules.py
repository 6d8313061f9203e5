"""The rule by which data are read is a number that a run keeps."""

import inspect
import typing

import pytest

from jvae import data
from jvae.data import rules

NEW = {"name": "images", "path": "p", "rule": None}


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        (None, 2),
        ({"name": "images", "path": "p"}, 1),
        ({"name": "images", "path": "p", "rule": 1}, 1),
        ({"name": "images", "path": "p", "rule": 2}, 2),
        ({"name": "digits"}, 2),
    ],
)
def test_a_rule_is_that_of_the_run_that_goes_on_or_the_newest(stored, rule):
    assert rules.settled(NEW, stored) == NEW | {"rule": rule}
    for chosen in (1, 2):
        assert rules.settled(NEW | {"rule": chosen}, stored)["rule"] == chosen


def test_data_without_rules_get_none():
    for section in ({"name": "digits"}, {"name": "mine:Data"}, {"name": ["x"]}):
        assert rules.of_stored(section) == rules.settled(section) == section


def test_every_data_set_with_rules_takes_the_newest_and_all_before_it():
    for name, newest in rules.NEWEST.items():
        field = inspect.signature(data.DATASETS[name], eval_str=True).parameters["rule"]
        numbers, nothing = typing.get_args(field.annotation)
        assert typing.get_args(numbers) == tuple(range(1, newest + 1))
        assert field.default is None and nothing is type(None)
