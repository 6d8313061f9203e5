"""Messages of one line, and an exit status for every kind."""

import pytest

from jvae import errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no such step."),
        ({"where": "run/7"}, "no such step (run/7)."),
        ({"fix": "Use step 5."}, "no such step. Use step 5."),
        (
            {"where": "run/7", "fix": "Use\n step  5."},
            "no such step (run/7). Use step 5.",
        ),
    ],
)
def test_a_message_is_one_line_of_what_where_and_how_to_fix_it(arguments, message):
    error = errors.WorkdirError("no such step.", **arguments)
    assert str(error) == message
    assert error.what == "no such step."


def test_a_message_moves_no_cursor_and_fits_a_terminal():
    error = errors.DataError("no class '\x1b[2J'", where="x" * 10**6, fix="Rename it.")
    assert str(error).startswith(r"no class '\x1b[2J' (xxx")
    assert str(error).endswith("xxx). Rename it.")
    assert len(str(error)) < 2_100


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.JvaeError, 1),
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.WorkdirError, 4),
        (errors.DivergedError, 5),
        (errors.DeviceError, 6),
    ],
)
def test_every_kind_has_its_exit_status(kind, status):
    assert kind.exit_code == status
    assert issubclass(kind, errors.JvaeError)


def test_errors_of_arguments_and_data_are_value_errors():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.DataError, ValueError)


def test_require_names_the_rule_and_the_value():
    errors.require(True, "beta", "be positive", 1)
    with pytest.raises(errors.ConfigError, match=r"^beta must be positive, got -1\.$"):
        errors.require(False, "beta", "be positive", -1)


def test_the_nearest_name_is_suggested_and_all_are_listed():
    hint = errors.nearest("lerning_rate", ["momentum", "learning_rate"])
    assert hint == "Did you mean 'learning_rate'? Known: learning_rate, momentum."
    assert errors.nearest("x", ["momentum"]) == "Known: momentum."
    assert errors.nearest("x", []) == "Known: none."
