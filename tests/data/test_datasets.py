"""The promises of the datasets."""

import hashlib
import os
import shutil
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmx_core.config import spec
from lmx_core.construct import build
from lmx_core.data.datasets import (
    Published,
    PythonStdlib,
    Shakespeare,
    ShakespeareOptions,
    TextFiles,
    TextFilesOptions,
    files,
)
from lmx_core.data.datasets import shakespeare as datasets
from lmx_core.errors import ConfigError, DataError

quick = settings(max_examples=60, deadline=None)


def raw(documents):
    return [document.encode("utf-8", "surrogateescape") for document in documents]


def both(dataset):
    return raw(dataset.documents("train")), raw(dataset.documents("validation"))


def whole(dataset):
    train, validation = both(dataset)
    return b"".join(train + validation)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def text_files(*paths, **options):
    return TextFiles(TextFilesOptions(paths=[str(path) for path in paths], **options))


def test_another_split_is_no_split(tmp_path):
    """A misspelt split is an error, be it the type checker's of these tests or `DataError`, never the training text."""
    file = write(tmp_path, {"a.txt": "one\ntwo\n"}) / "a.txt"

    with pytest.raises(Exception, match="split"):
        list(text_files(file).documents("valid"))


# The standard library


def test_the_standard_library_is_read():
    """Some ten megabytes of sources, about a tenth of them and at least 500 kB held out, no file on both sides."""
    train, validation = both(PythonStdlib())
    size, held = sum(map(len, train)), sum(map(len, validation))

    assert size > 5_000_000
    assert held >= 500_000
    assert 0.05 < held / (size + held) < 0.15
    assert Path(os.__file__).read_bytes() in train + validation
    assert not {text for text in train if len(text) > 1000} & set(validation)


def test_the_standard_library_is_read_without_tests_and_packages():
    """What is tested with, installed, generated or written by the build machine is no part of it."""
    library, texts = Path(os.__file__).parent, set(both(PythonStdlib())[0] + both(PythonStdlib())[1])
    others = [
        *library.glob("test/test_[a-d]*.py"),
        *library.glob("idlelib/idle_test/*.py"),
        *library.glob("_sysconfigdata*"),
    ]

    for file in (Path(pytest.__file__), Path(__file__), *others):
        assert file.read_bytes() not in texts - {b""}


STDLIB = {f"{package}m{i}.py": f"# {package}{i}\n".encode() * 7000 for i in range(60) for package in ("", "json/")}
ELSEWHERE = {
    "_sysconfigdata__darwin.py": "x",
    "sitecustomize.py": "x",
    "config-3.12-darwin/python-config.py": "x",
    "site-packages/numpy/a.py": "x",
    "dist-packages/b.py": "x",
    "json/__pycache__/c.py": "x",
    "json/tests/d.py": "x",
    "test/e.py": "x",
    "idlelib/idle_test/f.py": "x",
    "LICENSE.txt": "x",
}


def stdlib(root, files, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(write(root, files)))
    return both(PythonStdlib())


def test_every_machine_has_the_same_split(tmp_path, monkeypatch):
    """Where Python is installed, what else is, and what the files hold moves no file to the other side."""
    here = stdlib(tmp_path / "here", STDLIB, monkeypatch)
    there = stdlib(tmp_path / "there/lib", STDLIB | ELSEWHERE, monkeypatch)
    with_crlf = stdlib(tmp_path / "w", {name: x.replace(b"\n", b"\r\n") for name, x in STDLIB.items()}, monkeypatch)

    assert there == here
    assert [[text.replace(b"\r\n", b"\n") for text in side] for side in with_crlf] == list(here)


def test_every_file_is_read_once_as_it_is(tmp_path, monkeypatch):
    """Bytes that are no UTF-8 come back, line ends too."""
    files = STDLIB | {"latin.py": b"# -*- coding: latin-1 -*-\r\n'\xe9\xff'\n", "empty.py": b""}
    train, validation = stdlib(tmp_path, files, monkeypatch)

    assert sorted(train + validation) == sorted(filter(None, files.values()))  # empty ones are no documents


@pytest.mark.parametrize("files", [{}, {"os.py": b"# landmark\n", "test/big.py": b"#" * 2_000_000}])
def test_an_interpreter_without_sources_is_explained(tmp_path, monkeypatch, files):
    """A zipped or embedded standard library: what was looked for, where, and what to take instead."""
    with pytest.raises(DataError, match=r"bytes of Python sources.*full Python installation, or dataset \"text\""):
        stdlib(tmp_path / "lib", files, monkeypatch)


