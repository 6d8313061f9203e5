"""Makes the workdir of a release: python tests/released/make.py, once per release.

A checkpoint, the rows of training and the results of an evaluation. They are committed
and never made again; test_released.py reads them for ever. (That of 0.1.0 has neither
rows nor results.)
"""

import shutil
from pathlib import Path

import jvae
from jvae.reports.run import evaluate_run
from jvae.training import experiment

CONFIG = {
    "num_steps": 3,
    "log_every_steps": 1,
    "eval_every_steps": 0,
    "ema_decay": 0.9,
    "data": {"name": "digits", "batch_size": 64, "transform": "binarize"},
    "model": {
        "name": "mlp",
        "image_shape": [8, 8, 1],
        "hidden": [4],
        "latent_dim": 2,
        "num_classes": 10,
    },
    "loss": {"name": "elbo"},
    "optimizer": {"name": "adam"},
}

if __name__ == "__main__":
    workdir = Path(__file__).parent / jvae.__version__
    experiment.run(CONFIG, workdir)
    evaluate_run(workdir, step="last", num_examples=20, num_samples=2)
    for name in ("best", "tensorboard"):
        shutil.rmtree(workdir / name)
    (workdir / ".lock").unlink()
    for path in (workdir / "evaluation").rglob("*"):
        if path.is_file() and path.name != "results.json":
            path.unlink()
    for file in workdir.rglob("commit_success.txt"):  # says where it was, nothing else
        file.write_text("Checkpoint commit was successful\n")
