"""Tokenizers of Hugging Face, and what they say to a model."""
