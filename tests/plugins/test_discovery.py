"""What is installed is read from metadata: whatever state it is in, and in whatever order directories are listed."""

import os
import random
import shutil
import subprocess
import sys

import pytest

from lmx_core import ffn_registry
from lmx_core.metadata import leftovers
from lmx_core.plugins import distributions, everything
from lmx_core.registry import kinds, registry

from .sources import RELU2


def found(name):
    (each,) = [each for each in distributions() if each.name == name]
    return each


def test_a_malformed_entry_point_is_reported_and_hides_no_other(plugins):
    entries = {
        "ffnbad": "acme_odd:X",
        "ffn.good": "acme_odd:X",
        "ffn.worse": "acme_odd",
        "ffn.a/b": "acme_odd:X",
        "hooks": "a b",
    }
    plugins.install("acme-odd", entries, "X = 1")
    odd = found("acme-odd")
    assert [ref.name for ref in odd.refs] == ["good"]
    assert [problem.what.partition(" is not")[0] for problem in odd.problems] == [
        'entry point ffnbad = "acme_odd:X"',
        'entry point ffn.worse = "acme_odd"',
        'entry point ffn.a/b = "acme_odd:X"',
        'entry point hooks = "a b" names no module and is left out',
    ]
    assert str(odd.problems[0]) == (
        f'acme-odd 1.0 ({odd.place}): entry point ffnbad = "acme_odd:X" is not of the form "<kind>.<name>" = '
        '"module:attribute" and is left out. Its author must mend it.'
    )


def test_an_entry_point_that_is_there_twice(plugins):
    site = plugins.install("acme-twice", {}, "")
    (info,) = site.glob("*.dist-info")
    (info / "entry_points.txt").write_text("[lmx.components]\nffn.x = acme_twice:A\nffn.x = acme_twice:B\nnothing\n")
    plugins.forget()
    assert [ref.target for ref in found("acme-twice").refs] == ["acme_twice:A"]
    first, second = found("acme-twice").problems
    assert 'ffn.x = "acme_twice:B" is there twice' in first.what
    assert 'nothing = "" is not of the form' in second.what


def egg_info(parent, name, version, entries=()):
    egg = parent / f"{name}.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (egg / "entry_points.txt").write_text("\n".join(["[lmx.components]", *entries, ""]))
    return egg


def test_a_stale_egg_info_hides_nothing(plugins):
    """Neither in the same directory, nor in a source folder that comes first on the path."""
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    egg_info(site, "acme_ffn", "0.9")
    source = plugins.install("other", {}, "")
    egg_info(source, "acme_ffn", "0.8", ["ffn.old = acme_ffn:Old"])
    plugins.forget()
    assert [ref.name for ref in found("acme-ffn").refs] == ["relu2"]
    assert found("acme-ffn").version == "1.0"
    assert [(problem.version, problem.fix) for problem in found("acme-ffn").problems] == [
        ("0.8", "Remove it."),
        ("0.9", "Remove it."),
    ]
    assert all("stale egg-info beside acme-ffn 1.0" in problem.what for problem in found("acme-ffn").problems)


def test_what_an_editable_install_leaves_is_no_problem(plugins):
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    egg_info(site / "src", "acme_ffn", "1.0", ["ffn.relu2 = acme_ffn:ReLU2"])
    plugins.add_site(site / "src")
    assert [ref.name for ref in found("acme-ffn").refs] == ["relu2"]
    assert found("acme-ffn").problems == []


def test_a_leftover_hides_nothing_and_is_reported(plugins):
    """An uninstall that was interrupted leaves a directory without METADATA."""
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    empty = [site / "acme_ffn-3.0.dist-info", site / "gone-1.0.dist-info"]
    for each in empty:
        each.mkdir()
    plugins.forget()
    assert found("acme-ffn").version == "1.0"
    (problem,) = found("acme-ffn").problems
    assert (problem.version, problem.file, problem.fix) == ("3.0", str(empty[0]), "Remove it.")
    assert [each.file for each in leftovers()] == sorted(map(str, empty))


def test_an_entry_points_file_without_metadata_is_reported(plugins):
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    (info,) = site.glob("*.dist-info")
    (info / "METADATA").unlink()
    plugins.forget()
    assert "it has no METADATA" in str(found("acme-ffn").problems[0])


def test_of_two_installations_the_one_that_python_imports_counts(plugins):
    plugins.install("acme-ffn", {"ffn.new": "acme_ffn:ReLU2"}, RELU2, version="2.0")
    first = plugins.install("acme-ffn", {"ffn.old": "acme_ffn:ReLU2"}, RELU2, version="1.0")
    assert [ref.name for ref in found("acme-ffn").refs] == ["old"]
    (problem,) = found("acme-ffn").problems
    assert problem.version == "2.0"
    assert problem.what.startswith(f"installed a second time; 1.0 in {first}")
    assert "pip uninstall acme-ffn" in problem.fix


def test_of_two_versions_in_one_directory_the_higher_counts(plugins):
    """An upgrade that was interrupted leaves both."""
    site = plugins.install("acme-ffn", {"ffn.old": "acme_ffn:ReLU2"}, RELU2, version="1.9")
    newer = site / "acme_ffn-1.10.dist-info"
    shutil.copytree(site / "acme_ffn-1.9.dist-info", newer)
    (newer / "entry_points.txt").write_text("[lmx.components]\nffn.new = acme_ffn:ReLU2\n")
    plugins.forget()
    assert (found("acme-ffn").version, [ref.name for ref in found("acme-ffn").refs]) == ("1.10", ["new"])
    assert len(found("acme-ffn").problems) == 1


