"""The 784-512-16 VAE in plain PyTorch, and pythae's own trainer on the same model."""

import contextlib
import io
import logging
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class MlpVAE(nn.Module):
    """The model of configs/fashion_mlp.py."""

    def __init__(self, latent_dim=16, hidden=512, pixels=784):
        super().__init__()
        self.into = nn.Linear(pixels, hidden)
        self.head = nn.Linear(hidden, 2 * latent_dim)
        self.out_of = nn.Linear(latent_dim, hidden)
        self.output = nn.Linear(hidden, pixels)

    def linears(self):
        """Returns the layers in the order in which images pass them."""
        return [self.into, self.head, self.out_of, self.output]

    def forward(self, x, noise):
        """Returns the mean -ELBO in nats, at z = mean + std noise."""
        mean, log_var = self.head(functional.relu(self.into(x))).chunk(2, dim=-1)
        z = mean + torch.exp(0.5 * log_var) * noise
        logits = self.output(functional.relu(self.out_of(z)))
        kl = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).sum()
        cross_entropy = functional.binary_cross_entropy_with_logits(
            logits, x, reduction="sum"
        )
        return (cross_entropy + kl) / len(x)


class Torch:
    """A plain loop: uint8 images in memory, fused Adam, an average of parameters."""

    def __init__(self, images, layers, batch, ema_decay, compiled):
        self.name = "torch compiled" if compiled else "torch eager"
        self.model = MlpVAE()
        fill(self.model.linears(), layers)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.images = torch.from_numpy(images.reshape(-1, 784).copy())
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.params = [p.data for p in self.model.parameters()]
        self.ema = [p.clone() for p in self.params]
        self.batch, self.weight = batch, 1.0 - ema_decay

    def train(self, num_steps):
        """Returns the seconds of so many steps, within one epoch in a new order."""
        began = time.perf_counter()
        order = torch.randperm(len(self.images))
        for i in range(num_steps):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            x = torch.bernoulli(self.images[chosen].float().div_(255.0))
            loss = self.loss(x, torch.randn(len(x), 16))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            torch._foreach_lerp_(self.ema, self.params, self.weight)
        return time.perf_counter() - began

    @torch.inference_mode()
    def score(self):
        """Returns the mean -ELBO of all images."""
        x = self.images.float().div(255.0)
        return float(self.model(x, torch.randn(len(x), 16)))


class Pythae:
    """pythae's BaseTrainer; a turn is an epoch of its own loader."""

    name = "pythae"

    def __init__(self, images, layers, batch, folder):
        logging.getLogger("pythae").setLevel(logging.WARNING)
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        pixels = torch.from_numpy(images.reshape(-1, 784)).float().div(255.0)
        self.data = BaseDataset(pixels, torch.zeros(len(pixels)))
        config = VAEConfig(input_dim=(784,), latent_dim=16, reconstruction_loss="bce")
        self.model = VAE(config)
        encoder, decoder = self.model.encoder, self.model.decoder
        (into, bias), (head, head_bias), *rest = layers
        heads = zip(np.split(head, 2, 1), np.split(head_bias, 2), strict=True)
        fill(
            [encoder.layers[0][0], encoder.embedding, encoder.log_var]
            + [decoder.layers[0][0], decoder.layers[1][0]],
            [(into, bias), *heads, *rest],
        )
        settings = BaseTrainerConfig(
            output_dir=str(folder),
            per_device_train_batch_size=batch,
            learning_rate=1e-3,
            num_epochs=1,
        )
        with contextlib.redirect_stderr(io.StringIO()):
            self.trainer = BaseTrainer(self.model, self.data, None, settings)
            self.trainer.prepare_training()
        self.epoch = 0

    def train(self, num_steps):
        """Returns the seconds of one epoch, which has so many steps."""
        self.epoch += 1
        assert len(self.trainer.train_loader) == num_steps
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            self.trainer.train_step(self.epoch)
        return time.perf_counter() - began

    @torch.inference_mode()
    def score(self):
        """Returns the mean -ELBO of all images."""
        return float(self.model({"data": self.data.data}).loss)


def fill(linears, layers):
    """Copies (kernel [in, out], bias) into layers of PyTorch."""
    for linear, (kernel, bias) in zip(linears, layers, strict=True):
        linear.weight.data = torch.from_numpy(np.array(kernel, np.float32).T.copy())
        linear.bias.data = torch.from_numpy(np.array(bias, np.float32))
