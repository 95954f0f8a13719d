"""Models on disk: `model.safetensors`, and a `config.json` that says what they are built from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.config import ComponentSpec, ModelConfig
from lmx_core.construct import filled
from lmx_core.errors import CheckpointError, UnknownComponentError, report
from lmx_core.files import atomically
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.registry import SESSION, registry
from lmx_core.serialize import plain, structure

WEIGHTS, CONFIG, CHECKPOINTS = "model.safetensors", "config.json", "checkpoints"
FORMAT = 1
"""Version of the layout of `config.json`."""


def save_model(model: LanguageModel, path: str | Path) -> None:
    """Write the model into the directory `path`, each file whole or not at all."""
    record = {"lmx_format": FORMAT, "model": plain(model.config), "components": list(_provenance(model.config))}
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
    """The config of a saved model."""
    file = directory / CONFIG
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        model, version = record["model"], record["lmx_format"]
        needs = [(each["kind"], each["name"], each["distribution"]) for each in record["components"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged or not lmx's ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise CheckpointError(f"{file} has format {version!r}; this lmx reads format {FORMAT}. Update lmx-core.")
    for kind, name, distribution in needs:
        _must_be_installed(str(kind), str(name), str(distribution))
    return structure(model, ModelConfig, str(file), "model")


def _must_be_installed(kind: str, name: str, distribution: str) -> None:
    try:
        registry(kind).find(name)
    except UnknownComponentError as error:
        if distribution == SESSION:
            raise CheckpointError(
                f"{kind} {name!r} was registered by the program that saved the model. Register it before loading."
            ) from None
        raise UnknownComponentError(kind, name, error.known, provider=distribution) from None


def _provenance(config: Any) -> Iterator[dict[str, str]]:
    """Each component that a config names: where it came from."""
    seen = {(kind, chosen.name) for kind, chosen in _components(config)}
    for kind, name in sorted(seen):
        ref = registry(kind).find(name)
        yield {"kind": kind, "name": name, "distribution": ref.dist, "version": ref.version, "entry_point": ref.target}


def _components(config: Any) -> Iterator[tuple[str, ComponentSpec]]:
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if isinstance(value, ComponentSpec) and "kind" in field.metadata:
            kind = field.metadata["kind"]
            yield kind, value
            value = filled(kind, registry(kind).get(value.name), value)
        for part in value if isinstance(value, tuple) else (value,):
            if attrs.has(type(part)) and not isinstance(part, ComponentSpec):
                yield from _components(part)


def load_weights(model: LanguageModel, file: Path) -> None:
    """Fill the model's parameters from a file that has exactly these; `CheckpointError` says what does not fit."""
    try:
        weights: dict[str, mx.array] = mx.load(str(file))  # pyright: ignore[reportAssignmentType]
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
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
