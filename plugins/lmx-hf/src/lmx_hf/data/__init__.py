"""Datasets of Hugging Face: rows as text, as examples and as packed tokens."""
