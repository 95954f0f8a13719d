"""MLX on this machine: whether it runs, on what, and how fast."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

import lmx_blas
from lmx_core.errors import BackendError


@contextmanager
def explained() -> Generator[None, None, None]:
    """Turn the ImportError of an MLX that is missing or has no backend into what to install."""
    try:
        yield
    except ImportError as error:
        # A core that finds no libmlx.so calls itself `core`, in mlx/core.*.so. Once it runs, what is not in it is missed
        # by whoever asks for it.
        of_mlx = (error.name or "").partition(".")[0] == "mlx" or "/mlx/core." in (error.path or "")
        if not of_mlx or "mlx.core" in sys.modules:
            raise
        raise BackendError(
            f'MLX does not run here ({error}). On a Linux CPU: pip install "lmx-core[cpu]"; with an NVIDIA GPU: '
            'pip install "lmx-core[cuda13]".'
        ) from None


def version() -> str:
    """MLX's version."""
    import mlx.core as mx

    return str(vars(mx)["__version__"])


def device() -> str:
    """What MLX computes on, such as `cpu`."""
    import mlx.core as mx

    return str(mx.default_device().type).rpartition(".")[2]


def gflops() -> float:
    """Speed of a float32 matrix product of 1024 x 1024 on the CPU, in 1e9 operations a second."""
    return lmx_blas.gflops()


def blas() -> tuple[str, str | None]:
    """Which BLAS computes the CPU's products, and what is wrong with that, if something is."""
    status = lmx_blas.status()
    slow = status.state in ("late", "missing", "failed")
    return status.message, f"BLAS: {status.message}" if slow else None
