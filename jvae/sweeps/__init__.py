"""Many runs of one config: a grid of values and seeds, and a table."""
