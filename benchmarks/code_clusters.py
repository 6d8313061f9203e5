"""Clusters of the codes of trained VAEs, found afterwards: k-means and a graph.

python benchmarks/code_clusters.py runs/vade/0 runs/vade/1 --clusters=10

Of the means of q(z|x) of the first test images of each workdir: k-means (best of five
starts), and spectral clustering of the graph of 20 nearest neighbours. Both see the
test images, no labels; labels only score them.
"""

from __future__ import annotations

import argparse
import statistics

import jax
import numpy as np
import sklearn.cluster

import jvae
from jvae.data import datasets
from jvae.evaluation import clustering
from jvae.evaluation.probes import means_of

NAMES = ("majority vote", "Hungarian", "NMI", "ARI")


def scores(labels: np.ndarray, clusters: np.ndarray) -> tuple[float, ...]:
    """Returns the four numbers, in the order of `NAMES`."""
    return (
        clustering.majority_accuracy(labels, clusters),
        clustering.matched_accuracy(labels, clusters),
        clustering.normalized_mutual_info(labels, clusters),
        clustering.adjusted_rand_index(labels, clusters),
    )


def found(z: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the clusters of codes [N, D] by each method."""
    graph = sklearn.cluster.SpectralClustering(
        count, affinity="nearest_neighbors", n_neighbors=20, random_state=seed
    )
    means = sklearn.cluster.KMeans(count, n_init=5, random_state=seed)
    return {"k-means": means.fit_predict(z), "spectral": graph.fit_predict(z)}


def main() -> None:
    """Prints a line for each workdir and method, then medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--examples", type=int, default=10_000)
    flags = parser.parse_args()
    rows: dict[str, list[tuple[float, ...]]] = {"k-means": [], "spectral": []}
    for seed, workdir in enumerate(flags.workdirs):
        model = jvae.restore(workdir)
        test = datasets.load_split(model.config["data"], "test")
        count = min(flags.examples, len(test))
        codes = model.map_examples(
            means_of,
            test,
            batch_size=250,
            key=jax.random.key(0),
            num_examples=count,
        )
        for method, clusters in found(codes["code"], flags.clusters, seed).items():
            row = scores(codes["label"], clusters)
            rows[method].append(row)
            print(workdir, method, *(f"{value:.3f}" for value in row), flush=True)
    print("medians:", *NAMES, sep="  ")
    for method, found_rows in rows.items():
        columns = zip(*found_rows, strict=True)
        print(method, *(f"{statistics.median(c):.3f}" for c in columns))


if __name__ == "__main__":
    main()
