"""Metrics and estimates of a trained model; `jvae.reports` makes pages of them."""
