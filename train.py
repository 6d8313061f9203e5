"""Trains an experiment: python train.py --config=configs/digits.py --workdir=DIR."""

import functools
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of the imports
    from jvae.runtime import aborts, huge_pages

    aborts.silence_stacks(sys.argv[1:])
    huge_pages.use_large()  # starts this script over, before anything heavy is imported
    from jvae.commands import main, train

    command = functools.partial(train.command, prog="train.py")
    sys.exit(main.run_command(command, sys.argv[1:]))
