"""Tiny Shakespeare, downloaded once."""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

from lmx_core.config import exact_types
from lmx_core.data.datasets.files import Split, as_text, read_bytes, side
from lmx_core.errors import CheckpointError, DataError
from lmx_core.files import atomically


@attrs.frozen(kw_only=True)
class Published:
    """A file as its publisher made it."""

    url: str
    size: int
    sha256: str


SHAKESPEARE = Published(
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
TIMEOUT = 30
"""Seconds without a byte after which a download has failed."""
ELSEWHERE = 'Without a network, set path to a copy of the file, or take dataset "python-stdlib".'


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ShakespeareOptions:
    """Options of `dataset="shakespeare"`."""

    path: str | None = None
    """A copy of the file, to need no network."""
    url: str = SHAKESPEARE.url
    """Where it is downloaded from at first use."""


class Shakespeare:
    """Tiny Shakespeare: 1.1 MB of plays, the first nine tenths for training. Downloaded once, always checked."""

    Options = ShakespeareOptions

    def __init__(self, options: ShakespeareOptions | None = None) -> None:
        self.options = options or ShakespeareOptions()

    def documents(self, split: Split) -> Iterable[str]:
        text = as_text(self._bytes())
        cut = len(text) * 9 // 10
        return [side(split, text[:cut], text[cut:])]

    def _bytes(self) -> bytes:
        if self.options.path is not None:
            copy = Path(os.path.expanduser(self.options.path))
            return _checked(read_bytes(copy), str(copy), 'Other texts are for dataset "text".')
        kept = cache_directory() / "tinyshakespeare.txt"
        if os.path.exists(kept):
            return _checked(read_bytes(kept), str(kept), "Remove it to download it again.")
        data = _checked(_downloaded(self.options.url), self.options.url, f"Try again. {ELSEWHERE}")
        _keep(data, kept)
        return data


def cache_directory() -> Path:
    """Where downloads are kept: `LMX_CACHE`, or `lmx` in the user's cache directory."""
    if chosen := os.environ.get("LMX_CACHE"):
        return Path(os.path.expanduser(chosen))
    system = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or system)) / "lmx"


def _checked(data: bytes, source: str, way_out: str) -> bytes:
    found, expected = (len(data), hashlib.sha256(data).hexdigest()), (SHAKESPEARE.size, SHAKESPEARE.sha256)
    if found != expected:
        said = [f"{size:,} bytes with sha256 {digest[:16]}..." for size, digest in (found, expected)]
        raise DataError(f"{source} is not tiny Shakespeare: it has {said[0]}, expected {said[1]}. {way_out}")
    return data


def _downloaded(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            return answer.read(SHAKESPEARE.size + 1)  # a server that never ends is wrong after this byte
    except HTTPError as error:
        error.close()
        problem = f"the server answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        problem = str(getattr(error, "reason", error))
    raise DataError(f"could not download {url}: {problem}. {ELSEWHERE}")


def _keep(data: bytes, path: Path) -> None:
    try:
        with atomically(path) as temporary:
            temporary.write_bytes(data)
    except (CheckpointError, OSError) as error:
        raise DataError(f"the download cannot be kept: {error} Set LMX_CACHE to a directory for downloads.") from None
