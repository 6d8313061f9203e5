"""A sentence VAE that uses its latents is held against exact probabilities."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

import jvae
from jvae.data import build
from jvae.data.datasets import grammar
from jvae.pretrained import likelihood
from tests.runs import train

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_nll_is_near_the_truth_and_not_below_it(tmp_path):
    """Within 2% of the exact mean of -log p of the same sentences, the KL over 1 nat.

    Sentence by sentence, as most of the noise is that of the sentences; an NLL below
    the truth by over 3 standard errors would be no bound. The training is the command,
    whose programs are optimized: those of these tests take three times as long.
    """
    run = train(ROOT / "configs/grammar_bn.py", tmp_path / "run")
    assert run.wait() == 0, run.text
    model, splits = jvae.restore(tmp_path / "run"), build("grammar")
    sentences = splits.vocabulary.decode(splits.test.tokens)
    exact = np.array([-grammar.log_prob(text.split()) for text in sentences])
    key = jax.random.key(0)
    found = -likelihood.evaluate_bounds(
        model,
        splits.test,
        batch_size=200,
        key=key,
        num_samples=200,
        chunk_size=20,
    )["log_p"]
    error = (found - exact).std(ddof=1) / math.sqrt(len(exact))
    assert -3 * error < (found - exact).mean() < 0.02 * exact.mean()
    kl = likelihood.evaluate_elbo(model, splits.test, batch_size=200, key=key)
    assert kl["kl"].mean > 1.0
