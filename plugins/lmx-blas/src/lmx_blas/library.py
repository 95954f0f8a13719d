"""The BLAS library that serves MLX in this process: finding it, loading it, saying which it is."""

import contextlib
import ctypes
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

State = Literal["loaded", "pending", "off", "late", "not needed", "missing", "failed"]
Kind = Literal["mkl", "openblas", "blis", "custom"]


class Status(NamedTuple):
    """How this process stands with its BLAS.

    - `loaded`: `library` computes MLX's products.
    - `pending`: `mlx.core` is not imported yet.
    - `off`: by `LMX_BLAS=none`.
    - `not needed`: not Linux, or MLX is built for CUDA.
    - `late`: `mlx.core` was imported first; slow until the process ends.
    - `missing`: this machine has no BLAS; slow.
    - `failed`: `LMX_BLAS` names a file that cannot serve; slow.
    """

    state: State
    library: str | None
    kind: Kind | None
    message: str
    """One or two sentences for people: what is the case, and the way out if there is something to leave."""


_settled: Status | None = None


def status() -> Status:
    """What `load` answered or, before it ran, what can be told so far. Loads nothing, never warns."""
    return _settled or _outlook()


def load() -> Status:
    """Load the BLAS, which has to happen before `mlx.core` is imported. The first answer is the last one.

    `late` and `failed` come with a `RuntimeWarning`; nothing is raised.
    """
    global _settled
    if _settled is None:
        outlook = _outlook()
        _settled = _search() if outlook.state == "pending" else outlook
        if _settled.state in ("late", "failed"):
            warnings.warn(_settled.message, RuntimeWarning, stacklevel=2)
    return _settled


def gflops(size: int = 1024) -> float:
    """Speed of an fp32 `size` x `size` matrix product of MLX on the CPU, in 1e9 operations a second.

    Imports MLX and takes the best of three: 1.1 s with reference BLAS, 20 ms with a real one.
    """
    import mlx.core as mx

    seconds: list[float] = []
    with mx.stream(mx.cpu):
        square = mx.ones((size, size))
        for _ in range(3):
            start = time.perf_counter()
            (square @ square)[0, 0].item()  # MLX is lazy: asking for one number computes them all
            seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def _outlook() -> Status:
    if sys.platform != "linux":
        return _without("not needed", f"On {sys.platform} MLX needs no other BLAS.")
    if os.environ.get("LMX_BLAS") == "none":
        return _without("off", "LMX_BLAS=none leaves MLX its slow BLAS. Unset it to load a fast one.")
    if _mlx_is_cuda():
        return _without("not needed", "This MLX is built for CUDA and computes on the GPU.")
    if "mlx.core" in sys.modules:
        return _without(
            "late",
            "mlx.core was imported before a BLAS was loaded, and keeps its slow one until this process ends. "
            "Call lmx_blas.install() before the first import of mlx.",
        )
    process = ctypes.CDLL(None)
    if hasattr(process, "cblas_sgemm"):  # LD_PRELOAD or another package was here before us
        return _loaded(process)
    return _without("pending", "No BLAS yet: after lmx_blas.install(), `import mlx.core` loads one.")


def _search() -> Status:
    if wish := os.environ.get("LMX_BLAS"):
        try:
            return _serve(wish)
        except OSError as error:
            return _without(
                "failed",
                f"LMX_BLAS={wish} cannot serve MLX, which keeps its slow BLAS: {error}. "
                "Set LMX_BLAS to a library with 32-bit cblas_sgemm, to none, or unset it.",
            )
    for path in _candidates():
        with contextlib.suppress(OSError):
            return _serve(path)
    return _without(
        "missing",
        f"No MKL below {sys.prefix}, no OpenBLAS or BLIS in the system: MLX keeps its slow BLAS. "
        'Install one: pip install "lmx-blas[mkl]" on x86-64, apt install libopenblas0-pthread elsewhere.',
    )


def _candidates() -> Iterator[str]:
    """MKL of the wheel, in this environment or one that it sees; then what the system has."""
    folders = [Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib")]
    folders += [Path(entry).parent.parent for entry in sys.path if entry.endswith("-packages")]
    for folder in dict.fromkeys(folders):
        yield from sorted(map(str, folder.glob("libmkl_rt.so*")), reverse=True)
    yield "libopenblasp.so.0"  # OpenBLAS with threads on Fedora, whose libopenblas.so.0 has one
    yield "libopenblas.so.0"
    yield "libblis.so.4"  # last: one thread unless BLIS_NUM_THREADS says more


def _serve(path: str) -> Status:
    """Put `path` where `mlx.core` will look for its BLAS; OSError if it cannot serve, and nothing is put."""
    library = ctypes.CDLL(path)
    if lacking := [name for name in ("cblas_sgemm", "cblas_sasum") if not hasattr(library, name)]:
        raise OSError(f"it does not export {' and '.join(lacking)}")
    if hasattr(library, "MKL_Set_Interface_Layer"):
        library.MKL_Set_Interface_Layer(0)  # LP64, whatever MKL_INTERFACE_LAYER says
    if not _counts_in_32_bits(library):
        raise OSError("it counts in 64-bit integers (ILP64), MLX in 32-bit ones (LP64)")
    ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    return _loaded(library)


def _counts_in_32_bits(library: ctypes.CDLL) -> bool:
    """Ask for the sum of `3 - 2**32` ones: its low 32 bits are a 3, all 64 are negative and sum up none."""
    ones = (ctypes.c_float * 3)(1, 1, 1)
    library.cblas_sasum.restype = ctypes.c_float
    return library.cblas_sasum(ctypes.c_int64(3 - 2**32), ones, ctypes.c_int64(1)) == 3


class _SymbolInfo(ctypes.Structure):
    """`Dl_info` of dlfcn.h."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def _loaded(library: ctypes.CDLL) -> Status:
    symbol = _SymbolInfo()
    ctypes.CDLL(None).dladdr(library.cblas_sgemm, ctypes.byref(symbol))
    path = os.fsdecode(symbol.file)
    return Status("loaded", path, _kind(Path(path).name), f"{path} computes MLX's matrix products.")


def _kind(file_name: str) -> Kind:
    for kind in ("mkl", "openblas", "blis"):
        if kind in file_name:
            return kind
    return "custom"


def _without(state: State, message: str) -> Status:
    return Status(state, None, None, message)


def _mlx_is_cuda() -> bool:
    """Whether the MLX that Python finds came from an `mlx-cuda-*` wheel, whose metadata lie beside it."""
    for folder in map(Path, sys.path):
        if os.path.exists(folder / "mlx" / "lib" / "libmlx.so"):  # Path.exists raises on a closed folder
            return any(folder.glob("mlx_cuda*.dist-info"))
    return False
