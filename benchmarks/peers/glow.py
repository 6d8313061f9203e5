"""Glow in PyTorch: the flow of `jvae.flows.Glow`, affine couplings, LU convolutions."""

import math

import torch
from torch import nn
from torch.nn import functional

MAX_LOG_SCALE, MAX_LOG_STD = 2.0, 5.0


class ActNorm(nn.Module):
    """(x + shift) exp(log_scale)."""

    def __init__(self, channels):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        """Returns (y, log |det| of every image)."""
        scale = self.log_scale.exp()[:, None, None]
        log_det = x.shape[2] * x.shape[3] * self.log_scale.sum()
        return (x + self.shift[:, None, None]) * scale, log_det


class InvertibleConv(nn.Module):
    """A 1x1 convolution of kernel P L U."""

    def __init__(self, order):
        super().__init__()
        size = len(order)
        self.register_buffer("order", torch.as_tensor(order, dtype=torch.long))
        self.register_buffer("eye", torch.eye(size))
        self.lower = nn.Parameter(torch.zeros(size, size))
        self.upper = nn.Parameter(torch.zeros(size, size))
        self.log_diagonal = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        """Returns (y, log |det| of every image)."""
        lower = self.lower.tril(-1) + self.eye
        upper = self.upper.triu(1) + self.log_diagonal.exp().diag()
        kernel = (lower @ upper)[self.order]
        log_det = x.shape[2] * x.shape[3] * self.log_diagonal.sum()
        return functional.conv2d(x, kernel[:, :, None, None]), log_det


class Coupling(nn.Module):
    """(a, b) -> (a, exp(log scale(a)) b + shift(a))."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.first = nn.Conv2d(channels // 2, hidden, 3, padding=1)
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x):
        """Returns (y, log |det| of every image)."""
        a, b = x.chunk(2, dim=1)
        h = functional.relu(self.middle(functional.relu(self.first(a))))
        log_scale, shift = self.last(h).chunk(2, dim=1)
        log_scale = MAX_LOG_SCALE * torch.tanh(log_scale / MAX_LOG_SCALE)
        b = b * log_scale.exp() + shift
        return torch.cat([a, b], dim=1), log_scale.flatten(1).sum(1)


class Split(nn.Module):
    """The second half leaves, normalised by what the first says of it."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels // 2, channels, 3, padding=1)

    def forward(self, x):
        """Returns (a, z, log |det| [B])."""
        a, b = x.chunk(2, dim=1)
        mean, log_std = self.layer(a).chunk(2, dim=1)
        log_std = MAX_LOG_STD * torch.tanh(log_std / MAX_LOG_STD)
        return a, (b - mean) * (-log_std).exp(), -log_std.flatten(1).sum(1)


class Glow(nn.Module):
    """Images [B, C, H, W], levels with noise in [-1, 1) -> -log p in nats, [B]."""

    def __init__(self, channels, orders, hidden):
        super().__init__()
        self.levels, self.splits = nn.ModuleList(), nn.ModuleList()
        for level, of_level in enumerate(orders):
            channels *= 4
            steps = [
                nn.ModuleList(
                    [ActNorm(channels), InvertibleConv(o), Coupling(channels, hidden)]
                )
                for o in of_level
            ]
            self.levels.append(nn.ModuleList(steps))
            if level < len(orders) - 1:
                self.splits.append(Split(channels))
                channels //= 2
        self.last = ActNorm(channels)

    def forward(self, y):
        """Returns -log p of each image, of [-1, 1)."""
        total, leaving = 0.0, []
        for level, steps in enumerate(self.levels):
            y = squeezed(y)
            for step in steps:
                for part in step:
                    y, log_det = part(y)
                    total = total + log_det
            if level < len(self.splits):
                y, z, log_det = self.splits[level](y)
                total = total + log_det
                leaving.append(z)
        y, log_det = self.last(y)
        z = torch.cat([part.flatten(1) for part in (*leaving, y)], dim=1)
        log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        return -(log_p + total + log_det)


def squeezed(x):
    """Returns [B, 4 C, H/2, W/2], channels in order (row, column, C)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, 4 * c, h // 2, w // 2)
