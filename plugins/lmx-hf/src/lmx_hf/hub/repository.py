"""Repositories of the Hugging Face hub as local folders."""

import json
import shutil
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from lmx_core.quantities import in_bytes
from lmx_hf.hub.explained import FULL, explained
from lmx_hf.hub.explained import HubError as HubError
from lmx_hf.hub.sums import damaged
from lmx_hf.shards import INDEX, PICKLES, WEIGHTS

SMALL = (
    *("config*.json", "generation_config.json", "quant*_config.json", "adapter_config.json", INDEX),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*"),
    *("*.model", "*.tiktoken"),
)
"""What a model needs beside its weights."""


@attrs.frozen
class Kind:
    """What a repository is fetched for."""

    noun: str
    config: str
    """The file that says what it is."""
    weights: tuple[str, ...]
    """Patterns; the first that the repository has something for counts."""


MODEL = Kind("model", "config.json", (WEIGHTS, "model*.safetensors"))
ADAPTER = Kind("adapter", "adapter_config.json", ("adapter_model.safetensors", "adapters.safetensors"))


def fetch(repo_or_path: str | Path, revision: str | None = None, kind: Kind = MODEL) -> Path:
    """The folder of a model, or of an adapter with `kind=ADAPTER`: a local one as it is, else one of the hub's cache.

    Configs, tokenizer and weights in safetensors are fetched, and nothing else; where `model.safetensors.index.json` names
    shards, these alone. The cache, its place, offline mode and the token are huggingface_hub's (`HF_HOME`,
    `HF_HUB_OFFLINE`, `HF_TOKEN`). Without a connection, what the cache has of the revision is taken if it is complete.

    Every file is compared with its checksum, once: see `damaged` for what that costs.

    `HubError` for a repository that is not there, has no weights in safetensors, may not be read or cannot be read now; it
    says what to do. Nothing is returned then, and what is incomplete or wrong is not in the cache.
    """
    local = _local(repo_or_path, revision, kind)
    return local or Repository(str(repo_or_path), revision, kind).fetch()


def _local(place: str | Path, revision: str | None, kind: Kind) -> Path | None:
    path = Path(place).expanduser()
    if path.is_dir():
        if revision is not None:
            raise HubError(f"{place} is a folder here, which has no revision {revision!r}. Leave revision out.")
        return path
    if path.exists():
        raise HubError(f"{place} is a file. Give the folder of the {kind.noun}.")
    if isinstance(place, Path) or _is_path(place):
        raise HubError(f"there is no folder {place}. Correct the path; a repository of the hub is named owner/name.")
    return None


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


