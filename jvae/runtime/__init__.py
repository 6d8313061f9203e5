"""Processes, devices, signals, XLA's options, and what goes to the log."""
