"""`nox -s tests` passes the tests over the matrix of distributions; `nox -l` lists the rest."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nox
from packaging.version import Version

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UV = os.environ.get("UV") or shutil.which("uv") or "uv"
# The first that uv finds, whichever Python runs nox itself.
PYTHON = subprocess.run(
    [UV, "python", "find", "--no-project", ">=3.11"], capture_output=True, text=True, check=True
).stdout.strip()

BLAS = {"requirements": ["lmx-blas[mkl]", "mlx[cpu]; sys_platform == 'linux'"], "tests": ["plugins/lmx-blas/tests"]}
EXTRAS = PROJECT["project"]["optional-dependencies"]
MATRIX = {
    "core": {"requirements": ["lmx-core[cpu]"], "tests": ["tests"]},
    "lmx-blas": BLAS,
    "all": {
        "requirements": ["lmx-core[cpu,plot,tiktoken,yaml]", *PROJECT["dependency-groups"]["parity"]],
        "tests": ["tests", "plugins/lmx-blas/tests"],
    },
}


def wheels(session: nox.Session) -> Path:
    """Wheels of every distribution of the workspace, built anew, each from its sdist."""
    folder = Path(session.create_tmp(), "wheels")
    shutil.rmtree(folder, ignore_errors=True)
    for source in (ROOT, *sorted((ROOT / "plugins").iterdir())):
        session.run("uv", "build", "--quiet", "--out-dir", str(folder), str(source), external=True, silent=True)
    return folder


def prepare(session: nox.Session, requirements: list[str], *options: str) -> None:
    """Install distributions from wheels, with the tools that test them, and see that the wheels are what is imported."""
    found = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels(session).glob("*.whl")}
    session.install("--reinstall", "--no-deps", *map(str, found.values()), silent=True)
    session.install(
        *requirements,
        *PROJECT["dependency-groups"]["test"],
        "--find-links",
        str(Path(session.create_tmp(), "wheels")),
        *options,
    )
    unasked = set(found) - set(named(requirements))
    if unasked - {"lmx-blas"}:
        session.run("uv", "pip", "uninstall", *unasked, external=True, silent=True)
    session.run(
        "python", "-P", "-c", f"import sys; assert sys.prefix in __import__('{imported(requirements)}').__file__"
    )
    session.log(session.run("python", "--version", silent=True))


def named(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[;<>=! ]", requirement)[0] for requirement in requirements]


def imported(requirements: list[str]) -> str:
    return named(requirements)[0].replace("-", "_")


def run_tests(session: nox.Session, folders: list[str]) -> None:
    """All of them, or those that are named after `--`; options alone go with all."""
    named_here = any(Path(each.partition("::")[0]).exists() for each in session.posargs)
    session.run("pytest", *session.posargs, *([] if named_here else folders))


@nox.session(python=PYTHON)
@nox.parametrize("what", list(MATRIX))
def tests(session: nox.Session, what: str) -> None:
    """Core alone, each plugin alone, everything together; from wheels, on the first Python >= 3.11 that uv finds."""
    prepare(session, MATRIX[what]["requirements"], "--constraint", "constraints.txt")
    run_tests(session, MATRIX[what]["tests"])


@nox.session(python=PYTHON, reuse_venv=False)
def lowest(session: nox.Session) -> None:
    """The lowest versions that the distributions declare."""
    declared = [
        *PROJECT["project"]["dependencies"],
        *(each for extra in ("cpu", "plot", "tiktoken", "yaml") for each in EXTRAS[extra]),
    ]
    declared += tomllib.loads((ROOT / "plugins/lmx-blas/pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["mkl"]
    # --no-config: uv would read the constraints of pyproject.toml
    prepare(session, [*MATRIX["all"]["requirements"], *declared], "--resolution", "lowest-direct", "--no-config")
    session.run("uv", "pip", "freeze", external=True)
    run_tests(session, MATRIX["all"]["tests"])


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Everything together on every Python that is here."""
    prepare(session, MATRIX["all"]["requirements"])
    run_tests(session, MATRIX["all"]["tests"])


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """ruff, as linter and as formatter."""
    session.install(*PROJECT["dependency-groups"]["lint"], "--constraint", "constraints.txt")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """pyright, strict."""
    requirements = [*MATRIX["all"]["requirements"], *PROJECT["dependency-groups"]["types"]]
    prepare(session, requirements, "--constraint", "constraints.txt")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Benchmarks against peers and against the limit of the machine; nothing is asserted."""
    prepare(session, MATRIX["all"]["requirements"], "--constraint", "constraints.txt")
    for script in session.posargs or sorted(map(str, Path("benchmarks").glob("bench_*.py"))):
        session.run("python", "-P", script)


@nox.session(python=False)
def constraints(session: nox.Session) -> None:
    """Pin every dependency anew, in constraints.txt and for `uv run` in pyproject.toml."""
    pin([])
    session.run("uv", "lock", "--upgrade", external=True)
    options = [
        "--all-packages",
        "--all-extras",
        "--all-groups",
        "--no-hashes",
        "--no-emit-workspace",
        "--no-header",
        "--no-annotate",
    ]
    text = session.run("uv", "export", *options, external=True, silent=True)
    found = sorted(
        (line.split(";")[0].strip() for line in text.splitlines() if "==" in line), key=release, reverse=True
    )
    pin(sorted({pin.split("==")[0]: pin for pin in found}.values()))  # the lowest, which every Python has


def pin(pins: list[str]) -> None:
    listed = "".join(f'    "{pin}",\n' for pin in pins)
    block = f"constraint-dependencies = [\n{listed}]\n"
    text = (ROOT / "pyproject.toml").read_text()
    (ROOT / "pyproject.toml").write_text(
        re.sub(r"constraint-dependencies = \[.*?\]\n", block, text, count=1, flags=re.S)
    )
    (ROOT / "constraints.txt").write_text("".join(f"{pin}\n" for pin in pins))


def release(pin: str) -> Version:
    return Version(pin.split("==")[1])
