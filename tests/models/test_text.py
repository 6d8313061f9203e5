"""Models of sentences: what they score, what they write, dropout, padding."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
import scipy.special

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.models.text import nucleus
from jvae.pretrained.likelihood import (
    elbo_per_example,
    log_likelihood_per_example,
    per_token,
)
from tests.tiers import others_slow
from tests.toys import trained as as_trained

KEY = jax.random.key(0)
B, T, V, D = 5, 6, 4, 3
SIZES = {"vocabulary_size": V, "embedding_dim": 5, "hidden": 6, "max_length": T}
VAE = {"name": "text_vae", "latent_dim": D, "dropout": 0.0, **SIZES}
LM = {"name": "language_model", "dropout": 0.0, **SIZES}
both = pytest.mark.parametrize("fields", [VAE, LM], ids=["vae", "lm"])
VERSES = {"name": "poetry_vae", "latent_dim": D, "embedding_dim": 5, "max_length": 13}
VERSES |= {"vocabulary_size": V}


def batch(rows=B, width=T):
    draws = np.random.default_rng(0)
    length = draws.integers(1, width + 1, rows).astype(np.int32)
    tokens = draws.integers(1, V, (rows, width)).astype(np.int32)
    tokens[np.arange(width)[None] >= length[:, None] - 1] = 0
    return {"tokens": tokens, "length": length}


def made(fields, **changes):
    """Returns (model, params) with random numbers everywhere."""
    model = models.build(**{**fields, **changes})
    shapes = jax.eval_shape(model.init, KEY, batch(), KEY)["params"]
    draws = np.random.default_rng(1)
    return model, jax.tree.map(
        lambda a: draws.standard_normal(a.shape).astype("float32"), shapes
    )


def call(model, params, method, *args):
    method = jax.jit(functools.partial(model.apply, method=method))
    return jax.device_get(method({"params": params}, *args))


def log_prob(model, params, z, given):
    """Returns log p(x|z) of each sentence."""
    variables = {"params": params}
    return jax.jit(
        lambda: model.apply(variables, z, given, method="likelihood").log_prob(
            given["tokens"]
        )
    )()


def bound(model, params, given):
    """Returns the terms of each sentence's bound."""
    terms = functools.partial(elbo_per_example, as_trained(model, params=params))
    return jax.device_get(jax.jit(terms)(KEY, given))


def loss_of(model, params, given, **options):
    loss = jax.jit(losses.build("elbo", model, **options))
    value, aux = jax.device_get(loss(params, {}, KEY, given, {}))
    return value, aux.metrics


@pytest.mark.parametrize(
    "fields", others_slow([VAE, LM, VERSES], VAE), ids=["vae", "lm", "verses"]
)
def test_more_padding_changes_nothing(fields):
    """L37: neither the terms of the bound nor the importance-weighted NLL."""
    model, params = made(fields)
    given = batch()
    wide = {**given, "tokens": np.pad(given["tokens"], ((0, 0), (0, 7)))}

    @jax.jit
    def both_bounds(given):
        about = as_trained(model, params=params), KEY, given
        return elbo_per_example(*about), log_likelihood_per_example(*about, 5, 2)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        both_bounds(given),
        both_bounds(wide),
    )


@both
def test_a_token_depends_on_those_before_it_alone(fields):
    model, params = made(fields)
    given = batch()
    z = np.zeros((B, D if fields is VAE else 0), "f4")
    likelihood = jax.jit(
        lambda given: model.apply({"params": params}, z, given, method="likelihood")
    )
    logits = np.asarray(likelihood(given).logits)
    for t in range(T):
        changed = given["tokens"].copy()
        changed[:, t] = (changed[:, t] + 1) % V
        other = {**given, "tokens": changed}
        found = np.asarray(likelihood(other).logits)
        np.testing.assert_array_equal(found[:, : t + 1], logits[:, : t + 1])
        if t + 1 < T:
            assert np.abs(found[:, t + 1] - logits[:, t + 1]).max() > 1e-3


@both
def test_probabilities_of_all_sentences_add_up_to_one(fields):
    """Those of up to T tokens, and of all beginnings that have not ended."""
    model, params = made(fields)
    words, longest = range(1, V), 3
    rows = [
        [*inner, last]
        for n in range(longest)
        for inner in itertools.product(words, repeat=n)
        for last in (range(V) if n == longest - 1 else [0])
    ]
    tokens = np.array([row + [0] * (longest - len(row)) for row in rows], np.int32)
    given = {"tokens": tokens, "length": np.array([len(r) for r in rows], np.int32)}
    z = np.tile(np.linspace(-1, 1, D if fields is VAE else 0)[None], (len(rows), 1))
    log_p = log_prob(model, params, z.astype("f4"), given)
    assert scipy.special.logsumexp(log_p) == pytest.approx(0.0, abs=1e-4)


