"""Adapters as PEFT writes them."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs
from mlx.core import array

from lmx_core.errors import CheckpointError
from lmx_hf.adapters.changes import Adapter, Change, LowRank, Misfit, Shift, Wanted, Whole
from lmx_hf.transforms import Tensors

Number = TypeVar("Number", int, float)
PREFIX = re.compile(r"^base_model\.(?:model\.)?")
PART = re.compile(
    r"(.+?)\.(lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.(?!weight$|bias$)[^.]+)?(?:\.(weight|bias))?"
)
"""Module and part of a tensor's name; between them and its end the adapter may have a name of its own."""
SAVED = re.compile(r"\.modules_to_save(?:\.default)?(?=\.)")
BASE = ".base_layer"
OTHERS = {
    "alora_invocation_tokens": "works from certain tokens on, so that no weight can stand for it",
    "arrow_config": "chooses among adapters for each token",
    "kasa_config": "takes singular values out of the base",
    "layer_replication": "repeats layers of the base",
    "trainable_token_indices": "replaces rows of the embedding",
    "use_bdlora": "has factors in blocks",
    "use_qalora": "averages its input in groups",
}
"""Fields of a LoraConfig that make something else of an adapter, and what."""
WAY_OUT = "Where PEFT can merge it, model.merge_and_unload(), save the merged model and load that."
CHANGED_BASES = ("corda", "lora_ga", "loftq", "olora", "pissa")
"""Beginnings of `init_lora_weights` that take their start out of the base's weights."""


def check(config: Mapping[str, Any]) -> None:
    """`CheckpointError` for an adapter that is none of LoRA, or a kind of it that changes more than weights."""
    kind = config["peft_type"]
    if kind != "LORA":
        raise CheckpointError(f"the adapter is of peft_type {kind!r}, and lmx reads LORA alone. {WAY_OUT}")
    for field, what in OTHERS.items():
        if config.get(field):
            raise CheckpointError(
                f"the adapter has {field}={config[field]!r}: it {what}, which lmx cannot fuse. {WAY_OUT}"
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASES):
        raise CheckpointError(
            f"the adapter has init_lora_weights={start!r}: it was trained on a base without what it began with. Save it "
            "with path_initial_model_for_weight_conversion, which makes a LoRA of it, or merge it where it was trained."
        )


def read(config: Mapping[str, Any], tensors: Tensors) -> Adapter:
    """`lora_A` (R, in) and `lora_B` (out, R), scaled by alpha / R, or by alpha / sqrt(R) where they are rank-stabilised
    (arXiv:2312.03732); of tokens `lora_embedding_A` (R, V) and `lora_embedding_B` (width, R); and whole tensors.

    A tied head stays as it was where the embedding alone was trained, which is how the adapter was trained: PEFT shows it
    the embedding without the adapter, and changes it no sooner than it merges the two.
    """
    settings = Settings.of(config)
    modules: dict[str, dict[str, tuple[str, array]]] = defaultdict(dict)
    wanted: list[Wanted] = []
    problems: list[tuple[str, str]] = []
    for name, value in tensors.items():
        plain = PREFIX.sub("", name)
        found = PART.fullmatch(plain)
        if not found:
            target = SAVED.sub("", plain).replace(BASE, "")
            wanted.append(Wanted((name,), ((target, Whole(value, stored=False)),), base=BASE in plain))
            continue
        module, part, end = found.groups()
        key = f"{part}.bias" if end == "bias" else part
        if key in modules[module]:
            problems.append((name, f"is there twice, as {modules[module][key][0]} too"))
        modules[module][key] = name, value
    for module, parts in modules.items():
        sources = tuple(name for name, _ in parts.values())
        values = {part: value for part, (_, value) in parts.items()}
        try:
            wanted += _wanted(module.replace(BASE, ""), sources, values, settings)
        except Misfit as fault:
            problems.append((" and ".join(sources), str(fault)))
    return Adapter(tuple(wanted), head_follows=False, squares_turned=settings.fan_in_fan_out, problems=tuple(problems))


