"""The grammar: probabilities of all sentences add up to 1, and draws follow them."""

import itertools
import math

import numpy as np
import pytest

from jvae.data.datasets import grammar
from jvae.errors import ConfigError

# Two ways to 'a a': A A, and Pair.
AMBIGUOUS = {
    "Start": [(0.5, ("A", "A")), (0.3, ("Pair",)), (0.2, ("A", "b", "A"))],
    "A": [(0.6, ("a",)), (0.4, ("b",))],
    "Pair": [(1.0, ("a", "a"))],
}


def test_the_rules_of_every_symbol_are_probabilities():
    for symbol, rules in grammar.RULES.items():
        assert sum(p for p, _ in rules) == pytest.approx(1.0), symbol


def test_probabilities_of_all_sentences_of_a_small_grammar_are_one():
    total = sum(
        math.exp(grammar.log_prob(words, AMBIGUOUS))
        for length in range(5)
        for words in itertools.product("ab", repeat=length)
    )
    assert total == pytest.approx(1.0)


def test_derivations_of_the_same_words_are_added_up():
    found = math.exp(grammar.log_prob(("a", "a"), AMBIGUOUS))
    assert found == pytest.approx(0.5 * 0.36 + 0.3)
    assert grammar.log_prob(("a", "b", "a"), AMBIGUOUS) == pytest.approx(
        math.log(0.2 * 0.36)
    )
    for words in ((), ("a",), ("a", "c"), ("a", "a", "a", "a")):
        assert grammar.log_prob(words, AMBIGUOUS) == -math.inf


def test_draws_come_as_often_as_the_probability_says():
    """5,000 draws, every count within 5 standard errors."""
    generator = np.random.default_rng(0)
    draws = [grammar.generate(generator, rules=AMBIGUOUS) for _ in range(5000)]
    for words in set(draws):
        p = math.exp(grammar.log_prob(words, AMBIGUOUS))
        error = math.sqrt(5000 * p * (1 - p))
        assert abs(draws.count(words) - 5000 * p) < 5 * error


def test_a_sentence_by_hand():
    """Subject, number, noun phrase, its article, noun, verb with a place, object."""
    words = "the farmer feeds the hens at night".split()
    noun, verb = 0.5 * 0.6 * 1 / 4, 0.4 * 1 / 4 * 1 / 5
    found = grammar.log_prob(words)
    assert found == pytest.approx(math.log(1 / 4 * 1 / 2 * noun * verb * 1 / 2 * 1 / 4))
    assert grammar.log_prob("the farmer feed the hens".split()) == -math.inf
    assert grammar.log_prob("the farmer feeds the stars".split()) == -math.inf


def test_the_data_set_is_the_same_every_time_and_its_words_are_known():
    splits = grammar.grammar(50, 20)
    again = grammar.grammar(50, 20)
    np.testing.assert_array_equal(splits.train.tokens, again.train.tokens)
    assert splits.vocabulary == again.vocabulary and len(splits.vocabulary) == 85
    assert 1 not in splits.train.tokens  # the token of unknown words
    assert all(
        grammar.log_prob(text.split()) > -30.0
        for text in splits.vocabulary.decode(splits.test.tokens)
    )
    with pytest.raises(ConfigError, match="data.num_train must be at least 1, got 0"):
        grammar.grammar(0)
