"""Builds the components of an experiment."""

from __future__ import annotations

from jvae import losses, models, registry
from jvae.contract import as_model
from jvae.data import datasets, transforms
from jvae.data.options import DataOptions
from jvae.runtime import mesh
from jvae.training import compatibility, optimizers, schedules
from jvae.training.components import Components
from jvae.training.config import Experiment


def assemble(experiment: Experiment) -> Components:
    """Returns the components of an experiment.

    Raises:
      ConfigError: a part that cannot be built, or parts that do not fit.
      DataError: the data set is missing or damaged, or lacks what the model needs.
    """
    devices = mesh.build(**experiment.mesh)
    fed = DataOptions.of(experiment.data)
    mesh.check_batch_size(fed.batch_size, devices)
    compatibility.check_accumulation(experiment, fed.batch_size, devices)

    model = as_model(models.build(**experiment.model))
    loss = losses.build(model=model, **experiment.loss)
    evaluation_loss = losses.build(model=model, train=False, **experiment.loss)

    objective = registry.resolve(losses.LOSSES, experiment.loss["name"], "loss")
    values = {
        name: float(experiment.loss.get(name, default))
        for name, default in losses.coefficients_of(objective).items()
    }
    values |= model.coefficients
    coefficients = schedules.build(experiment.schedules, values)

    num_steps = max(experiment.num_steps, 1)
    optimizer, rate = optimizers.build(num_steps=num_steps, **experiment.optimizer)
    transform = transforms.build(fed.transform, fed.num_bits, fed.padding)
    splits = datasets.load_splits(experiment.data)

    components = Components(
        experiment,
        splits,
        transform,
        model,
        loss,
        evaluation_loss,
        optimizer,
        rate,
        coefficients,
        devices,
        fed,
    )
    compatibility.check_fit(components)
    return components
