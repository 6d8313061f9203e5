"""Sentences from text files: one on a line, words between spaces."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from jvae import registry
from jvae.data.files import existing_folder, read_utf8
from jvae.data.sources import Splits
from jvae.data.vocabulary import Vocabulary, sources
from jvae.errors import DataError
from jvae.ranges import PositiveInt, VocabularySize

OnBadLine = Literal["error", "skip"]
EXPECTED = "It must hold train.txt and test.txt or valid.txt, a sentence on each line."

logger = logging.getLogger("jvae")


@registry.checked("data")
def text(
    path: str,
    vocabulary_size: VocabularySize = 10_000,
    min_count: PositiveInt = 1,
    max_words: PositiveInt = 60,
    max_sentences: PositiveInt | None = None,
    num_buckets: PositiveInt = 4,
    on_bad_line: OnBadLine = "error",
) -> Splits:
    """Returns the sentences of text files in UTF-8, and the words of those of training.

    Words that it does not have, also in training, become one token for all unknown
    words. Where there is no test.txt, valid.txt is the test split.

    Args:
      path: a folder with train.txt, and test.txt, valid.txt or both.
      vocabulary_size: at most so many tokens, the most frequent words and two more.
      min_count: words that occur less often in training are unknown.
      max_words: the longest sentence that is taken.
      max_sentences: training sentences that are taken, the first; None for all.
      num_buckets: how many widths batches may have; with 1 lengths are mixed.
      on_bad_line: 'error', or 'skip' to leave out empty and over-long lines and say
        how many.

    Raises:
      ConfigError: a number out of range.
      DataError: a file is missing or not UTF-8, a line is empty or over-long, no
        sentence or no word is left.
    """
    files = _files(existing_folder(path, EXPECTED))
    by_split = {k: _sentences(f, max_words, on_bad_line) for k, f in files.items()}
    by_split["train"] = by_split["train"][:max_sentences]
    vocabulary = Vocabulary.of(by_split["train"], min_count, vocabulary_size)
    encoded = [vocabulary.encode(sentences) for sentences in by_split.values()]
    splits = dict(zip(by_split, sources(encoded, num_buckets), strict=True))
    return Splits(**splits, num_classes=None, vocabulary=vocabulary)


def _files(root: Path) -> dict[str, Path]:
    """Returns {split: its file}, training first.

    Raises:
      DataError: there is none of training, or none of test.
    """
    names = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
    files = {split: root / name for split, name in names.items()}
    files = {split: file for split, file in files.items() if file.is_file()}
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    for split in ("train", "test"):
        if split not in files:
            raise DataError(f"no {names[split]}", where=str(root), fix=EXPECTED)
    return files


def _sentences(file: Path, max_words: int, on_bad_line: OnBadLine) -> list[list[str]]:
    """Returns the words of each line.

    Raises:
      DataError: bytes that are not UTF-8, a bad line that is not skipped, nothing left.
    """
    lines = read_utf8(file).removesuffix("\n").split("\n")
    sentences = [line.split() for line in lines]
    bad = [n for n, words in enumerate(sentences) if not 1 <= len(words) <= max_words]

    if bad and on_bad_line == "error":
        words = len(sentences[bad[0]])
        problem = f"{words} words, more than {max_words}" if words else "an empty line"
        raise DataError(
            problem,
            where=f"{file}, line {bad[0] + 1}",
            fix="Set data.on_bad_line='skip' to leave such lines out.",
        )

    left = [words for words in sentences if 1 <= len(words) <= max_words]
    if not left:
        raise DataError("no sentence is left", where=str(file), fix=EXPECTED)

    if bad:
        count = f"{len(bad):,} of {len(sentences):,} lines"
        logger.warning(
            "jvae: %s: %s left out, empty or over %d words", file, count, max_words
        )
    return left
