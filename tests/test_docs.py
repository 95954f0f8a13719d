"""Every code block of the README and the docs runs, commands print what stands there; what is written twice is the same."""

import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import console  # noqa: E402
import generate  # noqa: E402

DOCS = generate.pages()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
RUN_HERE = [page for page in DOCS if page.name not in generate.SLOW and "```console" in page.read_text("utf-8")]
TUTORIAL = ROOT / "docs" / "tutorial.md"


def blocks(page, language):
    return console.blocks(page.read_text(encoding="utf-8"), language)


def run_tests_of(namespace, request):
    """Tests in a page are run as pytest would, with fixtures, or over what they are parametrised with."""
    for name, function in list(namespace.items()):
        if name.startswith("test_"):
            rows = [value.values for mark in getattr(function, "pytestmark", []) for value in mark.args[1]]
            fixtures = [] if rows else inspect.signature(function).parameters
            for row in rows or [[request.getfixturevalue(fixture) for fixture in fixtures]]:
                function(*row)


@pytest.fixture
def whole():
    if missing := generate.missing():
        pytest.skip(f"the pages show every plugin; {', '.join(missing)} not installed")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page, capsys, request, tmp_path, monkeypatch):
    """The blocks of a page one after the other, its tests included; those with a title are files."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page, "python"):
        if block.title is None:
            exec(compile(block.text, str(page), "exec"), namespace)
    run_tests_of(namespace, request)
    if page.name == "README.md":
        assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_is_toml(page):
    """What holds a model is a config, unless it has a title: then the page's commands say what it is."""
    from lmx_core.serialize import structure
    from lmx_core.train.config import RunConfig

    commands = " ".join(command for block in blocks(page, "console") for command, _ in block.commands())
    for block in blocks(page, "toml"):
        table = tomllib.loads(block.text)
        if block.title:
            assert block.title in commands
        elif "model" in table:
            table.pop("prefer", None)  # asks for what is installed
            structure(table, RunConfig, page.name)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_commands_print_what_stands_there(page, tmp_path):
    """Run `python -P docs/generate.py` to write it anew."""
    text = page.read_text(encoding="utf-8")
    assert console.rewritten(text, tmp_path) == text


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_generated_parts_are_fresh(page):
    """Run `python -P docs/generate.py` to write them anew."""
    text = page.read_text(encoding="utf-8")
    assert generate.filled(text) == text


def test_every_generated_part_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS)
    assert sorted(match["name"] for match in generate.PART.finditer(text)) == sorted(generate.PARTS)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("99,808 parameters\n", "99,809 parameters\n"),
        ("a\nb\n", "a\n"),
        ("a\n", "a\nb\n"),
        ("", "a\n"),
        ("a\n...\nb\n", "a\n"),
        ("file  .../lmx_core/block.py\n", "file  /somewhere/lmx_core/model.py\n"),
        ("  indented\n", "indented\n"),
        ("loss 1.5 nats\n", "loss nan nats\n"),
        ("two words\n", "twowords\n"),
        ("a.c\n", "abc\n"),
    ],
)
def test_a_page_that_is_wrong_is_noticed(page, printed):
    assert not console.agree(page, printed)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("65 passed in 3.58s\n", "65 passed in 11.02s\n"),
        ("trained in 0:02:50 at 8,735 tokens/s\n", "trained in 0:00:09 at 71 tokens/s\n"),
        ("loss 1.5773 nats (sha256 46107a586609...)\n", "loss 1.5 nats (sha256 00...)\n"),
        ("NAME  FILE\nrope  .../lmx_core/a.py  ok\n", "NAME  FILE\nrope  /usr/lib/lmx_core/a.py    ok\n"),
        ("a\n...\nb\n", "a\nwhatever\nelse\nb\n"),
        ("", ""),
    ],
)
def test_what_varies_is_let_pass(page, printed):
    assert console.agree(page, printed)


def test_commands_are_what_follows_a_prompt():
    """What a command prints is never run."""
    block = console.Block("console", None, "$ first \\\n  goes on\nrm nothing\n$ second\n$ third\nout\n\nput\n")
    assert list(block.commands()) == [
        ("first \\\n  goes on", "rm nothing\n"),
        ("second", ""),
        ("third", "out\n\nput\n"),
    ]


def test_pages_are_rewritten_where_they_are_wrong(tmp_path):
    page = '```text title="a/b.txt"\none\ntwo\n```\n```diff title="a/b.txt"\n one\n-two\n+three\n```\n'
    page += "```console\n$ cd a\n$ cat b.txt\nTWO\n$ ls; false\nb.txt\n```\n"
    assert console.rewritten(page, tmp_path) == page.replace("TWO", "one\nthree")


