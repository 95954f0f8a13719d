"""Plain values as JSON that keeps their types apart, and frames of it on a stream.

Both sides read what the other wrote. What comes from a child may be anything: whatever is not written exactly as here is a
ValueError, reached in time and memory that are linear in its length.
"""

import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

DEPTH = 100
"""How deep lists may lie in lists. Deeper ones are refused on both sides."""
ALIKE = 64
"""How many members of a set may share a hash: more would make building it quadratic."""
EXACT = 2**53
LONGEST = 10**4300
"""Past it Python itself refuses to write an integer out."""
HEADER = struct.Struct("!I")
SCALARS = {type(None), bool, int, float, str}
TABLES = (dict, Counter, OrderedDict, defaultdict)
COLLECTIONS = {"t": tuple, "s": set, "z": frozenset}
TAGS = {kind: tag for tag, kind in COLLECTIONS.items()}


def packed(value: Any, depth: int = 0) -> Any:
    """A value as `json` can write it. TypeError where it is of another type, a subclass included, or nested too deep."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if not -LONGEST < value < LONGEST:
            raise TypeError("it has an integer of more than 4300 digits")
        return value if -EXACT <= value <= EXACT else {"i": f"{value:x}"}
    if kind is float:
        return value if math.isfinite(value) else {"f": repr(value)}
    if kind is bytes:
        return {"b": value.hex()}
    if depth == DEPTH:
        raise TypeError(f"it is nested more than {DEPTH} deep")
    if kind is list:
        return [packed(item, depth + 1) for item in value]
    if kind in TAGS:
        return {TAGS[kind]: [packed(item, depth + 1) for item in value]}
    if kind in TABLES:  # the latter three are equal to a dict of the same items
        return {"d": [[packed(key, depth + 1), packed(item, depth + 1)] for key, item in dict.items(value)]}
    raise TypeError(f"a {kind.__name__} is no plain value")


def unpacked(data: Any, depth: int = 0) -> Any:
    """The value that was packed. ValueError where `data` is nothing that `packed` gives."""
    if type(data) in SCALARS:
        return data
    if depth == DEPTH:
        raise ValueError("nested too deep")
    if isinstance(data, list):
        return [unpacked(item, depth + 1) for item in data]
    if len(data) != 1:
        raise ValueError("not one tag")
    ((tag, inner),) = data.items()
    if tag not in READERS:
        raise ValueError("an unknown tag")
    return READERS[tag](inner, depth + 1)


def _integer(text: Any, depth: int) -> int:
    if not isinstance(text, str):
        raise ValueError("an integer that is no text")
    value = int(text, 16)
    if not -LONGEST < value < LONGEST:
        raise ValueError("an integer that is too long")
    return value


def _special(text: Any, depth: int) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError("an unknown number")
    return float(text)


def _bytes(text: Any, depth: int) -> bytes:
    if not isinstance(text, str):
        raise ValueError("bytes that are no text")
    return bytes.fromhex(text)


def _collection(kind: Callable[[list[Any]], Any]) -> Callable[[Any, int], Any]:
    def read(data: Any, depth: int) -> Any:
        items = _items(data, depth)
        if kind is not tuple:
            _hashed(items)
        return kind(items)

    return read


def _table(data: Any, depth: int) -> dict[Any, Any]:
    items = _items(data, depth)
    if not all(isinstance(item, list) and len(item) == 2 for item in items):
        raise ValueError("a table of something else than pairs")
    _hashed([key for key, _ in items])
    return dict(items)


def _items(data: Any, depth: int) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("a collection that is no list")
    return [unpacked(item, depth) for item in data]


def _hashed(items: list[Any]) -> None:
    try:
        hashes = Counter(map(hash, items))
    except TypeError:
        raise ValueError("what cannot be hashed") from None
    if hashes and max(hashes.values()) > ALIKE:
        raise ValueError("too many of one hash")


READERS: dict[str, Callable[[Any, int], Any]] = {
    "i": _integer,
    "f": _special,
    "b": _bytes,
    "d": _table,
    **{tag: _collection(kind) for tag, kind in COLLECTIONS.items()},
}


def _small(text: str) -> int:
    if len(text) > 17:
        raise ValueError("a long integer without its tag")
    return int(text)


def _never(text: str) -> Any:
    raise ValueError(f"{text} without its tag")


DECODER = json.JSONDecoder(parse_int=_small, parse_constant=_never)


def framed(data: Any) -> bytes:
    """JSON behind its length in bytes."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).encode("ascii")
    return HEADER.pack(len(text)) + text


def read(text: bytes | bytearray) -> Any:
    """What `framed` wrote, less the length. ValueError where that is no such JSON."""
    try:
        return DECODER.decode(text.decode("ascii"))
    except RecursionError:
        raise ValueError("nested too deep") from None
