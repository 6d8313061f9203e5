"""The same models in plain PyTorch, written for speed, to be compared with."""