def test_a_missing_standard_library_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "python311.zip"))

    with pytest.raises(DataError, match=r"python311\.zip has 0 bytes"):
        PythonStdlib().documents("train")


# Text files

CORPUS = {f"{folder}/{i}.txt": f"{folder} {i}\n" * 40 for folder in ("a", "b/c") for i in range(20)}


def test_a_directory_is_read_whole(tmp_path):
    """Every text file at any depth is in one of the splits, byte for byte; hidden and other files are not."""
    texts = CORPUS | {"x.md": b"\xff\xfe\x00caf\xe9\r\n", "y.py": "pass\n"}
    write(tmp_path, texts | {"data.bin": "x", ".hidden.txt": "x", ".git/z.txt": "x", "empty.txt": ""})

    train, validation = both(text_files(tmp_path))

    assert sorted(train + validation) == sorted(x if isinstance(x, bytes) else x.encode() for x in texts.values())


def test_about_the_fraction_is_held_out(tmp_path):
    """By bytes, in whole files, never more than asked for."""
    write(tmp_path, {f"{i}.txt": "x" * (100 + 37 * i) for i in range(50)})

    for fraction in (0.1, 0.5, 0.9):
        train, validation = both(text_files(tmp_path, validation_fraction=fraction))
        share = sum(map(len, validation)) / sum(map(len, train + validation))
        assert fraction - 0.03 < share <= fraction


def test_a_small_file_is_held_out_rather_than_a_large_one(tmp_path):
    """Both splits have text, and most of it is for training, however the files' sizes differ."""
    for i in range(8):
        root = write(tmp_path / str(i), {f"large{i}.txt": "x" * 10_000, f"small{i}.txt": "y" * 2000})
        assert both(text_files(root)) == ([b"x" * 10_000], [b"y" * 2000])


def test_the_split_moves_with_the_directory(tmp_path, monkeypatch):
    """Where a corpus lies and how it is named changes nothing: order and split are the files'."""
    here, there = (write(tmp_path / name, CORPUS) for name in ("here", "some/where/else"))
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    expected = both(text_files(here))

    assert both(text_files(there)) == expected
    for paths in (["."], ["~"], ["~/a", "b"], ["**/*.txt"], ["b/c/*.txt", "a/1*", f"{here}/a/*.txt"], sorted(CORPUS)):
        assert both(text_files(*paths)) == expected


def test_a_file_is_read_once(tmp_path):
    """However often and by whatever name it is given."""
    write(tmp_path, {"a.txt": "a" * 50, "b.txt": "b" * 50})
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")

    train, validation = both(text_files(tmp_path, tmp_path / "a.txt", f"{tmp_path}/./*.txt"))

    assert sorted(train + validation) == [b"a" * 50, b"b" * 50]


def test_a_name_like_a_glob_is_a_file_where_there_is_one(tmp_path):
    write(tmp_path, {"notes [1].txt": "one\ntwo\n"})

    assert whole(text_files(tmp_path / "notes [1].txt")) == b"one\ntwo\n"


@given(content=st.binary(min_size=2), fraction=st.floats(0.01, 0.99))
@quick
def test_a_single_file_is_cut_in_two(tmp_path_factory, content, fraction):
    """Nothing is lost, and neither side is empty."""
    file = write(tmp_path_factory.getbasetemp(), {"single.dat": content}) / "single.dat"
    (train,), (validation,) = both(text_files(file, validation_fraction=fraction))

    assert train + validation == content
    assert len(content.decode("utf-8", "surrogateescape")) < 2 or (train and validation)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_single_file_is_cut_at_a_line(tmp_path, end):
    """The last tenth is held out, from the nearest line break on."""
    file = write(tmp_path, {"a.txt": "".join(f"line {i}{end}" for i in range(100))}) / "a.txt"
    (train,), (validation,) = both(text_files(file))

    assert train.endswith(end.encode())
    assert validation.startswith(b"line 9")
    assert 9 <= validation.count(b"\n") <= 11


@pytest.mark.parametrize("text", ["x" * 1000, "title\n" + "x" * 994, "x" * 998 + "\n."], ids=["none", "early", "late"])
def test_without_a_line_near_the_cut_is_where_it_falls(tmp_path, text):
    file = write(tmp_path, {"a.txt": text}) / "a.txt"

    assert [len(side[0]) for side in both(text_files(file))] == [900, 100]


