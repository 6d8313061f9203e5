"""Draws accuracy and what is known of y over the rate, from a sweep over beta.

python benchmarks/rate_accuracy.py SWEEP CONTROL

SWEEP is the folder of `jvae sweep ... --set loss.beta=...` of a classifier,
CONTROL that of the same classifier without noise. Prints the differences between the
two, seed by seed, and writes docs/images/bottleneck.png.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "bottleneck.png"


def by_seed(folder):
    """Returns {metric: {beta or None: [seeds] values}} of a sweep's table."""
    found = {}
    for row in json.loads((Path(folder) / "table.json").read_text())["rows"]:
        beta = row["values"].get("loss.beta")
        values = [row["by_seed"][seed] for seed in sorted(row["by_seed"], key=int)]
        found.setdefault(row["metric"], {})[beta] = np.array(values)
    return found


def compare(sweep, control):
    """Prints accuracies in percent, and their differences from the control."""
    alone = 100 * control["accuracy"][None]
    print(f"control: {alone.mean():.2f} (sd {alone.std(ddof=1):.2f})")
    for beta, accuracy in sorted(sweep["accuracy"].items()):
        mean, draws = 100 * accuracy, 100 * sweep["accuracy_of_draws"][beta]
        gain = mean - alone
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        print(
            f"beta {beta:g}: {mean.mean():.2f} (sd {mean.std(ddof=1):.2f}), of draws "
            f"{draws.mean():.2f}, less the control {gain.mean():+.2f} +- {error:.2f}; "
            f"rate {sweep['rate'][beta].mean():.4g} nats, known of y "
            f"{sweep['label_information'][beta].mean():.3f} nats"
        )


def draw(sweep, control, path=IMAGE):
    """Draws the two curves; every point is the median of its seeds, bars quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    betas = sorted(beta for beta in sweep["rate"] if beta < 10)
    rates = [np.median(sweep["rate"][beta]) for beta in betas]

    def curve(axes, name, scale, label, style):
        low, middle, high = np.array(
            [np.quantile(scale * sweep[name][b], (0.25, 0.5, 0.75)) for b in betas]
        ).T
        bars = (middle - low, high - middle)
        axes.errorbar(rates, middle, bars, fmt=style, capsize=2, label=label)
        return middle

    means = curve(left, "accuracy", 100, "at the mean of q(z|x)", "o-")
    curve(left, "accuracy_of_draws", 100, "averaged over 12 draws", "s--")
    for beta, rate, mean in zip(betas, rates, means, strict=True):
        place = {"textcoords": "offset points", "xytext": (0, 7), "ha": "center"}
        left.annotate(f"{beta:g}", (rate, mean), fontsize=8, **place)
    alone = 100 * np.median(control["accuracy"][None])
    left.axhline(alone, color="black", linewidth=0.8, label="control, no noise")
    left.set(ylabel="accuracy, %", ylim=(84, 92), title="Test accuracy, by beta")
    left.legend(fontsize=8, loc="lower right")

    curve(right, "label_information", 1, "H(y) - E[-log p(y|z)]", "o-")
    line = np.geomspace(min(rates), max(rates), 200)
    right.plot(line, line, ":", color="gray", label="the rate itself")
    right.axhline(math.log(10), color="black", linewidth=0.8, label="H(y) = log 10")
    right.set(ylabel="nats", ylim=(-0.1, 2.6), title="Known of y")
    right.legend(fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="rate E KL(q(z|x) || p(z)), nats")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sweep, control = map(by_seed, sys.argv[1:])
    compare(sweep, control)
    draw(sweep, control)
    print(f"wrote {IMAGE.name}")


if __name__ == "__main__":
    main()