def test_a_change_that_does_not_fit_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match="b.txt does not hold once"):
        console.rewritten('```text title="b.txt"\none\n```\n```diff title="b.txt"\n-two\n+three\n```\n', tmp_path)


def attention_of_the_tutorial(folder, changes):
    """The class after so many of the page's changes."""
    shell = console.Shell(folder, Path(sys.executable).parent)
    source = "src/acme_talking_heads/__init__.py"
    (first,) = [block for block in blocks(TUTORIAL, "python") if block.title == source]
    shell.write(first)
    for block in [block for block in blocks(TUTORIAL, "diff") if block.title == source][:changes]:
        shell.change(block)
    namespace = {"__name__": "acme_talking_heads"}
    exec(compile((folder / source).read_text(encoding="utf-8"), source, "exec"), namespace)
    return namespace["TalkingHeads"]


def test_the_tutorials_mistake_is_caught(tmp_path):
    from lmx_core.testing import cases

    wrong = attention_of_the_tutorial(tmp_path, 0)
    (leak,) = [case for case in cases("attention", wrong) if case.name == "past_ignores_future"]
    with pytest.raises(AssertionError, match="differ by"):
        leak.run()


def test_the_tutorials_attention_keeps_its_promises(tmp_path):
    from lmx_core.testing import cases

    for case in cases("attention", attention_of_the_tutorial(tmp_path, 1)):
        case.run()


def test_the_tutorials_second_version_reads_the_first(tmp_path):
    second = attention_of_the_tutorial(tmp_path, 4)
    assert second.options_version == 2
    assert second.migrate({"weights": False}, 1) == {"after": False}
    assert second.Options(after=False).before


def test_every_page_is_in_the_menu():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert sorted(re.findall(r"[\w-]+\.md", nav)) == [page.name for page in DOCS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_first_example_is_short():
    """Ten lines of Python show the whole."""
    assert len([line for line in blocks(PAGES[0], "python")[0].text.splitlines() if line.strip()]) <= 10


def test_commands_of_the_readme_exist():
    """Every `lmx verb` is a verb."""
    from lmx_core.registry import registry

    verbs = set(re.findall(r"(?:`|run )lmx ([a-z]+)", PAGES[0].read_text(encoding="utf-8")))
    assert {"train", "list", "info", "count", "diff", "doctor", "init"} <= verbs <= set(registry("command").names())


def test_the_two_commands_are_what_ci_runs():
    text = PAGES[0].read_text(encoding="utf-8")
    (command,) = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("python3 -m pip")]
    assert command in text
    assert "python3 -m pip install uv && python3 -m uv run lmx train examples/tiny-llama.toml" in text


def test_constraints_are_written_once():
    """`uv run` reads pyproject.toml, nox constraints.txt: one list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = (ROOT / "constraints.txt").read_text().split()
    assert project["tool"]["uv"]["constraint-dependencies"] == pins
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*", pin) for pin in pins)


def test_the_examples_are_those_of_the_package():
    """`lmx init` and the checkout's examples/ are the same files."""
    assert (ROOT / "examples").resolve() == ROOT / "lmx_core" / "examples"
    assert sorted(file.name for file in (ROOT / "examples").iterdir()) == [
        "tiny-block.toml",
        "tiny-gpt.toml",
        "tiny-llama.toml",
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name)
def test_examples_are_whole_configs(file):
    from lmx_core.serialize import read_file, structure
    from lmx_core.train.config import RunConfig

    config = structure(read_file(file), RunConfig, str(file), installed=True)
    assert config.train.max_seconds <= 180
    assert config.train.final_eval_bytes == 500_000


def test_one_version():
    import lmx_core

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == lmx_core.__version__


def test_changes_are_told():
    """A fragment is one line for people who use lmx."""
    for file in (ROOT / "changelog").glob("*.md"):
        assert len(file.read_text(encoding="utf-8").strip().splitlines()) == 1


def test_the_page_of_configs_is_whole():
    """Every key stands in docs/config.md with its default, and nothing else does."""
    import attrs

    from lmx_core.config import BlockConfig, ModelConfig
    from lmx_core.data.corpus import DataConfig
    from lmx_core.train.config import TrainConfig

    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    sections = {"model": ModelConfig, "model.block": BlockConfig, "data": DataConfig, "train": TrainConfig}
    for section, cls in sections.items():
        table = text.split(f"## `[{section}]`")[1].split("\n## ")[0]
        listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.M))
        expected = {
            field.alias: "a `BlockConfig`"
            if field.alias == "block"
            else "none"
            if field.default is None
            # as TOML writes it
            else f'"{field.default}"'
            if isinstance(field.default, str)
            else "[]"
            if field.default == ()
            else str(field.default).lower()
            for field in attrs.fields(cls)
        }
        assert listed == expected
