"""The convolutional VAE of the clustering post in PyTorch, without its clusters.

Two convolutions of width 32, two of 64, the first of each halving the image, and the
same way back with transposed ones; a Bernoulli likelihood of the pixels.

JAX pads a halving 'SAME' convolution of even size below and to the right, PyTorch's
padding=1 above and to the left. So this network sees images upside down and mirrored,
with every kernel turned by 180 degrees: the same numbers, and no copy to pad by hand.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class ConvVAE(nn.Module):
    """The model of configs/fashion_cluster.py as a plain VAE."""

    def __init__(self, latent_dim=20, channels=(32, 64), side=28):
        super().__init__()
        a, b = channels
        self.map = (b, side // 4, side // 4)
        self.encoder = nn.ModuleList(
            [
                nn.Conv2d(1, a, 3, 2, 1),
                nn.Conv2d(a, a, 3, 1, 1),
                nn.Conv2d(a, b, 3, 2, 1),
                nn.Conv2d(b, b, 3, 1, 1),
            ]
        )
        self.head = nn.Linear(math.prod(self.map), 2 * latent_dim)
        self.start = nn.Linear(latent_dim, math.prod(self.map))
        up = {"stride": 2, "padding": 1, "output_padding": 1}
        self.decoder = nn.ModuleList(
            [
                nn.Conv2d(b, b, 3, 1, 1),
                nn.ConvTranspose2d(b, b, 3, **up),
                nn.Conv2d(b, a, 3, 1, 1),
                nn.ConvTranspose2d(a, a, 3, **up),
            ]
        )
        self.output = nn.Conv2d(a, 1, 3, 1, 1)

    def posterior(self, x):
        """Returns (mean, log variance) [B, D] of images [B, 1, H, W]."""
        for layer in self.encoder:
            x = functional.leaky_relu(layer(x), 0.2)
        return self.head(x.flatten(1)).chunk(2, dim=-1)

    def decode(self, z):
        """Returns logits [B, 1, H, W]."""
        x = self.start(z).view(-1, *self.map)
        for layer in self.decoder:
            x = functional.leaky_relu(layer(x), 0.2)
        return self.output(x)

    def forward(self, x, noise):
        """Returns (cross entropy, KL) [B] in nats, at z = mean + std noise."""
        mean, log_var = self.posterior(x)
        z = mean + torch.exp(0.5 * log_var) * noise
        kl = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).sum(-1)
        return cross_entropy(self.decode(z), x), kl

    @torch.inference_mode()
    def log_likelihood(self, x, num_samples, chunk):
        """Returns the importance-weighted bound [B], `chunk` draws at once."""
        mean, log_var = self.posterior(x)
        std, weights = torch.exp(0.5 * log_var), []
        for _ in range(num_samples // chunk):
            noise = torch.randn(chunk, *mean.shape)
            z = mean + std * noise
            log_ratio = 0.5 * (noise**2 - z**2 + log_var).sum(-1)
            logits = self.decode(z.flatten(0, 1)).view(chunk, *x.shape)
            weights.append(log_ratio - cross_entropy(logits, x.expand_as(logits)))
        return torch.cat(weights).logsumexp(0) - math.log(num_samples)

    @torch.inference_mode()
    def sample(self, n, chunk):
        """Returns intensities [n, 1, H, W]."""
        width = self.start.in_features
        parts = [torch.randn(min(chunk, n - i), width) for i in range(0, n, chunk)]
        return torch.cat([torch.sigmoid(self.decode(z)) for z in parts])


def cross_entropy(logits, x):
    """Returns -log p(x|z) over the last three axes."""
    each = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return each.sum((-3, -2, -1))
