"""Runs the suite and prints how its figures stand against what is asked of them.

Every benchmark runs in a process of its own and writes benchmarks/results/NAME.json;
all comparisons within one are of turns in one process. The table below is made of these
files, so that a benchmark may be repeated alone.

    pip install -e '.[bench]'
    python -m benchmarks                 # all of them; NVAE's compilations take longest
    python -m benchmarks mlp conv        # some
    python -m benchmarks --table         # the table of what is there
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from jvae.runtime import huge_pages

SUITE = ("mlp", "conv", "text", "flows", "nvae", "stack", "processes", "scaling")
ROOT = Path(__file__).parent.parent


class Target(NamedTuple):
    """One line of the table: a figure and what is asked of it.

    Attributes:
      work: what is done.
      against: what it is compared with.
      file: the benchmark that measures it.
      path: where in its results.
      aim: what is aimed at.
      limit: the least, or the most where `is_most`, that is accepted.
      is_most: whether smaller is better.
    """

    work: str
    against: str
    file: str
    path: tuple[str, ...]
    aim: float
    limit: float
    is_most: bool = False


TORCH = "best plain PyTorch"
TARGETS = (
    Target(
        "MLP VAE through train.py", "bare step", "mlp", ("ratios", "bare"), 1.0, 0.95
    ),
    Target("the same", "pythae's trainer", "mlp", ("ratios", "pythae"), 3.0, 2.0),
    Target("the same", TORCH, "mlp", ("ratios", "torch"), 1.3, 1.1),
    Target("conv VAE, training", TORCH, "conv", ("training", "ratio"), 1.0, 0.7),
    Target("conv VAE, likelihood K = 500", TORCH, "conv", ("nll", "ratio"), 1.0, 0.7),
    Target("conv VAE, 10,000 samples", TORCH, "conv", ("sample", "ratio"), 1.0, 0.7),
    Target("BN-VAE text, training", TORCH, "text", ("training", "ratio"), 1.0, 0.7),
    Target("Glow, training", TORCH, "flows", ("training",), 1.0, 0.7),
    Target("small NVAE, training", TORCH, "nvae", ("training",), 1.0, 0.5),
    Target(
        "start to first step, cold",
        "s",
        "processes",
        ("start_seconds", "cold"),
        5.0,
        8.0,
        True,
    ),
    Target(
        "start to first step, warm",
        "s",
        "processes",
        ("start_seconds", "warm"),
        3.0,
        4.0,
        True,
    ),
    Target(
        "compiling 30 groups", "5 groups", "nvae", ("compile_30_to_5",), 1.1, 1.3, True
    ),
    Target("convolutions in a scan", "unrolled", "stack", ("ratio",), 1.0, 0.5),
    Target(
        "waiting for input", "wall time", "mlp", ("input_stall_share",), 0.0, 0.01, True
    ),
)


def value_of(target: Target) -> float | None:
    """Returns the figure, None if its benchmark was not run."""
    file = machine.RESULTS / f"{target.file}.json"
    if not file.exists():
        return None
    value = json.loads(file.read_text())
    for key in target.path:
        value = value[key]
    return float(value)


def judged(target: Target, value: float | None) -> str:
    """Returns 'aim', 'limit', 'MISSED' or '-', what a figure has reached."""
    if value is None:
        return "-"
    for name, asked in (("aim", target.aim), ("limit", target.limit)):
        if value <= asked if target.is_most else value >= asked:
            return name
    return "MISSED"


def table() -> list[str]:
    """Returns the lines of the table, in Markdown."""
    lines = ["| work | against | figure | aim | limit | reached |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for target in TARGETS:
        value = value_of(target)
        figure = "-" if value is None else f"{value:.3g}"
        asked = f"{target.aim:g} | {target.limit:g}"
        what = f"| {target.work} | {target.against} | {figure} | {asked} | "
        lines.append(f"{what}{judged(target, value)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITE)}")
    parser.add_argument("--table", action="store_true", help="run nothing")
    flags = parser.parse_args()
    unknown = sorted(set(flags.names) - set(SUITE))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(SUITE)}")
    environment = huge_pages.environment()  # train.py's own, and PyTorch has it too
    failed = []
    for name in () if flags.table else flags.names or SUITE:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
    print("\n".join(table()))
    if failed:
        print(f"did not end well: {', '.join(failed)}")
    missed = any(judged(t, value_of(t)) == "MISSED" for t in TARGETS)
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
