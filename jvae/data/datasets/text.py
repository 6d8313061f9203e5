"""Sentences from text files: one on a line, in words or characters."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from jvae import registry
from jvae.data.files import existing_folder, listed, read_utf8, warn_left_out
from jvae.data.sources import Splits
from jvae.data.vocabulary import UNKNOWN, Unit, Vocabulary, sources, split_sentence
from jvae.errors import DataError
from jvae.ranges import PositiveInt, VocabularySize

OnBadLine = Literal["error", "skip"]
EXPECTED = "It must hold train.txt and test.txt or valid.txt, a sentence on each line."

LONGEST_WORD = 1_000
"""Characters; what is longer between two spaces is no word of a text."""
SINGLE_WORDS = 0.9
"""Share of lines of one word above which text may be written without spaces."""
MOSTLY_UNKNOWN = 0.5
"""Share of a split's words above which a vocabulary may be of another text."""

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
    unit: Unit = "word",
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
      on_bad_line: 'error', or 'skip' to leave out empty and over-long lines, and those
        with a word of over 1,000 characters, and say how many.
      unit: what a word is, here and in the other fields: 'word', what stands between
        spaces, or 'character', for text that is written without spaces.

    Raises:
      ConfigError: a number out of range.
      DataError: a file is missing, empty or not UTF-8, a line is empty or over-long, no
        sentence or no word is left.
    """
    root = existing_folder(path, EXPECTED)
    files = _files(root)
    warn_left_out(root, [e.name for e in root.iterdir() if e not in files.values()])

    by_split = {
        split: _sentences(file, max_words, on_bad_line, unit)
        for split, file in files.items()
    }
    by_split["train"] = train = by_split["train"][:max_sentences]
    if unit == "word" and np.mean([len(words) == 1 for words in train]) > SINGLE_WORDS:
        text = "jvae: %s: lines are one word each; set data.unit='character' for %s"
        logger.warning(text, files["train"], "text without spaces")

    vocabulary = Vocabulary.of(train, min_count, vocabulary_size, unit)
    encoded = [vocabulary.encode(sentences) for sentences in by_split.values()]
    for split, (tokens, lengths) in zip(by_split, encoded, strict=True):
        unknown = (tokens == UNKNOWN).sum() / max(1, (lengths - 1).sum())
        if unknown > MOSTLY_UNKNOWN:
            text = "jvae: %s: %.0f%% of its %ss are unknown, as train.txt lacks them"
            logger.warning(text, files[split], 100 * unknown, unit)

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
            there = sorted(entry.name for entry in root.iterdir())
            among = f" among {listed(there)}" if there else ""
            what = f"no {names[split]}{among}"
            raise DataError(what, where=str(root), fix=EXPECTED)
    return files


def _sentences(
    file: Path, max_words: int, on_bad_line: OnBadLine, unit: Unit
) -> list[list[str]]:
    """Returns the words of each line.

    Raises:
      DataError: no text in UTF-8, a bad line that is not skipped, nothing left.
    """
    lines = read_utf8(file).removesuffix("\n").split("\n")
    sentences = [split_sentence(line, unit) for line in lines]

    def is_bad(words):
        is_long = any(len(word) > LONGEST_WORD for word in words)
        return is_long or not 1 <= len(words) <= max_words

    bad = [n for n, words in enumerate(sentences) if is_bad(words)]

    if bad and on_bad_line == "error":
        words = sentences[bad[0]]
        problem = f"{len(words)} {unit}s, more than data.max_words {max_words}"
        if not words:
            problem = "an empty line"
        elif len(words) <= max_words:
            longest = max(map(len, words))
            problem = f"a word of {longest:,} characters, more than {LONGEST_WORD:,}"
        raise DataError(
            problem,
            where=f"{file}, line {bad[0] + 1}",
            fix="Set data.on_bad_line='skip' to leave such lines out.",
        )

    left = [words for words in sentences if not is_bad(words)]
    if not left:
        raise DataError("no sentence is left", where=str(file), fix=EXPECTED)

    if bad:
        count = f"{len(bad):,} of {len(sentences):,} lines"
        text = "jvae: %s: %s left out, empty or over %d %ss (or a word over %d)"
        logger.warning(text, file, count, max_words, unit, LONGEST_WORD)
    return left
