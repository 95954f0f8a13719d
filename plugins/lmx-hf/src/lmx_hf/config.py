"""A config.json of the hub, whichever layout it has."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from lmx_core.config import ComponentSpec, spec
from lmx_core.errors import ConfigError

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
"""lmx's activations by the names that configs have for them."""
SCALINGS = {
    "linear": ("factor",),
    "dynamic": ("factor", "alpha"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"),
        *("mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings", "factor", "attention_factor"),
    "proportional": ("factor",),
}
"""Keys of each way to scale a rope."""


@attrs.frozen
class Config:
    """A config.json with what its class takes for granted; the layouts of transformers 4 and 5 read the same."""

    data: Mapping[str, Any]
    defaults: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    @property
    def model_type(self) -> str:
        return str(self.data.get("model_type"))

    def __getitem__(self, key: str) -> Any:
        if key in self.data:
            return self.data[key]
        if key in self.defaults:
            return self.defaults[key]
        raise ConfigError(f"config.json of model_type {self.model_type!r} lacks {key!r}, which has no default.")

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where it is missing or null."""
        value = self.data.get(key, self.defaults.get(key))
        return default if value is None else value

    def under(self, *keys: str) -> Any:
        """The value under whichever of these names it has; its class's where it has none of them."""
        given = {key: self.data[key] for key in keys if self.data.get(key) is not None}
        known = given or {key: self.defaults[key] for key in keys if key in self.defaults}
        return next(iter(known.values())) if known else self[keys[0]]

    def renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """`{ours: theirs}` as arguments; what is null is left out."""
        return {ours: self.get(theirs) for ours, theirs in names.items() if self.get(theirs) is not None}

    def activation(self, key: str, default: str | None = None) -> str:
        """The activation that a key names, by its name in lmx."""
        name = self.get(key, default)
        if name not in ACTIVATIONS:
            raise ConfigError(f"{key} is {name!r}. lmx-hf reads {', '.join(ACTIVATIONS)}.")
        return ACTIVATIONS[name]

    def only(self, key: str, *values: Any) -> None:
        """`ConfigError` unless the value is one of these: lmx's model has no other."""
        if (value := self.get(key, values[0])) not in values:
            choices = " or ".join(map(repr, values))
            raise ConfigError(f"{key} is {value!r}. lmx's {self.model_type} has {choices} alone.")

    def rope(self, kind: str | None = None) -> dict[str, Any]:
        """The rope of a kind of layers, in the newer layout: `rope_theta`, `rope_type`, `factor`, ...

        A table says it, `rope_scaling` before `rope_parameters`; what that leaves out stands beside it, or is the class's. A
        class whose kinds of layers have ropes of their own reads tables by kind alone, and `rope_scaling` as that of the
        layers without a window.
        """
        taken: Mapping[str, Any] = self.defaults.get("rope_parameters") or {}
        apart = any(isinstance(each, Mapping) for each in taken.values())
        taken = taken.get(kind or "", taken)
        given: Mapping[str, Any] = self.data.get("rope_parameters") or {}
        scaling: Mapping[str, Any] = self.data.get("rope_scaling") or {}
        if apart or any(isinstance(each, Mapping) for each in given.values()):
            of_kind = {**(given.get(kind or "") or {}), **({} if kind == "sliding_attention" else scaling)}
            rope = {**of_kind, "truncate": given.get("truncate")}  # which is read for all kinds at once
        else:
            rope = dict(scaling or given)
            unsaid = not scaling and self.data.get("rope_parameters") is None
            if unsaid and taken.get("rope_type", "default") != "default":
                return dict(taken)  # a class whose rope is scaled unless something else is said
        beside = self._beside(
            "rotary_emb_base", "rope_local_base_freq" if kind == "sliding_attention" else "rope_theta"
        )
        base = {"rope_theta": taken.get("rope_theta", 10_000.0), **({} if beside is None else {"rope_theta": beside})}
        partial = self._beside("rotary_pct", "partial_rotary_factor")
        partial = taken.get("partial_rotary_factor") if partial is None else partial
        fraction = {} if partial is None else {"partial_rotary_factor": partial}
        return {**base, **fraction, "rope_type": rope.get("type", "default"), **rope}

    def _beside(self, *keys: str) -> Any:
        return next((self.data[key] for key in keys if self.data.get(key) is not None), None)

    def rope_arguments(self, kind: str | None = None) -> dict[str, Any]:
        """As arguments of a factory."""
        rope = self.rope(kind)
        rope = {"original_max_position_embeddings": self.get("max_position_embeddings"), **rope}
        scaling = scaling_spec(rope, self.get("original_max_position_embeddings"))
        return {"rope_theta": float(rope["rope_theta"]), **({"rope_scaling": scaling} if scaling else {})}

    def kinds(self, sliding: Callable[[int], Any]) -> dict[str, Any]:
        """The window, and which layers have it: those of `layer_types`, or else those that `sliding` says."""
        layers = range(self["num_hidden_layers"])
        implied = ["sliding_attention" if sliding(i) else "full_attention" for i in layers]
        stated: Sequence[str] = self.data.get("layer_types") or implied
        pattern = ["sliding" if stated[i] == "sliding_attention" else "full" for i in layers]
        return {"window": self.get("sliding_window"), "pattern": pattern}


def scaling_spec(rope: Mapping[str, Any], original: int | None = None) -> ComponentSpec | None:
    """The scaling of a rope in the newer layout, None where there is none."""
    name = "longrope" if rope["rope_type"] == "su" else rope["rope_type"]
    if name == "default":
        return None
    if name not in SCALINGS:
        raise ConfigError(f"the rope is scaled by {name!r}. lmx-hf reads {', '.join(SCALINGS)}.")
    keys = SCALINGS[name]
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
