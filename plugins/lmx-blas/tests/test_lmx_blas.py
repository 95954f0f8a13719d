"""What lmx-blas promises, each promise kept in a Python process of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

BuildBlas = Callable[..., Path]

WITHOUT_PTH = f"import sys; sys.path += {sys.path!r}\n"
"""Opens a program run with `-S`: it finds every package, and no `.pth` file was read."""


def run(program: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a new Python, away from this folder; warnings are errors unless `flags` differ."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("LMX_", "MKL_", "LD_"))}
    command = [sys.executable, "-W", "error", *flags, "-c", program]
    return subprocess.run(
        command, env=ours | environment, cwd="/", check=True, capture_output=True, text=True, timeout=120
    )


def printed(program: str, *flags: str, **environment: str) -> str:
    return run(program, *flags, **environment).stdout.strip()


def has_blas() -> bool:
    return printed("import lmx_blas; print(lmx_blas.load().state)") == "loaded"


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lmx-blas does nothing outside Linux")
needs_mlx = pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="mlx is not installed")
needs_blas = pytest.mark.skipif(sys.platform == "linux" and not has_blas(), reason="no BLAS, or MLX for CUDA")


@pytest.fixture
def build_blas() -> BuildBlas:
    """Compiles a BLAS of two functions, whose integers have the C type `integer`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def build(path: Path, integer: str = "int") -> Path:
        source = f"""
            void cblas_sgemm(void) {{}}
            float cblas_sasum({integer} n, const float *x, {integer} step) {{
                float sum = 0;
                for ({integer} i = 0; i < n; i++) sum += x[i * step];
                return sum;
            }}
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", path, "-x", "c", "-"], input=source, text=True, check=True)
        return path

    return build


IMPORTS = [
    "import mlx.core",
    "import mlx.core, lmx_blas",
    "import lmx_blas, mlx.core",
    "import mlx.nn",
    "import mlx; from mlx import core",
    "import numpy, mlx.core",
    "import lmx_blas; lmx_blas.install(); import mlx.core",
    "import lmx_blas; lmx_blas.load(); import mlx.core",
    "import importlib.util; importlib.util.find_spec('mlx.core'); import mlx.core",
    "import threading; t = threading.Thread(target=__import__, args=['mlx.core']); t.start(); t.join()",
]


def mlx_blas(program: str, folder: Path, **environment: str) -> Path:
    """The library that the dynamic linker, asked to keep a diary, bound MLX's `cblas_sgemm` to."""
    run(program, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(folder / "bindings"), **environment)
    lines = next(folder.glob("bindings.*")).read_text().splitlines()
    binding = next(line for line in lines if "libmlx.so" in line and "symbol `cblas_sgemm'" in line)
    return Path(binding.partition("] to ")[2].partition(" [")[0])


@needs_mlx
@needs_blas
@pytest.mark.parametrize("imports", IMPORTS)
def test_any_import_order_gets_the_fast_blas(imports: str, tmp_path: Path):
    """MLX calls the library that `status` names (of MKL, a file beside it: libmkl_rt brings its parts)."""
    library = printed(f"{imports}\nimport lmx_blas; print(lmx_blas.status().library)")

    assert mlx_blas(imports, tmp_path).parent == Path(library).parent
    assert library in printed(f"{imports}\nprint(open('/proc/self/maps').read())")


@needs_mlx
@needs_blas
@pytest.mark.parametrize("flags", [["-I"], ["-E"], ["-s"], ["-X", "dev"]], ids=" ".join)
def test_any_start_up_gets_the_fast_blas(flags: list[str]):
    """The finder is in place however Python starts, `-S` excepted."""
    assert printed("import mlx.core, lmx_blas; print(lmx_blas.status().state)", *flags) == "loaded"


