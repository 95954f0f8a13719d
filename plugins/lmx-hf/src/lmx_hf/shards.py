"""The tensors of a folder, which are read when they are computed with."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from lmx_core.errors import CheckpointError
from lmx_hf.transforms import Tensors

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def tensors_of(folder: Path) -> Tensors:
    """Every tensor under its name. The arrays are lazy: nothing but names and shapes is read yet.

    `CheckpointError` for a folder with none, or with a file that is damaged or not there.
    """
    found: Tensors = {}
    for file in files_of(folder):
        found |= read_file(file)
    return found


def files_of(folder: Path) -> list[Path]:
    """The files that hold a model's tensors: those of its index, or those that are named like its weights."""
    index = folder / INDEX
    if index.is_file():
        files = [folder / name for name in sorted(set(_index(index)))]
        if missing := [file.name for file in files if not file.is_file()]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CheckpointError(
                f"{folder} is not whole: {INDEX} names {', '.join(missing[:3])}{more}, not there. Download it again."
            )
        return files
    if (folder / WEIGHTS).is_file():  # whatever else lies beside it
        return [folder / WEIGHTS]
    if files := sorted(folder.glob("model*.safetensors")):
        return files
    if pickled := sorted({file.name for pattern in PICKLES for file in folder.glob(pattern)}):
        raise CheckpointError(
            f"{folder} holds its weights as {pickled[0]}, a pickle, and reading a pickle runs whatever code it holds. lmx "
            "reads safetensors alone. Where you trust it, load it with transformers and write it again: "
            'model.save_pretrained("folder", safe_serialization=True).'
        )
    raise CheckpointError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX}.")


def _index(file: Path) -> list[str]:
    try:
        names: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if any("/" in name or name.startswith("..") for name in names.values()):
            raise ValueError("it names files outside its folder")
        return list(names.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged ({type(error).__name__}: {error}). Download it again.") from None


def read_file(file: Path) -> Tensors:
    """The tensors of one file of safetensors, lazy."""
    try:
        _check_whole(file)
        tensors: Any = mx.load(str(file))
    except (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}. Download it again.") from None
    return tensors


def _check_whole(file: Path) -> None:
    """That the file is as long as its head says: MLX reads a tensor only when it is used, and then what is there."""
    with file.open("rb") as opened:
        head = int.from_bytes(opened.read(8), "little")
        size = file.stat().st_size
        if head > size - 8:
            raise ValueError("it is no safetensors file, or cut off")
        tensors = json.loads(opened.read(head))
    end = max((each["data_offsets"][1] for name, each in tensors.items() if name != "__metadata__"), default=0)
    if 8 + head + end != size:
        raise ValueError(f"it has {size:,} bytes, its head asks for {8 + head + end:,}")
