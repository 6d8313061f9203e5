"""The explorer: what one point costs on the server, and over HTTP.

    pip install -e '.[app]'
    python -m benchmarks.explorer WORKDIR [--points 200]

Points are drawn at random; each is decoded and drawn as PNG, then asked for as a page
asks when a slider moves (the map with its ring comes back too), one after another.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request

import numpy as np

from benchmarks import machine
from jvae.commands.explore.explorer import Explorer
from jvae.data import datasets
from jvae.pretrained import image_grid
from jvae.pretrained.restore import restore

MOST_MS = 50.0
"""Of a point on the server, the convolutional VAE of Fashion-MNIST."""


def median_ms(ask, requests):
    """Returns the median time of ask(request) in milliseconds, warmed up."""
    ask(requests[0])
    taken = []
    for request in requests:
        began = time.perf_counter()
        ask(request)
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken)


def on_the_server(workdir, points):
    """Returns the median time to decode a point and draw it."""
    model = restore(workdir)
    explorer = Explorer.of(
        model, datasets.load_split(model.config["data"], "test"), 500
    )
    rng = np.random.default_rng(0)
    size = explorer.latents.means.shape[1]
    codes = rng.normal(size=(points, size)).astype(np.float32)
    return median_ms(lambda z: image_grid.encode_png(explorer.decoded(z).sheet), codes)


def over_http(workdir, points):
    """Returns the median time from a slider's request to its answer."""
    command = [
        sys.executable,
        "-m",
        "jvae",
        "explore",
        workdir,
        "--port=0",
        "--no_browser",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline())[0]
        with urllib.request.urlopen(f"{url}/config") as answer:
            config = json.load(answer)
        kinds = {c["id"]: c["type"] for c in config["components"]}
        event = next(
            d for d in config["dependencies"] if kinds[d["targets"][0][0]] == "slider"
        )
        rest = [0.5] * (len(event["inputs"]) - 2)

        def ask(value):
            body = {"fn_index": event["id"], "data": [None, value, *rest]}
            body = json.dumps(body | {"session_hash": "benchmark"}).encode()
            headers = {"Content-Type": "application/json"}
            address = f"{url}/gradio_api/run/predict"
            request = urllib.request.Request(address, body, headers)
            with urllib.request.urlopen(request) as answer:
                answer.read()

        values = np.random.default_rng(1).uniform(-2.0, 2.0, points)
        return median_ms(ask, [round(float(v), 2) for v in values])
    finally:
        server.terminate()
        server.wait()


def main():
    """Prints the medians; fails if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir")
    parser.add_argument("--points", type=int, default=200)
    flags = parser.parse_args()
    decoded = on_the_server(flags.workdir, flags.points)
    answered = over_http(flags.workdir, flags.points)
    print(f"a point decoded and drawn: {decoded:.1f} ms (at most {MOST_MS:g})")
    print(f"a slider's request answered over HTTP: {answered:.1f} ms")
    result = {"decode_ms": decoded, "http_ms": answered, "limit": MOST_MS}
    machine.write("explorer", result | {"points": flags.points})
    return 0 if decoded <= MOST_MS else 1


if __name__ == "__main__":
    sys.exit(main())
