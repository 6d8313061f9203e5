"""Numbers that say what a trained model is worth; `jvae.reports` makes pages of them."""
