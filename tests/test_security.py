"""Nothing that is read runs code: an exploit is planted in each format, and sleeps on.

Those in data sets are in tests/data: pickled objects, headers that lie and zip bombs in
test_npz.py, picture bombs in test_image_files.py, functions named by a data set's
metadata in test_tfds.py.
"""

import ast
import json
import pickle
import shutil
import sys
from pathlib import Path

import jax
import pytest

import jvae
from jvae import import_paths, registry
from jvae.errors import ConfigError, JvaeError
from jvae.pretrained import restore
from jvae.reports.run import evaluate_run
from jvae.training import experiment
from jvae.workdir import metadata

ROOT = Path(jvae.__file__).parent.parent


class Exploit:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A file that is there once code has run: evil.py makes it when it is imported."""
    path = tmp_path / "it ran"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "evil.py").write_text(
        f"open({str(path)!r}, 'w').close()\n"
        "from jvae.models import mlp as Model\n"
        "from jvae.models.likelihoods import LIKELIHOODS\n"
        "from jvae.data.transforms import TRANSFORMS\n"
        "from jvae.data.datasets import DATASETS\n"
        "Likelihood = LIKELIHOODS['bernoulli']\n"
        "Transform = TRANSFORMS['binarize']\n"
        "Data = DATASETS['digits']\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield path
    sys.modules.pop("evil", None)


@pytest.fixture
def stranger(trained, tmp_path):
    """The workdir of somebody else."""
    return shutil.copytree(trained, tmp_path / "stranger")


def change(workdir, path, value):
    """Sets a field of the config wherever the workdir holds it, digests renewed."""

    def set_in(config):
        *sections, name = path.split(".")
        for section in sections:
            config = config.setdefault(section, {})
        config[name] = value

    for file in workdir.glob("*/*/meta/metadata"):
        meta = json.loads(file.read_text())
        set_in(meta["config"])
        meta["digest"] = metadata.digest(meta)
        file.write_text(json.dumps(meta))
    config = json.loads((workdir / "config.json").read_text())
    set_in(config)
    (workdir / "config.json").write_text(json.dumps(config))


USED = {
    "model.name": "evil:Model",
    "model.likelihood": {"name": "evil:Likelihood"},
    "data.transform": "evil:Transform",
}
UNUSED = {
    "data.name": "evil:Data",
    "loss.name": "evil:Model",
    "optimizer.name": "evil:Model",
    "schedules.beta": {"name": "evil:Model"},
    "init_from": "evil:Model",
}
SMALL = {"num_samples": 2, "num_examples": 64, "num_images": 16}


@pytest.mark.parametrize("path", USED)
def test_a_restored_workdir_imports_nothing_unless_it_is_allowed(
    stranger, sentinel, path
):
    change(stranger, path, USED[path])
    for read in (jvae.restore, evaluate_run):
        with pytest.raises(ConfigError, match="is an import path, whose code would"):
            read(stranger)
    assert not sentinel.exists() and "evil" not in sys.modules
    model = jvae.restore(stranger, allow_imports=True)
    assert sentinel.exists()
    assert model.sample(jax.random.key(0), 2).shape == (2, 8, 8, 1)


def test_a_likelihood_may_be_named_without_fields_and_is_not_imported(
    stranger, sentinel
):
    change(stranger, "model.likelihood", "evil:Likelihood")
    with pytest.raises(ConfigError, match="is an import path"):
        jvae.restore(stranger).decode(jax.numpy.zeros((1, 3)))
    assert not sentinel.exists()


def test_what_a_restored_model_does_not_need_is_not_imported(stranger, sentinel):
    for path, value in UNUSED.items():
        change(stranger, path, value)
    model = jvae.restore(stranger)
    model.sample(jax.random.key(0), 2)
    with pytest.raises(ConfigError, match="data.name 'evil:Data' is an import path"):
        evaluate_run(stranger, **SMALL)
    assert not sentinel.exists() and "evil" not in sys.modules


@pytest.mark.slow
def test_what_an_evaluation_does_not_need_is_not_imported(stranger, sentinel):
    for path, value in UNUSED.items():
        change(stranger, path, value)
    change(stranger, "data.name", "digits")
    evaluate_run(stranger, **SMALL)
    assert not sentinel.exists() and "evil" not in sys.modules


@pytest.mark.slow
def test_the_data_of_an_evaluation_are_imported_if_allowed(stranger, sentinel):
    change(stranger, "data.name", "evil:Data")
    evaluate_run(stranger, allow_imports=True, **SMALL)
    assert sentinel.exists()


def test_starting_from_another_run_imports_nothing(tiny, stranger, sentinel, tmp_path):
    for path, value in {**USED, **UNUSED}.items():
        change(stranger, path, value)
    experiment.run(tiny | {"init_from": str(stranger), "num_steps": 0}, tmp_path / "w")
    assert not sentinel.exists() and "evil" not in sys.modules


def test_an_import_that_is_allowed_is_allowed_once(stranger, sentinel, trained):
    """The permission ends with the call, though it fails."""
    change(stranger, "model.name", "evil:NoSuchThing")
    with pytest.raises(ConfigError, match="cannot be imported"):
        jvae.restore(stranger, allow_imports=True)
    sentinel.unlink()
    del sys.modules["evil"]
    with pytest.raises(ConfigError, match="is an import path"):
        restore.restore(stranger)
    assert not sentinel.exists()
    # Nor does the prohibition reach what the caller names himself.
    assert registry.resolve({}, "math:sqrt", "model")(9) == 3


def test_import_paths_of_a_config_are_those_in_any_section():
    config = {
        "model": {"name": "a.b:C", "likelihood": {"name": "d-e:F"}, "hidden": [1]},
        "data": {"name": "npz", "path": "/x:y/z", "transform": "g:h"},
    }
    assert import_paths.named(config) == {"a.b:C", "d-e:F", "g:h"}


def test_only_the_paths_that_the_caller_names_are_followed(stranger, sentinel):
    """As in a sweep, whose own config is the caller's; a checkpoint there is not."""
    change(stranger, "model.name", "evil:Model")
    with pytest.raises(ConfigError, match="is an import path"):
        jvae.restore(stranger, allow_imports=frozenset(("mine:Model",)))
    assert not sentinel.exists() and "evil" not in sys.modules
    with import_paths.allowed(frozenset(("math:sqrt",))):
        assert registry.resolve({}, "math:sqrt", "model")(9) == 3
        with pytest.raises(ConfigError, match="is an import path"):
            registry.resolve({}, "math:cos", "model")


