"""Writes what the pages show of the program: the catalogue, the command line, the Python API, and what commands print.

python -P docs/generate.py [PAGE ...]     rewrite the pages in place; all of them, unless some are named
python -P docs/generate.py --check        change nothing; exit 1 with a diff if something would change
"""

import difflib
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))  # python -P leaves it out

import checkpoints  # noqa: E402
import console  # noqa: E402
import reference  # noqa: E402

SLOW = {"tutorial.md"}
"""Pages that train, install and build: in an environment of their own, and not among the tests."""
PARTS: Mapping[str, Callable[[], str]] = {
    "catalogue": lambda: reference.catalogue(workspace()),
    "command line": reference.command_line,
    "python api": reference.python_api,
    "hooks": reference.hooks,
    "errors": reference.errors,
    "checkpoints": checkpoints.table,
}
PART = re.compile(r"(?<=<!-- generated: )(?P<name>[\w ]+) -->\n.*?(?=<!-- end -->)", re.S)


def pages() -> list[Path]:
    return sorted(DOCS.glob("*.md"))


def anew(page: Path) -> str:
    """What the page would be if it were written now."""
    return ran(page, filled(page.read_text(encoding="utf-8")))


def filled(text: str) -> str:
    """The page with its generated parts."""
    return PART.sub(lambda match: f"{match['name']} -->\n{PARTS[match['name']]()}\n", text)


def ran(page: Path, text: str) -> str:
    """The page with what its commands print."""
    if not console.blocks(text, "console"):
        return text
    with tempfile.TemporaryDirectory() as folder:
        return console.rewritten(text, Path(folder).resolve(), own_environment=page.name in SLOW)


def missing() -> list[str]:
    """Distributions of the workspace that are not installed, without which the pages would be others."""
    installed = {each.metadata["Name"] for each in metadata.distributions()}
    return [name for name in workspace() if name not in installed]


def workspace() -> list[str]:
    """Its distributions, core first."""
    files = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    return [tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"] for file in files]


def main(arguments: list[str]) -> int:
    if absent := missing():
        print(f"The pages show every plugin, but {', '.join(absent)} are not installed.", file=sys.stderr)
        return 2
    check = "--check" in arguments
    named = [each for each in arguments if each != "--check"]
    stale = False
    for page in pages():
        if named and page.name not in named:
            continue
        before, after = page.read_text(encoding="utf-8"), anew(page)
        stale |= before != after
        if check:
            lines = (text.splitlines(keepends=True) for text in (before, after))
            sys.stdout.writelines(difflib.unified_diff(*lines, str(page), "what it would be now"))
        elif before != after:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page.name}")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
