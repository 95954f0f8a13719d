"""Verbs of `lmx` that lmx-hf brings."""
