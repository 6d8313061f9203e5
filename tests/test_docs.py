import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats

import jvae
import jvae.distributions
import jvae.flows
import jvae.losses
from jvae.reports.run import evaluate_run
from jvae.training import experiment
from tests.runs import TIMEOUT

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page):
    """The Python code of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


@pytest.mark.slow
def test_losses_elsewhere_runs_from_top_to_bottom(capsys):
    namespace = {"__name__": "page"}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks("losses_elsewhere.md"):
            exec(compile(block, "losses_elsewhere.md", "exec"), namespace)
    assert "elbo" in capsys.readouterr().out


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_holds_every_public_name(tmp_path):
    pytest.importorskip("myst_parser", reason="needs the extra 'docs'")
    site = str(tmp_path / "site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(DOCS), site]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "site" / "reference.html").read_text()
    for module in (jvae.losses, jvae.distributions, jvae.flows):
        for name in module.__all__:
            if callable(getattr(module, name)):
                assert f'id="{module.__name__}.{name}"' in page, name


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("\n\n".join(blocks("your_own.md")))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


@pytest.mark.slow
def test_a_model_loss_and_data_set_of_ones_own_need_no_change_to_the_package(
    mine, tiny, tmp_path
):
    tiny["model"] = {"name": "mine:Linear", "latent_dim": 3}
    tiny["loss"] = {"name": "mine:kl_power", "power": 0.5}
    tiny["data"] = {
        "name": "mine:stripes",
        "width": 2,
        "batch_size": 64,
        "num_validation": 64,
        "transform": "threshold",
    }
    experiment.run(tiny, tmp_path / "run")
    results = evaluate_run(
        tmp_path / "run", num_samples=4, num_images=16, allow_imports=True
    )
    assert results["metrics"]["elbo"]["value"] < 0
    model = jvae.restore(tmp_path / "run", allow_imports=True)
    assert model.sample(jax.random.key(0), 5).shape == (5, 8, 8, 1)
    assert np.isfinite(model.elbo(np.zeros((2, 8, 8, 1)), jax.random.key(0))).all()


def test_a_likelihood_of_ones_own_is_a_distribution_of_any_model(mine):
    model = jvae.models.build(
        "mlp",
        image_shape=(2, 2, 1),
        hidden=(3,),
        likelihood={"name": "mine:LaplaceHead", "scale": 0.5},
    )
    key, batch = jax.random.key(0), {"image": np.full((3, 2, 2, 1), 0.3, "f4")}
    p = model.init_with_output(key, batch, key)[0]
    expected = scipy.stats.laplace.logpdf(0.3, p.mean, 0.5).sum((1, 2, 3))
    np.testing.assert_allclose(p.log_prob(batch["image"]), expected, rtol=1e-5)
    assert p.sample(key, 2).shape == (2, 3, 2, 2, 1)


def test_every_test_that_the_table_of_faults_names_is_there():
    tests, file, names = DOCS.parent / "tests", "", 0
    text = (DOCS / "reliability.md").read_text()
    for where, name in re.findall(r"`([\w/]*(?:\.py)?)::(test_\w+)`", text):
        file = where or file
        (found,) = [p for p in tests.rglob(Path(file).name) if str(p).endswith(file)]
        assert f"def {name}(" in found.read_text(), f"{file}::{name}"
        names += 1
    rows = re.findall(r"^\| (\d+) \|", text, re.M)
    assert rows == [str(i) for i in range(1, len(rows) + 1)] and len(rows) > 90
    assert names > 120