def test_validation_paths_are_held_out(tmp_path):
    """Exactly these, and never in the training split as well."""
    write(tmp_path, CORPUS)
    train, validation = both(text_files(tmp_path, validation_paths=str(tmp_path / "b")))

    assert len(train) == len(validation) == 20
    assert all(text.startswith(b"a") for text in train)
    assert all(text.startswith(b"b") for text in validation)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("gone.txt", r"gone.txt matches no file in /.*Correct the path"),
        ("*.rst", r"\*\.rst matches no file in /.*'\*\*/' looks into directories"),
        ("pictures", r"pictures has no files that end in \.txt, \.md, \.py. Set suffixes, or write a glob"),
        (["empty.txt", "empty*"], r"every file of empty\.txt, empty\* is empty. Give files"),
        ("broken", r"cannot read .*broken/link\.txt: No such file.*Correct the path"),
        ("loop", r"cannot read .*loop/[ab]\.txt: Too many levels"),
        ("/dev/null", r"/dev/null is neither a file nor a directory"),
        ("~nobody-of-this-name/a.txt", r"~nobody-of-this-name/a\.txt matches no file"),
    ],
)
def test_paths_without_text_are_explained(tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(write(tmp_path, {"empty.txt": "", "pictures/a.png": "x", "broken/b.txt": "text", "loop/c": "x"}))
    (tmp_path / "broken/link.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "loop/a.txt").symlink_to(tmp_path / "loop/b.txt")
    (tmp_path / "loop/b.txt").symlink_to(tmp_path / "loop/a.txt")

    with pytest.raises(DataError, match=message):
        build("dataset", spec("text", paths=paths)).documents("train")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["inner", "inner/a.txt"])
def test_what_may_not_be_read_is_not_left_out(tmp_path, closed):
    write(tmp_path, {"inner/a.txt": "a", "b.txt": "b"})
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot read .*inner.*: Permission denied"):
            both(text_files(tmp_path))
    finally:
        (tmp_path / closed).chmod(0o700)


def test_all_held_out_is_explained(tmp_path):
    write(tmp_path, {"a.txt": "text"})

    with pytest.raises(DataError, match=r"holds out every file\. Name more files in paths"):
        text_files(tmp_path, validation_paths=str(tmp_path / "a.txt")).documents("train")


def test_options_come_from_a_config(tmp_path):
    """A path or a list of paths; suffixes choose what a directory gives."""
    write(tmp_path, {"a.rst": "one\ntwo\n", "b.txt": "x"})
    one = build("dataset", spec("text", paths=str(tmp_path / "a.rst")))
    more = build("dataset", spec("text", paths=[str(tmp_path)], suffixes=".rst"))

    assert both(one) == both(more)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "paths: is missing"),
        ({"paths": []}, "paths: must name a file, got ()"),
        ({"paths": ""}, "paths: must name a file, got ''"),
        ({"paths": 5}, "paths: expected a list of str or str, got 5"),
        ({"paths": ["a", 5]}, "paths[1]: expected str, got 5"),
        ({"paths": "a", "suffixes": [""]}, "suffixes: expected texts that are not empty, got ''"),
        ({"paths": "a", "validation_fraction": 0}, "validation_fraction: must be > 0, got 0"),
        ({"paths": "a", "validation_fraction": 1}, "validation_fraction: must be < 1, got 1"),
        ({"paths": "a", "path": "b"}, "path: unknown option; did you mean 'paths'?"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError) as refused:
        build("dataset", spec("text", **options))

    assert message in str(refused.value)


END = "<|end|>"


