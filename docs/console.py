"""The blocks of the pages: files are written, commands run as a reader would run them, and what they print is compared.

    ```toml title="tiny.toml"       a file of the page's folder; within an HTML comment it is not shown
    ```diff title="tiny.toml"       a change in such a file
    ```console                      "$ command", then what it prints; a line `...` stands for any lines
    ```python                       runs in tests/test_docs.py

Quantities that differ from run to run (seconds, speeds, losses) and the width of columns are not compared.
"""

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import attrs

BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)
QUANTITY = re.compile(
    r"\d+:\d\d:\d\d|\b[\d.,]+(?= ?(?:ms|s|seconds|tokens/s|GFLOP/s|nats|bits)\b)|(?<=sha256 )\w+|(?<=differ by )[\d.e-]+"
)
PLACE = re.compile(r"(?<![\w.])/(?:[^\s/]+/)*?(?=(?:lmx|acme)_[\w.-]+)")
"""What stands before a package or its metadata in an absolute path."""
WIDTH = "100"


@attrs.frozen
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with what stands below it; a command whose line ends in a backslash goes on."""
        for each in re.split(r"^\$ ", self.text, flags=re.M)[1:]:
            lines = each.splitlines(keepends=True)
            end = next(i for i, line in enumerate(lines, 1) if not line.endswith("\\\n"))
            yield "".join(lines[:end]).rstrip("\n"), "".join(lines[end:])


def blocks(text: str, language: str | None = None) -> list[Block]:
    found = [Block(match["language"], match["title"], match["text"]) for match in BLOCK.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def agree(page: str, printed: str) -> bool:
    """Whether a command printed what its page says."""
    lines = ["(?:.*\n)*?" if line == "..." else f"{re.escape(line)}\n" for line in _comparable(page)]
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _comparable(printed))) is not None


def _comparable(text: str) -> list[str]:
    bare = QUANTITY.sub("#", PLACE.sub(".../", text))
    return [re.sub(r"(?<=\S)[ \t]{2,}", "  ", line.rstrip()) for line in bare.rstrip().splitlines()]


def rewritten(text: str, folder: Path, own_environment: bool = False) -> str:
    """The page with its commands run in `folder`: what agrees is left as it stands, what does not is replaced."""
    shell = Shell(folder, _environment(folder / ".venv") if own_environment else Path(sys.executable).parent)

    def anew(match: re.Match[str]) -> str:
        block = Block(match["language"], match["title"], match["text"])
        fence, end = match[0].split("\n", 1)[0], "```"
        return f"{fence}\n{_step(block, shell)}{end}"

    return BLOCK.sub(anew, text)


def _step(block: Block, shell: "Shell") -> str:
    if block.language == "console":
        return "".join(f"$ {command}\n{_shown(output, shell.run(command))}" for command, output in block.commands())
    if block.title:
        shell.change(block) if block.language == "diff" else shell.write(block)
    return block.text


def _shown(page: str, printed: str) -> str:
    return page if agree(page, printed) else _aligned(PLACE.sub(".../", printed))


def _aligned(text: str) -> str:
    """A table whose paths were shortened, with columns as wide as they need to be."""
    lines = text.rstrip().splitlines()
    if not lines or "  FILE  " not in lines[0]:
        return "".join(f"{line.rstrip()}\n" for line in lines)
    rows = [re.split(r" {2,}", line.strip()) for line in lines]
    rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]  # where the last column is empty
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(f"{'  '.join(map(str.ljust, row, widths)).rstrip()}\n" for row in rows)


class Shell:
    """A reader at a prompt: a folder, the files that the page gives, one command after the other."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LMX_", "UV_", "PIP_"))}
        self.environ = kept | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # where a page's own distributions lie
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": WIDTH,
            "NO_COLOR": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # as pip reads it: "no" to isolation, which would fetch hatchling
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def write(self, block: Block) -> None:
        path = self.folder / str(block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def change(self, block: Block) -> None:
        """Lines that begin with - become those that begin with +; the others say where."""
        path, lines = self.folder / str(block.title), block.text.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{block.title} does not hold once:\n{before}"
        path.write_text(text.replace(before, after), encoding="utf-8")

    def run(self, command: str) -> str:
        """What it prints, errors included; the folder that it leaves us in is the next one's."""
        moves = command.startswith("cd ")
        done = subprocess.run(
            ["bash", "-c", f"{command} && pwd" if moves else command],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if moves and done.returncode == 0:
            self.folder = Path(done.stdout.strip())
            return ""
        return done.stdout


def _environment(folder: Path) -> Path:
    """A virtual environment which sees what is installed here, so that a page may install and uninstall; its programs."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in outer))
    lmx = folder / "bin" / "lmx"
    lmx.write_text('#!/bin/sh\nexec "$(dirname "$0")/python3" -P -m lmx_core "$@"\n')
    lmx.chmod(0o755)
    return lmx.parent