@attrs.define
class Repository:
    """One on the hub, at one revision."""

    name: str
    revision: str | None
    kind: Kind
    _listing: Mapping[str, Any] | None = attrs.field(default=None, init=False)

    def fetch(self) -> Path:
        with self._explained():
            folder = self._snapshot(self.revision, SMALL, "*/*")
        self._check(folder, SMALL)
        if not (folder / self.kind.config).is_file():
            raise HubError(self._without_config(folder))
        weights = self._weights(folder)
        with self._explained(), self._room(folder, weights):
            self._snapshot(folder.name, [*map(escape, weights)])
        self._check(folder, map(escape, weights))
        return folder

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.name, self.revision)

    def _snapshot(self, revision: str | None, allowed: Sequence[str], ignored: str | None = None) -> Path:
        from huggingface_hub import snapshot_download

        with quiet():
            place = snapshot_download(
                self.name,
                revision=revision,
                allow_patterns=list(allowed),
                ignore_patterns=ignored,
                library_name="lmx",
            )
        return Path(place)

    def _check(self, folder: Path, patterns: Iterable[str]) -> None:
        files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
        with self._explained():
            wrong = damaged(files, lambda: self._sums(folder))
        if wrong:
            raise HubError(
                f"{some([file.name for file in wrong])} of {self.name} has other bytes than the hub says: the checksum "
                "is wrong. It is removed from the cache. Run it again to fetch it anew; where the hub itself sends wrong "
                "bytes, tell the owner."
            )

    def _sums(self, folder: Path) -> dict[str, str]:
        """By the hub's listing; nothing where it cannot be asked."""
        try:
            files = self._files(folder)
        except HubError:
            return {}
        return {name: file.lfs.sha256 if file.lfs else file.blob_id for name, file in files.items()}

    def _files(self, folder: Path) -> Mapping[str, Any]:
        """What the repository holds outside of folders; asked for once."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        if self._listing is None:
            with self._explained():
                entries = HfApi(library_name="lmx").list_repo_tree(self.name, revision=folder.name)
                self._listing = {each.path: each for each in entries if isinstance(each, RepoFile)}
        return self._listing

    def _without_config(self, folder: Path) -> str:
        if self.kind is MODEL and (folder / ADAPTER.config).is_file():
            return f"{self.name} is an adapter and no model. Load the model that it is for, with it as the adapter."
        return f"{self.name} has no {self.kind.config}: it is no {self.kind.noun} that lmx reads."

    def _weights(self, folder: Path) -> list[str]:
        """Paths inside the repository, complete in the folder or listed by the hub."""
        named = _named(folder / INDEX) if self.kind is MODEL else []
        wanted = named or [self._first(folder)]
        if all((folder / name).is_file() for name in wanted):
            return wanted
        try:
            listed = self._files(folder)
        except HubError as error:
            return self._cached(folder, named, error)
        if missing := [name for name in named if name not in listed]:
            raise HubError(f"{self.name} lacks {some(missing)}, which its {INDEX} names. Tell its owner.")
        return named or self._chosen(listed)

    def _first(self, folder: Path) -> str:
        """The cached file that makes a question to the hub needless."""
        exact = [name for name in self.kind.weights if "*" not in name]
        return next((name for name in exact if (folder / name).is_file()), exact[0])

    def _cached(self, folder: Path, named: Sequence[str], error: HubError) -> list[str]:
        """What of the weights is here while the hub cannot be asked."""
        if named:
            missing = [name for name in named if not (folder / name).is_file()]
            raise HubError(f"{error} The cache has only a part of {self.name}: {some(missing)} is missing.") from error
        for pattern in self.kind.weights:
            if any(folder.glob(pattern)):
                with self._explained():
                    self._snapshot(folder.name, [pattern], "*/*")  # an error where it knows of more
                return sorted(file.name for file in folder.glob(pattern))
        raise HubError(f"{error} The cache has no weights of {self.name}. Fetch it once while online.") from error

    def _chosen(self, listed: Iterable[str]) -> list[str]:
        names = sorted(listed)
        for pattern in self.kind.weights:
            if found := [name for name in names if fnmatchcase(name, pattern)]:
                return found
        raise HubError(self._without_weights(names))

    def _without_weights(self, names: Sequence[str]) -> str:
        if pickles := matching(names, PICKLES):
            return (
                f"{self.name} has its weights as pickles alone ({some(pickles)}). Reading one runs whatever code is in "
                "it, so lmx does not. Convert it where you trust it: load it with transformers and write it with "
                "save_pretrained(folder, safe_serialization=True), or ask its owner for safetensors, which the hub's "
                "conversion makes."
            )
        if others := matching(names, ["*.gguf", "*.npz", "*.h5", "*.msgpack", "*.onnx"]):
            return f"{self.name} has no weights in safetensors, only {some(others)}, which lmx does not read."
        return f"{self.name} has no weights of a {self.kind.noun} in safetensors. It holds {some(names)}."

    @contextmanager
    def _room(self, folder: Path, weights: Sequence[str]) -> Generator[None, None, None]:
        """Says how much room the weights need where the disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            listed = self._listing or {}
            needed = sum(listed[name].size for name in weights if name in listed and not (folder / name).is_file())
            free = shutil.disk_usage(folder).free
            raise HubError(
                f"the disk of {folder} is full: {self.name} needs {needed:,} bytes more ({in_bytes(needed)}), and "
                f"{free:,} are free. Free the rest, or set HF_HOME to a folder on a larger disk. Files that are "
                "complete are kept."
            ) from error


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names whose last part fits one of the patterns."""
    kept = list(patterns)
    return [name for name in names if any(fnmatchcase(PurePosixPath(name).name, pattern) for pattern in kept)]


def _named(index: Path) -> list[str]:
    """The shards of an index; none where there is no index."""
    if not index.is_file():
        return []
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HubError(f"{index} is no index of shards ({type(error).__name__}: {error}). Tell its owner.") from None
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise HubError(f"{index} names the file {name!r}, which is no shard beside it. Nothing of it is read.")
    return names


def some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"


@contextmanager
def quiet() -> Generator[None, None, None]:
    """huggingface_hub's bars where there is a terminal alone: not all of them look for one."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    chosen = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    if chosen or are_progress_bars_disabled() or (sys.stderr is not None and sys.stderr.isatty()):
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
