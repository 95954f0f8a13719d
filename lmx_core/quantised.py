"""Weights of few bits: modules become MLX's packed ones, by rules or as the tensors of a file are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten, tree_unflatten

from lmx_core.components.packed import PackedLinear
from lmx_core.errors import CheckpointError, ConfigError, did_you_mean

DENSE = "dense"
Rule = bool | int | str | Mapping[str, Any]
"""Of one module: False or "dense" leaves it dense, 8 means 8 bits, a mapping has `bits`, `group_size` and `mode`."""
BITS = {"affine": (4, 1, 2, 3, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}
GROUPS = {"affine": (64, 32, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}
"""What MLX has of each mode, what is meant where nothing is said first."""
SMALL_FLOATS = {(BITS[mode][0], GROUPS[mode][0]): mode for mode in ("mxfp4", "mxfp8", "nvfp4")}
"""Modes whose scales are bytes."""


@attrs.frozen
class Packing:
    """How numbers are packed: so many bits each, and a scale for each group of a row."""

    bits: int
    group_size: int
    mode: str = "affine"

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.mode}, groups of {self.group_size}"

    @classmethod
    def of(cls, bits: int | None = None, group_size: int | None = None, mode: str = "affine") -> "Packing":
        """With the mode's own bits and group size unless given. `ConfigError` for what MLX does not have."""
        if mode not in BITS:
            raise ConfigError(f"mode={mode!r}. {did_you_mean(str(mode), BITS)}MLX quantises in {', '.join(BITS)}.")
        return cls(_known("bits", bits, BITS[mode], mode), _known("group_size", group_size, GROUPS[mode], mode), mode)

    @classmethod
    def read(cls, weight: array, scales: array, width: int) -> "Packing":
        """Off the shapes and types of packed rows of so many numbers; `ValueError` where they are none."""
        bits, rest = divmod(32 * weight.shape[-1], width)
        group_size, left = divmod(width, scales.shape[-1])
        if rest or left or weight.dtype != mx.uint32:
            raise ValueError(f"{weight.dtype} {weight.shape} with scales {scales.shape} are no rows of {width} numbers")
        mode = SMALL_FLOATS.get((bits, group_size)) if scales.dtype == mx.uint8 else "affine"
        if mode is None or bits not in BITS[mode] or group_size not in GROUPS[mode]:
            raise ValueError(
                f"{bits} bits in groups of {group_size} with scales of {scales.dtype} are none of its modes"
            )
        return cls(bits, group_size, mode)


@attrs.frozen(kw_only=True)
class Quantised:
    """What became of a model."""

    packed: Mapping[str, Packing]
    """Modules by their paths."""
    dense: Mapping[str, str]
    """Modules with a matrix that stayed as it was, and why."""
    parameters: int
    bytes_before: int
    bytes_after: int

    @property
    def bits_per_weight(self) -> float:
        """Scales, and all that is dense, included."""
        return 8 * self.bytes_after / self.parameters


def quantise(
    model: nn.Module,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    rules: Mapping[str, Rule] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quantised:
    """Pack what has a packed form (`to_quantized`), in place and module by module, so that one is held twice at a time.

    Unless given, bits and group size are the mode's own, 4 and 64 for `affine`. `rules` are for paths of modules with
    `*`, `?` and `[...]`, such as `{"layers.0.*": 8, "head": False, "*.down": {"bits": 6, "group_size": 32}}`; where
    several match, the last one counts. Modules whose rows do not divide into groups stay dense, and so do those that are
    `sensitive` or keep their weight in `full_precision`, unless a rule names them. What is packed already stays so.

    `progress` is called with how many modules are done, and how many there are.
    """
    default = Packing.of(bits, group_size, mode)
    chosen = {pattern: _by_rule(pattern, rule, default) for pattern, rule in (rules or {}).items()}
    modules = dict(matrices(model))
    _check_patterns(chosen, modules)
    packed, dense = dict[str, Packing](), dict[str, str]()
    before, paths = _bytes(model), list(modules)
    for i, path in enumerate(paths):
        if progress is not None:
            progress(i, len(paths))
        module = modules.pop(path)  # the last reference to its dense weight
        how = packing(module) or _planned(path, module, chosen, default)
        if isinstance(how, str):
            dense[path] = how
            continue
        packed[path] = how
        if packing(module) is None:
            try:
                mx.eval(_replace(model, path, module, how).parameters())
            except ValueError as error:
                raise ConfigError(f"{path} cannot be packed in {how}: {error}") from None
    return Quantised(
        packed=packed, dense=dense, parameters=count(model), bytes_before=before, bytes_after=_bytes(model)
    )


def take_packing(model: nn.Module, weights: Mapping[str, array]) -> dict[str, array]:
    """Replace those modules by packed ones that are packed in a file, and return the weights that the model now takes.

    The tensors decide alone: `X.scales` beside `X.weight` of uint32, by shapes and types, so that nothing is read. A
    weight whose module has no packed form comes back dense, lazily. `CheckpointError` where the shapes make no packing.
    """
    modules, taken = dict(model.named_modules()), dict(weights)
    for path in [name.removesuffix(".scales") for name in weights if name.endswith(".scales")]:
        module = modules.get(path)
        if module is None or f"{path}.weight" not in weights or "weight" not in module or packing(module) is not None:
            continue  # whoever loads them says what does not belong to the model
        weight, scales = weights[f"{path}.weight"], weights[f"{path}.scales"]
        try:
            how = Packing.read(weight, scales, module.weight.shape[-1])
            if hasattr(module, "to_quantized"):
                _replace(model, path, module, how)
                continue
            triplet = weight, scales, taken.pop(f"{path}.biases", None)
            taken[f"{path}.weight"] = mx.dequantize(*triplet, **attrs.asdict(how))
            del taken[f"{path}.scales"]
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path} is packed in a way that MLX does not know: {error}") from None
    return taken


