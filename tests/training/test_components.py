"""Parts that do not fit each other are refused before anything is written."""

import pytest

from jvae.errors import ConfigError, DataError
from jvae.training import assembly, config, experiment, train_step


@pytest.mark.parametrize(
    ("loss", "classes", "message"),
    [
        ({"dataset_size": 10}, None, "dataset_size must be at least the batch, 64"),
        ({"dataset_size": 1298}, 10, "needs one prior for all examples"),
        ({"dataset_size": 1}, None, "loss.dataset_size must be None or at least 2"),
    ],
    ids=["smaller than the batch", "a prior per class", "too small"],
)
def test_a_loss_that_cannot_be_leaves_no_workdir(
    tiny, tmp_path, loss, classes, message
):
    tiny["loss"] = {"name": "decomposed_elbo", **loss}
    tiny["model"]["num_classes"] = classes
    with pytest.raises(ConfigError) as error:
        experiment.run(tiny, tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_leaves_no_workdir(tiny, tmp_path):
    """So that the command with another batch size runs in the same one."""
    tiny["data"]["batch_size"] = 4096
    with pytest.raises(DataError, match="batch_size 4096 is larger than the 1362"):
        experiment.run(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [2**32, 2**63])
def test_a_seed_that_would_repeat_another_is_refused(tiny, tmp_path, seed):
    with pytest.raises(ConfigError, match=r"within \[0, 4294967295\], got"):
        experiment.run(tiny | {"seed": seed}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_first_state_is_traced_once(monkeypatch, tiny):
    traced = []
    create = train_step.initializer

    def counted(*arguments):
        def call(key):
            traced.append(key)
            return create(*arguments)(key)

        return call

    monkeypatch.setattr(train_step, "initializer", counted)
    components = assembly.assemble(config.parse_experiment(tiny))
    state = components.create_state()
    assert components.abstract_state().params.keys() == state.params.keys()
    assert len(traced) == 1
