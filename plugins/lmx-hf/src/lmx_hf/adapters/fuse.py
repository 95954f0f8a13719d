"""A checkpoint with an adapter in it."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from mlx.core import array

from lmx_core.errors import CheckpointError, report
from lmx_hf.adapters.changes import Adapter, Misfit, Wanted
from lmx_hf.adapters.names import HEAD, Names, canonical
from lmx_hf.adapters.places import Asked, Place, Places
from lmx_hf.adapters.read import read
from lmx_hf.adapters.stored import sides
from lmx_hf.transforms import Tensors


def fused(
    tensors: Tensors,
    adapter: Path,
    transposed: Callable[[str], bool] | None = None,
    interleaved: Callable[[str], bool] | None = None,
) -> Tensors:
    """The tensors of a checkpoint with a LoRA adapter added, under their names, in their layouts and types, and lazy.

    `adapter` is a folder as PEFT or mlx-lm writes it: LoRA, DoRA, rank-stabilised, of linear layers, embeddings and
    experts, with biases and whole tensors; or all tensors of mlx-lm's full fine-tuning. Each is computed in float32.

    Which way round a matrix is stored is told by its shape; of square ones `transposed`, asked for the checkpoint's name,
    says whether it is (in, out); without it PEFT's own `fan_in_fan_out` does, and of experts the tensor beside it. Where
    gate and up projection share a tensor, `interleaved` says whether their rows take turns, as gpt-oss has them; else one
    follows the other. `layouts` has both of a family's rules.

    A packed weight that changes is unpacked and stays dense, in the type of its scales, as rounding it again to a few bits
    would undo what the adapter adds: from 4 bits in groups of 64 to bfloat16 it grows 3.6-fold. Quantise after loading to
    have it small again. Where the head is tied and only one of the two changes, the result has a head of its own.

    `CheckpointError` for an adapter that is none of these, and for every tensor of it that finds no place.
    """
    asked = read(adapter)
    _check_norms(tensors, asked)
    told = transposed or _guess(tensors, asked)
    problems = list(asked.problems)
    for base in (True, False):
        tensors = _untied(tensors, asked, base)
        places = Places(tensors, Names(tensors), told, interleaved or (lambda _: False))
        _change(places, [each for each in asked.wanted if each.base is base], problems)
    if problems:
        raise CheckpointError(report(f"{adapter}, which is to be added to the checkpoint", _in_groups(problems)))
    return tensors


def _guess(tensors: Tensors, asked: Adapter) -> Asked:
    """How squares are stored where nobody says. Of two stacks of experts one alone can be square, as (E, 2 F, D) and
    (E, D, F) are: F = D or 2 F = D."""
    beside = {"gate_up_proj": "down_proj", "down_proj": "gate_up_proj"}

    def turned(name: str) -> bool:
        stem, _, leaf = name.removesuffix(".weight").rpartition(".")
        other = tensors.get(name.replace(f"{stem}.{leaf}", f"{stem}.{beside.get(leaf, '')}"))
        if other is not None and other.ndim == 3:
            return other.shape[-1] > other.shape[-2]  # as (E, out, in) it is tall
        return asked.squares_turned

    return turned


def _check_norms(tensors: Tensors, asked: Adapter) -> None:
    """mlx-lm adds one to the norms of Qwen3-Next and its like as it reads them, and turns their convolutions.

    Whole norms of its layout are those of a checkpoint that has been converted alone.
    """
    turned = next((name for name in tensors if name.endswith(".linear_attn.conv1d.weight")), None)
    if asked.whole_of_mlx_lm and turned is not None and tensors[turned].shape[-1] != 1:
        raise CheckpointError(
            "fine_tune_type 'full' of mlx-lm replaces norms, which it keeps otherwise than this checkpoint. Convert the "
            "checkpoint with mlx_lm.convert and add the adapter to that."
        )


def _change(places: Places, wanted: list[Wanted], problems: list[tuple[str, str]]) -> None:
    """Every place is found before the first tensor changes."""
    taken: dict[tuple[str, int | None, type], str] = {}
    found: list[tuple[str, Place]] = []
    for each in wanted:
        source = " and ".join(each.sources)
        try:
            for place in places.of(each):
                other = taken.setdefault((place.name, place.half, type(place.change)), source)
                if other != source:
                    raise Misfit(f"is for {place.name}, and so is {other}")
                found.append((source, place))
        except Misfit as fault:
            problems.append((source, str(fault)))
    for source, place in found:
        try:
            _fill(places.tensors, place.name, places.filled(place))
        except Misfit as fault:
            problems.append((source, str(fault)))


def _in_groups(problems: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One of those that differ in numbers alone, such as the layer's."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, message in problems:
        groups[re.sub(r"\d+", "#", f"{source}: {message}")].append((source, message))
    return [
        (group[0][0], f"{group[0][1]} And {len(group) - 1} like it." if len(group) > 1 else group[0][1])
        for group in groups.values()
    ]


def _fill(tensors: Tensors, name: str, value: array) -> None:
    """A packed tensor becomes a dense one."""
    for side in sides(name):
        tensors.pop(side, None)
    tensors[name] = value


def _untied(tensors: Tensors, asked: Adapter, base: bool) -> Tensors:
    """A copy; where the head is the embedding and the adapter tells the two apart, with the embedding as a head too.

    It does so by naming the head, or, once its base is there, by changing an embedding that the head does not follow.
    """
    names = Names(tensors)
    embedding = names.embedding()
    if embedding is None or names.head():
        return dict(tensors)
    head = next((target for each in asked.wanted for target, _ in each.options if canonical(target) == HEAD), None)
    if head is None:
        changed = [target for each in asked.wanted for target, _ in each.options if not each.base]
        if base or asked.head_follows or not any(embedding in names.find(target) for target in changed):
            return dict(tensors)
        head = f"language_model.{HEAD}" if embedding.startswith("language_model.") else HEAD
    copied = {head: tensors[embedding]}
    copied |= {new: tensors[old] for new, old in zip(sides(head), sides(embedding), strict=True) if old in tensors}
    return tensors | copied
