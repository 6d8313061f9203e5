"""Checkpoints that are damaged: found, set aside, and the run ends as it would have."""

import contextlib
import gc
import logging
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

import jvae
from jvae.commands import evaluate, main
from jvae.errors import DamagedError, JvaeError, WorkdirError
from jvae.runtime import mesh
from jvae.training import assembly, experiment, run_checkpoints
from jvae.training import config as configs
from jvae.workdir import recovery
from jvae.workdir.checkpoints import Checkpoints
from tests.conftest import TINY
from tests.runs import arrays, assert_same_run, steps


@pytest.fixture(scope="module")
def config():
    """Arrays too long for TensorStore's index, so that they have files of their own."""
    wide = {"model": TINY["model"] | {"hidden": [256]}}
    return TINY | wide | {"eval_every_steps": 0}


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run that nothing has happened to, with checkpoints 4, 8 and 12."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(config, workdir)
    assert steps(workdir) == [4, 8, 12]
    return workdir


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of it that may be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def files(workdir, step=12, item="*", folder="checkpoints"):
    """The data files of a step, the largest first."""
    found = (workdir / folder / str(step)).glob(f"{item}/**/d/*")
    return sorted(found, key=lambda p: (-p.stat().st_size, p.name))


def flip(file, place=0.5, bit=0):
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def garble(file):
    file.write_text('{"cut sh')


def change_a_digit(file):
    before = file.read_text()
    after = before.replace('"seed": 0', '"seed": 1').replace('"seed":0', '"seed":1')
    assert after != before
    file.write_text(after)


def nest(file):
    file.write_text("[" * 100_000)


@pytest.fixture(scope="module")
def like(config):
    """The shapes and places of what a checkpoint holds."""
    components = assembly.assemble(configs.parse_experiment(config))
    return run_checkpoints.items_of(components.abstract_state())


def seen(capfd):
    """The lines that the user sees, without the progress."""
    # What threads and the garbage collector would print comes in its own time.
    time.sleep(0.02)
    gc.collect(1)
    lines = capfd.readouterr().err.splitlines()
    progress = ("step ", "done at", "resumed from", "already at")
    return [line for line in lines if not line.startswith(progress)]


def run(config, workdir, capfd):
    """Runs it again; returns the lines that the user sees, without the progress."""
    capfd.readouterr()
    with warnings_on_screen():
        experiment.run(config, workdir)
    return seen(capfd)


@contextlib.contextmanager
def warnings_on_screen():
    """Warnings go to stderr, as `main.run_command` makes them."""
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


def on(path, *damages, slow=False):
    marks = pytest.mark.slow if slow else ()
    return [
        pytest.param(path, d, id=f"{path} {d.__name__}", marks=marks) for d in damages
    ]


@pytest.mark.parametrize(
    "path, damage",
    [
        *on("biggest", flip),
        *on("biggest", halve, remove, slow=True),
        *on("model/manifest.ocdbt", remove, slow=True),
        *on("model/_METADATA", empty, slow=True),
        *on("meta/metadata", garble, change_a_digit, slow=True),
        *on("training", remove, slow=True),
    ],
)
def test_a_run_goes_back_to_the_checkpoint_before_and_ends_the_same(
    whole, config, copied, capfd, path, damage
):
    damage(files(copied)[0] if path == "biggest" else copied / "checkpoints/12" / path)
    lines = run(config, copied, capfd)
    assert_same_run(whole, copied)
    assert steps(copied) == [4, 8, 12]
    (line,) = lines
    assert line.startswith("jvae: checkpoint 12 is damaged: ")
    assert line.endswith(f"; set aside as {copied / 'checkpoints' / '12.damaged'}")
    assert len(line) < 150 + len(str(copied))
    assert (copied / "checkpoints" / "12.damaged").is_dir()


@pytest.mark.parametrize(
    "path, damage",
    [
        *on("biggest", empty),
        *on("model/manifest.ocdbt", empty, flip),
        *on("model/manifest.ocdbt", halve, slow=True),
        *on("training/manifest.ocdbt", remove, halve, slow=True),
        *on("model/_METADATA", garble),
        *on("model/_METADATA", halve, slow=True),
        *on("training/_METADATA", empty),
        *on("training/_METADATA", garble, slow=True),
        *on("meta/metadata", nest, flip),
        *on("meta/metadata", empty, remove, slow=True),
        *on("model", remove),
        *on("meta", remove, slow=True),
    ],
)
def test_other_damage_is_found_too(copied, like, capfd, path, damage):
    damage(files(copied)[0] if path == "biggest" else copied / "checkpoints/12" / path)
    manager = Checkpoints(copied / "checkpoints", read_only=True)
    with pytest.raises(DamagedError, match=r"12 is damaged: .*\[4, 8, 12\]") as caught:
        manager.restore(12, like)
    assert "\n" not in str(caught.value) and str(copied) not in caught.value.what
    assert seen(capfd) == []