@needs_mlx
@needs_blas
def test_spawned_processes_get_the_fast_blas(tmp_path: Path):
    """A child of multiprocessing starts like any Python."""
    script = tmp_path / "spawn.py"
    script.write_text(
        "import mlx.core, lmx_blas, multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(lmx_blas.status).state)\n"
    )
    assert printed(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") == "loaded"


@needs_mlx
@needs_blas
def test_the_same_finder_serves_where_no_pth_is_read():
    """`install` before MLX does what start-up does."""
    program = "import lmx_blas; lmx_blas.install(); import mlx.core; print(lmx_blas.status().state)"

    assert printed(WITHOUT_PTH + program, "-S") == "loaded"


PRODUCTS = {
    "square": "a(512, 512) @ a(512, 512)",
    "odd sizes": "a(333, 777) @ a(777, 129)",
    "left transposed": "a(300, 200).T @ a(300, 100)",
    "right transposed": "a(200, 300) @ a(100, 300).T",
    "both transposed": "a(300, 200).T @ a(100, 300).T",
    "batched": "a(4, 3, 65, 33) @ a(4, 3, 33, 17)",
    "broadcast": "a(4, 1, 65, 33) @ a(3, 33, 17)",
    "strided": "a(64, 256)[:, ::2] @ a(128, 40)",
    "matrix-vector": "a(511, 1023) @ a(1023)",
    "vector-matrix": "a(1, 1023) @ a(1023, 511)",
    "outer": "a(257, 1) @ a(1, 65)",
    "LAPACK": "xp.linalg.inv(a(65, 65) + 20 * xp.eye(65))",
}

COMPARE = """
import hashlib, lmx_blas, mlx.core as mx, numpy as np
assert lmx_blas.status().state == "loaded"
def evaluate(library, convert):
    numbers = np.random.default_rng(0)
    a = lambda *shape: convert(numbers.standard_normal(shape).astype("float32"))
    return np.array(eval({!r}, dict(a=a, xp=library)))
ours, exact = evaluate(mx, mx.array), evaluate(np, np.float64)
print(np.abs(ours - exact).max() / np.abs(exact).max(), hashlib.sha256(ours).hexdigest())
"""


@needs_mlx
@needs_blas
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_numbers_are_right(product: str):
    """MLX and numpy, which computes in float64, agree to 1e-4 of the largest number."""
    relative_error = float(printed(COMPARE.format(product)).split()[0])

    assert relative_error < 1e-4


@needs_mlx
@needs_blas
def test_numbers_are_the_same_in_every_run():
    """Threads do not change a bit."""
    assert len({printed(COMPARE.format(PRODUCTS["odd sizes"])) for _ in range(3)}) == 1


@needs_mlx
@needs_blas
def test_a_64_bit_mkl_environment_does_no_harm():
    """Programs that set MKL_INTERFACE_LAYER for themselves leave MLX's 32-bit calls alone."""
    answer = printed(COMPARE.format(PRODUCTS["square"]), MKL_INTERFACE_LAYER="ILP64")

    assert float(answer.split()[0]) < 1e-4


@needs_mlx
def test_none_switches_it_off(tmp_path: Path):
    """LMX_BLAS=none leaves MLX the library of its own wheel."""
    program = "import mlx.core, lmx_blas; lmx_blas.install(); print(lmx_blas.status().state)"

    assert printed(program, LMX_BLAS="none") == "off"
    assert mlx_blas("import mlx.core", tmp_path, LMX_BLAS="none").parent.name == "mlx_cpu.libs"


@needs_mlx
def test_a_named_library_is_taken(build_blas: BuildBlas, tmp_path: Path):
    """LMX_BLAS=PATH wins over whatever is installed."""
    library = build_blas(tmp_path / "libmine.so")
    program = "import mlx.core, lmx_blas; print(*lmx_blas.status()[:3])"

    assert printed(program, LMX_BLAS=str(library)) == f"loaded {library} custom"
    assert mlx_blas(program, tmp_path, LMX_BLAS=str(library)) == library


@needs_mlx
@pytest.mark.parametrize("path", ["/no/such/library.so", "/", "libm.so.6"])
def test_a_bad_path_warns_once_and_mlx_works(path: str):
    """One warning names the value and the way out; the program goes on with MLX's own BLAS."""
    program = (
        "import mlx.core as mx, lmx_blas; lmx_blas.load(); lmx_blas.install()\n"
        "print(lmx_blas.status().state, (mx.ones((3, 3)) @ mx.ones((3, 3))).sum().item())"
    )
    result = run(program, "-W", "always", LMX_BLAS=path)

    assert result.stdout.split() == ["failed", "27.0"]
    assert result.stderr.count("RuntimeWarning") == 1
    assert f"LMX_BLAS={path} cannot serve MLX" in result.stderr
    assert "unset it" in result.stderr


def test_a_64_bit_library_is_refused(build_blas: BuildBlas, tmp_path: Path):
    """ILP64 libraries export the same names, and would read beyond MLX's 32-bit integers."""
    library = build_blas(tmp_path / "libopenblas64.so.0", integer="long")
    program = "import lmx_blas; print(*lmx_blas.load())"

    answer = printed(program, "-W", "ignore", LMX_BLAS=str(library))

    assert answer.startswith("failed")
    assert "ILP64" in answer


def test_mkl_is_found_in_the_environment_below(build_blas: BuildBlas, tmp_path: Path):
    """A venv with --system-site-packages uses the MKL installed beneath it, to which sys.path leads."""
    library = build_blas(tmp_path / "lib" / "libmkl_rt.so.3")
    below = tmp_path / "lib" / "python3.11" / "site-packages"
    program = (
        "import sys, lmx_blas.library as library\n"
        f"sys.prefix = sys.base_prefix = '/none'; sys.path = [{str(below)!r}]\n"
        "print(*library.load()[:3])"
    )
    assert printed(program) == f"loaded {library} mkl"


def test_a_preloaded_blas_is_kept(build_blas: BuildBlas, tmp_path: Path):
    """Who starts Python with LD_PRELOAD has chosen already."""
    library = build_blas(tmp_path / "libmine.so")
    program = "import lmx_blas; print(*lmx_blas.load()[:3])"

    assert printed(program, LD_PRELOAD=str(library)) == f"loaded {library} custom"


def test_without_any_blas_it_names_the_way_out():
    """Nothing found is no reason to warn at every import of MLX; `status` says what to install."""
    program = (
        "import lmx_blas.library as library, sys\n"
        "library._candidates = lambda: ['libnosuchblas.so']\n"
        "print(*library.load())"
    )
    answer = printed(program)

    assert answer.startswith("missing")
    assert 'pip install "lmx-blas[mkl]"' in answer


@needs_mlx
@needs_blas
def test_too_late_is_said_once():
    """Where no .pth was read and MLX came first, one warning gives the rule and the way out."""
    program = "import mlx.core, lmx_blas as lb; lb.install(); lb.install(); print(lb.load().state)"
    result = run(WITHOUT_PTH + program, "-S", "-W", "always")

    assert result.stdout.strip() == "late"
    assert result.stderr.count("RuntimeWarning") == 1
    assert "Call lmx_blas.install() before the first import of mlx" in result.stderr


@needs_mlx
def test_too_late_is_not_said_when_switched_off():
    """Who wants no BLAS has missed none."""
    program = "import mlx.core, lmx_blas; lmx_blas.install(); print(lmx_blas.status().state)"

    assert printed(WITHOUT_PTH + program, "-S", LMX_BLAS="none") == "off"


def test_mlx_for_cuda_needs_nothing(tmp_path: Path):
    """The mlx-cuda wheels unpack beside `mlx`, which is how they are told without importing it."""
    for file in ("mlx/lib/libmlx.so", "mlx_cuda_13-0.32.4.dist-info/METADATA"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    program = (
        f"import lmx_blas, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "print(lmx_blas.load().state, 'libmkl' in open('/proc/self/maps').read())"
    )
    assert printed(program) == "not needed False"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_need_nothing(platform: str):
    """Outside Linux no finder is placed, and nothing is loaded."""
    program = (
        f"sys.platform = {platform!r}; before = list(sys.meta_path)\n"
        "import lmx_blas; lmx_blas.install(); assert sys.meta_path == before\n"
        "print(lmx_blas.load().state)"
    )
    assert printed(WITHOUT_PTH + program, "-S") == "not needed"


def test_start_up_imports_the_finder_alone():
    """Every Python of the environment pays for start-up, those without MLX too."""
    program = "old = set(sys.modules); import lmx_blas; lmx_blas.install(); print(set(sys.modules) - old)"

    assert printed(WITHOUT_PTH + program, "-S") == "{'lmx_blas'}"


def test_start_up_places_one_finder():
    """The .pth file calls install; calling it again changes nothing."""
    program = (
        "import sys, lmx_blas; lmx_blas.install()\n"
        "print(sum(isinstance(finder, lmx_blas.BlasFinder) for finder in sys.meta_path))\n"
        "print(lmx_blas.status().state)"
    )
    assert printed(program).split() == ["1", "pending"]


def test_half_an_installation_is_silent(tmp_path: Path):
    """The .pth file left behind by itself neither stops Python nor prints."""
    shutil.copy(Path(sysconfig.get_path("purelib"), "lmx_blas.pth"), tmp_path)
    start = f"import site; site.addsitedir({str(tmp_path)!r}); print('started')"

    without_package = run(start, "-S")
    (tmp_path / "lmx_blas").mkdir()
    with_empty_package = run(start, "-S")

    for result in (without_package, with_empty_package):
        assert (result.stdout, result.stderr) == ("started\n", "")


@needs_mlx
def test_the_finder_leaves_and_nobody_is_skipped():
    """After `import mlx.core` sys.meta_path is as it was, and every other finder was asked."""
    program = """
import sys
class Recorder:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
before = [finder for finder in sys.meta_path if type(finder).__module__ != "lmx_blas"]
recorder = Recorder()
sys.meta_path.insert(1, recorder)
import mlx.core
sys.meta_path.remove(recorder)
print(sys.meta_path == before, recorder.asked.count("mlx.core"))
"""
    assert printed(program) == "True 1"


@needs_mlx
def test_looking_for_mlx_loads_nothing():
    """Libraries ask whether MLX is installed; the answer is right and costs no BLAS."""
    program = (
        "import importlib.util, lmx_blas; print(importlib.util.find_spec('mlx').name)\n"
        "import mlx; print(lmx_blas.status().state)"
    )
    assert printed(program).split() == ["mlx", "pending"]


@needs_mlx
def test_reload_is_undisturbed():
    """Modules of MLX, and lmx_blas itself, can be reloaded."""
    program = (
        "import importlib, mlx.nn, lmx_blas\n"
        "state = lmx_blas.status().state\n"
        "importlib.reload(mlx.nn); importlib.reload(lmx_blas).install()\n"
        "print(state == lmx_blas.status().state)"
    )
    assert printed(program) == "True"


@needs_mlx
def test_gflops_measures():
    """A number above zero, by way of MLX."""
    assert float(printed("import lmx_blas; print(lmx_blas.gflops(64))")) > 0
