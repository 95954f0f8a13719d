"""What mlx-lm finds where it looks for a model: a folder that names the place, with a tokenizer that it can read."""

import json
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from lmx_core.checkpoint import TOKENIZER, model_directory
from lmx_core.checkpoint import read_config as read_ours
from lmx_core.config import ModelConfig
from lmx_core.data.tokenizers import load_tokenizer, name_of
from lmx_core.errors import ConfigError
from lmx_core.files import write_text
from lmx_core.opening import is_ours
from lmx_hf.bridge.model import MODEL_TYPE
from lmx_hf.bridge.theirs import has_alone
from lmx_hf.hub import fetch
from lmx_hf.lookup import CONFIG, config_from_hf, read_config
from lmx_hf.shards import WEIGHTS
from lmx_hf.text.byte_level import hf_form
from lmx_hf.text.tokenizer import HFTokenizer


class Folders:
    """One for each model that is asked for, in a temporary folder."""

    def __init__(self, parent: Path, learned: bool = False) -> None:
        self.parent, self.learned = parent, learned
        """`learned`: texts are to be learned, and each ends with the tokenizer's end token."""

    def of(self, place: str | Path, revision: str | None = None, allow_patterns: Any = None) -> Path:
        """In place of mlx-lm's own download. A model that mlx-lm alone knows is given to it as it is."""
        if self.parent in Path(place).parents:  # one of these, which mlx-lm asks for again
            return Path(place)
        if revision is None and is_ours(str(place)):
            directory = model_directory(place)
            return self._written(directory, read_ours(directory), directory / TOKENIZER)
        folder = fetch(str(place), revision)
        data = read_config(folder)
        if has_alone(data, place):
            return folder
        return self._written(folder, config_from_hf(data), None)

    def _written(self, source: Path, config: ModelConfig, tokenizer: Path | None) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.parent))
        form, ends = _write_tokenizer(source, tokenizer, folder)
        if self.learned and form.eos_token is None:
            raise ConfigError(
                f"the tokenizer of {source} has no end token, and mlx-lm's trainer ends every text with it. Name it, "
                '"eos_token", in the tokenizer_config.json beside the tokenizer.json that it was read from.'
            )
        record = {"model_type": MODEL_TYPE, "place": str(source.absolute()), "vocab_size": config.vocab_size}
        record |= {"eos_token_id": ends} if ends else {}
        write_text(folder / CONFIG, json.dumps(record))
        mx.save_safetensors(str(folder / WEIGHTS), {})
        return folder


def _write_tokenizer(source: Path, saved: Path | None, folder: Path) -> tuple[HFTokenizer, list[int]]:
    """As mlx-lm reads it, and the tokens that end a text."""
    if saved is None:
        tokenizer: Any = HFTokenizer.read(source)
    else:
        tokenizer = load_tokenizer(saved) if saved.is_file() else None
    if tokenizer is None:
        raise ConfigError(f"{source} has no tokenizer, and mlx-lm's programs read and write text.")
    form = hf_form(tokenizer)
    if form is None:
        name = "?" if saved is None else name_of(saved)
        raise ConfigError(
            f"the tokenizer {name!r} of {source} has no form that mlx-lm reads. lmx generate runs the model; to use it "
            'with mlx-lm, train it with tokenizer "bytes" or "hf".'
        )
    form.write(folder)
    return form, list(form.eos_tokens) if form is tokenizer else []  # bytes have none but in name
