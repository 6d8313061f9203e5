import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.errors import DamagedError, WorkdirError
from jvae.runtime import mesh
from jvae.workdir import checkpoints, metadata
from jvae.workdir.checkpoints import Checkpoints


def item(value=1.0, size=64, dtype=jnp.float32):
    params = {"layer": {"kernel": jnp.full((size, 512), value, dtype)}}
    return {"params": params, "ema": None, "state": {}}


def saved(folder, *steps, keep=None, **options):
    manager = Checkpoints(folder, keep=keep)
    for step in steps:
        manager.save(step, {"model": item(float(step), **options)}, {"config": {}})
    manager.wait()
    return manager


def like(tree, devices=None):
    places = mesh.parameter_shardings(tree, devices or mesh.build())
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places
    )


def kernel(tree):
    return np.asarray(tree["params"]["layer"]["kernel"])


def test_what_is_saved_comes_back_bitwise(tmp_path):
    tree = {
        "model": item(),
        "training": {"step": jnp.int32(7), "moments": (jnp.ones(3),)},
    }
    manager = Checkpoints(tmp_path)
    manager.save(7, tree, {"config": {"seed": 3}})
    manager.wait()
    again = manager.restore(7, like(tree))
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    meta = manager.read_meta(7)
    assert meta["config"] == {"seed": 3}
    assert meta["step"] == 7 and meta["format"] == metadata.FORMAT


@pytest.fixture
def x64():
    """Turns 64 bits on and off, for all threads, as the environment variable does."""
    yield lambda on: jax.config.update("jax_enable_x64", on)
    jax.config.update("jax_enable_x64", False)


def test_64_bits_come_back_bitwise_or_are_said_to_be_and_are_no_damage(tmp_path, x64):
    x64(True)
    tree = {"model": item(np.pi, size=2, dtype=jnp.float64)}
    manager = Checkpoints(tmp_path)
    manager.save(3, tree, {"config": {}})
    manager.wait()
    again = manager.restore_model(3, mesh.build())[0]
    assert kernel(again).dtype == np.float64 and (kernel(again) == np.pi).all()

    # Releases up to 0.2.0 trained in 64 bits; today's states have 32.
    with pytest.raises(WorkdirError, match="was trained in 64 bits.*init_from takes"):
        manager.restore(3, like({"model": item(size=2)}))

    x64(False)
    others = [
        lambda: manager.restore_model(3, mesh.build()),
        lambda: manager.restore(3, like({"model": item(size=2)})),
    ]
    where = r"holds float64 numbers, in model/params/layer/kernel .*JAX_ENABLE_X64=1"
    for read in others:
        with pytest.raises(WorkdirError, match=where) as error:
            read()
        assert not isinstance(error.value, DamagedError)
    assert manager.steps() == [3]


@pytest.mark.parametrize("is_replicated", [False, True])
@pytest.mark.parametrize("sliced_from", [0, 2**23])
def test_a_saved_state_may_change_at_once(
    tmp_path, monkeypatch, is_replicated, sliced_from
):
    """The step donates its state, so a save in flight must own its arrays."""
    monkeypatch.setattr(checkpoints, "SLICED_FROM", sliced_from)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1.0, s), donate_argnums=0)
    manager = Checkpoints(tmp_path)
    state = item(0.0, size=512)
    if is_replicated:
        state = jax.device_put(state, mesh.replicated(mesh.build()))
    for i in range(3):
        manager.save(i, {"model": state}, {"config": {}})
        state = step(state)
    manager.wait()
    for i in range(3):
        assert (kernel(manager.restore_model(i, mesh.build())[0]) == i).all()


def test_small_replicated_arrays_are_saved_without_a_program(tmp_path, caplog):
    """Orbax would compile a slice for every size: seconds of a run's first save."""
    sizes = {f"bias_{n}": np.zeros(n, np.float32) for n in (1000, 1008, 1016)}
    params = jax.device_put(sizes, mesh.replicated(mesh.build()))
    manager = Checkpoints(tmp_path)
    jax.config.update("jax_log_compiles", True)
    try:
        manager.save(1, {"model": {"params": params}}, {"config": {}})
        manager.wait()
    finally:
        jax.config.update("jax_log_compiles", False)
    assert [r.message for r in caplog.records if "Compiling" in r.message] == []


def test_only_the_newest_stay(tmp_path):
    manager = saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert manager.steps() == [3, 4]
    assert manager.latest() == 4


def test_eight_devices_save_and_other_numbers_restore(tmp_path, monkeypatch):
    tree = item(2.5)
    placed = jax.device_put(tree, mesh.parameter_shardings(tree, mesh.build(params=8)))
    assert len(placed["params"]["layer"]["kernel"].sharding.device_set) == 8
    manager = Checkpoints(tmp_path)
    manager.save(1, {"model": placed}, {"config": {}})
    manager.wait()
    for count in (1, 4):
        devices = jax.make_mesh(
            (1, count),
            mesh.AXES,
            axis_types=(jax.sharding.AxisType.Auto,) * 2,
            devices=jax.devices()[:count],
        )
        again, _ = manager.restore_model(1, devices)
        leaf = again["params"]["layer"]["kernel"]
        assert len(leaf.sharding.device_set) == count
        np.testing.assert_array_equal(leaf, kernel(tree))


def test_another_architecture_is_refused_with_every_path(tmp_path):
    manager = saved(tmp_path, 1)
    other = item(size=32)
    other["params"]["extra"] = jnp.zeros(2)
    with pytest.raises(WorkdirError) as caught:
        manager.restore(1, like({"model": other}))
    text = str(caught.value)
    assert "model/params/extra: nothing there, float32[2] here" in text
    assert "kernel: float32[64, 512] there, float32[32, 512] here" in text


