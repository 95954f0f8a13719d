"""Models on disk: `model.safetensors`, and a `config.json` that says what they are built from."""

import json
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.config import ModelConfig
from lmx_core.errors import CheckpointError, report
from lmx_core.files import atomically
from lmx_core.freeze import Record, check_installed, migrated, read_records, records, requirements_of
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.quantised import take_packing
from lmx_core.serialize import plain, structure

WEIGHTS, CONFIG, CHECKPOINTS = "model.safetensors", "config.json", "checkpoints"
TOKENIZER, POSITION = "tokenizer.json", "training.json"
"""What a checkpoint of a run holds beside the model: with what text became tokens, and where the run stood."""
FORMAT = 1
"""Version of the layout of `config.json`."""


def save_model(model: LanguageModel, path: str | Path) -> None:
    """Write the model into the directory `path`, each file whole or not at all."""
    needed = [attrs.asdict(each) for each in records(model.config)]
    record = {"lmx_format": FORMAT, "model": plain(model.config), "components": needed}
    with atomically(Path(path) / WEIGHTS) as weights, atomically(Path(path) / CONFIG) as config:
        mx.save_safetensors(str(weights), flat_parameters(model), {"format": "mlx"})
        config.write_text(json.dumps(record, indent=2), encoding="utf-8")


def load_model(path: str | Path) -> LanguageModel:
    """The model in a directory that `save_model` wrote, or in the last checkpoint of a run directory.

    Nothing that a file names is imported: components are found among the installed distributions. One that is missing
    raises `UnknownComponentError` with the distribution to install, a damaged file `CheckpointError`.
    """
    directory = model_directory(path)
    model = LanguageModel(read_config(directory))
    load_weights(model, directory / WEIGHTS)
    model.eval()
    return model


def model_directory(path: str | Path) -> Path:
    """Where the model of a directory lies: there, or in the last checkpoint of a run."""
    path = Path(path)
    found = [path, *sorted((path / CHECKPOINTS).glob("step-*"), reverse=True)]
    for directory in found:
        if (directory / CONFIG).is_file():
            return directory
    missing = "is not a directory" if not path.is_dir() else f"holds neither a model ({CONFIG}) nor {CHECKPOINTS}"
    raise CheckpointError(f"{path} {missing}")


def read_config(directory: Path) -> ModelConfig:
    """The config of a saved model, as the installed components read it."""
    file = directory / CONFIG
    saved, needed = _read_record(file)
    check_installed(needed, file)
    return migrated(structure(saved, ModelConfig, str(file), "model"), needed)


def _read_record(file: Path) -> tuple[Any, list[Record]]:
    """The model of a file as plain data, and what it was built with."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        model, version, needed = record["model"], record["lmx_format"], record["components"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is damaged or not lmx's ({type(error).__name__}: {error}). Take another copy of it."
        ) from None
    if version != FORMAT:
        raise CheckpointError(f"{file} has format {version!r}; this lmx reads format {FORMAT}. Update lmx-core.")
    return model, read_records(needed, file)


def requirements(path: str | Path) -> list[str]:
    """What a saved model or a run needs, as pip's requirements; none of it has to be installed."""
    directory = model_directory(path)
    needed = _read_record(directory / CONFIG)[1]
    beside = [directory / name for name in (TOKENIZER, POSITION)]
    return requirements_of([*needed, *(each for file in beside if file.is_file() for each in needs_of(file))])


def needs_of(file: Path) -> list[Record]:
    """The components that a file of a checkpoint says it was made with."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("components", [])
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged or not lmx's ({type(error).__name__}: {error})") from None
    return read_records(found, file)


def load_weights(model: LanguageModel, file: Path) -> None:
    """Fill the model's parameters from a file that has exactly these; `CheckpointError` says what does not fit.

    Modules whose weights are packed in the file become packed ones.
    """
    try:
        weights: dict[str, mx.array] = mx.load(str(file))  # pyright: ignore[reportAssignmentType]
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    weights = take_packing(model, weights)
    expected = flat_parameters(model)
    problems = [(name, "is missing") for name in expected.keys() - weights.keys()]
    problems += [(name, "is not part of this model") for name in weights.keys() - expected.keys()]
    problems += [
        (name, f"has shape {weights[name].shape}, the config asks for {expected[name].shape}")
        for name in expected.keys() & weights.keys()
        if weights[name].shape != expected[name].shape
    ]
    if problems:
        shown = sorted(problems)[:10]
        rest = [("", f"and {len(problems) - len(shown)} more")] if len(problems) > len(shown) else []
        raise CheckpointError(f"{report(str(file), [*shown, *rest])}\nThe weights belong to another config.")
    model.load_weights(list(weights.items()))
    mx.eval(model.parameters())