def packing(module: Any) -> Packing | None:
    """How a module is packed, or None where it is dense. A packed one says `bits`, `group_size` and `mode`."""
    if "scales" not in module or "weight" not in module or module.weight.dtype != mx.uint32:
        return None
    return Packing(module.bits, module.group_size, module.mode)


def packed_modules(model: nn.Module) -> dict[str, Packing]:
    """The packed modules of a model by their paths."""
    return {path: how for path, module in _modules(model) if (how := packing(module)) is not None}


def matrices(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules that have a weight of more than one axis, packed ones included, by their paths."""
    for path, module in _modules(model):
        if path and "weight" in module and module.weight.ndim > 1:
            yield path, module


def count(model: nn.Module) -> int:
    """Numbers in a model; of packed ones those that they stand for, and no scales."""
    numbers = {name: weight.size for name, weight in _flat(model)}
    for path, how in packed_modules(model).items():
        for name in ("scales", "biases"):
            numbers.pop(f"{path}.{name}", None)
        numbers[f"{path}.weight"] = numbers[f"{path}.weight"] * 32 // how.bits
    return sum(numbers.values())


def check_frozen(model: nn.Module) -> None:
    """`ConfigError` where packed weights are to be trained, of which there is no gradient."""
    trained = {path for path, _ in tree_flatten(model.trainable_parameters())}
    thawed = [path for path in packed_modules(model) if f"{path}.weight" in trained]
    if thawed:
        shown = ", ".join(thawed[:3]) + (f" and {len(thawed) - 3} more" if len(thawed) > 3 else "")
        raise ConfigError(
            f"packed weights are to be trained, of which there is no gradient: {shown}. "
            "Freeze them and train what is beside them, or train the model before it is quantised."
        )


def _known(name: str, value: int | None, known: Sequence[int], mode: str) -> int:
    if value is None:
        return known[0]
    if type(value) is not int or value not in known:
        raise ConfigError(f"{name}={value!r}: mode {mode!r} of MLX has {', '.join(map(str, sorted(known)))}")
    return value


def _by_rule(pattern: str, rule: Rule, default: Packing) -> Packing | None:
    """None leaves modules dense."""
    if isinstance(rule, str) and rule != DENSE:
        raise ConfigError(f"rule {pattern!r} is {rule!r}. It is a number of bits, {DENSE!r}, or a table.")
    if isinstance(rule, bool | str):
        return default if rule is True else None
    stated: dict[str, Any] = {"bits": rule} if isinstance(rule, int) else dict(rule)
    known = [field.name for field in attrs.fields(Packing)]
    for key in stated:
        if key not in known:
            raise ConfigError(
                f"rule {pattern!r} has {key!r}. {did_you_mean(key, known)}It may have {', '.join(known)}."
            )
    same_mode = stated.get("mode", default.mode) == default.mode
    try:
        return Packing.of(**(attrs.asdict(default) | stated if same_mode else stated))
    except ConfigError as error:
        raise ConfigError(f"rule {pattern!r}: {error}") from None


def _check_patterns(chosen: Mapping[str, Packing | None], modules: Mapping[str, Any]) -> None:
    """Each rule is about something, and asks nothing impossible."""
    for pattern, how in chosen.items():
        matching = [path for path in modules if fnmatchcase(path, pattern)]
        packable = [path for path in matching if hasattr(modules[path], "to_quantized")]
        if not matching:
            below = f"Did you mean {pattern + '.*'!r}? " if any(p.startswith(f"{pattern}.") for p in modules) else ""
            raise ConfigError(
                f"rule {pattern!r} matches no module with a matrix. {below or did_you_mean(pattern, modules)}"
                "Modules are named as in model.named_modules()."
            )
        if how is not None and not packable:
            what = modules[matching[0]]
            reason = "is packed already" if packing(what) else f"({type(what).__name__}) has no packed form"
            raise ConfigError(f"rule {pattern!r} quantises nothing: {matching[0]} {reason}")


def _planned(path: str, module: Any, chosen: Mapping[str, Packing | None], default: Packing) -> Packing | str:
    """How to pack a dense module, or why not."""
    rule = next((pattern for pattern in reversed(list(chosen)) if fnmatchcase(path, pattern)), None)
    how = default if rule is None else chosen[rule]
    if how is None:
        return f"by rule {rule!r}"
    if not hasattr(module, "to_quantized"):
        return f"{type(module).__name__} has no packed form"
    if rule is None and (getattr(module, "sensitive", False) or "weight" in getattr(module, "full_precision", ())):
        return "is sensitive to rounding"
    width = module.weight.shape[-1]
    return how if width % how.group_size == 0 else f"rows of {width} do not divide into groups of {how.group_size}"


def _modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """In the order in which they were made: MLX walks from the last one."""
    return reversed(model.named_modules())


def _replace(model: nn.Module, path: str, module: Any, how: Packing) -> Any:
    if type(module) is nn.Linear:  # MLX's own, which knows nothing of ours
        packed = PackedLinear.from_linear(module, how.group_size, how.bits, how.mode)
    else:
        packed = module.to_quantized(**attrs.asdict(how))
    packed.train(module.training)
    model.update_modules(tree_unflatten([(path, packed)]))
    return packed


def _flat(model: nn.Module) -> list[tuple[str, array]]:
    flat: Any = tree_flatten(model.parameters())
    return flat


def _bytes(model: nn.Module) -> int:
    return sum(weight.nbytes for _, weight in _flat(model))
