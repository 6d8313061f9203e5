"""What benchmarks/results/scaling.json would mean on hardware that is not here.

A model, not a measurement; its assumptions are the constants of this file, and
docs/performance.md shows what it prints.

    python -m benchmarks.predicted
"""

import argparse
import dataclasses
import json
import math
import sys

from benchmarks import machine

UTILISATION = 0.35
"""Of the peak, what matrix products and convolutions reach: assumed."""
UPDATE_BYTES = 36
"""Read and written for a parameter in an update: float32 gradient, parameter, two
moments and average, all but the gradient twice."""


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A kind of device and what connects them.

    Attributes:
      name: for the table.
      peak: operations/s of bfloat16 products.
      memory: bytes/s of a device's memory.
      near: bytes/s that a device sends to `near_devices` that are close together.
      far: bytes/s that it sends where more take part.
      near_devices: how many are close together.
      is_torus: whether messages pass devices on the way, along two axes.
      hop: seconds of a message to the next device, or through the network.
    """

    name: str
    peak: float
    memory: float
    near: float
    far: float
    near_devices: int
    is_torus: bool
    hop: float

    def latency(self, devices: int) -> float:
        """Returns the seconds that a collective takes however small it is."""
        steps = 4 * math.sqrt(devices) if self.is_torus else 2 * math.log2(devices)
        return self.hop * steps


# https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 819 GB/s, 400 GB/s over the links
# of a chip, both directions together; a ring uses one axis of the torus, half of them.
TPU = Hardware("TPU v5e", 197e12, 819e9, 100e9, 100e9, 256, True, 1e-6)
# NVIDIA H100 SXM data sheet: 989 TFLOP/s without sparsity, 3.35 TB/s, NVLink 900 GB/s,
# both directions together; between nodes of eight 400 Gbit/s InfiniBand for each GPU.
GPU = Hardware("H100", 989e12, 3.35e12, 450e9, 50e9, 8, False, 5e-6)


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of a training step, by what takes them."""

    compute: float
    update: float
    exchange: float

    @property
    def most(self) -> float:
        """If nothing overlaps."""
        return self.compute + self.update + self.exchange

    @property
    def least(self) -> float:
        """If the exchange is hidden behind the computation."""
        return max(self.compute, self.exchange) + self.update


def predicted(row: dict, hardware: Hardware) -> Step:
    """Returns the step of a row of scaling.json on some hardware."""
    exchange = sum(
        sent / (hardware.near if int(size) <= hardware.near_devices else hardware.far)
        for size, sent in row["sent_bytes_by_group_size"].items()
    )
    number = sum(kind["number"] for kind in row["collectives"].values())
    exchange += number * hardware.latency(row["devices"])
    return Step(
        row["matrix_flops_per_device"] / (hardware.peak * UTILISATION),
        UPDATE_BYTES * row["parameters"] / row["split"] / hardware.memory,
        exchange,
    )


def table(rows: list[dict]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = ["| run | devices | split | sent, MiB | collectives | "]
    lines[0] += " | ".join(f"{h.name}, ms | images/s" for h in (TPU, GPU)) + " |"
    lines.append("| --- " * 9 + "|")
    for row in rows:
        sent = sum(kind["sent_bytes"] for kind in row["collectives"].values())
        number = sum(kind["number"] for kind in row["collectives"].values())
        cells = [row["run"], row["devices"], row["split"], f"{sent / 2**20:,.1f}"]
        cells.append(f"{number:,}")
        for hardware in (TPU, GPU):
            step = predicted(row, hardware)
            images = row["rows_per_device"] * row["devices"] / step.most
            cells += [
                f"{1e3 * step.least:.2f} - {1e3 * step.most:.2f}",
                f"{images:,.0f}",
            ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = json.loads((machine.RESULTS / "scaling.json").read_text())["rows"]
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
