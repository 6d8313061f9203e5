"""Makes a data set of sentences, train.txt and the others, from plain novels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jvae.commands.flags import Parser, chosen, parse
from jvae.data.datasets import novels
from jvae.errors import ConfigError


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae novels", __doc__)
    parser.add_argument("books", nargs="*", type=Path, help="text files in UTF-8")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--min_words", type=int, default=4, help="of a sentence")
    parser.add_argument("--max_words", type=int, default=40, help="of a sentence")
    text = "share of validation, and of test"
    parser.add_argument("--held_out", type=float, default=0.05, help=text)
    flags = parse(parser, arguments)
    if not flags.books or flags.out is None:
        raise ConfigError("name text files and --out", where=parser.prog)
    options = chosen(flags, ("min_words", "max_words", "held_out"))
    counts = novels.write_splits(flags.books, flags.out, **options)
    print(", ".join(f"{split} {n:,} sentences" for split, n in counts.items()))
