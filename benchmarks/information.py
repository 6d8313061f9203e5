"""What the two halves of a VAE's loss do to the information between x and z.

A toy of four values of x and of z, where every term is a sum of a few numbers:

    python benchmarks/information.py

prints the terms and writes docs/images/information.png, see docs/information.md.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "information.png"
WEIGHTS = (0.5, 0.9, 1.0, 1.1, 2.0)
STEPS = 3000


def kl(p, q):
    """Returns sum p log(p / q) over the last axis, in nats; 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0.0).sum(-1)


def terms(data, encoder, prior, decoder):
    """Returns every term of docs/information.md, each from its own definition.

    Args:
      data: [X], p~(x).
      encoder: [X, Z], q(z|x).
      prior: [Z], p(z).
      decoder: [Z, X], p(x|z).

    Returns:
      Numbers in nats: 'joint_kl', 'rate', 'mutual_info', 'marginal_kl',
      'distortion', 'entropy' and 'decoder_gap'.
    """
    joint = data[:, None] * encoder
    aggregate = joint.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_decoder = np.where(joint > 0, np.log(decoder.T), 0.0)
    return {
        "joint_kl": kl(joint.ravel(), (prior[:, None] * decoder).T.ravel()),
        "rate": data @ kl(encoder, prior),
        "mutual_info": kl(joint.ravel(), np.outer(data, aggregate).ravel()),
        "marginal_kl": kl(aggregate, prior),
        "distortion": -(joint * log_decoder).sum(),
        "entropy": -kl(data, np.ones_like(data)),
        "decoder_gap": aggregate @ kl(perfect_decoder(data, encoder), decoder),
    }


def perfect_decoder(data, encoder):
    """Returns [Z, X], q(x|z) by Bayes' rule: what an unlimited decoder learns."""
    joint = (data[:, None] * encoder).T
    aggregate = joint.sum(1, keepdims=True)
    # A z that never comes may be decoded to anything.
    return np.where(aggregate > 0, joint / np.where(aggregate > 0, aggregate, 1), data)


def channel(size, noise):
    """Returns [size, size]: z is x, or with probability `noise` any value at all."""
    return (1 - noise) * np.eye(size) + noise / size


def weighted_loss(logits, data, prior, weight):
    """Returns (distortion + weight * rate, mutual_info) with the perfect decoder."""
    encoder = jax.nn.softmax(logits)
    aggregate = data @ encoder
    information = data @ (encoder * jnp.log(encoder / aggregate[None, :])).sum(-1)
    rate = data @ (encoder * jnp.log(encoder / prior[None, :])).sum(-1)
    entropy = -data @ jnp.log(data)
    return entropy - information + weight * rate, information


def descend(weight, steps=STEPS, size=4, seed=0):
    """Returns [steps], the mutual information while gradients change the encoder."""
    data = prior = jnp.full(size, 1 / size)
    start = jax.random.normal(jax.random.key(seed), (size, size))
    gradient = jax.grad(weighted_loss, has_aux=True)

    def step(logits, _):
        slope, information = gradient(logits, data, prior, weight)
        return logits - slope, information

    return np.asarray(jax.jit(lambda x: jax.lax.scan(step, x, length=steps)[1])(start))


def draw(path=IMAGE):
    """Draws what the weights do: along a family of encoders, and by descent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = prior = np.full(4, 0.25)
    encoders = [channel(4, noise) for noise in np.linspace(0, 1, 101)]
    rows = [terms(data, e, prior, perfect_decoder(data, e)) for e in encoders]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    information = found["mutual_info"]
    reconstruction = found["distortion"] - found["entropy"]
    left.plot(information, found["rate"], "--", color="C1", label="KL to the prior")
    label = "reconstruction - H(x)"
    left.plot(information, reconstruction, "--", color="C0", label=label)
    for weight, color in ((0.5, "C2"), (1.0, "black"), (1.5, "C3")):
        total = reconstruction + weight * found["rate"]
        left.plot(information, total, color=color, label=f"sum, weights 1 : {weight:g}")
    left.set(
        xlabel="I(x; z), nats", ylabel="nats", title="Perfect decoder, q(z) = p(z)"
    )
    left.legend(fontsize=8)
    for weight in WEIGHTS:
        right.plot(1 + np.arange(STEPS), descend(weight), label=f"1 : {weight:g}")
    right.axhline(np.log(4), color="gray", linewidth=0.8, linestyle=":")
    title = "Gradient descent from one random encoder"
    right.set(xscale="log", xlabel="step", ylabel="I(x; z), nats", title=title)
    right.legend(fontsize=8, title="weights", loc="center left")
    figure.tight_layout()
    # Without the version of matplotlib, so that the same drawing is the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main():
    data = prior = np.full(4, 0.25)
    for noise in (0.0, 0.5, 1.0):
        encoder = channel(4, noise)
        found = terms(data, encoder, prior, perfect_decoder(data, encoder))
        told = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"noise {noise:g}:  {told}")
    for weight in WEIGHTS:
        trace = descend(weight)
        print(f"weights 1 : {weight:g}  I from {trace[0]:.3f} to {trace[-1]:.3f} nats")
    draw()
    print(f"wrote {IMAGE.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
