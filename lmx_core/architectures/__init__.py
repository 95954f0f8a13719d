"""Architectures: functions that return a `ModelConfig`, one file a family, named as its checkpoints name it."""
