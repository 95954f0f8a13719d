"""Checkpoints of transformers, as the tests read them: config.json in both layouts, tensors under lmx's names.

Loading them for users is lmx-hf's work; here stand the facts that its tables will be made of.
"""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import pytest

from lmx_core import LanguageModel, make_config, spec

SHARED = Path(__file__).parents[3] / "shared"
DEFAULTS = SHARED / "hf_config_defaults.json"
ACTIVATIONS = {
    "gelu": "gelu",
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"), "gelu_tanh"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
    "xielu": "xielu",
}
TEXT_PARTS = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""What the text part of a composite is, where its config does not say so."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
FURTHER_DEFAULTS: dict[str, dict[str, Any]] = {
    "apertus": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 12e6, "factor": 8.0, **LLAMA3}},
    "exaone4": {"num_key_value_heads": 32, "sliding_window": 4096, "rms_norm_eps": 1e-5},
    "helium": {"rope_parameters": {"rope_theta": 100_000.0}, "rms_norm_eps": 1e-8},
    "ministral": {"num_key_value_heads": 8, "sliding_window": 4096, "rms_norm_eps": 1e-6},
}
"""Of classes that the file of defaults leaves out."""
FILLED_IN = {
    "head_dim": {"cohere2", "deepseek_v2", "llama", "mistral", "nemotron"},
    "num_key_value_heads": {
        *("cohere", "cohere2", "deepseek_v2", "granite", "granitemoe", "granitemoehybrid", "llama", "olmo", "olmo2"),
        *("olmo3", "olmo_hybrid", "olmoe", "phi", "phi3", "recurrent_gemma", "zamba2"),
    },
}
"""What the file of defaults has although these classes make it of other keys."""


