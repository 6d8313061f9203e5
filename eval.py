"""Evaluates a trained run from its workdir alone: python eval.py --workdir=DIR."""

import sys

from jvae import cli

if __name__ == "__main__":
    sys.exit(cli.main(cli.evaluate))
