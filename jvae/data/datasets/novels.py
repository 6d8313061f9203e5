"""From plain novels to files of sentences, one on a line, that data set `text` reads.

jvae novels EMMA.txt PERSUASION.txt --out=DIR
"""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jvae.data.files import read_utf8
from jvae.errors import DataError, require

SPLITS = ("train", "valid", "test")
TITLES = "mr|mrs|ms|dr|st|messrs|esq|rev|capt|lieut"
END = ".!?;"
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|--|[.,;:!?]")


def sentences(
    text: str, min_words: int = 4, max_words: int = 40
) -> Iterator[tuple[str, ...]]:
    """Yields the sentences of a book, each its words and marks in lower case.

    A sentence ends with a full stop, an exclamation or question mark, or a semicolon.
    Quotation marks and underscores go, dashes become '--', full stops of titles ('Mr.')
    go. What stands before and after the book in a file of Project Gutenberg goes, and
    so do headings, paragraphs without an end mark.

    Args:
      text: the book.
      min_words: shorter sentences are left out; marks count as words.
      max_words: longer ones too.
    """
    start = re.search(r"^\*\*\* ?START OF.*$", text, re.M)
    end = re.search(r"^\*\*\* ?END OF", text, re.M)
    text = text[start.end() if start else 0 : end.start() if end else None].lower()
    for pattern, instead in (
        ("[\N{RIGHT SINGLE QUOTATION MARK}]", "'"),
        ("\N{EM DASH}|\N{EN DASH}|-{2,}", " -- "),
        (rf"\b({TITLES})\.", r"\1"),
    ):
        text = re.sub(pattern, instead, text)
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        words: list[str] = []
        for word in _WORD.findall(paragraph):
            words.append(word)
            if word in END:
                if min_words <= len(words) <= max_words:
                    yield tuple(words)
                words = []


def split_of(words: Sequence[str], held_out: float) -> str:
    """Returns the split of a sentence, by its words alone.

    So the same sentence is never in two, and a new book moves no sentence.

    Args:
      words: the sentence.
      held_out: the share of validation, and of test.
    """
    digest = hashlib.sha256(" ".join(words).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "valid" if place < held_out else "test" if place < 2 * held_out else "train"


def write_splits(
    books: Iterable[Path],
    out: Path,
    min_words: int = 4,
    max_words: int = 40,
    held_out: float = 0.05,
) -> dict[str, int]:
    """Writes train.txt, valid.txt and test.txt; each sentence once, in order.

    Args:
      books: text files.
      out: the folder; created if missing.
      min_words: of a sentence.
      max_words: of a sentence.
      held_out: the share of validation, and of test.

    Returns:
      {split: its number of sentences}.

    Raises:
      ConfigError: a number out of range.
      DataError: a book that cannot be read, a split that would be empty, or a folder
        that cannot be written.
    """
    require(1 <= min_words <= max_words, "min_words", "be in 1..max_words", min_words)
    require(0.0 < held_out < 0.5, "held_out", "be within (0, 0.5)", held_out)

    by_split: dict[str, dict[tuple[str, ...], None]] = collections.defaultdict(dict)
    for book in books:
        for words in sentences(read_utf8(book), min_words, max_words):
            by_split[split_of(words, held_out)][words] = None

    empty = [split for split in SPLITS if not by_split[split]]
    if empty:
        raise DataError(
            f"no sentence for {', '.join(empty)}",
            fix="Give more text, or hold out more.",
        )

    try:
        out.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            lines = "".join(" ".join(words) + "\n" for words in by_split[split])
            (out / f"{split}.txt").write_text(lines, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write: {error.strerror}", where=str(out)) from None
    return {split: len(by_split[split]) for split in SPLITS}
