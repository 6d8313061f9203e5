"""A file imports from lower layers only; a package may import within itself.

The layers are those of the table in docs/architecture.md.
"""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jvae
from tests.runs import TIMEOUT

ROOT = Path(__file__).parent.parent
TABLE = re.search(
    r"^## Layers$(.*?)^## ", (ROOT / "docs/architecture.md").read_text(), re.M | re.S
)
LAYERS = [
    re.findall(r"`(\w+)`", row)
    for row in re.findall(r"^\| \d+ \| (.+) \|$", TABLE.group(1), re.M)
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
LAZY = {"pretrained"}
"""What `jvae` itself imports, when it is asked for: `jvae.restore`."""
FILES = sorted((ROOT / "jvae").rglob("*.py"))


def unit(path):
    """Returns what `path` belongs to: a single file of jvae/ or a whole package."""
    return Path(*path.relative_to(ROOT / "jvae").parts[:1]).stem


UNITS = {unit(path) for path in FILES}


def imported(path):
    """Returns the units of jvae that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = "jvae." * bool(node.level) + (node.module or "")
            names |= {f"{parent}.{alias.name}" for alias in node.names}
    inside = {name.split(".")[1] for name in names if re.match(r"jvae\.\w", name)}
    return inside & UNITS


# Read before any test runs: CPython's parser fails when the garbage collector, called
# within it, logs the traceback of an asyncio future, which parses source as well.
IMPORTED = {path: imported(path) for path in FILES}


def forbidden(importer, units):
    """Returns those of `units` that a file of the unit `importer` must not import.

    The files of layer 0 are the words of all others and may use each other.
    """
    limit = max(LAYER_OF[importer], 1)
    return sorted(u for u in units if u != importer and LAYER_OF[u] >= limit)


def test_every_module_has_a_layer():
    found = {unit(path) for path in FILES} - {"__init__"}
    where = "in the table of docs/architecture.md"
    assert sorted(found - set(LAYER_OF)) == [], f"give these a layer {where}"
    assert sorted(set(LAYER_OF) - found) == [], f"no such modules, but {where}"
    assert len(LAYER_OF) == sum(map(len, LAYERS)), f"a module has two layers {where}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_from_lower_layers_only(path):
    if unit(path) == "__init__":
        assert IMPORTED[path] == LAZY
        return
    assert forbidden(unit(path), IMPORTED[path]) == []


def test_losses_and_models_meet_in_the_contract_alone():
    for path, units in IMPORTED.items():
        if unit(path) in ("losses", "models"):
            other = {"losses": "models", "models": "losses"}[unit(path)]
            assert other not in units, path


def test_the_rule_notices_an_import_from_above(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import jvae.models.vae\n"
        "from jvae import keys, losses as l\n"
        "def late():\n    from jvae.training.train_step import TrainState\n"
    )
    assert imported(file) == {"models", "keys", "losses", "training"}
    assert forbidden("losses", imported(file)) == ["models", "training"]
    assert forbidden("registry", {"errors", "layers"}) == ["layers"]


def test_losses_and_models_need_jax_and_flax_alone():
    """Neither a data library nor a plotting one is imported on the way."""
    heavy = "grain tensorflow tensorflow_datasets sklearn matplotlib ml_collections"
    heavy += " tqdm tensorboard PIL jinja2"
    code = (
        "import sys, jvae, jvae.losses, jvae.models;"
        f"print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_no_name_of_a_package_hides_a_package_within():
    """A function `nvae` of jvae.models did: nothing below could be imported by `as`."""
    for file in FILES:
        if file.name == "__init__.py" and file.parent != ROOT / "jvae":
            name = ".".join(file.parent.relative_to(ROOT).parts)
            module = importlib.import_module(name)
            assert functools.reduce(getattr, name.split(".")[1:], jvae) is module
