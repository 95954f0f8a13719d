"""Plugins that a test writes itself, and a view of the registry in which there are no others."""

import importlib
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lmx_core import metadata
from lmx_core.registry import SESSION, forget, kinds, registry


class Plugins:
    """What the test sees beside core: what it installs and registers here."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self.sites: list[Path] = []
        """The directories in which distributions are seen."""

    def install(
        self,
        name: str,
        entries: Mapping[str, str] | None = None,
        source: str = "",
        version: str = "1.0",
        *,
        module: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Path:
        """Write a distribution and put it first on `sys.path`; returns the directory that holds it.

        `entries` are its lines under `[project.entry-points."lmx.components"]`, `source` is its module, named as the
        distribution with underscores unless `module` says otherwise, and `files` are others by their paths.
        """
        site = self._folder / f"site{len(list(self._folder.glob('site*')))}"
        underscored = re.sub(r"[-.]+", "_", name)
        info = f"{underscored}-{version}.dist-info"
        lines = "".join(f"{key} = {target}\n" for key, target in (entries or {}).items())
        texts = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/entry_points.txt": f"[lmx.components]\n{lines}",
            f"{module or underscored}.py": source,
            **(files or {}),
        }
        for path, text in texts.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, encoding="utf-8")
        self.add_site(site)
        return site

    def add_site(self, site: Path) -> None:
        """See the distributions of a directory, which comes first on `sys.path`."""
        for path in site.iterdir():  # a module of that name may have been imported from elsewhere
            self._patch.delitem(sys.modules, path.stem, raising=False)
        self._patch.syspath_prepend(site)
        self.sites.append(site)
        self.forget()

    def uninstall(self, site: Path) -> None:
        """Take a directory and what was imported of it away again."""
        self.sites.remove(site)
        self._patch.setattr(sys, "path", [entry for entry in sys.path if entry != str(site)])
        drop_modules(site)
        self.forget()

    def search_path(self) -> list[str]:
        """The sites, in the order of `sys.path`."""
        return [entry for entry in sys.path if Path(entry) in self.sites]

    def register(self, kind: str, name: str, component: Any) -> None:
        """Register a component for this test alone."""
        registry(kind).register(name)(component)

    def forget(self) -> None:
        """Read the installed metadata anew at the next look-up, as after writing to a site."""
        importlib.invalidate_caches()
        forget()


@contextmanager
def only_these(folder: Path, patch: pytest.MonkeyPatch) -> Generator[Plugins, None, None]:
    """Within it only core and what the test brings are seen; afterwards all is as it was, what `patch` changed too."""
    before = _registered()
    for kind, name in before:
        registry(kind).unregister(name)
    plugins = Plugins(folder, patch)
    patch.setattr(metadata, "search_path", plugins.search_path)
    for variable in ("LMX_PLUGINS", "LMX_DISABLE"):
        patch.delenv(variable, raising=False)
    plugins.forget()
    try:
        yield plugins
    finally:
        drop_modules(folder)
        patch.undo()
        plugins.forget()
        for (
            kind,
            name,
        ) in _registered():  # only now: an entry point of the test's may have hidden what its module registered
            registry(kind).unregister(name)
        for (kind, name), component in before.items():
            registry(kind).register(name)(component)


def _registered() -> dict[tuple[str, str], Any]:
    """What this process registered itself."""
    return {
        (kind, ref.name): registry(kind).get(f"{SESSION}/{ref.name}")
        for kind in kinds()
        for ref in registry(kind).refs()
        if ref.dist == SESSION
    }


def drop_modules(folder: Path) -> None:
    """Forget the modules that were imported from below a folder."""
    for name, module in list(sys.modules.items()):
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
        if any(isinstance(place, str) and Path(place).is_relative_to(folder) for place in places):
            del sys.modules[name]
