"""MLX has a real BLAS behind it, whoever imports it first, and lmx tells which."""

import os
import subprocess
import sys

import pytest

import lmx_blas
from lmx_core import backend
from lmx_core.errors import BackendError
from lmx_core.train.step import DTYPES, compute_dtype

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux needs another BLAS")


def told(code, **environ):
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environ}
    )
    return done.stdout.strip()


@linux
@pytest.mark.parametrize("first", ["mlx.core", "mlx.nn", "lmx_core", "mlx_lm.models.llama"])
def test_whoever_imports_mlx_gets_the_fast_blas(first):
    """Also programs that know nothing of lmx, such as mlx-lm."""
    pytest.importorskip(first, reason=f"{first} is not installed")
    here = lmx_blas.status()
    if here.state != "loaded":
        pytest.skip(f"no BLAS on this machine: {here.message}")
    code = f"import {first}, mlx.core, lmx_blas; s = lmx_blas.status(); print(s.state, s.library)"
    assert told(code) == f"loaded {here.library}"


@linux
def test_it_can_be_switched_off():
    code = "import mlx.core; from lmx_core import backend; print(*backend.blas(), sep='|')"
    message, problem = told(code, LMX_BLAS="none").split("|")
    assert "LMX_BLAS=none" in message
    assert problem == "None"


def test_a_speed_is_measured():
    assert backend.gflops() > 0


def test_only_mlx_is_explained(monkeypatch):
    """An ImportError of something else is not taken for a missing backend, nor one of MLX once it runs."""
    with pytest.raises(ImportError, match="nosuch") as newer, backend.explained():
        from mlx.core import nosuch  # noqa: F401
    assert not isinstance(newer.value, BackendError)
    monkeypatch.delitem(sys.modules, "mlx.core")
    with pytest.raises(BackendError, match=r'pip install "lmx-core\[cpu\]"'), backend.explained():
        raise ImportError("libmlx.so: cannot open shared object file", name="core", path="/x/mlx/core.abi3.so")
    with pytest.raises(BackendError), backend.explained():
        raise ModuleNotFoundError("No module named 'mlx'", name="mlx")
    with pytest.raises(ImportError, match="nosuchlib") as other, backend.explained():
        raise ImportError("nosuchlib", name="nosuchlib")
    assert not isinstance(other.value, BackendError)


def test_the_precision_suits_the_device():
    """float32 on a CPU, bfloat16 on a GPU, and what is asked for anywhere."""
    automatic = compute_dtype("auto")
    assert automatic == (DTYPES["float32"] if backend.device() == "cpu" else DTYPES["bfloat16"])
    assert compute_dtype("float16") == DTYPES["float16"]
