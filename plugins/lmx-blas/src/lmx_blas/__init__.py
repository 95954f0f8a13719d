"""A fast BLAS for MLX on Linux CPUs.

The `mlx[cpu]` wheel carries reference BLAS, 25 to 70 times slower than the machine. A BLAS that is in the
process before `mlx.core` takes its place. So `lmx_blas.pth` calls `install` whenever Python starts, and the
first `import mlx.core` of the process loads one: in any program, in any import order.

The environment variable `LMX_BLAS` holds `none` (leave MLX as it is) or the path of a BLAS of your own.
"""

import sys

TYPE_CHECKING = False  # typing takes 3 ms to import, and this file is read by every Python that starts
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from lmx_blas.library import Status, gflops, load, status

__all__ = ["Status", "gflops", "install", "load", "status"]


def install() -> None:
    """Have the first `import mlx.core` load the BLAS. In a normal start-up `lmx_blas.pth` has called this.

    Call it before MLX is imported where Python reads no `.pth` files (`python -S`, `pip install --target`).
    After `mlx.core` it comes too late, which one `RuntimeWarning` says.
    """
    if "mlx.core" in sys.modules:
        _load()
    elif sys.platform == "linux" and not any(isinstance(finder, BlasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, BlasFinder())


class BlasFinder:
    """Finds no module itself: it is the first to hear of `import mlx.core`, loads the BLAS and leaves."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != "mlx.core":
            return None
        import importlib.util

        sys.meta_path.remove(self)
        _load()
        return importlib.util.find_spec(name)  # with None, the search under way would skip the next finder


def __getattr__(name: str) -> object:
    """The names of `__all__` that start-up does without, imported when first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmx_blas import library

    return getattr(library, name)


def _load() -> None:
    from lmx_blas.library import load

    load()
