"""Tokens on disk are written whole, the same with any number of workers and interruptions."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lmx_core import spec
from lmx_core.data import prepare as preparing
from lmx_core.data.corpus import DataConfig, read_corpus
from lmx_core.data.documents import Example
from lmx_core.data.prepare import prepare
from lmx_core.errors import DataError
from lmx_core.registry import registry

pytestmark = pytest.mark.once

GROUP = 2000
WORDS = ["to", "be", "or", "not", "that", "is", "the", "question", "🙂", "é"]
DRIVER = f"""
import json, multiprocessing, resource, sys
from pathlib import Path
from lmx_core import spec
from lmx_core.data import prepare
from lmx_core.data.corpus import DataConfig
from lmx_core.errors import LmxError

prepare.GROUP = {GROUP}
if __name__ == "__main__":
    texts, tokenizer, out, workers, waits, limit = json.loads(sys.argv[1])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def told(split, documents, tokens):
        print(split, documents, *[child.pid for child in multiprocessing.active_children()], flush=True)
        if waits:
            sys.stdin.readline()

    config = DataConfig(dataset=spec("text", paths=texts), tokenizer=tokenizer)
    try:
        prepare.prepare(config, Path(out), workers=workers, told=told)
    except LmxError as error:
        print("Error:", error, flush=True)
        sys.exit(2)
"""

other_process = pytest.mark.says_names
"""A process of its own knows components by their names."""


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """About 100 kB in 40 files."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text(" ".join(draw.choices(WORDS, k=draw.randint(1, 1000))), encoding="utf-8")
    (folder / "bytes.txt").write_bytes(b"no UTF-8: \xff\xfe")
    return folder


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(preparing, "GROUP", GROUP)


def config_of(texts, tokenizer="chars"):
    return DataConfig(dataset=spec("text", paths=str(texts)), tokenizer=spec(tokenizer))


@pytest.fixture(scope="module")
def straight(texts, tmp_path_factory):
    """The tokens, written at one go by one process."""
    out = tmp_path_factory.mktemp("straight") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "GROUP", GROUP)
        prepare(config_of(texts), out)
    return out


def start(texts, out, workers=1, waits=False, limit=0, tokenizer="chars"):
    command = [sys.executable, "-c", DRIVER, json.dumps([str(texts), tokenizer, str(out), workers, waits, limit])]
    if workers > 1:  # its workers import its main module, which therefore is a file
        driver = out.parent / "driver.py"
        driver.parent.mkdir(parents=True, exist_ok=True)
        driver.write_text(DRIVER)
        command[1:3] = [str(driver)]
    here = {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=os.environ | here, **pipes)


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return out


def killed_after(process, count):
    """SIGKILL while it waits after so many groups; the last line that it said."""
    for _ in range(count):
        line = process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
    line = process.stdout.readline()
    process.kill()
    process.communicate()
    return line


def same(one, other):
    names = [sorted(file.name for file in folder.iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
    differing = [name for name in names[0] if (one / name).read_bytes() != (other / name).read_bytes()]
    assert differing == []


def test_the_corpus_is_the_one_of_the_text(texts, straight):
    """Tokens, documents, held-out text and tokenizer, and with them a run's fingerprint."""
    expected = read_corpus(config_of(texts), 10**9, 1000)
    found = read_corpus(DataConfig(dataset=spec("tokens", path=str(straight)), tokenizer=spec("chars")), 10**9, 1000)

    assert found.fingerprint() == expected.fingerprint()
    assert found.tokenizer.to_dict() == expected.tokenizer.to_dict()
    assert (found.train.tokens == expected.train.tokens).all()
    assert (found.train.ends == expected.train.ends).all()
    assert found.glimpse.sha256 == expected.glimpse.sha256
    assert (found.validation.tokens == expected.validation.tokens).all()
    assert found.validation.scored == expected.validation.scored


def test_nothing_is_left_beside_it(straight):
    assert [file.name for file in straight.parent.iterdir()] == ["out"]
    assert sorted(file.name for file in straight.iterdir()) == [
        "meta.json",
        "tokenizer.json",
        "train.ends.npy",
        "train.tokens.npy",
        "validation.ends.npy",
        "validation.txt",
    ]
    assert np.load(straight / "train.tokens.npy").dtype == np.uint16


@pytest.mark.parametrize("group", [1, 10**9])
def test_the_size_of_groups_changes_nothing(texts, straight, tmp_path, monkeypatch, group):
    monkeypatch.setattr(preparing, "GROUP", group)
    prepare(config_of(texts), tmp_path / "out")
    same(straight, tmp_path / "out")


@other_process
def test_several_workers_write_the_same(texts, straight, tmp_path):
    said = finished(start(texts, tmp_path / "out", workers=3))
    same(straight, tmp_path / "out")
    assert max(len(line.split()) - 2 for line in said.splitlines()) == 3, "there were no workers"


@other_process
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [0, 5])
def test_a_killed_process_is_gone_on_with(texts, straight, tmp_path, workers, count):
    """What was finished is kept; the whole is the same bit for bit, whoever goes on."""
    out = tmp_path / "out"
    line = killed_after(start(texts, out, workers, waits=True), count)
    assert not out.exists()
    before = int(line.split()[1])
    assert (before > 0) == (count > 0)

    said = finished(start(texts, out, workers=1))
    assert said.splitlines()[0].split()[:2] == ["train", str(before)]
    same(straight, out)
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".py"] == ["out"]