@pytest.mark.slow
def test_files_that_are_dropped_into_a_workdir_are_not_opened(stranger, sentinel, tiny):
    payload = pickle.dumps(Exploit(sentinel))
    script = f"open({str(sentinel)!r}, 'w').close()\n"
    folders = [p for p in (stranger, *stranger.rglob("*")) if p.is_dir()]
    for folder in folders:
        for name in ("model.pkl", "metadata.pickle", "arrays.npy"):
            if not (folder / name).exists():
                (folder / name).write_bytes(payload)
        for name in ("config.py", "__init__.py", "conftest.py"):
            (folder / name).write_text(script)
    jvae.restore(stranger, step="last")
    experiment.run(tiny | {"num_steps": 13}, stranger)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/12/_CHECKPOINT_METADATA",
        "checkpoints/12/commit_success.txt",
        "checkpoints/12/meta/metadata",
        "checkpoints/12/model/_METADATA",
        "checkpoints/12/model/_sharding",
        "checkpoints/12/model/array_metadatas/process_0",
        "checkpoints/12/model/manifest.ocdbt",
        "checkpoints/12/model/d/*",
        "config.json",
        "metrics.jsonl",
        ".lock",
    ],
)
def test_a_pickle_in_place_of_any_file_is_garbage(stranger, sentinel, tiny, name):
    (file,) = stranger.glob(name)
    file.write_bytes(pickle.dumps(Exploit(sentinel)))
    try:
        if name.startswith("checkpoints"):
            jvae.restore(stranger, step=12)
        else:
            experiment.run(tiny, stranger)
    except JvaeError as error:
        assert "\n" not in str(error)
    assert not sentinel.exists()


