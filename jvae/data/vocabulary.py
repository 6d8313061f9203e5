"""Sentences as padded rows of tokens, and the vocabulary that encodes them.

A token is the place of a word, or character, in the vocabulary; token 0 ends a
sentence, stands before it and fills the rest of its row, token 1 stands for words that
are not known.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jvae import registry
from jvae.data.sources import Examples, Shapes
from jvae.errors import DataError
from jvae.ranges import PositiveInt

END, UNKNOWN = 0, 1
END_WORD, UNKNOWN_WORD = "</s>", "<unk>"
Words = Sequence[str]
Unit = Literal["word", "character"]


def split_sentence(text: str, unit: Unit) -> list[str]:
    """Returns the words, or the characters (code points), of a sentence."""
    return text.split() if unit == "word" else list(text.strip())


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words by token.

    Attributes:
      words: word s is that of token s; the first two are '</s>' and '<unk>'.
      unit: what a word is: a 'word' between spaces, or a 'character', spaces too.
    """

    words: tuple[str, ...]
    unit: Unit = "word"

    def __post_init__(self) -> None:
        """Checks the first two words, and that none is there twice."""
        special = (END_WORD, UNKNOWN_WORD)
        if self.words[:2] != special or len(set(self.words)) != len(self.words):
            raise DataError(
                f"a vocabulary must begin with {END_WORD} and {UNKNOWN_WORD} and hold "
                "no word twice"
            )

    @classmethod
    def of(
        cls,
        sentences: Iterable[Words],
        min_count: int = 1,
        max_size: int | None = None,
        unit: Unit = "word",
    ) -> Vocabulary:
        """Returns the words of sentences, the most frequent first.

        Args:
          sentences: each a sequence of words.
          min_count: words that occur less often are not known.
          max_size: at most so many tokens, the two special ones among them.
          unit: what the words are.

        Raises:
          DataError: no word is left.
        """
        counts = collections.Counter(word for words in sentences for word in words)
        for special in (END_WORD, UNKNOWN_WORD):
            counts.pop(special, None)
        frequent = sorted(
            (w for w, n in counts.items() if n >= min_count),
            key=lambda word: (-counts[word], word),
        )
        words = frequent if max_size is None else frequent[: max(max_size - 2, 0)]
        if not words:
            raise DataError(
                f"the vocabulary is empty: {len(counts):,} words, none of them "
                f"{min_count} times",
                fix="Lower data.min_count, or give more text.",
            )
        return cls((END_WORD, UNKNOWN_WORD, *words), unit)

    @classmethod
    def of_labels(cls, labels: Mapping[str, Any]) -> Vocabulary | None:
        """Returns that of a checkpoint's labels; None of a model without sentences.

        Releases up to 0.2.0 stored no unit, and knew words alone.
        """
        words = labels.get("vocabulary")
        unit = labels.get("vocabulary_unit", "word")
        return None if words is None else cls(tuple(words), unit)

    @property
    def labels(self) -> dict[str, Any]:
        """What checkpoints say of it."""
        return {"vocabulary": list(self.words), "vocabulary_unit": self.unit}

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.words)

    def encode(self, sentences: Sequence[Words]) -> tuple[np.ndarray, np.ndarray]:
        """Returns (tokens int32 [N, T], lengths int32 [N]); T is the longest's.

        A length counts the token that ends a sentence, and the rest of a row is filled
        with it.
        """
        known = {word: token for token, word in enumerate(self.words)}
        known[END_WORD] = UNKNOWN  # a sentence does not end in its middle
        lengths = np.array([len(words) + 1 for words in sentences], np.int32)
        tokens = np.full((len(sentences), lengths.max(initial=1)), END, np.int32)
        for row, words in zip(tokens, sentences, strict=True):
            row[: len(words)] = [known.get(word, UNKNOWN) for word in words]
        return tokens, lengths

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Returns the sentences of tokens [N, T], each up to its end.

        A token that has no word, as a model may have more of them, is an unknown one.
        """
        rows = np.asarray(tokens)
        rows = np.where(rows < len(self.words), rows, UNKNOWN)
        space = " " if self.unit == "word" else ""
        ends = [np.flatnonzero(row == END) for row in rows]
        return [
            space.join(self.words[s] for s in row[: end[0] if end.size else None])
            for row, end in zip(rows, ends, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class SentenceSource:
    """A split of sentences in memory.

    Attributes:
      tokens: int32 [N, T].
      lengths: int32 [N], the token that ends a sentence counted.
      buckets: the widths that batches are cut to, rising, the last of them T: a batch
        is as wide as the first that holds its longest sentence.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    buckets: tuple[int, ...]

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        return {"tokens": self.tokens.shape[1:], "length": ()}

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.tokens)

    def read(self, indices: np.ndarray) -> Examples:
        """Returns 'tokens' [n, T] and 'length' [n] at `indices`."""
        return {"tokens": self.tokens[indices], "length": self.lengths[indices]}


@registry.checked("data")
def sources(
    encoded: Sequence[tuple[np.ndarray, np.ndarray]], num_buckets: PositiveInt
) -> list[SentenceSource]:
    """Returns one source for each pair of `Vocabulary.encode`, all of one width.

    The first pair is the training split: its sentences are cut into `num_buckets` parts
    of equal count by length, so that few shapes are compiled and little is padded.

    Args:
      encoded: tokens and lengths of each split.
      num_buckets: how many widths batches may have; with 1 lengths are mixed.

    Raises:
      ConfigError: no buckets.
    """
    width = max(tokens.shape[1] for tokens, _ in encoded)
    inner = np.arange(1, num_buckets) / num_buckets
    edges = np.quantile(encoded[0][1], inner, method="higher")
    buckets = tuple(sorted({*map(int, edges), width}))
    return [
        SentenceSource(
            np.pad(tokens, ((0, 0), (0, width - tokens.shape[1]))), lengths, buckets
        )
        for tokens, lengths in encoded
    ]