def test_a_language_model_is_the_decoder_and_its_bound_is_exact():
    model, params = made(LM)
    given = batch()
    terms = bound(model, params, given)
    np.testing.assert_array_equal(terms["kl"], 0.0)
    weighted = jax.jit(
        lambda: log_likelihood_per_example(
            as_trained(model, params=params), KEY, given, 3, 2
        )
    )()
    np.testing.assert_allclose(weighted, terms["elbo"], rtol=1e-5)
    vae, theirs = made(VAE)
    lstm = {k: v for k, v in theirs["decoder"]["lstm"].items() if k != "constant"}
    decoder = {k: v for k, v in theirs["decoder"].items() if k != "first_cell"}
    alone = call(
        model,
        {"decoder": {**decoder, "lstm": lstm}},
        "likelihood",
        np.zeros((B, 0), "f4"),
        given,
    )
    at_zero = call(vae, theirs, "likelihood", np.zeros((B, D), "f4"), given)
    np.testing.assert_allclose(alone.logits, at_zero.logits, rtol=1e-4, atol=1e-5)


@both
def test_what_is_written_greedily_is_the_likeliest_token_each_time(fields):
    model, params = made(fields)
    width = D if fields is VAE else 0
    z = np.random.default_rng(3).standard_normal((40, width)).astype("f4")
    tokens = call(model, params, "decode", z)
    assert tokens.shape == (40, T) and tokens.dtype == np.int32
    lengths = call(model, params, "as_batch", tokens)["length"]
    for row, length in zip(tokens, lengths, strict=True):
        assert not row[length:].any() and row[: length - 1].all()
    given = {"tokens": tokens, "length": lengths}
    best = call(model, params, "likelihood", z, given).logits.argmax(-1)
    is_token = np.arange(T)[None] < lengths[:, None]
    np.testing.assert_array_equal(best[is_token], tokens[is_token])
    if width:
        assert len(np.unique(lengths)) > 1 and len(np.unique(tokens, axis=0)) > 3


@pytest.mark.slow
def test_sentences_that_are_drawn_come_as_often_as_their_probability_says():
    """20,000 draws, every count within 5 standard errors."""
    model, params = made(LM, max_length=3)
    params = jax.tree.map(lambda a: 0.5 * a, params)
    count = 20_000
    draw = jax.jit(lambda p, k: model.apply({"params": p}, k, count, method="generate"))
    tokens = np.asarray(draw(params, KEY))
    rows, counts = np.unique(tokens, axis=0, return_counts=True)
    given = call(model, params, "as_batch", rows)
    z = np.zeros((len(rows), 0), "f4")
    p = np.exp(np.asarray(log_prob(model, params, z, given), np.float64))
    error = np.sqrt(count * p * (1 - p))
    np.testing.assert_array_less(np.abs(counts - count * p), 5 * error + 1e-9)
    assert len(rows) > 20 and 0.99 < p.sum() <= 1.0 + 1e-6


@both
def test_a_sentence_is_the_same_however_many_are_made_with_it(fields):
    model, params = made(fields)
    each = jax.random.split(KEY, 6)
    draw = functools.partial(model.apply, {"params": params}, method="generate")
    draw = jax.jit(draw, static_argnums=1)
    six = np.asarray(draw(each, 6))
    np.testing.assert_array_equal(draw(each[2:4], 2), six[2:4])
    assert len(np.unique(six, axis=0)) > 1


def test_a_nucleus_holds_the_likeliest_tokens_of_that_probability():
    p = [[0.5, 0.1, 0.3, 0.1], [0.97, 0.01, 0.01, 0.01], [0.5, 0.25, 0.125, 0.125]]
    logits = np.log(np.array(p, "f4"))
    wanted = {
        0.4: [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]],
        0.6: [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]],
        0.75: [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]],  # of the last exactly
        1.0: [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
        0.0: [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]],
    }
    found = jax.jit(lambda x: {top_p: nucleus(x, top_p) for top_p in wanted})(logits)
    for top_p, kept in wanted.items():
        np.testing.assert_array_equal(np.isfinite(found[top_p]), np.array(kept, bool))


def test_dropout_acts_in_training_alone_and_every_sentence_has_its_own():
    model, params = made(VAE, dropout=0.5)
    still, _ = made(VAE)
    given = batch()
    assert model.has_dropout and not still.has_dropout
    without, _ = loss_of(still, params, given)
    drawn, _ = loss_of(model, params, given)
    assert abs(drawn - without) > 1e-3
    # evaluation draws z with other keys than a loss that deals out keys for dropout
    found = bound(model, params, given)["elbo"].mean()
    np.testing.assert_allclose(-found, without, rtol=1e-5)
    evaluated, _ = loss_of(model, params, given, train=False)
    np.testing.assert_allclose(evaluated, without, rtol=1e-5)
    # a loss is the mean of those of its rows, each with its own key
    loss = losses.build("elbo", model)

    @jax.vmap
    def losses_of_rows(key, row):
        row = {name: value[None] for name, value in row.items()}
        return loss(params, {}, key[None], row, {})[0]

    rows = jax.jit(losses_of_rows)(jax.random.split(KEY, B), given)
    np.testing.assert_allclose(drawn, np.asarray(rows).mean(), rtol=1e-5)