@pytest.mark.parametrize(
    "path, damage",
    [
        *on("_CHECKPOINT_METADATA", garble),
        *on("_CHECKPOINT_METADATA", remove, empty, slow=True),
        *on("model/_sharding", remove, garble, slow=True),
        *on("training/_sharding", remove, garble, slow=True),
    ],
)
def test_what_restoring_does_not_need_may_be_damaged(
    whole, copied, like, capfd, path, damage
):
    damage(copied / "checkpoints" / "12" / path)
    items = Checkpoints(copied / "checkpoints").restore(12, like)
    wanted = arrays(whole)
    for key, leaf in jax.tree_util.tree_leaves_with_path(items):
        np.testing.assert_array_equal(leaf, wanted[jax.tree_util.keystr(key)])
    assert seen(capfd) == []


@pytest.mark.slow
def test_two_damaged_checkpoints_are_two_steps_back(whole, config, copied, capfd):
    flip(files(copied, 12)[0])
    halve(files(copied, 8)[0])
    assert len(run(config, copied, capfd)) == 2
    assert_same_run(whole, copied)
    assert steps(copied) == [4, 8, 12]


@pytest.mark.slow
def test_a_number_that_is_damaged_twice_is_set_aside_twice(
    whole, config, copied, capfd
):
    for _ in range(2):
        remove(files(copied)[0])
        assert len(run(config, copied, capfd)) == 1
    assert_same_run(whole, copied)
    names = [p.name for p in (copied / "checkpoints").glob("12.damaged*")]
    assert sorted(names) == ["12.damaged", "12.damaged.again"]


def test_what_was_never_finished_is_removed_and_what_is_not_ours_stays(
    whole, config, copied, capfd
):
    root = copied / "checkpoints"
    (root / "13").mkdir()
    orphan = root / "14.orbax-checkpoint-tmp-123"
    (orphan / "model").mkdir(parents=True)
    (orphan / "model" / "half").write_text("x")
    (root / "3").write_text("a file")
    (root / "notes").mkdir()
    (root / "notes" / "mine").write_text("kept")
    assert run(config, copied, capfd) == []
    assert_same_run(whole, copied)
    assert sorted(p.name for p in root.iterdir()) == ["12", "3", "4", "8", "notes"]
    assert (root / "notes" / "mine").read_text() == "kept"


@pytest.mark.slow
def test_a_checkpoint_that_lost_its_last_file_is_used(whole, config, copied, capfd):
    (copied / "checkpoints" / "12" / recovery.COMMIT_FILE).unlink()
    (line,) = run(config, copied, capfd)
    assert line.startswith("jvae: checkpoint 12 lacked commit_success.txt; by its")
    assert_same_run(whole, copied)


