"""The rule by which a data set is read: a number in the config that a run stores.

A reader that is changed so that the same files give other examples, labels or pixels
does so under a new number, and keeps what it did under the earlier ones. So a run goes
on, and is evaluated, with the data that it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEWEST = {"images": 2}
"""The rule of new runs, by the name of a data set that has several."""
Section = Mapping[str, Any]


def of_stored(section: Section) -> dict[str, Any]:
    """Returns the data section of a stored config, with rule 1 where it has none.

    Releases up to 0.2.0 stored no number, and read by rule 1.
    """
    is_earlier = str(section.get("name")) in NEWEST and "rule" not in section
    return {**section, "rule": 1} if is_earlier else dict(section)


def settled(section: Section, stored: Section | None = None) -> dict[str, Any]:
    """Returns a data section whose rule is a number: None becomes one.

    Args:
      section: of a config that is complete.
      stored: that of the run that goes on, of any release; None for a new run.
    """
    name = str(section.get("name"))
    if name not in NEWEST or section["rule"] is not None:
        return dict(section)
    there = of_stored(stored or {})
    rule = there["rule"] if there.get("name") == name else NEWEST[name]
    return {**section, "rule": rule}
