"""Sparse models by name."""