@given(
    texts=st.lists(st.text("ab<|end>\u00e9", max_size=30), min_size=2, max_size=12),
    fraction=st.floats(0.01, 0.99),
    block=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_separator_ends_documents(tmp_path, monkeypatch, texts, fraction, block):
    """It stays with the document that it ends; of one file the last documents are held out, about the fraction of it."""
    monkeypatch.setattr(files, "BLOCK", block)
    text = END.join([*texts, "last"])
    file = write(tmp_path, {"a.txt": text}) / "a.txt"
    *ended, last = text.encode().split(END.encode())

    train, held_out = both(text_files(file, separator=END, validation_fraction=fraction))

    assert train + held_out == [*(each + END.encode() for each in ended), last]
    assert train
    assert held_out
    before, size = sum(map(len, train)), len(text.encode())
    asked = round(size * (1 - fraction))
    assert before - len(train[-1]) < max(asked, 1) <= before or len(held_out) == 1


def test_files_with_a_separator_are_held_out_whole(tmp_path):
    """Each document by itself, and no document of two files."""
    place = write(tmp_path, {f"{i}.txt": f"{i}a\n\n{i}b\n\n{i}c" for i in range(10)})
    train, held_out = both(text_files(place, separator="\n\n"))
    assert len(train) == 27
    assert sorted(held_out) == [held_out[0], *(held_out[0][:1] + rest for rest in (b"b\n\n", b"c"))]


def test_a_file_without_its_separator_is_explained(tmp_path):
    file = write(tmp_path, {"a.txt": "one text" + END}) / "a.txt"
    with pytest.raises(DataError, match="a.txt is one document: it has no .* before its end. Give a separator that it"):
        text_files(file, separator=END).documents("train")
    with pytest.raises(ConfigError, match="separator"):
        text_files(file, separator="")


def test_a_large_file_is_read_document_by_document(tmp_path):
    """Its first document is there before the rest is read."""
    import tracemalloc

    file = tmp_path / "a.txt"
    with file.open("w") as opened:
        opened.writelines(f"{i}{END}" + "x" * 9000 for i in range(3000))
    tracemalloc.start()
    count = sum(1 for _ in text_files(file, separator=END).documents("train"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2600 < count < 2800
    assert peak < 8_000_000 < file.stat().st_size / 3


# Tiny Shakespeare, played by a file of the tests

PLAY = b"".join(b"Speaker %d:\nThe line of number %d.\n\n" % (i, i) for i in range(500))


class Server(ThreadingHTTPServer):
    """Serves PLAY, or misbehaves by the name that is asked for; counts what it is asked."""

    daemon_threads = True
    asked = 0

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.done = threading.Event()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


BODIES = {
    "/truncated": PLAY[:1000],
    "/wrong": PLAY[:-1] + b"!",
    "/longer": PLAY * 3,
    "/html": b"<html>Sign in</html>",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        if self.path == "/missing":
            return self.send_error(404)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(PLAY)) if self.path == "/truncated" else "")
        self.end_headers()
        if self.path == "/stalled":
            self.wfile.write(PLAY[:10])
            return self.server.done.wait(20)
        return self.wfile.write(BODIES.get(self.path, PLAY))

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, PLAY in the place of Shakespeare's, and no proxy between the tests and their server."""
    cache = tmp_path / "cache"
    published = Published(url="unused", size=len(PLAY), sha256=hashlib.sha256(PLAY).hexdigest())
    monkeypatch.setattr(datasets, "SHAKESPEARE", published)
    monkeypatch.setenv("LMX_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return cache


def kept(cache):
    return sorted(path.name for path in cache.rglob("*")) if cache.exists() else []


def shakespeare(server, name):
    return Shakespeare(ShakespeareOptions(url=server.url(name)))


@pytest.mark.parametrize("name", ["whole", "moved"])
def test_it_is_downloaded_once(server, cache, name):
    """The first use downloads, the next ones read the copy, in this process and in others; nothing else is left."""
    first = both(shakespeare(server, name))
    asked = server.asked

    assert both(shakespeare(server, name)) == first
    assert server.asked == asked
    assert kept(cache) == ["tinyshakespeare.txt"]
    assert b"".join(first[0] + first[1]) == PLAY


def test_the_first_nine_tenths_are_for_training(server):
    (train,), (validation,) = both(shakespeare(server, "whole"))

    assert train == PLAY[: int(len(PLAY) * 0.9)]
    assert validation == PLAY[int(len(PLAY) * 0.9) :]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", r"not tiny Shakespeare: it has 1,000 bytes .*expected [\d,]+ bytes.*Try again"),
        ("wrong", "with sha256 .*expected .*Try again"),
        ("longer", "not tiny Shakespeare"),
        ("html", "not tiny Shakespeare: it has 20 bytes"),
        ("missing", "could not download .*/missing: the server answers 404 Not Found. .*set path to a copy"),
    ],
)
def test_a_wrong_answer_is_not_kept(server, cache, name, message):
    """What is wrong, from where, the way out; no file, whole or half, and the next use tries again."""
    with pytest.raises(DataError, match=message):
        shakespeare(server, name).documents("train")

    assert kept(cache) == []
    assert both(shakespeare(server, "whole"))


def test_a_silent_server_is_given_up(server, cache, monkeypatch):
    monkeypatch.setattr(datasets, "TIMEOUT", 0.1)

    with pytest.raises(DataError, match=r"could not download .*timed out.*python-stdlib"):
        shakespeare(server, "stalled").documents("train")

    assert kept(cache) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "no-scheme", "http://", "gopher://127.0.0.1/"])
