"""Sentences of a small probabilistic grammar, whose exact probability is known.

Each is about one of four subjects, which decides its nouns and verbs, so there is
something for one code per sentence to tell; verbs agree with their subjects, over a
clause in between, so there is something for a decoder to remember. Several
derivations may give the same words: `log_prob` adds them up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jvae import registry
from jvae.data.sources import Splits
from jvae.data.vocabulary import Vocabulary, sources
from jvae.ranges import PositiveInt

Rule = tuple[float, tuple[str, ...]]
"""A probability, and the symbols that the left side becomes."""
Rules = Mapping[str, Sequence[Rule]]

SUBJECTS = {
    "farm": ("farmer horse hen dog", "feed chase watch carry"),
    "sea": ("sailor whale ship captain", "sink follow sight hail"),
    "court": ("judge lawyer thief witness", "accuse question hear defend"),
    "sky": ("comet star moon pilot", "pass circle light cross"),
}
NUMBERS = {"one": "", "many": "s"}
PLURALS = {"thief": "thieves", "witness": "witnesses"}
THIRD_PERSON = {
    "carry": "carries",
    "watch": "watches",
    "pass": "passes",
    "cross": "crosses",
}
ADJECTIVES = "old small proud quiet"
PLACES = ("near the gate", "in the rain", "before noon", "at night", "far away")


def _evenly(texts: Sequence[str]) -> list[Rule]:
    return [(1 / len(texts), tuple(text.split())) for text in texts]


def _sides(subject: str, nouns: str, verbs: str) -> dict[str, list[Rule]]:
    """Returns the rules of one subject; names of left sides begin with a capital."""
    rules: dict[str, list[Rule]] = {}
    pairs = [f"Noun-{n}-{subject} Verb-{n}-{subject}" for n in NUMBERS]
    rules[f"Sentence-{subject}"] = _evenly(pairs)

    for number, ending in NUMBERS.items():
        one = number == "one"
        words = [w if one else PLURALS.get(w, w + ending) for w in nouns.split()]
        acts = [
            (THIRD_PERSON.get(v, v + "s") if one else v) + f" Object-{subject}"
            for v in verbs.split()
        ]

        noun, name = f"Noun-{number}-{subject}", f"Word-{number}-{subject}"
        article = "the" if not one else "Article"
        who = f"who {'sees' if one else 'see'} Object-{subject}"
        rules[noun] = [
            (0.5, (article, name)),
            (0.3, (article, "Adjective", name)),
            (0.2, (article, name, *who.split())),
        ]
        rules[name] = _evenly(words)

        verb = f"Verb-{number}-{subject}"
        rules[verb] = [(p * 0.6, right) for p, right in _evenly(acts)]
        rules[verb] += [(p * 0.4, (*right, "Place")) for p, right in _evenly(acts)]

    objects = [f"Article Word-one-{subject}", f"the Word-many-{subject}"]
    rules[f"Object-{subject}"] = _evenly(objects)
    return rules


def _rules() -> Rules:
    rules: dict[str, list[Rule]] = {}
    rules["Start"] = _evenly([f"Sentence-{subject}" for subject in SUBJECTS])
    rules["Article"] = [(0.6, ("the",)), (0.4, ("a",))]
    rules["Adjective"] = _evenly(ADJECTIVES.split())
    rules["Place"] = _evenly(PLACES)
    for subject, (nouns, verbs) in SUBJECTS.items():
        rules |= _sides(subject, nouns, verbs)
    return rules


RULES: Rules = _rules()


def generate(
    generator: np.random.Generator, symbol: str = "Start", rules: Rules = RULES
) -> tuple[str, ...]:
    """Returns the words that a symbol becomes, drawn by the rules' probabilities."""
    if symbol not in rules:
        return (symbol,)
    chances = [p for p, _ in rules[symbol]]
    _, right = rules[symbol][generator.choice(len(chances), p=chances)]
    return tuple(w for part in right for w in generate(generator, part, rules))


def log_prob(words: Sequence[str], rules: Rules = RULES) -> float:
    """Returns the exact log probability of a sentence in nats, -inf if it is none.

    The sum over all derivations, by the inside recursion; rules must not lead from a
    symbol back to itself without a word.
    """

    @functools.cache
    def inside(parts: tuple[str, ...], start: int, end: int) -> float:
        """Returns the probability that `parts` become words[start:end]."""
        if not parts:
            return float(start == end)
        first, rest = parts[0], parts[1:]
        if first not in rules:
            fits = start < end and words[start] == first
            return inside(rest, start + 1, end) if fits else 0.0
        if not rest:
            return sum(p * inside(right, start, end) for p, right in rules[first])
        # Every part becomes at least one word.
        return sum(
            inside((first,), start, middle) * inside(rest, middle, end)
            for middle in range(start + 1, end)
        )

    probability = inside(("Start",), 0, len(words))
    return math.log(probability) if probability > 0.0 else -math.inf


@registry.checked("data")
def grammar(
    num_train: PositiveInt = 10_000,
    num_test: PositiveInt = 1_000,
    num_buckets: PositiveInt = 3,
) -> Splits:
    """Returns sentences of 5 to 12 words about four subjects, independent draws.

    The exact -log p of a sentence is `-log_prob(words)`, what no model's NLL can be
    below in expectation.

    Args:
      num_train: sentences of training.
      num_test: sentences of the test split.
      num_buckets: how many widths batches may have; with 1 lengths are mixed.

    Raises:
      ConfigError: a number out of range.
    """
    draws = []
    for seed, count in enumerate((num_train, num_test)):
        generator = np.random.default_rng(seed)
        draws.append([generate(generator) for _ in range(count)])
    everything = {w for right in RULES.values() for _, parts in right for w in parts}
    words = sorted(everything - set(RULES))
    vocabulary = Vocabulary.of([words])
    train, test = sources([vocabulary.encode(part) for part in draws], num_buckets)
    return Splits(train=train, test=test, vocabulary=vocabulary)
