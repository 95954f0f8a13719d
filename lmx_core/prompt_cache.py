"""What a model remembers of a prompt, on disk: read once, continued as often as one likes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.components.masks import ALL, Scope
from lmx_core.config import ComponentSpec
from lmx_core.construct import build
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.files import atomically
from lmx_core.freeze import check_installed, read_records, record
from lmx_core.registry import registry
from lmx_core.serialize import plain, structure

FORMAT = 1
"""Version of what stands in the file's metadata."""


def save_cache(caches: Sequence[Any], path: str | Path) -> None:
    """Write the caches of a model's layers into one safetensors file, whole or not at all.

    Each is noted by its name in the registry; one of a class that nobody offers there is a `ConfigError`.
    """
    if Path(path).suffix != ".safetensors":
        raise ConfigError(f"a cache is saved as name.safetensors, got {path}")
    arrays = {f"{i}.{j}": part for i, cache in enumerate(caches) for j, part in enumerate(cache.state)}
    names = [_name(cache) for cache in caches]
    layers = [
        {
            "name": name,
            "options": plain(cache.options) if hasattr(cache, "options") else {},
            "scope": plain(getattr(cache, "scope", ALL)),
            "arrays": len(cache.state),
        }
        for name, cache in zip(names, caches, strict=True)
    ]
    needed = [attrs.asdict(record("cache", name)) for name in sorted(set(names))]
    about = {"lmx_format": FORMAT, "layers": layers, "components": needed}
    with atomically(Path(path)) as file:
        mx.save_safetensors(str(file), arrays, {"format": "mlx", "lmx": json.dumps(about)})


def load_cache(path: str | Path) -> list[Any]:
    """The caches that `save_cache` wrote.

    Nothing that the file names is imported: kinds are found among the installed distributions, and one that is missing
    raises `UnknownComponentError` with the distribution to install; a damaged file raises `CheckpointError`.
    """
    file = Path(path)
    try:
        read: Any = mx.load(str(file), format="safetensors", return_metadata=True)
        arrays, metadata = read
        about = json.loads(metadata["lmx"])
        layers, version, needed = about["layers"], about["lmx_format"], about["components"]
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged or no cache of lmx's ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise CheckpointError(f"{file} has format {version!r}; this lmx reads format {FORMAT}. Update lmx-core.")
    check_installed(read_records(needed, file), file)
    try:
        return [_restored(i, layer, arrays, file) for i, layer in enumerate(layers)]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged ({type(error).__name__}: {error})") from None


def _restored(i: int, layer: dict[str, Any], arrays: dict[str, mx.array], file: Path) -> Any:
    scope = structure(layer["scope"], Scope, str(file), f"layers[{i}].scope")
    cache = build("cache", ComponentSpec(layer["name"], layer["options"]), scope)
    cache.state = [arrays[f"{i}.{j}"] for j in range(layer["arrays"])]
    return cache


def _name(cache: Any) -> str:
    offered = registry("cache")
    for ref in offered.refs():
        if offered.get(ref.qualified) is type(cache):
            return ref.qualified
    raise ConfigError(
        f"no distribution offers {type(cache).__name__} as a cache, so that it could be found again. Publish it: "
        f'"cache.<name>" = "{type(cache).__module__}:{type(cache).__qualname__}"'
    )
