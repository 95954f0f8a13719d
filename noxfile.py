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

PLUGINS = {
    project["project"]["name"]: project
    for project in (tomllib.loads(file.read_text()) for file in sorted(ROOT.glob("plugins/*/pyproject.toml")))
}
DISTRIBUTIONS = {"lmx-core": PROJECT, **PLUGINS}
EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = "lmx-core[cpu]"
EVERYTHING = [
    "lmx-core[cpu,plot,tiktoken,yaml]",
    *PLUGINS,
    "lmx-blas[mkl]",
    "lmx-rl[maths,sandbox]",
    *PROJECT["dependency-groups"]["parity"],
]
ALONE = {"lmx-blas": ["lmx-blas[mkl]", "mlx[cpu]; sys_platform == 'linux'"]}
"""What a plugin needs when it is tested alone, where that is not core and the plugin."""
MATRIX = {
    "core": ([CORE], ["tests", "--ignore=tests/test_docs.py"]),  # pages show plugins: tested with everything
    **{name: (ALONE.get(name, [name, CORE]), [f"plugins/{name}/tests"]) for name in PLUGINS},
    "all": (EVERYTHING, ["tests", *(f"plugins/{name}/tests" for name in PLUGINS)]),
}


def wheels(session: nox.Session) -> Path:
    """Wheels of every distribution of the workspace, built anew, each from its sdist; one build serves a whole run."""
    folder = ROOT / ".nox" / "wheels"
    if not BUILT:
        shutil.rmtree(folder, ignore_errors=True)
        for source in (ROOT, *sorted((ROOT / "plugins").iterdir())):
            build(session, source, folder)
        BUILT.append(folder)
    return folder


BUILT: list[Path] = []
NOT_AGAIN = ["-m", "not once"]
"""What does not depend on what else is installed runs with core, or with its plugin, alone, and not again."""
KEPT_ALONE = ["--ignore=tests/components/test_conformance.py"]
"""The promises of core's own components: with core alone, and with every component renamed."""


def build(session: nox.Session, source: Path, folder: Path) -> None:
    session.run("uv", "build", "--quiet", "--out-dir", str(folder), str(source), external=True, silent=True)


def prepare(session: nox.Session, requirements: list[str], *options: str) -> None:
    """Install distributions from wheels, with the tools that test them, and see that the wheels are what is imported."""
    found = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels(session).glob("*.whl")}
    wanted = with_dependencies(named(requirements))
    session.install("--reinstall", "--no-deps", *(str(found[name]) for name in wanted), silent=True)
    if unasked := set(found) - set(wanted):  # a reused environment may hold them
        session.run("uv", "pip", "uninstall", "--quiet", *unasked, external=True, silent=True)
    tools = PROJECT["dependency-groups"]["test"] + [
        tool for name in wanted for tool in DISTRIBUTIONS[name].get("dependency-groups", {}).get("test", [])
    ]
    session.install(*requirements, *tools, "--find-links", str(wheels(session)), *options)
    for name in wanted:
        module = name.replace("-", "_")
        session.run(
            "python", "-P", "-c", f"import sys, {module}; assert sys.prefix in {module}.__file__, {module}.__file__"
        )
    session.log(session.run("python", "--version", silent=True))


