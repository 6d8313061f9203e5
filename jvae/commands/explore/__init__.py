"""A page in the browser that moves through the latent space of a trained model.

`jvae explore WORKDIR`. `explorer` answers what the page asks, `page` lays it
out, `server` serves it to this machine alone.
"""
