"""The sentence VAE with normalised means (BN-VAE) in PyTorch, with its fused LSTM."""

import torch
from torch import nn
from torch.nn import functional

END = 0


class TextVAE(nn.Module):
    """The model of `jvae.models.text` with the latents 'normalized_gaussian'."""

    def __init__(self, vocabulary_size, latent_dim, width, dropout, gamma):
        super().__init__()
        self.encoder_embedding = nn.Embedding(vocabulary_size, width)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.posterior_head = nn.Linear(width, 2 * latent_dim, bias=False)
        self.norm = nn.BatchNorm1d(latent_dim, affine=False, eps=1e-8, momentum=0.01)
        self.shift = nn.Parameter(torch.zeros(latent_dim))
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.decoder = nn.LSTM(width + latent_dim, width, batch_first=True)
        self.first_cell = nn.Linear(latent_dim, width, bias=False)
        self.output = nn.Linear(width, vocabulary_size, bias=False)
        self.dropout, self.gamma = nn.Dropout(dropout), gamma

    def posterior(self, tokens, length):
        """Returns (mean, log variance) [B, D]."""
        h, _ = self.encoder(self.encoder_embedding(tokens))
        last = h.gather(1, (length - 1)[:, None, None].expand(-1, 1, h.shape[-1]))
        mean, log_var = self.posterior_head(last[:, 0]).chunk(2, dim=-1)
        return self.gamma * self.norm(mean) + self.shift, log_var

    def start(self, z):
        """Returns the state (hidden, cell) [1, B, H] before the first token."""
        cell = self.first_cell(z)[None]
        return torch.tanh(cell), cell

    def logits(self, z, tokens):
        """Returns [B, T, V]."""
        before = functional.pad(tokens[:, :-1], (1, 0), value=END)
        x = self.dropout(self.embedding(before))
        every_step = z[:, None].expand(-1, x.shape[1], -1)
        h, _ = self.decoder(torch.cat([x, every_step], dim=-1), self.start(z))
        return self.output(self.dropout(h))

    def forward(self, tokens, length, noise):
        """Returns -ELBO in nats a sentence, at z = mean + std noise."""
        mean, log_var = self.posterior(tokens, length)
        z = mean + torch.exp(0.5 * log_var) * noise
        kl = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).sum(-1)
        logits = self.logits(z, tokens)
        cross_entropy = functional.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), reduction="none"
        ).view_as(tokens)
        is_token = torch.arange(tokens.shape[1]) < length[:, None]
        return (torch.where(is_token, cross_entropy, 0.0).sum(-1) + kl).mean()

    @torch.inference_mode()
    def generate(self, n, max_length):
        """Returns n sentences [n, max_length], all steps of which are done."""
        z = torch.randn(n, self.first_cell.in_features)
        token, memory = torch.full((n,), END), self.start(z)
        tokens = torch.full((n, max_length), END)
        done = torch.zeros(n, dtype=torch.bool)
        for t in range(max_length):
            x = torch.cat([self.embedding(token), z], dim=-1)[:, None]
            h, memory = self.decoder(x, memory)
            logits = self.output(h[:, 0])
            # The largest of logits and Gumbel noise is a draw.
            noise = torch.empty_like(logits).exponential_().log_()
            token = torch.where(done, END, (logits - noise).argmax(-1))
            done = token == END
            tokens[:, t] = token
            if done.all():
                break
        return tokens