def test_one_folder_that_is_on_the_path_twice(plugins, tmp_path):
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    (tmp_path / "link").symlink_to(site)
    plugins.add_site(tmp_path / "link")
    assert found("acme-ffn").problems == []
    assert len(ffn_registry.refs("relu2")) == 1


def test_entry_points_that_are_no_text_are_reported(plugins):
    site = plugins.install("acme-ffn", {}, "")
    (info,) = site.glob("*.dist-info")
    (info / "entry_points.txt").write_bytes(b"[lmx.components]\nffn.x = \xff\xfe\n")
    plugins.forget()
    assert found("acme-ffn").refs == []
    assert "entry_points.txt cannot be read as UTF-8 text" in str(found("acme-ffn").problems[0])


def test_no_order_of_directories_changes_an_answer(plugins, monkeypatch):
    """Listings in twenty shuffled orders, with clashes, copies, leftovers and stale egg-info among them."""
    site = plugins.install("acme-a", {"ffn.x": "acme_a:X", "ffn.y": "acme_a:X"}, "")
    for i in range(12):
        info = site / f"acme_b{i % 8}-1.{i}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\n")
        (info / "entry_points.txt").write_text(f"[lmx.components]\nffn.x = m{i}:X\nffn.z{i} = m:X\nffn.gated = m:X\n")
    (site / "acme_b3-9.0.dist-info").mkdir()
    for i in range(3):
        egg_info(site, f"acme_b{i}", "7.0", ["ffn.stale = m:X"])
    listed, answers, orders = os.listdir, [], set()
    for seed in range(20):
        order = random.Random(seed)

        def shuffled(path=".", order=order):
            names = listed(path)
            order.shuffle(names)
            orders.add(tuple(names))
            return names

        monkeypatch.setattr(os, "listdir", shuffled)
        sys.path_importer_cache.clear()
        plugins.forget()
        answers.append(
            [
                (each.name, each.version, each.place, list(each.refs), list(map(str, each.problems)))
                for each in everything()
            ]
            + [list(map(str, leftovers())), [(kind, registry(kind).refs()) for kind in kinds()]]
        )
    assert len(answers[0]) > 9
    assert len(orders) == 20
    assert all(answer == answers[0] for answer in answers)


PROBE = """
import sys
import lmx_core.metadata as metadata
scans = []
read = metadata._distributions
metadata._distributions = lambda: scans.append(1) or read()
from lmx_core.registry import kinds, registry
assert not scans, "scanned at import"
assert [registry("ffn").find("relu2").dist, "relu2" in registry("ffn").names(), "ffn" in kinds()] == ["acme-ffn", True, True]
try:
    registry("norm").get("nothing")
except LookupError:
    pass
assert "acme_ffn" not in sys.modules, "imported before use"
registry("ffn").get("relu2")
assert "acme_ffn" in sys.modules
print(len(scans))
"""


def test_metadata_is_read_once_and_no_plugin_imported_before_use(plugins):
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    environ = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


@pytest.mark.parametrize("count", [100])
def test_many_distributions_are_all_found(plugins, count):
    for i in range(count):
        plugins.install(f"acme-{i}", {f"ffn.f{i}": f"acme_{i}:X"})
    assert {f"f{i}" for i in range(count)} <= set(ffn_registry.names())


def test_the_higher_version_may_be_the_longer_one(plugins):
    site = plugins.install("acme-ffn", {"ffn.old": "acme_ffn:ReLU2"}, RELU2, version="1.0")
    shutil.copytree(site / "acme_ffn-1.0.dist-info", site / "acme_ffn-1.0.1.dist-info")
    plugins.forget()
    assert found("acme-ffn").version == "1.0.1"


def test_what_pip_leaves_behind_is_no_distribution(plugins):
    """It renames what it is about to remove."""
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    shutil.copytree(site / "acme_ffn-1.0.dist-info", site / "~cme_ffn-0.9.dist-info")
    plugins.forget()
    assert ffn_registry.find("relu2").dist == "acme-ffn"
    assert [(each.file, each.fix) for each in leftovers()] == [(str(site / "~cme_ffn-0.9.dist-info"), "Remove it.")]


@pytest.mark.parametrize("name", ["lmx-core", "session"])
def test_names_of_distributions_that_are_taken(plugins, name):
    plugins.install(name, {"ffn.relu2": "theirs:ReLU2"}, RELU2, module="theirs")
    assert ffn_registry.refs("relu2") == []
    (problem,) = found("lmx-core").problems
    assert problem.dist == name
    assert "this name is lmx's own" in problem.what


def test_entry_points_in_the_other_forms_of_the_format(plugins):
    """Spaces, an extra, a byte order mark."""
    site = plugins.install("acme-ffn", {}, RELU2)
    (info,) = site.glob("*.dist-info")
    text = "\ufeff[lmx.components]\nffn.one=acme_ffn : ReLU2\nffn.two = acme_ffn:ReLU2 [fast]\n"
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    plugins.forget()
    assert [ref.target for ref in found("acme-ffn").refs] == ["acme_ffn:ReLU2"] * 2
    assert found("acme-ffn").problems == []
