import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jvae

RELEASES = sorted(
    p for p in (Path(__file__).parent / "released").iterdir() if p.is_dir()
)


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
@pytest.mark.parametrize("params", ["ema", "raw"])
def test_a_checkpoint_of_every_release_decodes_as_its_arrays_say(
    release, params, tmp_path
):
    shutil.copytree(release, tmp_path / "copy")
    model = jvae.restore(tmp_path / "copy", params=params)
    decoder = jax.tree.map(np.asarray, model.params["decoder"])
    z = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)
    first, last = decoder["layers"]["Dense_0"], decoder["output"]
    hidden = np.maximum(z @ first["kernel"] + first["bias"], 0.0)
    logits = hidden @ last["kernel"] + last["bias"]
    expected = 1.0 / (1.0 + np.exp(-logits)).reshape(2, 8, 8, 1)
    np.testing.assert_allclose(model.decode(z), expected, rtol=1e-4)
    assert model.sample(jax.random.key(0), 3, label=7).shape == (3, 8, 8, 1)
    stored = json.loads((release / "config.json").read_text())
    assert model.config == stored and model.step == stored["num_steps"]


def test_averaged_and_raw_arrays_are_both_there():
    averaged, raw = (
        jvae.restore(RELEASES[-1], params=p).params["decoder"] for p in ("ema", "raw")
    )
    assert not np.array_equal(averaged["output"]["bias"], raw["output"]["bias"])
