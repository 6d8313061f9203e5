"""Metrics and estimates of a trained model; `jvae.reports` makes pages of them.

`results.evaluate_all` measures everything that a model has, with as many draws as
`settings.Settings` says. The ELBO and the importance-weighted estimate of log p(x) are
those of `jvae.pretrained.likelihood`, which `jvae.restore` offers too.
"""
