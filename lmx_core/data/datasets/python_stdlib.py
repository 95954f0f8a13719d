"""The standard library as a corpus."""

import sysconfig
from collections.abc import Iterable
from pathlib import Path

from lmx_core.data.datasets.files import Split, below, in_order, read_text, share, side, size_of
from lmx_core.errors import DataError


class PythonStdlib:
    """The sources of the running interpreter's standard library: about 11 MB of Python, without a network.

    The digest of a file's relative path decides on its side, so that a Python version has one split on every machine.
    """

    left_out = (
        *("test", "tests", "idle_test"),
        *("site-packages", "dist-packages", "sitecustomize.py", "config-*", "_sysconfigdata*"),  # the machine's own
        *("pydoc_data", "__pycache__"),  # one generated file of prose, a fifteenth of the whole
    )
    held_out = 0.1
    """Share of the files."""
    least = 500_000
    """Bytes to hold out; a library stripped of some of its files gives a larger share for it."""

    def documents(self, split: Split) -> Iterable[str]:
        root = Path(sysconfig.get_path("stdlib"))
        files = in_order(filter(size_of, below(root, (".py",), self.left_out)), root) if root.is_dir() else []
        size = sum(map(size_of, files))
        if size < 2 * self.least:
            raise DataError(
                f"{root} has {size:,} bytes of Python sources, {2 * self.least:,} are needed: this interpreter carries "
                "its standard library without them. Use a full Python installation, or dataset "
                '"text" with paths of your own.'
            )
        held = count = 0
        while held < self.least or share(files[count], root) < self.held_out:
            held += size_of(files[count])
            count += 1
        return map(read_text, side(split, files[count:], files[:count]))
