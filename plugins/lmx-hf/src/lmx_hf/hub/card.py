"""What a model's page on the hub says of it."""

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.quantities import in_words
from lmx_hf.lookup import read_config
from lmx_hf.shards import files_of, tensors_of

LMX = """With lmx:

```sh
pip install lmx-hf
lmx generate {repo} --prompt "Once upon a time"
```"""
TRANSFORMERS = """With transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForCausalLM.from_pretrained("{repo}")
```"""
MLX_LM = """With mlx-lm:

```sh
pip install mlx-lm
mlx_lm.generate --model {repo} --prompt "Once upon a time"
```"""


@attrs.frozen
class Layout:
    """How a folder is laid out, as the hub's `library_name`, and what reads it."""

    library: str
    uses: tuple[str, ...]


OWN = Layout("lmx", (LMX,))
QUANTISED = Layout("mlx", (LMX, MLX_LM))
DENSE_MLX = Layout("mlx", (LMX, MLX_LM, TRANSFORMERS))
DENSE = Layout("transformers", (LMX, TRANSFORMERS, MLX_LM))


def model_card(folder: str | Path, repo: str | None = None, base_model: str | None = None) -> str:
    """A README.md: metadata for the hub, size, quantisation, and how to use it with each library that reads the folder.

    `repo` is its name on the hub, the folder's own unless given. `base_model` is what it was made from; where it is not
    given, the `_name_or_path` of its config, if that is a repository.
    """
    from huggingface_hub import ModelCard, ModelCardData

    folder = Path(folder)
    config, (count, written_by) = read_config(folder), inspected(folder)
    layout = _layout(config, written_by)
    made_from = base_model or _origin(config, repo)
    quantised = _quantisation(config)
    relation: dict[str, Any] = {"base_model_relation": "quantized"} if made_from and quantised else {}
    data = ModelCardData(
        library_name=layout.library,
        pipeline_tag="text-generation",
        base_model=made_from,
        tags=[*dict.fromkeys(["lmx", layout.library, *([f"{quantised['bits']}-bit"] if quantised else [])])],
        **relation,
    )
    name = repo or folder.resolve().name
    about = _about(config, count, made_from) + ("" if _has_tokenizer(folder) else " It comes without a tokenizer.")
    parts = [f"# {name.rpartition('/')[2]}", about, "## Use", *layout.uses]
    body = "\n\n".join(parts).replace("{repo}", name)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def inspected(folder: Path) -> tuple[int | None, str]:
    """How many parameters the folder's safetensors hold, and the `format` in their metadata; no weight is read.

    None where it cannot be told: packed in a way that is not MLX's. `CheckpointError` for a file that is damaged.
    """
    shapes = {name: tensor.shape for name, tensor in tensors_of(folder).items()}
    load: Any = mx.load  # its type does not follow its arguments
    _, metadata = load(str(files_of(folder)[0]), return_metadata=True)
    return _parameters(shapes, read_config(folder)), metadata.get("format", "")


def _parameters(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> int | None:
    """Numbers of the model: what MLX packed into words of 32 bits counts as what it stands for, scales do not."""
    groups = config.get("quantization") or {}
    packed = {name.removesuffix(".scales") for name in shapes if name.endswith(".scales")}
    if "quant_method" in config.get("quantization_config", {}) or (packed and "group_size" not in groups):
        return None
    total = 0
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if module not in packed or leaf not in ("weight", "scales", "biases"):
            total += prod(shape)
        elif leaf == "weight":
            own = groups.get(module)
            size = own["group_size"] if isinstance(own, dict) else groups["group_size"]
            total += prod(shape[:-1]) * shapes[f"{module}.scales"][-1] * size
    return total


def _layout(config: Mapping[str, Any], written_by: str) -> Layout:
    if "lmx_format" in config:
        return OWN
    if "quantization" in config:
        return QUANTISED
    return DENSE_MLX if written_by == "mlx" else DENSE


def _origin(config: Mapping[str, Any], repo: str | None) -> str | None:
    name = config.get("_name_or_path")
    is_name = isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None
    return name if is_name and name != repo else None


def _quantisation(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bits at least."""
    for key in ("quantization", "quantization_config"):
        found = config.get(key)
        if isinstance(found, dict) and "bits" in found:
            return found
    return None


def _has_tokenizer(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab*", "*.model", "*.tiktoken"))


def _about(config: Mapping[str, Any], count: int | None, made_from: str | None) -> str:
    kind = config.get("model_type")
    size = f" with {in_words(count)} parameters" if count else ""
    sentences = [f"A language model{size}{f', of type `{kind}`' if kind else ''}."]
    if found := _quantisation(config):
        group = f" in groups of {found['group_size']}" if found.get("group_size") else ""
        mode = found.get("mode") or found.get("quant_method")
        sentences.append(f"Its weights are quantised to {found['bits']} bits{group}{f' ({mode})' if mode else ''}.")
    if made_from:
        sentences.append(f"Made from `{made_from}`.")
    return " ".join(sentences)
