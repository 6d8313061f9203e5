"""What a run leaves on disk: checkpoints, metrics, locks."""
