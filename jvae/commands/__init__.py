"""The commands: train, eval, sample, sweep, export, compare and others."""
