"""From a config to a trained model: components, the training step, the loop.

The path of a batch, on the host:

- `data.pipeline.train_batches` reads examples in the order that seed and step decide,
- `batches.training_batches` puts them on the mesh,
- `loop.TrainingRun.train` hands them to the step that `Components.compile_step` made;

on the devices, in `train_step.make_train_step`:

- `components.Components.prepare_training` transforms pixels, and mirrors some,
- the loss that `losses.build` made is differentiated, for each micro-batch,
- the optimizer updates parameters, their average and the guard.

The best model is the one with the highest score of `validation.validate`:
`run_checkpoints.RunCheckpoints.save_if_best` keeps it in WORKDIR/best, from where
`jvae.restore` reads it.
"""
