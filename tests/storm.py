"""An interruption storm: runs that are stopped at random must end as if they were not.

    python -m tests.storm --seeds 20

Each seed makes one run, sends it TERM, INT or KILL at up to 8 random moments, start-up,
compilation and saves included, starts the same command again each time, and compares
parameters, optimizer state, metrics and files with a run of the same seed that nothing
disturbed, bit for bit. Exits with 1 if any differ.
"""

import argparse
import collections
import os
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

# As train.py runs; comparing needs no more devices than one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from tests import runs  # noqa: E402
from tests.conftest import TINY  # noqa: E402

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
EXPECTED = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
CHANGES = {
    "num_steps": 4000,
    "log_every_steps": 50,
    "eval_every_steps": 500,
    "checkpoint_every_steps": 100,
}


def storm(seed, folder, num_interruptions=8, longest=4.0):
    """Returns what happened: {'TERM': how often, ..., 'steps lost': ...}.

    Raises:
      AssertionError: an exit status, a file or an array is not what it should be.
    """
    moments = random.Random(seed)
    config = runs.write_config(folder, TINY | CHANGES | {"seed": seed})
    whole, stormy = folder / "whole", folder / "stormy"
    command = runs.train(config, whole)
    assert command.wait() == 0, command.text
    seen = collections.Counter()
    for _ in range(num_interruptions):
        command = runs.train(config, stormy)
        time.sleep(moments.uniform(0.0, longest))
        number = moments.choice(SIGNALS)
        command.send(number)
        status = command.wait()
        if status == 0:
            break
        # Before the run listens, a signal ends Python as it ends any process.
        has_begun = re.search(r"(run|step \d+) in /", command.text)
        early = set() if has_begun else {-number, 130}
        if "init_import_site" in command.text:  # Ctrl-C in the start of Python itself
            early.add(1)
        assert status in {EXPECTED[number]} | early, (number, status, command.text)
        seen[number.name] += 1
    command = runs.train(config, stormy)
    assert command.wait() == 0, command.text
    runs.assert_same_run(whole, stormy)
    left = sorted(p.name for p in (stormy / "checkpoints").iterdir())
    assert all(re.fullmatch(r"\d+(\.unfinished)?", name) for name in left), left
    return seen


def main():
    """Runs the storms; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    flags = parser.parse_args()
    total, bad = collections.Counter(), []
    began = time.monotonic()
    for seed in range(flags.first, flags.first + flags.seeds):
        with tempfile.TemporaryDirectory(prefix="jvae-storm-") as folder:
            try:
                seen = storm(seed, Path(folder))
            except AssertionError as error:
                bad.append(seed)
                print(f"seed {seed}: DIFFERS: {error}", flush=True)
                continue
        total += seen
        counts = ", ".join(f"{n} {name}" for name, n in sorted(seen.items()))
        print(f"seed {seed}: equal after {counts or 'nothing'}", flush=True)
    counts = ", ".join(f"{n} {name}" for name, n in sorted(total.items()))
    print(
        f"{flags.seeds - len(bad)} of {flags.seeds} equal; {counts}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
