"""Prepares or converts a TensorFlow data set for jvae."""

from __future__ import annotations

from collections.abc import Sequence

from jvae.commands.flags import Parser, parse
from jvae.data.datasets import tfds_prepare
from jvae.errors import ConfigError


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae prepare", __doc__)
    text = "name, or path of a prepared data set to convert"
    parser.add_argument("name", nargs="?", help=text)
    parser.add_argument("--data_dir", help="$TFDS_DATA_DIR, else ~/tensorflow_datasets")
    flags = parse(parser, arguments)
    if not flags.name:
        raise ConfigError("name a data set", where=parser.prog)
    folder = tfds_prepare.prepare_dataset(flags.name, flags.data_dir)
    print(f"{flags.name} is ready in {folder}")
