"""What is exported computes what the model does, without it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jvae import models
from jvae.commands import export
from jvae.data import transforms
from jvae.data.vocabulary import Vocabulary
from jvae.errors import ConfigError, WorkdirError
from jvae.pretrained import samples
from jvae.pretrained.restore import Pretrained
from jvae.runtime import mesh
from tests.perturbed import perturbed
from tests.systems.test_every_system import SYSTEMS
from tests.tiers import others_slow

NAMES = ("plain", "conditional", "conv", "discrete", "sphere", "mixture", "bottleneck")
NAMES += ("infomax", "text", "language", "glow", "fvae", "flow", "nvae")
WITHOUT = {"infomax": {"decode", "sample"}, "bottleneck": {"decode", "sample"}}
KEY = jax.random.key(0)


def restored(name):
    """A model that was never trained, as if it had been restored."""
    config = {"batch_norm": True} if name == "conv" else {}
    config |= SYSTEMS[name][0]
    vocabulary = None
    if name in ("text", "language"):
        vocabulary = Vocabulary(("</s>", "<unk>", *(f"w{i}" for i in range(6))))
        config["vocabulary_size"] = len(vocabulary.words)
    model = models.build(**config)
    batch = inputs(model, vocabulary, 2)
    if "num_classes" in config:
        batch["label"] = np.zeros(2, np.int32)
    variables = dict(jax.jit(model.init)(KEY, batch, KEY))
    params = perturbed(variables.pop("params"), 0.05)
    transform = transforms.build("binarize", 8)
    about = {"config": {"model": config}, "step": 3, "vocabulary": vocabulary}
    return Pretrained(model, params, variables, transform, mesh.build(), **about)


def inputs(model, vocabulary, n):
    rng = np.random.default_rng(1)
    if vocabulary is not None:
        shape = (n, model.max_length)
        tokens = rng.integers(1, 8, shape).astype("int32")
        return {"tokens": tokens, "length": np.full(n, shape[1], "int32")}
    return {"image": rng.integers(0, 2, (n, *model.image_shape)).astype("float32")}


def read(folder):
    """(nested arrays, functions by name), by safetensors and jax.export alone."""
    tree = {}
    arrays = safetensors.numpy.load_file(folder / export.VARIABLES)
    for name, array in arrays.items():
        *path, leaf = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = array
    about = json.loads((folder / export.ABOUT).read_text())
    calls = {}
    for name, described in about["functions"].items():
        blob = (folder / described["file"]).read_bytes()
        calls[name] = jax.export.deserialize(bytearray(blob)).call
    return tree, calls, about


def called(model, method, *args):
    """The method's result, compiled as one program; whole numbers are part of it."""
    static = tuple(i for i, a in enumerate(args) if isinstance(a, int))
    variables = {"params": model.params, **model.state}
    call = jax.jit(
        lambda *args: model.model.apply(variables, *args, method=method),
        static_argnums=static,
    )
    return call(*args)


@pytest.mark.parametrize("name", others_slow(NAMES, "plain"))
def test_functions_of_the_arrays_are_those_of_the_model(name, tmp_path):
    model = restored(name)
    export.export(model, tmp_path)
    tree, calls, about = read(tmp_path)
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    for file, digest in about["sha256"].items():
        assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == digest
    variables = {"params": model.params, **model.state}
    jax.tree.map(np.testing.assert_array_equal, tree, variables)
    wanted = {"sample"} if name == "language" else {"encode", "decode", "sample"}
    wanted -= {"infomax": {"decode", "sample"}, "bottleneck": {"decode", "sample"}}.get(
        name, set()
    )
    wanted |= {"classify"} if name == "bottleneck" else set()
    assert set(calls) == wanted
    for n in (2, 3):
        x, *_ = inputs(model.model, model.vocabulary, n).values()
        if "encode" in calls:
            code = calls["encode"](tree, x)
            found = model.run(samples.code_of, x)
            for a, b in zip(*map(jax.tree.leaves, (code, found)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        if "decode" in calls:
            images = calls["decode"](tree, code)
            again = called(model, "decode", found)
            np.testing.assert_allclose(images, again, rtol=1e-4, atol=1e-5)
        if "classify" in calls:
            probs = calls["classify"](tree, x)
            np.testing.assert_allclose(probs, model.classify(x), rtol=1e-4, atol=1e-6)
        if "sample" in calls:
            keys = jax.random.split(jax.random.key(n), n)
            label = (np.arange(n, dtype=np.int32),) if name == "conditional" else ()
            drawn = calls["sample"](tree, keys, np.float32(0.8), *label)
            made = called(model, "generate", keys, n, 0.8, *label)
            np.testing.assert_allclose(drawn, made, rtol=1e-4, atol=1e-5)


ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "plain_jax.ipynb"


def code_of(page):
    """Code of a notebook's cells or of a page's blocks."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [NOTEBOOK, ROOT / "docs" / "export.md"], ids=("notebook", "docs")
)
def test_pages_run_without_jvae(page, tmp_path):
    """The same folder, read by a program that cannot import this project."""
    export.export(restored("plain"), tmp_path / "exported")
    blocked = "import sys; sys.modules['jvae'] = None\n"
    blocked += "import matplotlib; matplotlib.use('Agg')\n"
    ended = "assert images.shape[1:] == (8, 8, 1) and len(images) in (16, 20)\n"
    program = blocked + "\n".join([*code_of(page), ended])
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_folder_with_files_and_unknown_platforms_are_refused(tmp_path):
    model = restored("plain")
    with pytest.raises(ConfigError, match=r"platforms must be of .*, got \['rocket'\]"):
        export.export(model, tmp_path / "new", ["cpu", "rocket"])
    (tmp_path / "mine").write_text("")
    with pytest.raises(WorkdirError, match="is not empty .*Name a new folder"):
        export.export(model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ConfigError, match=r"safetensors.* is missing. pip install"):
        export.export(restored("plain"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_a_run_and_says_what(trained, tmp_path, capsys):
    out = tmp_path / "out"
    export.command([str(trained), str(out), "--platforms=cpu", "--step=last"])
    assert f"step 12 in {out}: arrays and encode, decode" in capsys.readouterr().out
    _, calls, about = read(out)
    assert about["platforms"] == ["cpu"] and set(calls) == {
        "encode",
        "decode",
        "sample",
    }
    with pytest.raises(ConfigError, match="WORKDIR and OUT are missing"):
        export.command([str(trained)])
    with pytest.raises(SystemExit):
        export.command(["--help"])
    assert "--platforms" in capsys.readouterr().out
