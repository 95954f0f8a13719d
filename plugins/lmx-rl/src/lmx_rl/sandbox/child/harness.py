"""Loads one program, makes its calls, and says what they gave. Whatever it does to this code, it does to itself."""

import json
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from .values import HEADER, framed, packed, read, unpacked

TEXT = 500
"""Characters that are told of an error."""
WHERE = "program"


def serve(channel: int, lock: Callable[[], None]) -> None:
    """Read the request, give everything else away, and run it. Frames: `ready`, `loaded`, and one of each call."""
    request = read(_exactly(channel, HEADER.unpack(_exactly(channel, HEADER.size))[0]))
    random.seed(0)
    lock()
    _send(channel, ["ready"])
    try:
        _run(channel, request)
    except MemoryError:
        _send(channel, ["memory"])


def _run(channel: int, request: dict[str, Any]) -> None:
    module = types.ModuleType(WHERE)
    sys.modules[WHERE] = module  # where dataclasses and typing look a class's names up
    try:
        exec(compile(request["source"], f"<{WHERE}>", "exec", dont_inherit=True), module.__dict__)
    except MemoryError:
        raise
    except BaseException as error:
        return _send(channel, ["failed", _told(error)])
    function = module.__dict__.get(request["function"])
    if function is None:
        return _send(channel, ["failed", f"it defines no {request['function']!r}"])
    _send(channel, ["loaded"])
    for args, kwargs in request["calls"]:
        try:
            given = packed(function(*unpacked(args), **unpacked(kwargs)))
        except MemoryError:
            raise
        except BaseException as error:
            _send(channel, ["error", _told(error)])
            continue
        frame = framed(["value", given])
        if len(frame) > request["room"]:
            return _send(channel, ["output"])
        _write(channel, frame)
    return None


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:TEXT]
    except BaseException:
        return "an error that cannot be told"


def _send(channel: int, data: Any) -> None:
    _write(channel, framed(data))


def _write(channel: int, data: bytes) -> None:
    while data:
        data = data[os.write(channel, data) :]


def _exactly(channel: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(channel, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def preload() -> None:
    """Import what programs commonly do, so that a fork has it at no cost, and what a locked process could not load."""
    json.loads('{"a": [1.5]}')
    for name in COMMON.split():
        try:
            __import__(name)
        except ImportError:  # this Python was built without it
            continue


COMMON = """
    abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath copy collections collections.abc
    concurrent.futures contextlib csv ctypes dataclasses datetime decimal difflib dis enum fnmatch fractions
    functools gc gettext glob graphlib hashlib heapq hmac html inspect io itertools json keyword linecache locale
    logging lzma math mmap numbers operator os pathlib pickle pprint queue random re secrets select selectors shlex
    shutil signal socket statistics string stringprep struct subprocess sys tempfile textwrap threading time timeit
    tokenize traceback types typing unicodedata unittest urllib.parse uuid warnings weakref xml.etree.ElementTree
    zlib zoneinfo encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8 encodings.utf_16 encodings.utf_32
    _bisect _blake2 _csv _datetime _decimal _elementtree _hashlib _heapq _json _md5 _pickle _posixsubprocess _queue
    _random _sha1 _sha256 _sha512 _sha2 _sha3 _statistics _struct _zoneinfo
"""
