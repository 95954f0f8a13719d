"""The components that GPT and LLaMA need, one noun a file."""
