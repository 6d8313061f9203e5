"""Trains an experiment: python train.py --config=configs/digits.py --workdir=DIR."""

import sys

from jvae import cli

if __name__ == "__main__":
    sys.exit(cli.main(cli.train))
