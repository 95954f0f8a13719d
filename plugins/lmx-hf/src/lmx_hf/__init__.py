"""Hugging Face tokenizers for lmx. `tokenizers` is imported when one is used."""

from lmx_hf.tokenizer import HFTokenizer as HFTokenizer
from lmx_hf.tokenizer import HFTokenizerOptions as HFTokenizerOptions
