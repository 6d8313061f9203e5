"""What a result was measured on, and where it is written."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

from jvae.runtime import huge_pages

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, str | int | None]:
    """Returns the machine, its settings and the versions a figure depends on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if "model name" in x]
        processor = models[0].partition(":")[2].strip() if models else processor
    versions = {}
    for name in ("jax", "flax", "numpy", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "pages": os.environ.get(huge_pages.VARIABLE),
        "python": platform.python_version(),
        **versions,
    }


def write(name: str, result: dict) -> None:
    """Writes benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe(), **result}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)
