"""Which cases of a parametrized test are in the default tier; CONTRIBUTING.md says why.

The default tier shows every claim at its cheapest; the slow tier shows the same claim
for the other kinds, sizes and precisions.
"""

import pytest


def others_slow(cases, *fast):
    """Returns the cases of a `parametrize`, in the slow tier all but those in `fast`.

    Args:
      cases: values, or tuples of values where the test takes several.
      *fast: those that stay; each must be among `cases`.
    """
    missing = [case for case in fast if case not in cases]
    if missing:
        raise ValueError(f"no such cases: {missing}")
    return [case if case in fast else _slow(case) for case in cases]


def _slow(case):
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
