"""A split of a dataset, opened by the library `datasets`."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmx_core.errors import DataError, LmxError, did_you_mean
from lmx_hf.lazily import library

BUILDERS = ("arrow", "csv", "json", "parquet", "text")
"""What `datasets` reads files with; any other path is a folder or a name on the hub."""


def opened(
    path: str, name: str | None, split: str, files: tuple[str, ...], revision: str | None, streaming: bool
) -> Any:
    """A `datasets.IterableDataset`. `DataError` says what is missing, and what there is instead."""
    if path in BUILDERS and not files:
        raise DataError(f'"{path}" reads files: which ones? data_files = ["data/*.jsonl"]')
    folder = Path(path).expanduser()
    with _explained(path, files):
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = library("datasets").load_from_disk(str(folder))
        else:
            source = str(folder) if folder.is_dir() else path
            options: dict[str, Any] = {"data_files": list(files)} if files else {}
            found = library("datasets").load_dataset(source, name, revision=revision, streaming=streaming, **options)
    if isinstance(found, Mapping):
        found = _split(found, split, path)
    return found.to_iterable_dataset() if hasattr(found, "to_iterable_dataset") else found


def _split(found: Mapping[Any, Any], split: str, path: str) -> Any:
    splits = [str(each) for each in found]
    if split not in splits:
        raise DataError(f"{path} has no split {split!r}. {did_you_mean(split, splits)}It has {', '.join(splits)}.")
    return found[split]


@contextmanager
def _explained(path: str, files: tuple[str, ...]) -> Generator[None, None, None]:
    try:
        yield
    except ConnectionError as error:
        raise DataError(
            f"{path} is neither a folder here nor to be had from the hub ({error}). Correct the path, or go online once: "
            "what was loaded with streaming = false is kept."
        ) from None
    except FileNotFoundError as error:
        if files:
            what = f"data_files {', '.join(files)} match no file in {Path.cwd()}. Correct the path."
        else:
            what = (
                f"{path} is no folder here, and: {error} Correct it; for what is private or gated log in: hf auth login"
            )
        raise DataError(what) from None
    except StopIteration:  # it looks for the first of the files, and in it for the first row
        raise DataError(
            f"{path} {', '.join(files)} has no rows, or matches no file in {Path.cwd()}. Correct the path, or give it more."
        ) from None
    except LmxError:
        raise
    except Exception as error:  # of the many readers of files
        where, said = f"{path} {', '.join(files)}" if files else path, f"{type(error).__name__}: {error}"
        if cause := error.__cause__:  # where all is read first, the reader's own
            said += f" ({type(cause).__name__}: {str(cause).strip()})"
        raise DataError(f"{where} cannot be opened as a dataset: {said}") from None
