"""Parts that do not fit each other are refused before anything is written."""

import pytest

from jvae.errors import ConfigError
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
