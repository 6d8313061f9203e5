import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from jvae import data, losses, models
from jvae import registry as fields
from jvae.data import options
from jvae.errors import ConfigError
from jvae.models.latents import LATENTS
from jvae.models.likelihoods import LIKELIHOODS
from jvae.runtime import mesh
from jvae.training import assembly, config_files, optimizers
from jvae.training import config as configs
from jvae.training.identity import differences, identity
from jvae.training.schedules import SCHEDULES

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_config_is_whole_and_survives_json(file):
    experiment = configs.parse_experiment(config_files.experiment_config(str(file), {}))
    models.build(**experiment.model)
    again = configs.parse_experiment(json.loads(json.dumps(experiment.to_dict())))
    assert again.to_dict() == experiment.to_dict()


@pytest.mark.parametrize(
    "name, count",
    [
        ("mnist_mlp", 404_244),
        ("mnist_conditional", 404_266),
        ("mnist_conv", 134_165),
        ("celeba_conv", 10_289_155),
        ("mnist_gumbel", 299_201),
        ("mnist_vmf", 404_756),
    ],
)
def test_the_architectures_of_the_series_have_their_parameters(name, count):
    section = config_files.experiment_config(str(ROOT / "configs" / f"{name}.py"), {})[
        "model"
    ]
    model = models.build(**section)
    batch = {"image": jax.ShapeDtypeStruct((2, *model.image_shape), jnp.float32)}
    batch["label"] = jax.ShapeDtypeStruct((2,), jnp.int32)
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key, batch, key)["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == count


def functions():
    yield "experiment", fields.of(configs.Experiment)
    yield "data", fields.of(options.DataOptions)
    yield "mesh", fields.of(mesh.build)
    yield "optimizer", fields.of(optimizers.build)
    named = {
        "data": data.DATASETS,
        "model": models.MODELS,
        "latent": LATENTS,
        "likelihood": LIKELIHOODS,
        "schedule": SCHEDULES,
    }
    for section, registry in named.items():
        for name, function in registry.items():
            yield f"{section}.{name}", fields.of(function)
    for name, objective in losses.LOSSES.items():
        yield f"loss.{name}", losses.config_fields(objective)


@pytest.mark.parametrize("name, known", list(functions()))
def test_every_field_has_a_meaning_and_a_type(name, known):
    assert [f.name for f in known.values() if len(f.meaning) < 10] == []
    assert [f.name for f in known.values() if f.type is fields.REQUIRED] == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_step": 3}, "config.num_step is unknown.*Did you mean 'num_steps'"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"num_steps": 1.5}, "config.num_steps must be int >= 0, got 1.5"),
        ({"seed": True}, "config.seed must be int"),
        ({"ema_decay": 1.0}, "ema_decay must be within"),
        ({"ema_decay": float("nan")}, "ema_decay must be a number, got nan"),
        ({"steps_per_dispatch": 5}, "must be a multiple of steps_per_dispatch 5"),
        ({"model": {"name": "mpl"}}, "model.name 'mpl' is unknown.*'mlp'"),
        ({"model": {"latent_dim": 3}}, "model.name is missing"),
        ({"model": {"name": "mlp", "laten_dim": 3}}, "Did you mean 'latent_dim'"),
        ({"loss": {"name": "elbo", "betta": 1.0}}, "Did you mean 'beta'"),
        ({"optimizer": {"lerning_rate": 1.0}}, "Did you mean 'learning_rate'"),
        ({"data": {"name": "digit"}}, "Did you mean 'digits'"),
        ({"data": {"name": "{name: digits}"}}, "Did you mean 'digits'"),
        ({"data": {"name": "digits", "batchsize": 3}}, "Did you mean 'batch_size'"),
    ],
)
def test_a_wrong_config_is_refused_with_what_to_do(tiny, change, words):
    with pytest.raises(ConfigError, match=words):
        configs.parse_experiment(tiny | change)


@pytest.mark.parametrize("kind", [ConfigDict, FrozenConfigDict])
def test_a_config_dict_is_a_config_whole_or_in_part(tiny, kind):
    wanted = configs.parse_experiment(tiny).to_dict()
    assert configs.parse_experiment(kind(tiny)).to_dict() == wanted
    part = {**tiny, "model": kind(tiny["model"])}
    assert configs.parse_experiment(part).to_dict() == wanted


@pytest.mark.parametrize(
    "section, change, words",
    [
        ("loss", {"beta": -1.0}, "loss.beta must be at least 0, got -1.0"),
        ("loss", {"beta": float("inf")}, "loss.beta"),
        ("model", {"latent_dim": 0}, "model.latent_dim must be at least 1, got 0"),
        ("model", {"hidden": [0]}, "model.hidden"),
        ("model", {"image_shape": [9, 9, 1]}, r"must be the data's \(8, 8, 1\)"),
        ("model", {"likelihood": "bernuli"}, "Did you mean 'bernoulli'"),
        ("model", {"likelihood": {"name": "gaussian", "std": 0.0}}, "std"),
        ("model", {"likelihood": "categorical"}, "must give levels pixels"),
        ("data", {"batch_size": 0}, "data.batch_size"),
        ("data", {"batch_size": 36}, "multiple of the 8 devices, got 36"),
        ("data", {"transform": "signed"}, "must give binary or unit pixels"),
        ("data", {"num_bits": 9}, "num_bits"),
        ("optimizer", {"learning_rate": 0.0}, "optimizer.learning_rate"),
        ("mesh", {"data": 3}, "must fit the 8 devices"),
        ("mesh", {"params": 3}, "must fit the 8 devices"),
    ],
)
def test_parts_that_cannot_work_are_refused_before_compiling(
    tiny, section, change, words
):
    tiny[section] = {**tiny.get(section, {}), **change}
    with pytest.raises(ConfigError, match=words):
        assembly.assemble(configs.parse_experiment(tiny))


def test_levels_of_data_and_likelihood_must_agree(tiny):
    tiny["data"] |= {"transform": "signed", "num_bits": 5}
    tiny["model"]["likelihood"] = "discretized_logistic"
    with pytest.raises(ConfigError, match="256 levels of the likelihood, got 32"):
        assembly.assemble(configs.parse_experiment(tiny))
    tiny["model"]["likelihood"] = {"name": "discretized_logistic", "num_bits": 5}
    assembly.assemble(configs.parse_experiment(tiny))


def test_a_conditional_model_needs_as_many_classes_as_the_data(tiny):
    tiny["model"]["num_classes"] = 4
    with pytest.raises(ConfigError, match="at least the data's 10, got 4"):
        assembly.assemble(configs.parse_experiment(tiny))


def test_micro_batches_must_divide_the_batch(tiny):
    tiny["accumulate_steps"] = 3
    with pytest.raises(ConfigError, match="multiple of accumulate_steps x devices"):
        assembly.assemble(configs.parse_experiment(tiny))


def test_what_a_run_may_change_is_no_part_of_its_identity(tiny):
    base = configs.parse_experiment(tiny).to_dict()
    for change in ({"num_steps": 99}, {"mesh": {"params": 2}}, {"log_every_steps": 9}):
        assert identity(configs.parse_experiment(tiny | change).to_dict()) == (
            identity(base)
        )
    for change in ({"seed": 1}, {"ema_decay": 0.5}, {"accumulate_steps": 2}):
        other = identity(configs.parse_experiment(tiny | change).to_dict())
        assert len(differences(identity(base), other)) == 1