@other_process
def test_kills_at_any_moment_do_no_harm(texts, straight, tmp_path):
    """Again and again, each a little later than the one before."""
    out, draw, kills = tmp_path / "out", random.Random(1), 0
    while not out.exists():
        process = start(texts, out)
        process.stdout.readline()  # it is at work
        time.sleep(draw.uniform(0, 0.005 + 0.003 * kills))
        process.kill()
        process.communicate()
        kills += 1
        assert kills < 200
    assert kills > 1
    for name in (preparing.BEGUN, preparing.LOCK, "train.journal", "validation.journal"):  # a kill after all was done
        (out / name).unlink(missing_ok=True)
    same(straight, out)


@other_process
@pytest.mark.parametrize("damage", ["torn", "longer", "changed", "journal", "missing"])
def test_what_is_not_whole_is_written_again(texts, straight, tmp_path, damage):
    """A half-written group, a torn journal, bytes that were lost."""
    out = tmp_path / "out"
    killed_after(start(texts, out, waits=True), 8)
    tokens, journal = (tmp_path / "out.part" / name for name in ("train.tokens.npy", "train.journal"))
    raw = tokens.read_bytes()
    if damage == "torn":
        tokens.write_bytes(raw[:-7])
    elif damage == "longer":
        tokens.write_bytes(raw + b"half a group")
    elif damage == "changed":
        tokens.write_bytes(raw[:-50] + bytes(50))
    elif damage == "journal":
        journal.write_text(journal.read_text()[:-20])
    else:
        (tmp_path / "out.part" / "train.ends.npy").unlink()

    kept = int(finished(start(texts, out)).splitlines()[0].split()[1])
    assert (kept > 0) == (damage != "missing")
    same(straight, out)


