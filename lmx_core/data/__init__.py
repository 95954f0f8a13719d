"""Text to batches: datasets, tokenizers, windows of tokens."""
