"""The components that GPT and LLaMA need, one noun a file."""

from lmx_core import backend

backend.ensure()
