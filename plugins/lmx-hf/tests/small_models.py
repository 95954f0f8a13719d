"""Models made on the spot that write letters, so that texts can be compared."""

import json
from pathlib import Path

import mlx.core as mx

from lmx_core import LanguageModel, generate, make_config
from lmx_core.checkpoint import save_model
from lmx_core.data.tokenizers import ByteTokenizer, decode, save_tokenizer
from lmx_core.testing import randomise
from lmx_hf import HFTokenizer, export

from .small_tokenizers import llama3

LETTERS = range(97, 123)
QUESTION = "to be or not to be"
TEMPLATE = "{% for each in messages %}<|turn|>{{ each.content }}<|eot|>{% endfor %}<|turn|>"
PROMPTS = ["abc", "the quick brown fox jumps over the lazy dog " * 2, "x", "hello world, well", "abcd"]


def spelling(model, letters=LETTERS):
    """The model, with logits of these tokens alone, and embeddings so small that what the layers add decides."""
    chosen = mx.array([[token in letters] for token in range(model.head.weight.shape[0])])
    model.head.weight = model.head.weight * chosen
    model.embed.weight = model.embed.weight / 20
    return model.eval()


def saved(folder, name="llama", model=None, **options):
    """A folder of lmx with such a model and the tokenizer `bytes`; and the model."""
    if model is None:
        model = spelling(randomise(LanguageModel(make_config(name, size="tiny", tie_embeddings=False, **options))))
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_model(model, folder)
    save_tokenizer("bytes", ByteTokenizer(), Path(folder) / "tokenizer.json")
    return str(folder), model


def checkpoint(folder):
    """Such a model as a folder of Hugging Face."""
    model = spelling(randomise(LanguageModel(make_config("llama", size="tiny", tie_embeddings=False))))
    export(model, folder, family="llama", tokenizer=ByteTokenizer())
    return str(folder), model


def talking(folder):
    """A folder of Hugging Face with a chat template; and what its model says to `QUESTION` in 20 tokens."""
    tokenizer = HFTokenizer(json.loads(llama3().to_str()), lossy=True).with_chat_template(TEMPLATE)
    words = [token for token in range(tokenizer.vocab_size) if tokenizer.decode_bytes([token]).isalpha()]
    config = make_config("llama", size="tiny", vocab_size=tokenizer.vocab_size, tie_embeddings=False)
    model = spelling(randomise(LanguageModel(config)), words)
    export(model, folder, family="llama", tokenizer=tokenizer)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}])
    return str(folder), decode(tokenizer, generate(model, prompt, max_tokens=20, temperature=0))


def greedy(model, prompt, n=20):
    """What lmx writes after a text."""
    return bytes(generate(model, list(prompt.encode()), max_tokens=n, temperature=0)).decode()