def test_another_dtype_is_refused(tmp_path):
    manager = saved(tmp_path, 1)
    wanted = like({"model": item(dtype=jnp.bfloat16)})
    with pytest.raises(WorkdirError, match=r"float32\[64, 512\] there, bfloat16"):
        manager.restore(1, wanted)


def test_a_newer_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "FORMAT", metadata.FORMAT + 1)
    monkeypatch.setattr("jvae.__version__", "9.9")
    saved(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(WorkdirError, match=r"written by jvae 9\.9, newer than"):
        Checkpoints(tmp_path, read_only=True).restore_model(1, mesh.build())


def test_a_newer_format_is_not_taken_for_damage(tmp_path):
    """Its digest may be made of other entries, or in another way."""
    saved(tmp_path, 1).close()
    file = tmp_path / "1" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(meta | {"format": metadata.FORMAT + 1, "jvae": "99.0"}))
    with pytest.raises(WorkdirError, match="newer than") as caught:
        Checkpoints(tmp_path, read_only=True).read_meta(1)
    assert not isinstance(caught.value, DamagedError)


def test_a_step_that_was_never_finished_is_not_listed(tmp_path):
    saved(tmp_path, 1).close()
    (tmp_path / "2").mkdir()
    (tmp_path / "notes").mkdir()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1]


def test_a_damaged_step_is_named_in_one_line(tmp_path):
    saved(tmp_path, 1, 2).close()
    for file in (tmp_path / "2" / "model").rglob("manifest.ocdbt"):
        file.unlink()
    with pytest.raises(WorkdirError, match="checkpoint 2 is damaged") as caught:
        Checkpoints(tmp_path, read_only=True).restore_model(2, mesh.build())
    assert "\n" not in str(caught.value) and "[1, 2]" in str(caught.value)


def test_a_step_that_is_there_is_not_silently_skipped(tmp_path):
    manager = saved(tmp_path, 3)
    manager.save(3, {"model": item()}, {"config": {}})
    with pytest.raises(WorkdirError, match=r"checkpoint 3 .* was not written"):
        manager.wait()
    assert manager.steps() == [3]
    manager.save(4, {"model": item()}, {"config": {}})
    manager.wait()


@pytest.mark.parametrize("step, expected", [("best", 2), ("last", 5), (4, 4), (2, 2)])
def test_choose_finds_the_step_that_is_meant(tmp_path, step, expected):
    saved(tmp_path / "checkpoints", 4, 5).close()
    saved(tmp_path / "best", 2).close()
    assert checkpoints.choose(tmp_path, step)[1] == expected


def test_choose_says_which_steps_there_are(tmp_path):
    with pytest.raises(WorkdirError, match="there is no checkpoint"):
        checkpoints.choose(tmp_path / "missing", "best")
    saved(tmp_path / "checkpoints", 4, 5).close()
    assert checkpoints.choose(tmp_path, "best")[1] == 5
    with pytest.raises(WorkdirError, match=r"no checkpoint 7.*There are \[4, 5\]"):
        checkpoints.choose(tmp_path, 7)


def test_reading_changes_nothing_on_disk(tmp_path):
    saved(tmp_path, 1).close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    Checkpoints(tmp_path, read_only=True).restore_model(1, mesh.build())
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_there_is_no_pickle_and_the_json_is_plain(tmp_path):
    saved(tmp_path, 1).close()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix in (".pkl", ".pickle")]
    assert not any(p.read_bytes().startswith(b"\x80") for p in files)
    meta = json.loads((tmp_path / "1" / "meta" / "metadata").read_text())
    assert meta["shapes"]["model/params/layer/kernel"] == [[64, 512], "float32"]


@pytest.mark.parametrize("written", [3, "1", None, [1]])
def test_a_format_that_this_release_has_not_written_is_damage(tmp_path, written):
    """One flipped bit makes a 3 of a 1."""
    saved(tmp_path, 1).close()
    file = tmp_path / "1" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(meta | {"format": written}))
    with pytest.raises(DamagedError):
        Checkpoints(tmp_path, read_only=True).read_meta(1)


def test_a_step_that_was_copied_to_another_number_is_damaged(tmp_path):
    saved(tmp_path, 1).close()
    shutil.copytree(tmp_path / "1", tmp_path / "5")
    copies = Checkpoints(tmp_path, read_only=True)
    assert copies.steps() == [1, 5]
    with pytest.raises(DamagedError, match="5 is damaged: it is a copy of step 1"):
        copies.restore_model(5, mesh.build())


@pytest.mark.parametrize(
    "change",
    [
        {"config": "x"},
        {"shapes": 3},
        {"shapes": {"model/params/a": [["q"], "float32"]}},
        {"shapes": {"model/params/a": [[3]]}},
        {"shapes": {"model/params/a": None}},
        {"shapes": {"model/params/a": [[3], "int8"], "model": [[3], "int8"]}},
        {"config": {"seed": "x"}},
        {"vocabulary": 5},
        {"vocabulary": [5]},
    ],
    ids=str,
)
def test_a_description_without_digest_that_cannot_be_one_is_damage(tmp_path, change):
    """As of the first checkpoints of release 0.1.0, edited."""
    saved(tmp_path, 1).close()
    file = tmp_path / "1" / "meta" / "metadata"
    meta = json.loads(file.read_text()) | change
    del meta["digest"]
    file.write_text(json.dumps(meta))
    with pytest.raises(DamagedError, match="its JSON is not that of a checkpoint"):
        Checkpoints(tmp_path, read_only=True).restore_model(1, mesh.build())
