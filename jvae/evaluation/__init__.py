"""What a trained model is worth: bounds, latents, pictures, and a report of them.

`trained`, `likelihood`, `latents` and `samples` need jax and numpy only; the libraries
that draw and write a report are imported by the functions that use them.
"""
