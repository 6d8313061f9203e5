"""Evaluates a trained run from its workdir alone: python eval.py --workdir=DIR."""

import functools
import sys

if __name__ == "__main__":
    from jvae.runtime.start import end_process, prepare_process

    prepare_process(sys.argv[1:])  # before anything heavy is imported
    from jvae.commands import evaluate, main

    command = functools.partial(evaluate.command, prog="eval.py")
    end_process(main.run_command(command, sys.argv[1:]))