@attrs.frozen(kw_only=True)
class Settings:
    """What a LoraConfig says that counts after training."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    """By patterns that names of modules end with."""
    stabilised: bool
    dora: bool
    parameters: tuple[str, ...]
    fan_in_fan_out: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        try:
            return cls(
                rank=_positive("r", config["r"]),
                alpha=_number("lora_alpha", config["lora_alpha"]),
                ranks={key: _positive(key, rank) for key, rank in _patterns(config, "rank_pattern")},
                alphas={key: _number(key, alpha) for key, alpha in _patterns(config, "alpha_pattern")},
                stabilised=bool(config.get("use_rslora")),
                dora=bool(config.get("use_dora")),
                parameters=tuple(map(_name, config.get("target_parameters") or ())),
                fan_in_fan_out=bool(config.get("fan_in_fan_out")),
            )
        except (TypeError, ValueError, KeyError, AttributeError, re.error) as error:
            raise CheckpointError(
                f"adapter_config.json is damaged ({type(error).__name__}: {error}). Download it again."
            ) from None

    def rank_of(self, name: str) -> int:
        return _first(self.ranks, name, self.rank)

    def scale_of(self, name: str) -> float:
        rank = self.rank_of(name)
        return _first(self.alphas, name, self.alpha) / (math.sqrt(rank) if self.stabilised else rank)


def _wanted(module: str, sources: tuple[str, ...], parts: Mapping[str, array], settings: Settings) -> Iterator[Wanted]:
    """The weight of a module, or a parameter of it that the config names; and its bias."""
    a, b, embedding = _factors(parts, settings.dora)
    options: dict[str, Change] = {}
    faults: list[str] = []
    for name in _targets(module, settings.parameters):
        # ranks go by the name of a module or of a parameter
        rank, scale = settings.rank_of(name), settings.scale_of(name)
        try:
            factors = (a, b) if name == module else _of_experts(a, b, rank)
            if factors[0].shape[-2] != rank:
                raise Misfit(f"has rank {a.shape[0]}, and the config says {rank}")
            change = LowRank(*factors, scale, parts.get("lora_magnitude_vector"), stored=embedding or None)
            options[f"{module}.weight" if name == module else name] = change
        except Misfit as fault:
            faults.append(str(fault))
    if not options:
        raise Misfit("; ".join(faults))
    yield Wanted(sources, tuple(options.items()), tuple(faults))
    if "lora_B.bias" in parts:
        shift = Shift(parts["lora_B.bias"], settings.scale_of(module))
        yield Wanted(sources, ((f"{module}.bias", shift),))


def _factors(parts: Mapping[str, array], dora: bool) -> tuple[array, array, bool]:
    """And whether they are an embedding's, which is stored (V, width)."""
    embedding = any(part.startswith("lora_embedding") for part in parts)
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    needed = (*names, "lora_magnitude_vector") if dora else names
    if missing := [part for part in needed if part not in parts]:
        raise Misfit(f"has no {' and no '.join(missing)} beside it")
    if strange := [part for part in parts if part not in (*needed, "lora_B.bias")]:
        raise Misfit(f"has {' and '.join(strange)} beside it, which the config says nothing of")
    a, b = (parts[name] for name in names)
    if a.ndim != 2 or b.ndim != 2:
        raise Misfit(f"has shapes {a.shape} and {b.shape}: lmx fuses adapters of matrices, not of convolutions")
    return a, b, embedding


def _targets(module: str, parameters: tuple[str, ...]) -> list[str]:
    """Parameters of the module that the config names, and the module itself, unless it is its weight that is named."""
    named = {f"{module}.{each.rpartition('.')[2]}": each for each in parameters}
    targets = [name for name, each in named.items() if f".{name}".endswith(f".{each}")]
    return targets if f"{module}.weight" in targets else [*targets, module]


def _of_experts(a: array, b: array, rank: int) -> tuple[array, array]:
    """Of (E R, in) and (out, R E), where each expert's numbers lie in a row in the one and apart in the other."""
    experts, rest = divmod(a.shape[0], rank)
    if rest or b.shape[1] != a.shape[0]:
        raise Misfit(f"has shapes {a.shape} and {b.shape}, which are no whole number of experts of rank {rank}")
    if experts == 1:
        return a, b
    return a.reshape(experts, rank, -1), b.reshape(-1, rank, experts).transpose(2, 0, 1)


def _patterns(config: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
    patterns = list((config.get(field) or {}).items())
    for pattern, _ in patterns:
        re.compile(pattern)
    return patterns


def _first(patterns: Mapping[str, Number], name: str, default: Number) -> Number:
    return next((value for each, value in patterns.items() if re.match(rf"(.*\.)?({each})$", name)), default)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"target_parameters has {value!r}, which is no name")
    return value


def _positive(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r} is no rank")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{name}={value!r} is no number")
    return float(value)
