"""Trained models: restoring them, samples, codes, likelihoods."""
