"""Architectures with latent attention: functions that return a `ModelConfig`, one file a family."""
