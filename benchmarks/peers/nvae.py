"""NVAE of Bernoulli images in plain PyTorch, of the same structure as jvae's."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Conv(nn.Module):
    """'SAME' convolution; with `gain` the length of each kernel is a parameter."""

    def __init__(self, c_in, c_out, k, stride=1, bias=True, gain=True, groups=1):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(c_out, c_in // groups, k, k) * 0.05)
        self.log_gain = nn.Parameter(torch.zeros(c_out)) if gain else None
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.k, self.stride, self.groups = k, stride, groups

    def weight(self):
        """Returns the kernel that is convolved with."""
        if self.log_gain is None:
            return self.kernel
        length = self.kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
        return self.kernel * (self.log_gain.exp().view(-1, 1, 1, 1) / (length + 1e-5))

    def forward(self, x):
        """Returns the layer of x."""
        padding = self.k // 2
        if self.stride == 2:
            x, padding = F.pad(x, (0, self.k - 2, 0, self.k - 2)), 0
        return F.conv2d(
            x, self.weight(), self.bias, self.stride, padding, groups=self.groups
        )


def batch_norm(channels):
    """Returns a layer with the reference's settings."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.05)


class SqueezeExcite(nn.Module):
    """x times a factor for every channel."""

    def __init__(self, channels):
        super().__init__()
        hidden = max(channels // 16, 4)
        self.Dense_0 = nn.Linear(channels, hidden)
        self.Dense_1 = nn.Linear(hidden, channels)

    def forward(self, x):
        """Returns the layer of x."""
        gate = torch.sigmoid(self.Dense_1(F.relu(self.Dense_0(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class HalvingSkip(nn.Module):
    """swish, then a 1x1 convolution of each pixel phase."""

    def __init__(self, channels):
        super().__init__()
        for i in range(4):
            setattr(self, f"Convolution_{i}", Conv(channels, channels // 2, 1))

    def forward(self, x):
        """Returns the layer of x."""
        x = F.silu(x)
        phases = ((0, 0), (1, 1), (0, 1), (1, 0))
        return torch.cat(
            [
                getattr(self, f"Convolution_{n}")(x[:, :, i::2, j::2])
                for n, (i, j) in enumerate(phases)
            ],
            1,
        )


class BottomUpCell(nn.Module):
    """Two 3x3 convolutions and a skip."""

    def __init__(self, channels, down=False):
        super().__init__()
        out = 2 * channels if down else channels
        self.BatchNorm_0, self.BatchNorm_1 = batch_norm(channels), batch_norm(out)
        self.Convolution_0 = Conv(channels, out, 3, 2 if down else 1)
        self.Convolution_1 = Conv(out, out, 3)
        self.SqueezeExcite_0 = SqueezeExcite(out)
        self.HalvingSkip_0 = HalvingSkip(channels) if down else None

    def forward(self, x):
        """Returns the layer of x."""
        y = self.Convolution_0(F.silu(self.BatchNorm_0(x)))
        y = self.SqueezeExcite_0(self.Convolution_1(F.silu(self.BatchNorm_1(y))))
        skip = x if self.HalvingSkip_0 is None else self.HalvingSkip_0(x)
        return skip + 0.1 * y


class TopDownCell(nn.Module):
    """An inverted bottleneck and a skip."""

    def __init__(self, channels, expansion=6, up=False):
        super().__init__()
        hidden, out = expansion * channels, channels // 2 if up else channels
        self.up = up
        self.BatchNorm_0, self.BatchNorm_3 = batch_norm(channels), batch_norm(out)
        self.BatchNorm_1, self.BatchNorm_2 = batch_norm(hidden), batch_norm(hidden)
        plain = {"bias": False, "gain": False}
        self.Convolution_0 = Conv(channels, hidden, 1, **plain)
        self.Convolution_1 = Conv(hidden, hidden, 5, groups=hidden, **plain)
        self.Convolution_2 = Conv(hidden, out, 1, **plain)
        self.SqueezeExcite_0 = SqueezeExcite(out)
        self.Convolution_3 = Conv(channels, out, 1, bias=False) if up else None

    def forward(self, x):
        """Returns the layer of x."""
        y = F.interpolate(x, scale_factor=2) if self.up else x
        y = self.Convolution_0(self.BatchNorm_0(y))
        y = self.Convolution_1(F.silu(self.BatchNorm_1(y)))
        y = self.Convolution_2(F.silu(self.BatchNorm_2(y)))
        y = self.SqueezeExcite_0(self.BatchNorm_3(y))
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self.Convolution_3(x)
        return x + 0.1 * y


def gaussian(mean, log_std):
    """Returns the bounded mean and standard deviation."""
    return 5 * torch.tanh(mean / 5), torch.exp(5 * torch.tanh(log_std / 5)) + 0.01


class Group(nn.Module):
    """One group of latents."""

    def __init__(self, channels, latents, cells, first=False):
        super().__init__()
        self.first = first
        if not first:
            self.cells = nn.ModuleList(TopDownCell(channels) for _ in range(cells))
            self.prior_head = Conv(channels, 2 * latents, 1)
            self.combine = Conv(channels, channels, 1)
        self.posterior_head = Conv(channels, 2 * latents, 3)
        self.merge = Conv(channels + latents, channels, 1)
        self.latents = latents

    def forward(self, state, known):
        """Returns (state, KL [B]); known None takes the prior's mean."""
        zeros = state.new_zeros(len(state), self.latents, *state.shape[2:])
        mean, log_std = zeros, zeros
        if not self.first:
            for cell in self.cells:
                state = cell(state)
            mean, log_std = self.prior_head(F.elu(state)).chunk(2, 1)
        p_mean, p_std = gaussian(mean, log_std)
        if known is None:
            return self.merge(torch.cat([state, p_mean], 1)), zeros.sum((1, 2, 3))
        if not self.first:
            known = known + self.combine(state)
        d_mean, d_log_std = self.posterior_head(known).chunk(2, 1)
        q_mean, q_std = gaussian(mean + d_mean, log_std + d_log_std)
        z = q_mean + q_std * torch.randn_like(q_mean)
        ratio = q_std / p_std
        kl = 0.5 * (((q_mean - p_mean) / p_std) ** 2 + ratio**2 - 1) - ratio.log()
        return self.merge(torch.cat([state, z], 1)), kl.sum((1, 2, 3))


class NVAE(nn.Module):
    """The model."""

    def __init__(self, size, channels, groups, latents, cells, blocks, block_cells):
        super().__init__()
        c, last = channels, block_cells - 1
        self.stem = Conv(1, c, 3)
        self.before = nn.ModuleList()
        for _ in range(blocks):
            for i in range(block_cells):
                self.before.append(BottomUpCell(c, i == last))
            c *= 2
        self.up, self.halvings = nn.ModuleList(), nn.ModuleList()
        for n in reversed(range(len(groups))):
            of_scale = nn.ModuleList(
                nn.ModuleList(BottomUpCell(c) for _ in range(cells))
                for _ in range(groups[n])
            )
            self.up.insert(0, of_scale)
            if n > 0:
                self.halvings.insert(0, BottomUpCell(c, True))
                c *= 2
        self.top = Conv(c, c, 1)
        side = size >> (blocks + len(groups) - 1)
        self.start = nn.Parameter(torch.rand(c, side, side))
        self.groups, self.doublings = nn.ModuleList(), nn.ModuleList()
        for n, count in enumerate(groups):
            if n > 0:
                self.doublings.append(TopDownCell(c, up=True))
                c //= 2
            self.groups.append(
                nn.ModuleList(
                    Group(c, latents, cells, n == 0 and i == 0) for i in range(count)
                )
            )
        self.after = nn.ModuleList()
        for _ in range(blocks):
            for i in range(block_cells):
                self.after.append(TopDownCell(c, 3, i == 0))
                c = c // 2 if i == 0 else c
        self.head = Conv(c, 1, 3)

    def forward(self, x, use_prior=False):
        """Returns (logits, KL [B, L])."""
        y = self.stem(2 * x - 1)
        for cell in self.before:
            y = cell(y)
        known = [[] for _ in self.up]
        for n in reversed(range(len(self.up))):
            for group in reversed(self.up[n]):
                for cell in group:
                    y = cell(y)
                known[n].insert(0, y)
            if n > 0:
                y = self.halvings[n - 1](y)
        known[0][0] = F.elu(self.top(F.elu(y)))
        state = self.start.expand(len(x), *self.start.shape)
        kl = []
        for n, of_scale in enumerate(self.groups):
            if n > 0:
                state = self.doublings[n - 1](state)
            for group, features in zip(of_scale, known[n], strict=True):
                state, cost = group(state, None if use_prior else features)
                kl.append(cost)
        for cell in self.after:
            state = cell(state)
        return self.head(F.elu(state)), torch.stack(kl, 1)


class Smoothness:
    """Sum of the kernels' largest singular values, kernels of one shape together."""

    def __init__(self, model):
        by_shape = {}
        for module in model.modules():
            if isinstance(module, Conv):
                by_shape.setdefault(tuple(module.kernel.shape), []).append(module)
        self.layers = list(by_shape.values())
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.left = [
            F.normalize(torch.randn(len(of), of[0].kernel.shape[0]), dim=1)
            for of in self.layers
        ]

    def __call__(self):
        """Returns the sum over all convolutions and BatchNorm layers."""
        total = 0.0
        for n, of_shape in enumerate(self.layers):
            w = torch.stack([layer.weight().flatten(1) for layer in of_shape])
            with torch.no_grad():
                u = self.left[n]
                for _ in range(4):
                    v = F.normalize(torch.bmm(u[:, None], w)[:, 0], dim=1)
                    u = F.normalize(torch.bmm(w, v[:, :, None])[:, :, 0], dim=1)
                self.left[n] = u
                v = F.normalize(torch.bmm(u[:, None], w)[:, 0], dim=1)
            total = total + (torch.bmm(w, v[:, :, None])[:, :, 0] * u).sum()
        return total + sum(norm.weight.abs().max() for norm in self.norms)
