"""MLX on this machine: a real BLAS before it is imported, its device, and the precision that suits it."""

import sys

import lmx_blas

from lmx_core.errors import BackendError


def ensure() -> None:
    """Import MLX with a fast BLAS behind it; `BackendError` says what to install where it cannot run."""
    if "mlx.core" in sys.modules:
        return
    lmx_blas.install()
    try:
        import mlx.core  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise BackendError(
            f'MLX has no backend here ({error}). On a Linux CPU: pip install "lmx-core[cpu]"; with CUDA: "lmx-core[cuda13]".'
        ) from error


def version() -> str:
    """MLX's version."""
    import mlx.core as mx

    return mx.__version__


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