def test_a_decoder_without_its_latents_scores_like_one_that_never_had_any():
    """With a posterior that is the prior the bound is that of the decoder at draws."""
    model, params = made(VAE)
    zero = jax.tree.map(np.zeros_like, params["posterior_head"])
    _, metrics = loss_of(model, {**params, "posterior_head": zero}, batch())
    assert metrics["kl"] == 0.0


def test_perplexity_counts_ends_and_every_sentence_once():
    """L37: exp of the sum of the NLL over the sum of the lengths."""
    log_p, lengths = np.array([-3.0, -10.0, -2.5]), np.array([2, 4, 1])
    found = per_token(log_p, lengths, num_samples=1)
    assert found.mean == pytest.approx(15.5 / 7)
    residuals = -log_p - found.mean * lengths
    error = residuals.std(ddof=1) / math.sqrt(3) / lengths.mean()
    assert found.standard_error == pytest.approx(error)
    # a language model of equal tokens has their number as perplexity
    model, params = made(LM)
    params = jax.tree.map(np.zeros_like, params)
    given = batch(40)
    log_p = bound(model, params, given)["elbo"]
    assert math.exp(per_token(log_p, given["length"], 1).mean) == pytest.approx(V)


def test_the_error_of_a_perplexity_is_that_of_many_repetitions():
    draws = np.random.default_rng(0)
    lengths = draws.integers(1, 30, (2000, 200))
    nll = 1.5 * lengths + draws.normal(0.0, 3.0, lengths.shape) * np.sqrt(lengths)
    found = [per_token(-a, b, 1) for a, b in zip(nll, lengths, strict=True)]
    spread = np.std([each.mean for each in found])
    errors = np.mean([each.standard_error for each in found])
    assert errors == pytest.approx(spread, rel=0.1)


def test_tokens_of_a_verse_are_independent_given_its_code():
    model, params = made(VERSES)
    given = batch()
    z = np.random.default_rng(3).standard_normal((B, D)).astype("f4")
    logits = call(model, params, "likelihood", z, given).logits
    changed = {**given, "tokens": (given["tokens"] + 1) % V}
    again = call(model, params, "likelihood", z, changed).logits
    np.testing.assert_array_equal(again, logits)
    tokens = call(model, params, "decode", z)
    lengths = call(model, params, "as_batch", tokens)["length"]
    best = call(model, params, "logits", z).argmax(-1)
    for row, wanted, length in zip(tokens, best, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], wanted[:length])
        assert not row[length:].any()
    assert len(np.unique(tokens, axis=0)) > 1


def test_verses_are_drawn_by_their_probability():
    """The first token of 20,000 draws at one code, within 5 standard errors."""
    model, params = made(VERSES)
    z = np.ones((20_000, D), "f4")
    tokens = call(model, params, "write", z, jax.random.split(KEY, 20_000))
    p = scipy.special.softmax(call(model, params, "logits", z[:1])[0, 0])
    counts = np.bincount(tokens[:, 0], minlength=V)
    error = np.sqrt(20_000 * p * (1 - p))
    np.testing.assert_array_less(np.abs(counts - 20_000 * p), 5 * error + 1e-9)


def test_a_verse_longer_than_the_model_writes_is_refused():
    model, params = made(VERSES, max_length=13)
    with pytest.raises(ConfigError, match="max_length must be at least the data's 14"):
        call(model, params, "likelihood", np.zeros((B, D), "f4"), batch(width=14))


def test_the_verse_model_has_the_parameters_of_the_post():
    """Two convolutions of 3 x 64 to 128, two heads of 64, 10 places of 64, one more."""
    fields = {"vocabulary_size": 100, "latent_dim": 64, "max_length": 10}
    model = models.build("poetry_vae", **fields)
    shapes = jax.eval_shape(model.init, KEY, batch(), KEY)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    convolution = 3 * 64 * 128
    encoder = 100 * 64 + 2 * convolution + 65 * 128
    assert count == encoder + 65 * 640 + convolution + 65 * 100


def test_parameters_are_those_that_the_architecture_says():
    model = models.build("text_vae", vocabulary_size=100, latent_dim=32, hidden=128)
    shapes = jax.eval_shape(model.init, KEY, batch(), KEY)["params"]
    embeddings, lstm = 2 * 100 * 128, 128 * 512 + 512 + 128 * 512
    encoder = lstm + 128 * 64
    decoder = lstm + 32 * 512 + 32 * 128 + 128 * 100
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == embeddings + encoder + decoder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**VAE, "latent_dim": 0}, "model.latent_dim must be at least 1, got 0"),
        ({**VAE, "hidden": 0}, "model.hidden must be at least 1, got 0"),
        ({**LM, "vocabulary_size": 2}, "model.vocabulary_size must be at least 3"),
        ({**VERSES, "max_length": 0}, "model.max_length must be at least 1, got 0"),
        ({**LM, "dropout": 1.0}, "model.dropout must be within [0, 1), got 1.0"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ConfigError) as error:
        models.build(**fields)
    assert message in str(error.value)
