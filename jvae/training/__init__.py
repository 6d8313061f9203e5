"""From a config to a trained model: components, the training step, the loop."""