def test_without_a_network_the_way_out_is_named(cache, url):
    """Nobody listens, or the address is none."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dataset = Shakespeare(ShakespeareOptions(url=url.format(port=closed.getsockname()[1])))

        with pytest.raises(
            DataError, match=r"could not download .*: .+set path to a copy of the file, or take dataset"
        ):
            dataset.documents("train")

    assert kept(cache) == []


def test_an_interrupted_write_leaves_nothing(server, cache, monkeypatch):
    """Ctrl-C between writing and naming the copy; the next use downloads again."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shakespeare(server, "whole").documents("train")

    assert kept(cache) == []
    assert both(shakespeare(server, "whole"))


def test_a_cache_that_cannot_be_written_is_explained(server, cache):
    cache.write_text("a file where the directory should be")

    with pytest.raises(DataError, match=r"download cannot be kept: .*Set LMX_CACHE to a directory"):
        shakespeare(server, "whole").documents("train")


def test_a_damaged_copy_is_noticed(server, cache):
    """Every use checks the sum; the file to remove is named."""
    both(shakespeare(server, "whole"))
    copy = cache / "tinyshakespeare.txt"
    copy.write_bytes(PLAY[:-1])

    with pytest.raises(
        DataError, match=r"tinyshakespeare\.txt is not tiny Shakespeare.*Remove it to download it again"
    ):
        shakespeare(server, "whole").documents("validation")

    copy.unlink()
    assert both(shakespeare(server, "whole"))


def test_a_local_copy_needs_no_network(tmp_path, cache, monkeypatch):
    """`path` is read in place of the network and of the cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"play.txt": PLAY})
    dataset = build("dataset", spec("shakespeare", path="~/play.txt", url="http://127.0.0.1:9/"))

    assert whole(dataset) == PLAY
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.txt", 'other.txt is not tiny Shakespeare.*Other texts are for dataset "text"'),
        ("gone.txt", "cannot read .*gone.txt"),
    ],
)
def test_another_text_is_not_shakespeare(tmp_path, name, message):
    write(tmp_path, {"other.txt": "To be or not to be"})

    with pytest.raises(DataError, match=message):
        Shakespeare(ShakespeareOptions(path=str(tmp_path / name))).documents("train")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/lmx"),
        ("darwin", {}, "home/Library/Caches/lmx"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "home/xdg/lmx"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg", "LMX_CACHE": "~/mine"}, "home/mine"),
        ("darwin", {"LMX_CACHE": ""}, "home/Library/Caches/lmx"),
    ],
)
def test_downloads_are_kept_where_the_system_keeps_them(tmp_path, monkeypatch, platform, variables, expected):
    for name in ("LMX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "{home}"} | variables).items():
        monkeypatch.setenv(name, value.format(home=tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", platform)

    assert datasets.cache_directory() == tmp_path / expected


def test_the_published_file_is_the_one_that_is_expected(monkeypatch, tmp_path):
    """The real text, where there is a copy of it: 1,003,854 characters for training, 111,540 held out."""
    copy = Path(__file__).parents[3] / "shared/data/tinyshakespeare.txt"
    if not copy.exists():
        pytest.skip("no copy of tiny Shakespeare beside the repository")
    monkeypatch.undo()
    shutil.copy(copy, tmp_path / "copy.txt")

    (train,), (validation,) = both(Shakespeare(ShakespeareOptions(path=str(tmp_path / "copy.txt"))))

    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert train.startswith(b"First Citizen:\n")


def test_datasets_start_light():
    """Naming a dataset or a tokenizer imports neither MLX nor what only a download or an extra needs."""
    import subprocess

    heavy = ("mlx", "urllib.request", "http.client", "tiktoken")
    code = (
        f"import sys, lmx_core.data.datasets, lmx_core.data.tokenizers; print([n for n in {heavy} if n in sys.modules])"
    )
    here = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | here
    )

    assert done.stdout.strip() == "[]"