def named(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[;<>=! ]", requirement)[0] for requirement in requirements]


def with_dependencies(names: list[str]) -> list[str]:
    """Those of the workspace among the names, and what they need of it."""
    found = [name for name in names if name in DISTRIBUTIONS]
    needed = [each for name in found for each in named(DISTRIBUTIONS[name]["project"]["dependencies"])]
    more = [name for name in dict.fromkeys(needed) if name in DISTRIBUTIONS and name not in found]
    return with_dependencies([*found, *more]) if more else sorted(set(found))


def run_tests(session: nox.Session, folders: list[str], *options: str) -> None:
    """All of them, or those that are named after `--`; options alone go with all.

    Shapes in signatures are checked: core's by its own conftest; those of a plugin, where it is alone, by jaxtyping's
    option, which does not go with several processes.
    """
    if any(Path(each.partition("::")[0]).exists() for each in session.posargs):
        session.run("pytest", *session.posargs)
        return
    names = [Path(folder).parts[1] for folder in folders if folder.startswith("plugins/")]
    alone = len(names) == len(folders)
    modules = [name.replace("-", "_") for name in names if alone and name not in ALONE]  # Python imports these first
    checked = [f"--jaxtyping-packages={','.join(modules)},beartype.beartype"] if modules else []
    several = [] if alone else ["--numprocesses", "auto"]
    session.run("pytest", *checked, *several, *options, *session.posargs, *folders)


@nox.session(python=PYTHON)
@nox.parametrize("what", list(MATRIX))
def tests(session: nox.Session, what: str) -> None:
    """Core alone, each plugin with core, everything together, then `broken`, `renamed`, `scaffold`, `third_party`, `docs`.

    From wheels, on the first Python >= 3.11 that uv finds.
    """
    requirements, folders = MATRIX[what]
    prepare(session, requirements, "--constraint", "constraints.txt")
    run_tests(session, folders, *([*NOT_AGAIN, *KEPT_ALONE] if what == "all" else []))
    if what == "all" and not session.posargs:
        for other in ("broken", "renamed", "scaffold", "third_party", "docs"):
            session.notify(other)


@nox.session(python=PYTHON)
def broken(session: nox.Session) -> None:
    """Core's tests of plugins and configs with ten bad distributions installed, which are then listed and explained."""
    prepare(session, [CORE], "--constraint", "constraints.txt")
    site = session.run(
        "python", "-P", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True
    ).strip()
    script = ["python", "-P", "tests/plugins/bad.py"]
    session.run(*script, "install", site)
    try:
        run_tests(session, ["tests/plugins", "tests/test_serialize.py", "tests/test_block.py"])
        session.run(*script, "prove", site)
    finally:
        session.run(*script, "uninstall", site)


@nox.session(python=PYTHON)
def renamed(session: nox.Session) -> None:
    """Core's tests with every built-in component under another name: core compares none."""
    prepare(session, [CORE], "--constraint", "constraints.txt")
    folders = [
        "architectures",
        "components",
        "data",
        "train",
        "test_block.py",
        "test_generation.py",
        "test_sampling.py",
    ]
    run_tests(session, [f"tests/{folder}" for folder in folders], "--renamed", *NOT_AGAIN)


@nox.session(python=PYTHON)
def seeds(session: nox.Session) -> None:
    """The conformance kit on every built-in mixer with a hundred seeds: no false alarm."""
    prepare(session, [CORE], "--constraint", "constraints.txt")
    session.run("pytest", "tests/testing/test_seeds.py", *session.posargs, env={"LMX_ALL_SEEDS": "1"})


@nox.session(python=PYTHON, venv_backend="venv")
def parity(session: nox.Session) -> None:
    """Every family against transformers, live: what it writes is read, what lmx writes it reads, with the same logits, and
    the published sizes have as many parameters; adapters against PEFT.

    With pip, which can be told of an index that has PyTorch for CPUs alone (`PIP_EXTRA_INDEX_URL`); uv takes gigabytes more.
    """
    names = [name.replace("-", "_") for name in with_dependencies(list(PLUGINS))]
    built = [str(wheel) for name in names for wheel in wheels(session).glob(f"{name}-*.whl")]
    session.install("--force-reinstall", "--no-deps", *built, silent=True)
    tools = [*PROJECT["dependency-groups"]["test"], "torch==2.13.0", "transformers", "peft==0.21.2"]
    folder = str(wheels(session))
    session.install(CORE, *PLUGINS, *tools, "--find-links", folder, "--constraint", "constraints.txt")
    folder = "plugins/lmx-hf/tests"
    session.run("pytest", f"{folder}/test_transformers.py", f"{folder}/test_peft.py", *session.posargs)


@nox.session(python=PYTHON)
def scaffold(session: nox.Session) -> None:
    """`lmx plugins new` for every kind: built as a wheel, installed, and its tests passed."""
    prepare(session, [CORE], "--constraint", "constraints.txt")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder, ignore_errors=True)
    kinds = sorted(file.name.removesuffix(".py.in") for file in Path("lmx_core/templates/kinds").iterdir())
    names = [f"acme-try-{kind}" for kind in kinds]
    for kind, name in zip(kinds, names, strict=True):
        session.run("lmx", "plugins", "new", name, "--kind", kind, "--directory", str(folder), silent=True)
        build(session, folder / name, folder / "wheels")
    session.install("--no-deps", "--reinstall", *map(str, (folder / "wheels").glob("*.whl")), silent=True)
    try:
        session.run("lmx", "plugins", "doctor")
        tests = [str(folder / name / "tests") for name in names]
        session.run("pytest", "-c", os.devnull, "--import-mode=importlib", *tests)
    finally:
        session.run("uv", "pip", "uninstall", "--quiet", *names, external=True)


@nox.session(python=PYTHON, reuse_venv=False)
def third_party(session: nox.Session) -> None:
    """Another author's FFN, position and mixer as wheels in a clean environment: trained, saved, uninstalled, asked for."""
    folder = Path(session.create_tmp(), "wheels")
    shutil.rmtree(folder, ignore_errors=True)
    for project in sorted(Path("tests/third_party").glob("*/pyproject.toml")):
        build(session, project.parent, folder)
    prepare(session, [CORE], "--constraint", "constraints.txt")
    session.run("python", "-P", "tests/third_party/journey.py", str(folder))


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """The site, every warning an error; its pages hold what the commands print today."""
    prepare(session, EVERYTHING, "--constraint", "constraints.txt")
    session.install(*PROJECT["dependency-groups"]["docs"], "--constraint", "constraints.txt")
    session.run("python", "-P", "docs/generate.py", "--check", "tutorial.md")  # the others are in tests/test_docs.py
    site = str(Path(session.create_tmp(), "site"))
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # of the theme, about a release that is not out
    session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", site, env=quiet)


@nox.session(python=PYTHON, reuse_venv=False)
def lowest(session: nox.Session) -> None:
    """The lowest versions that the distributions declare."""
    extras = {"lmx-core": ("cpu", "plot", "tiktoken", "yaml"), "lmx-blas": ("mkl",), "lmx-rl": ("maths", "sandbox")}
    declared = [each for project in DISTRIBUTIONS.values() for each in project["project"]["dependencies"]] + [
        each
        for name, chosen in extras.items()
        for extra in chosen
        for each in DISTRIBUTIONS[name]["project"]["optional-dependencies"][extra]
    ]
    # --no-config: uv would read the constraints of pyproject.toml
    prepare(session, [*EVERYTHING, *declared], "--resolution", "lowest-direct", "--no-config")
    session.run("uv", "pip", "freeze", external=True)
    run_tests(session, MATRIX["all"][1])


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Everything together on every Python that is here."""
    prepare(session, EVERYTHING)
    run_tests(session, MATRIX["all"][1])


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """ruff, as linter and as formatter."""
    session.install(*PROJECT["dependency-groups"]["lint"], "--constraint", "constraints.txt")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """pyright, strict."""
    requirements = [*EVERYTHING, *PROJECT["dependency-groups"]["types"]]
    prepare(session, requirements, "--constraint", "constraints.txt")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Benchmarks against peers and against the limit of the machine; nothing is asserted."""
    prepare(session, EVERYTHING, "--constraint", "constraints.txt")
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