def test_names_of_classes_in_the_metadata_of_orbax_are_not_imported(stranger, sentinel):
    def planted(value):
        if isinstance(value, dict):
            return {k: planted(v) for k, v in value.items()}
        if isinstance(value, list):
            return [planted(v) for v in value]
        return "evil.Model" if isinstance(value, str) and "." in value else value

    changed = 0
    for name in ("_CHECKPOINT_METADATA", "_METADATA", "_sharding"):
        for file in stranger.glob(f"*/*/**/{name}"):
            before = file.read_text()
            file.write_text(json.dumps(planted(json.loads(before))))
            changed += "evil" in file.read_text()
    assert changed > 0
    try:
        jvae.restore(stranger)
    except JvaeError as error:
        assert "\n" not in str(error)
    assert not sentinel.exists() and "evil" not in sys.modules


# The source

MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "exec_module"}
CALLS |= {"import_module", "resolve_name", "unsafe_load", "loads_pickle", "read_pickle"}
EXCEPTIONS = {
    (
        "jvae/training/config_files.py",
        "exec_module",
    ): "the config file of a run is Python by design",
    ("jvae/commands/main.py", "import_module"): "names that are in our own source",
    (
        "jvae/import_paths.py",
        "import_module",
    ): "names in a config, where allowed",
    ("jvae/contract.py", "__reduce__"): "what a caller pickles; nothing here unpickles",
    ("jvae/data/libraries.py", "import_module"): "names that are in our own source",
}


def dangers(name, source):
    """Returns what could run code that was read, as (file, what)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
            found += [n for n in names if n.partition(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            function = node.func
            called = getattr(function, "attr", getattr(function, "id", ""))
            owner = getattr(getattr(function, "value", None), "id", "")
            # `.compile()` of a lowered computation and re.compile read no code.
            if called in CALLS and not (called == "compile" and owner != "builtins"):
                found.append(called)
            if called == "compile" and isinstance(function, ast.Name):
                found.append(called)
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if given.get("allow_pickle", False) is not False:
                found.append("allow_pickle")
            if called == "load" and owner in ("np", "numpy", "torch", "jnp"):
                found += [] if given.get("allow_pickle") is False else [f"{owner}.load"]
            if given.get("shell") is True:
                found.append("shell")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("__reduce"):
            found.append(node.name)
    return [(name, what) for what in found]


def test_no_source_can_run_what_it_reads():
    files = [*ROOT.glob("jvae/**/*.py"), ROOT / "train.py", ROOT / "eval.py"]
    found = set()
    for file in files:
        found |= set(dangers(str(file.relative_to(ROOT)), file.read_text()))
    assert found == set(EXCEPTIONS)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "import os.path, dill.source",
        "def f():\n    import joblib",
        "eval(text)",
        "exec(compile(text, '', 'exec'))",
        "compile(text, '', 'exec')",
        "np.load(file)",
        "numpy.load(file, allow_pickle=True)",
        "read(file, allow_pickle=flag)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "importlib.import_module(text)",
        "class A:\n    def __reduce__(self): pass",
        "torch.load(file)",
    ],
)
def test_the_rule_notices(source):
    assert dangers("x.py", source)


def test_the_rule_lets_pass_what_is_safe():
    source = "ast.literal_eval(t); re.compile(t); step.lower(x).compile()\n"
    source += "np.load(f, allow_pickle=False); json.loads(t); model.eval\n"
    assert dangers("x.py", source) == []