@other_process
def test_workers_end_with_who_started_them(texts, tmp_path):
    """Also when that process is killed, which cannot tell them."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("there is no /proc to look for processes in")
    line = killed_after(start(texts, tmp_path / "out", workers=2, waits=True), 2)
    workers = [int(pid) for pid in line.split()[2:]]
    assert len(workers) == 2

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    waiting = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < waiting, "a worker goes on without its parent"
        time.sleep(0.05)


@other_process
def test_a_killed_worker_is_told(texts, straight, tmp_path):
    process = start(texts, tmp_path / "out", workers=2, waits=True)
    process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    os.kill(int(process.stdout.readline().split()[2]), signal.SIGKILL)
    out, _ = process.communicate("\n" * 100, timeout=120)
    assert process.returncode == 2
    assert "Error: a worker process ended by itself" in out

    finished(start(texts, tmp_path / "out"))
    same(straight, tmp_path / "out")


@other_process
def test_a_full_disk_loses_nothing(texts, straight, tmp_path):
    process = start(texts, tmp_path / "out", limit=60_000)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, out + err
    assert f"could not write {tmp_path / 'out.part'}" in out
    assert "What is finished is kept: make room, and give the same command again." in out

    before = int(finished(start(texts, tmp_path / "out")).splitlines()[0].split()[1])
    assert before > 0
    same(straight, tmp_path / "out")


@other_process
def test_a_text_that_changes_meanwhile_is_noticed(texts, tmp_path):
    copy = tmp_path / "texts"
    copy.mkdir()
    for file in texts.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "out"
    killed_after(start(copy, out, waits=True, tokenizer="bytes"), 8)
    first = next(iter(read_first(copy)))
    first.write_bytes(first.read_bytes()[::-1])

    with pytest.raises(DataError, match=r"changed since .*out.part was begun. Remove it to begin anew"):
        prepare(config_of(copy, "bytes"), out)


def read_first(folder):
    """The file of the first document."""
    text = next(iter(registry("dataset").get("text")(_options(folder)).documents("train")))
    return [file for file in folder.iterdir() if file.read_bytes() == text.encode("utf-8", "surrogateescape")]


def _options(folder):
    return registry("dataset").get("text").Options(paths=str(folder))


@other_process
def test_a_tokenizer_that_changes_meanwhile_is_noticed(texts, tmp_path):
    killed_after(start(texts, tmp_path / "out", waits=True), 2)
    (tmp_path / "other.txt").write_text("xyz" * 100)

    with pytest.raises(DataError, match=r"out.part was begun when the dataset or the tokenizer was another"):
        prepare(config_of(texts, "bytes"), tmp_path / "out")
    file = tmp_path / "out.part" / "tokenizer.json"
    file.write_text(file.read_text().replace("t", "x"))
    with pytest.raises(DataError, match="begun when the text that the tokenizer is fitted on was another"):
        prepare(config_of(texts), tmp_path / "out")


@other_process
def test_two_processes_do_not_meet(texts, tmp_path):
    process = start(texts, tmp_path / "out", waits=True)
    process.stdout.readline()
    try:
        with pytest.raises(DataError, match=r"another process is preparing .*out.part. Wait for it"):
            prepare(config_of(texts), tmp_path / "out")
    finally:
        process.kill()
        process.communicate()


def test_what_is_there_is_not_replaced(texts, straight):
    with pytest.raises(DataError, match=r"out exists. Choose another --out, or remove it"):
        prepare(config_of(texts), straight)


@pytest.fixture
def masked():
    """A dataset of documents that are learned in part."""

    class Masked:
        def documents(self, split):
            raise DataError("this is no text")

        def encoded(self, tokenizer, split):
            for i in range(1, 400 if split == "train" else 40):
                tokens = np.arange(i % 50, dtype=np.int32)
                yield Example(tokens, None if i % 3 == 0 else tokens % 2 == i % 2)

    registry("dataset").register("masked")(Masked)
    yield spec("masked")
    registry("dataset").unregister("masked")


def test_masks_are_prepared(masked, tmp_path):
    """Of both splits; a document of no tokens is none."""
    config = DataConfig(dataset=masked)
    meta = prepare(config, tmp_path / "out", workers=2)
    expected = read_corpus(config, 10**6, 100)
    found = read_corpus(DataConfig(dataset=spec("tokens", path=str(tmp_path / "out"))), 10**6, 100)

    assert found.fingerprint() == expected.fingerprint()
    for one, other in ((found.train, expected.train), (found.validation, expected.validation)):
        assert (one.learn == other.learn).all()
        assert (one.ends == other.ends).all()
    assert isinstance(found.train.learn, np.memmap)
    assert meta.train["documents"] == len(expected.train) == 392
    assert meta.train["sha256"] == expected.train.sha256


def test_what_is_empty_is_explained(tmp_path):
    class Empty:
        def documents(self, split):
            return ["a"] if split == "train" else [""]

    registry("dataset").register("empty")(Empty)
    try:
        with pytest.raises(DataError, match="the validation split of dataset empty is empty"):
            prepare(DataConfig(dataset=spec("empty")), tmp_path / "out")
    finally:
        registry("dataset").unregister("empty")
    assert not (tmp_path / "out").exists()


def test_mixtures_and_tokens_are_not_prepared(texts, straight, tmp_path):
    part = spec("tokens", path=str(straight))
    with pytest.raises(DataError, match="is a mixture. Prepare each of its parts"):
        prepare(DataConfig(dataset=spec("mixture", parts=[{"dataset": part}])), tmp_path / "out")
    with pytest.raises(DataError, match="is tokens already. Train with it as it is"):
        prepare(DataConfig(dataset=part), tmp_path / "out")
