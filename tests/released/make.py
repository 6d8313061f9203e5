"""Makes the checkpoint of a release: python tests/released/make.py, once per format.

The arrays are committed and never made again; test_released.py restores them for ever.
"""

import shutil
from pathlib import Path

import jvae
from jvae.training import experiment

CONFIG = {
    "num_steps": 3,
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
    for name in ("best", "tensorboard", "metrics.jsonl"):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in workdir.rglob("commit_success.txt"):  # says where it was, nothing else
        file.write_text("Checkpoint commit was successful\n")
