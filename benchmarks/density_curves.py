"""Draws bits per dimension of held-out images over time, of runs side by side.

    python benchmarks/density_curves.py --out=docs/images/flows_digits.png \
        VAE=runs/vae0,runs/vae1 Glow=runs/glow0,runs/glow1 f-VAE=runs/fvae0,runs/fvae1

A line for each run, one colour and dash for each name; prints a row for each run. Bits
are those of pixel levels: of a VAE and an f-VAE a bound from one draw, of a Glow one
from one draw of the noise within a level.
"""

import argparse
import itertools
import json
import math
from pathlib import Path


def curve(workdir):
    """Returns (steps, seconds, bits a dimension) of the validation images of a run."""
    config = json.loads((Path(workdir) / "config.json").read_text())
    data, dims = config["data"], math.prod(config["model"]["image_shape"])
    # A density of images divided by 2^b is one of levels after a shift of b bits.
    shift = data["num_bits"] if data["transform"] == "dequantize" else 0
    text = (Path(workdir) / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    seconds = {r["step"]: r["seconds"] for r in rows if r["split"] == "train"}
    held_out = [r for r in rows if r["split"] == "validation" and r["step"] in seconds]
    steps = [r["step"] for r in held_out]
    bits = [-r["elbo"] / (dims * math.log(2.0)) + shift for r in held_out]
    # Of the fastest interval, so that pauses, stops and other work do not count.
    each = min(
        (seconds[b] - seconds[a]) / (b - a)
        for a, b in itertools.pairwise(sorted(seconds))
        if seconds[b] > seconds[a]
    )
    return steps, [s * each for s in steps], bits


def draw(named, out):
    """Draws bits over minutes, and over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    styles = ("-", "--", ":", "-.")
    for number, (name, curves) in enumerate(named.items()):
        for k, (steps, seconds, bits) in enumerate(curves):
            look = {
                "color": f"C{number}",
                "linestyle": styles[number % 4],
                "label": name if k == 0 else None,
            }
            left.plot([s / 60 for s in seconds], bits, **look)
            right.plot(steps, bits, **look)
    left.set(
        xlabel="minutes, at the speed of the fastest interval",
        ylabel="bits per dimension, validation",
    )
    right.set(xlabel="steps")
    best = [min(bits) for curves in named.values() for *_, bits in curves]
    left.set_ylim(min(best) - 0.05, max(best) + 1.0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR,WORKDIR")
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    named = {}
    for argument in flags.runs:
        name, _, workdirs = argument.partition("=")
        named[name] = [curve(workdir) for workdir in workdirs.split(",")]
    for name, curves in named.items():
        for steps, seconds, bits in curves:
            each = seconds[-1] / steps[-1]
            best = min(range(len(bits)), key=bits.__getitem__)
            when = f"step {steps[best]}, {seconds[best] / 60:.1f} minutes"
            print(
                f"{name:8} {each:.4f} s/step; bits best {bits[best]:.3f} at {when}; "
                f"last {bits[-1]:.3f}"
            )
    draw(named, flags.out)


if __name__ == "__main__":
    main()