@attrs.frozen
class Config:
    """A config.json, with what its class takes for granted; either layout reads the same."""

    data: Mapping[str, Any]
    defaults: Mapping[str, Any] = {}

    @classmethod
    def read(cls, file: Path) -> "Config":
        whole = json.loads(file.read_text())
        part = TEXT_PARTS.get(whole["model_type"], whole["model_type"])
        data = {"model_type": part, **whole.get("text_config", whole)}
        known = json.loads(DEFAULTS.read_text())["defaults"] if DEFAULTS.exists() else {}
        taken = {**known, **FURTHER_DEFAULTS}.get(data["model_type"], {})
        return cls(data, {key: each for key, each in taken.items() if data["model_type"] not in FILLED_IN.get(key, ())})

    def __getitem__(self, key: str) -> Any:
        return self.data[key] if key in self.data else self.defaults[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where it is missing or null."""
        value = self.data.get(key, self.defaults.get(key))
        return default if value is None else value

    def under(self, *keys: str) -> Any:
        """The value under whichever of these names it has; its class's where it has none of them."""
        given = {key: self.data[key] for key in keys if self.data.get(key) is not None}
        return next(iter((given or {key: self.defaults[key] for key in keys if key in self.defaults}).values()))

    def renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """`{ours: theirs}` as arguments; what is null is left out."""
        return {ours: self.get(theirs) for ours, theirs in names.items() if self.get(theirs) is not None}

    def rope(self, kind: str | None = None) -> dict[str, Any]:
        """The rope of a kind of layers, in the newer layout: `rope_theta`, `rope_type`, `factor`, ...

        In the published one `sliding_attention` has a base of its own or the class's, and no scaling.
        """
        taken = self.defaults.get("rope_parameters", {})
        taken = taken.get(kind, taken)
        base = taken.get("rope_theta", 10_000.0)
        if isinstance(self.data.get("rope_parameters"), Mapping):
            rope = self.data["rope_parameters"]
            return {"rope_type": "default", "rope_theta": base, **rope.get(kind, rope)}
        local = kind == "sliding_attention"
        scaling = {} if local else dict(self.data.get("rope_scaling") or {})
        if not scaling and taken.get("rope_type", "default") != "default":
            return dict(taken)  # a class whose rope is scaled unless something else is said
        scaling["rope_type"] = scaling.get("rope_type", scaling.pop("type", "default"))
        bases = ("rope_local_base_freq",) if local else ("rope_theta", "rotary_emb_base")
        theta = next((self.data[key] for key in bases if key in self.data), base)
        partial = self.data.get(
            "partial_rotary_factor", self.data.get("rotary_pct", taken.get("partial_rotary_factor", 1))
        )
        return {"rope_theta": theta, "partial_rotary_factor": partial, **scaling}

    def rope_arguments(self, kind: str | None = None) -> dict[str, Any]:
        """As arguments of a factory."""
        rope = self.rope(kind)
        rope = {"original_max_position_embeddings": self.get("max_position_embeddings"), **rope}
        scaling = scaling_spec(rope, self.get("original_max_position_embeddings"))
        return {"rope_theta": float(rope["rope_theta"]), **({"rope_scaling": scaling} if scaling else {})}


def scaling_spec(rope: Mapping[str, Any], original: int | None = None) -> Any:
    """The scaling of a rope in the newer layout, None where there is none."""
    name = {"su": "longrope", "yarn": "yarn"}.get(rope["rope_type"], rope["rope_type"])
    if name == "default":
        return None
    keys = {
        "linear": ("factor",),
        "dynamic": ("factor", "alpha"),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        "yarn": (
            *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"),
            *("mscale", "mscale_all_dim", "truncate"),
        ),
        "longrope": ("short_factor", "long_factor", "original_max_position_embeddings", "factor", "attention_factor"),
        "proportional": ("factor",),
    }[name]
    given = {key: rope[key] for key in keys if rope.get(key) is not None}
    if given.get("alpha"):
        given.pop("factor", None)  # which is then read by nobody
    if original is not None and "original_max_position_embeddings" in keys:
        given["original_max_position_embeddings"] = original
    if "original_max_position_embeddings" in given:
        given["original_max_seq_len"] = given.pop("original_max_position_embeddings")
    if name == "proportional":
        given["fraction"] = rope.get("partial_rotary_factor", 1.0)
    return spec(name, **given)


Tensors = dict[str, mx.array]


@attrs.frozen(kw_only=True)
class Family:
    """How a family of checkpoints becomes a model."""

    factory: str
    arguments: Callable[[Config], dict[str, Any]]
    """Of a config, as the factory takes them."""
    weights: Callable[[Tensors, Config], Tensors]
    """Tensors under lmx's names, from those under theirs; prefixes of the whole model are gone already."""
    needs: tuple[str, ...] = ()
    """The plugins of which its models are made."""

    def case(self, *values: Any, name: str) -> Any:
        """A test's case: of core's families once, of others wherever their plugins are."""
        missing = [name for name in self.needs if importlib.util.find_spec(name.replace("-", "_")) is None]
        marks = pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")
        return pytest.param(*values, id=name, marks=marks if self.needs else pytest.mark.once)


PREFIX = re.compile(
    r"^(?:language_model\.)?(?:model\.language_model\.|transformer\.|gpt_neox\.|model\.)?(?:decoder\.)?"
)
EXTRA = re.compile(
    r"rotary_emb\.inv_freq$|\battn\.(?:attention\.)?(?:masked_)?bias$|attention\.(?:masked_)?bias$|^vision|^multi_modal|"
    r"act_fn\.(?:beta|eps)$"
)
"""What a checkpoint may hold beside the model: buffers, and the other half of one that also sees."""


def tensors_of(folder: Path) -> Tensors:
    """All tensors of a checkpoint, without the prefixes and the extra ones."""
    found: Tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        loaded: Any = mx.load(str(file))
        found |= loaded
    named = {PREFIX.sub("", name): tensor for name, tensor in found.items()}
    return {name: tensor.astype(mx.float32) for name, tensor in named.items() if not EXTRA.search(name)}


def renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """`{pattern: ours}`, each a regular expression that the whole of a name matches; one that none matches is an error."""
    out: Tensors = {}
    for name, tensor in tensors.items():
        for pattern, ours in names.items():
            if match := re.fullmatch(pattern, name):
                out[match.expand(ours)] = tensor
                break
        else:
            raise KeyError(f"{name} {tensor.shape} has no place")
    return out


def split(tensors: Tensors, pattern: str, parts: Callable[[mx.array], Mapping[str, mx.array]]) -> Tensors:
    """Tensors that match `pattern` in the place of several: `parts` names them, in the place of its group `fused`."""
    out: Tensors = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(pattern, name)
        if match is None:
            out[name] = tensor
            continue
        start, end = match.span("fused")
        out |= {f"{name[:start]}{part}{name[end:]}": piece for part, piece in parts(tensor).items()}
    return out


def in_turn(*sizes: int) -> Callable[[mx.array], list[mx.array]]:
    """Rows one part after the other."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return lambda tensor: mx.split(tensor, ends, axis=0)


EXPERT = re.compile(r"(.*\bexperts)\.(\d+)\.(\w+)\.(\w+)")
STACKED = re.compile(r"(.*\bexperts)\.(gate_up|down)_proj(_bias)?")
EXPERT_MATRICES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def stack_experts(tensors: Tensors) -> Tensors:
    """Matrices of experts as `...experts.gate_proj.weight`, `up_proj` and `down_proj`, (experts, out, in).

    They come one by one, as `...experts.3.gate_proj.weight` or `...experts.3.w1.weight`; or stacked already, as
    `...experts.down_proj` and `...experts.gate_up_proj`, with rows of the gate before those of up. So do their biases.
    """
    out: Tensors = {}
    alone: dict[str, dict[int, mx.array]] = {}
    for name, tensor in tensors.items():
        if match := EXPERT.fullmatch(name):
            experts, i, matrix, kind = match.groups()
            stacked = f"{experts}.{EXPERT_MATRICES.get(matrix, matrix)}.{kind}"
            alone.setdefault(stacked, {})[int(i)] = tensor
        elif match := STACKED.fullmatch(name):
            experts, matrix, bias = match.groups()
            parts = zip(matrix.split("_"), mx.split(tensor, matrix.count("_") + 1, axis=1), strict=True)
            out |= {f"{experts}.{part}_proj.{'bias' if bias else 'weight'}": piece for part, piece in parts}
        else:
            out[name] = tensor
    return out | {name: mx.stack([each[i] for i in range(len(each))]) for name, each in alone.items()}


def untied(weights: Tensors, config: Config) -> bool:
    """Whether the checkpoint has a head of its own: what is in the file decides."""
    return "head.weight" in weights


def build(family: Family, config: Config, tensors: Tensors) -> LanguageModel:
    """The model of a checkpoint."""
    weights = family.weights(tensors, config)
    arguments = {**family.arguments(config), "tie_embeddings": "head.weight" not in weights}
    model = LanguageModel(make_config(family.factory, **arguments))
    model.load_weights(list(weights.items()))
    model.eval()
    return model