def test_where_every_checkpoint_is_damaged_nothing_is_begun_anew(config, copied):
    for step in (4, 8, 12):
        empty(files(copied, step)[0])
    before = (copied / "metrics.jsonl").read_bytes()
    for _ in range(2):  # a scheduler that starts it again must not lose the run either
        with pytest.raises(WorkdirError, match="every checkpoint is damaged") as caught:
            experiment.run(config, copied)
        assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    assert (copied / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_best_does_not_stop_training(trained, tiny, tmp_path, capfd):
    copied = shutil.copytree(trained, tmp_path / "run")
    (best,) = Checkpoints(copied / "best", read_only=True).steps()
    shutil.rmtree(copied / "checkpoints" / "12")
    change_a_digit(copied / "best" / str(best) / "meta" / "metadata")
    lines = run(tiny, copied, capfd)
    assert lines[0].startswith(f"jvae: checkpoint {best} is damaged")
    assert f"/best/{best}.damaged" in lines[0]
    assert_same_run(trained, copied)
    assert jvae.restore(copied).step == best == jvae.restore(trained).step


def test_a_damaged_best_is_one_line_to_a_reader_and_stays(trained, tmp_path, capfd):
    copied = shutil.copytree(trained, tmp_path / "run")
    (best,) = Checkpoints(copied / "best", read_only=True).steps()
    change_a_digit(copied / "best" / str(best) / "meta" / "metadata")
    capfd.readouterr()
    assert main.run_command(evaluate.command, [f"--workdir={copied}"]) == 4
    (line,) = seen(capfd)
    assert line.startswith(f"jvae: error: checkpoint {best} is damaged: the digest")
    assert jvae.restore(copied, step="last").step == 12
    assert (copied / "best" / str(best)).is_dir()


@pytest.mark.parametrize("moment", ["chosen", "described"])
def test_a_checkpoint_that_is_removed_under_a_reader_is_named(
    copied, monkeypatch, moment
):
    """As a run does that writes on and keeps the newest only."""
    read = Checkpoints.read_meta

    def read_meta(self, step):
        if moment == "chosen":
            shutil.rmtree(self.folder / str(step))
        meta = read(self, step)
        shutil.rmtree(self.folder / str(step))
        return meta

    monkeypatch.setattr(Checkpoints, "read_meta", read_meta)
    with pytest.raises(WorkdirError, match="8 was removed while it was read") as error:
        jvae.restore(copied, step=8)
    assert error.value.exit_code == 4 and "[4, 12]" in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        ValueError("UNAVAILABLE: Error reading OCDBT database"),
        ValueError("Gloo all-reduce failed: Connection reset by peer"),
    ],
)
def test_what_cannot_be_reached_is_not_set_aside(config, copied, monkeypatch, error):
    def restore(*args, **options):
        raise error

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", restore)
    with pytest.raises(JvaeError, match="cannot be read|another process is gone"):
        experiment.run(config, copied)
    assert steps(copied) == [4, 8, 12]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A checkpoint of incompressible arrays: (its folder, the arrays)."""
    random = np.random.default_rng(0)
    layer = {
        "kernel": jnp.asarray(random.normal(size=(64, 128)), jnp.float32),
        "bias": jnp.asarray(random.normal(size=256), jnp.bfloat16),
        "count": jnp.asarray(random.integers(0, 2**31, 600), jnp.int32),
    }
    tree = {"params": {"layer": layer}, "ema": None, "state": {}}
    folder = tmp_path_factory.mktemp("noise") / "checkpoints"
    manager = Checkpoints(folder)
    manager.save(1, {"model": tree}, {"config": {}})
    manager.wait()
    manager.close()
    return folder, layer


def restored(folder):
    item, _ = Checkpoints(folder, read_only=True).restore_model(1, mesh.build())
    return item["params"]["layer"]


@pytest.mark.parametrize(
    ("error", "is_damaged"),
    [
        (RuntimeError("can't start new thread"), False),
        (MemoryError(), False),
        (ValueError("UNKNOWN: Cannot allocate memory"), False),
        (OSError(24, "Too many open files"), False),
        (ValueError("NOT_FOUND: Error reading: OCDBT database: missing"), True),
        (FileNotFoundError(2, "No such file"), True),
    ],
)
def test_a_lack_of_memory_or_threads_is_no_damage(
    noise, monkeypatch, error, is_damaged
):
    """Orbax wraps every error of the read of an array in a bare Exception.

    In the default tier: a step that is taken for damaged is renamed.
    """

    kind = orbax.checkpoint.CheckpointManager
    restore = kind.restore

    def failed(manager, step, args):
        if "meta" in args.keys():
            return restore(manager, step, args=args)
        raise Exception("Encountered error while reading array index") from error

    monkeypatch.setattr(kind, "restore", failed)
    with pytest.raises(WorkdirError) as raised:
        restored(noise[0])
    assert isinstance(raised.value, DamagedError) == is_damaged
    assert ("may be whole" in str(raised.value)) != is_damaged


def test_a_flipped_bit_is_found_by_the_checksum_and_its_array_named(noise, tmp_path):
    """Orbax restores it without a word."""
    folder = shutil.copytree(noise[0], tmp_path / "c")
    flip(max(folder.rglob("d/*"), key=lambda p: p.stat().st_size))
    with pytest.raises(DamagedError, match="checksum of model/params/layer/kernel"):
        restored(folder)


@pytest.mark.parametrize("seed", range(30))
def test_any_flipped_bit_of_any_file_is_harmless_or_found(noise, tmp_path, seed):
    folder = shutil.copytree(noise[0], tmp_path / "c")
    random = np.random.default_rng(seed)
    there = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    flip(there[random.integers(len(there))], random.random(), random.integers(8))
    try:
        layer = restored(folder)
    except WorkdirError as error:
        assert "\n" not in str(error) and len(str(error)) < 250 + len(str(folder))
        return
    for name, array in noise[1].items():
        np.testing.assert_array_equal(layer[name], array)
