import importlib, itertools, os, sys
import pytest


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    from lmx_core import metadata
    from lmx_core.registry import forget
    import importlib_metadata

    class P:
        count = 0
        sites = []
        added = []

        def install(self, name, entries=None, source="", version="1.0", module=None):
            self.count += 1
            site = tmp_path / f"site{self.count}"
            module = module or name.replace("-", "_").replace(".", "_")
            info = site / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            listed = "".join(f"{k} = {v}\n" for k, v in (entries or {}).items())
            (info / "entry_points.txt").write_text(f"[lmx.components]\n{listed}")
            (site / f"{module}.py").write_text(source)
            monkeypatch.syspath_prepend(site)
            self.sites.append(str(site))
            self.added.append(module)
            forget()
            return site

        def uninstall(self, site):
            self.sites.remove(str(site))
            monkeypatch.setattr(sys, "path", [e for e in sys.path if e != str(site)])
            forget()
            for m in self.added:
                sys.modules.pop(m, None)

        def forget(self):
            self.forget_listings()

        def add_site(self, site):
            monkeypatch.syspath_prepend(site)
            self.sites.append(str(site))
            forget()

        def forget_listings(self):
            importlib.invalidate_caches()
            importlib_metadata.MetadataPathFinder.invalidate_caches()
            forget()

    p = P()
    p.sites = []
    p.added = []
    monkeypatch.setattr(
        metadata, "_distributions", lambda: importlib_metadata.distributions(path=[e for e in sys.path if e in p.sites])
    )
    for v in ("LMX_PLUGINS", "LMX_DISABLE"):
        monkeypatch.delenv(v, raising=False)
    forget()
    yield p
    for m in p.added:
        sys.modules.pop(m, None)
    monkeypatch.undo()
    forget()
