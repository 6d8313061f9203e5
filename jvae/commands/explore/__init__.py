"""A page in the browser that moves through the latent space of a trained model.

`python -m jvae.commands.explore WORKDIR`. `explorer` answers what the page asks, `page` lays it
out, `server` serves it to this machine alone.
"""
