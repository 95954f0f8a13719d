"""Tokens on disk are read as they were written, or not at all."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig, read_corpus, with_own_tokenizer
from lmx_core.data.documents import Documents
from lmx_core.data.prepare import prepare
from lmx_core.data.token_files import EDGE, Meta, TokenFiles, TokenFilesOptions, opened, verified
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer
from lmx_core.errors import DataError
from lmx_core.registry import registry
from lmx_core.testing import cases

TRAIN = [f"def f{i}():\n    return {i}\n" * 40 for i in range(300)]
HELD = [f"class A{i}:\n    pass\n" * 40 for i in range(20)]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The texts, and their tokens by two tokenizers."""
    folder = tmp_path_factory.mktemp("places")
    for name, texts in (("train", TRAIN), ("held", HELD)):
        (folder / name).mkdir()
        for i, text in enumerate(texts):
            (folder / name / f"{i}.txt").write_text(text)
    text = spec("text", paths=str(folder / "train"), validation_paths=str(folder / "held"))
    for tokenizer in ("bytes", "chars"):
        prepare(DataConfig(dataset=text, tokenizer=tokenizer), folder / tokenizer)
    return folder


@pytest.fixture
def place(places, tmp_path):
    """A copy to do harm to."""
    return shutil.copytree(places / "chars", tmp_path / "chars")


def tokens_at(place):
    return spec("tokens", path=str(place))


def read(place, tokenizer="chars"):
    return read_corpus(DataConfig(dataset=tokens_at(place), tokenizer=tokenizer), 500, 100)


def test_they_are_a_dataset(places):
    """The documents of the text come back, in its order."""
    made, text = build("dataset", tokens_at(places / "chars")), opened(places / "chars").dataset
    assert text["name"].startswith("text")
    found = [*made.documents("train")]
    assert sorted(found) == sorted(TRAIN)
    assert sorted(made.documents("validation")) == sorted(HELD)
    assert found == [*made.documents("train")]
    with pytest.raises(Exception, match="split"):
        made.documents("valid")


def test_they_keep_the_promises_of_a_dataset(places):
    listed = cases("dataset.tokens", options={"path": str(places / "bytes")})
    assert len(listed) >= 3
    for case in listed:
        case.run()


def test_they_are_mapped_and_not_loaded(places):
    found = read(places / "chars").train

    assert isinstance(found, Documents)
    assert isinstance(found.tokens, np.memmap)
    assert isinstance(found.ends, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0] = 1


@contextmanager
def offered(count):
    """A dataset of so many bytes."""

    class Large:
        def documents(self, split):
            return ["abcdefgh" * 12_500] * (count // 10**5) if split == "train" else ["held out"]

    registry("dataset").register("large")(Large)
    yield spec("large")
    registry("dataset").unregister("large")


@pytest.mark.says_names
def test_memory_does_not_grow_with_them(tmp_path):
    """Of a corpus of 60 MB no more is kept than of a small one; pages of the file itself the system takes back."""
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc to ask for the memory of a process")
    code = """
import re, sys
from lmx_core import spec
from lmx_core.data.corpus import DataConfig, read_corpus
found = read_corpus(DataConfig(dataset=spec("tokens", path=sys.argv[1])), 500, 100)
for i in range(0, len(found.train.tokens), 10**5):
    assert found.train.tokens[i : i + 8].tobytes().decode("utf-16-le") == "abcdefgh"
print(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
    kept = []
    for count in (10**5, 3 * 10**7):
        with offered(count) as large:
            prepare(DataConfig(dataset=large), tmp_path / str(count))
        command = [sys.executable, "-c", code, str(tmp_path / str(count))]
        kept.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert (tmp_path / str(3 * 10**7) / "train.tokens.npy").stat().st_size == 6 * 10**7 + 128
    assert kept[1] - kept[0] < 5000, f"{kept} kB"


# Their tokenizer


def test_they_bring_their_tokenizer(places):
    """A config that names none takes theirs; one that names it may."""
    table = {"dataset": {"name": "tokens", "path": str(places / "chars")}}
    assert with_own_tokenizer(table)["tokenizer"] == opened(places / "chars").tokenizer
    assert isinstance(read(places / "chars").tokenizer, CharTokenizer)
    assert with_own_tokenizer({**table, "tokenizer": "bytes"})["tokenizer"] == "bytes"
    mixed = {"dataset": {"name": "mixture", "parts": [table]}}
    assert with_own_tokenizer(mixed)["tokenizer"] == opened(places / "chars").tokenizer
    text = {"dataset": {"name": "text", "paths": "a.txt"}}
    assert with_own_tokenizer(text) == text
    for wrong in (
        {"dataset": 3},
        {"dataset": "tokns"},
        {"dataset": {"name": "tokens", "path": "gone"}},
        {"datset": ""},
    ):
        assert with_own_tokenizer(wrong) == wrong


@pytest.mark.says_names
def test_another_tokenizer_is_refused(places):
    with pytest.raises(DataError, match=r"were made with tokenizer chars, and data.tokenizer has bytes. Leave"):
        read(places / "chars", "bytes")
    with pytest.raises(
        DataError, match=r"made with tokenizer chars, and the model that training starts from has another"
    ):
        read_corpus(DataConfig(dataset=tokens_at(places / "chars")), 500, 100, ByteTokenizer())


def test_the_same_tokenizer_may_be_given(places):
    own = build("dataset", tokens_at(places / "chars")).own_tokenizer
    given = CharTokenizer.from_dict(own.to_dict())
    config = DataConfig(dataset=tokens_at(places / "chars"))
    assert read_corpus(config, 500, 100, given).train.sha256 == read(places / "chars").train.sha256


def test_they_mix(places):
    """With others of one tokenizer, and with text, which theirs then encodes."""
    text = spec("text", paths=str(places / "held"))
    parts = [{"dataset": tokens_at(places / "chars"), "weight": 3.0}, {"dataset": text}]
    found = read_corpus(DataConfig(dataset=spec("mixture", parts=parts), tokenizer="chars"), 400, 100)
    (tokens, share), (encoded, other) = found.parts
    assert (share, other) == (0.75, 0.25)
    assert isinstance(tokens.tokens, np.memmap)
    assert not isinstance(encoded.tokens, np.memmap)
    assert found.validation.size == 400

    parts = [{"dataset": tokens_at(places / name)} for name in ("chars", "bytes")]
    with pytest.raises(DataError, match=r"^parts\[1\].dataset: its tokens were made with another tokenizer than those"):
        read_corpus(DataConfig(dataset=spec("mixture", parts=parts), tokenizer="chars"), 400, 100)

    parts[1] = {"dataset": tokens_at(places / "gone")}
    with pytest.raises(DataError, match=r"^parts\[1\].dataset: cannot read .*gone/meta.json"):
        read_corpus(DataConfig(dataset=spec("mixture", parts=parts), tokenizer="chars"), 400, 100)


# Files that are not what was written

CHANGES = {
    "shorter": (lambda raw: raw[:-2], r"has [\d,]+ bytes and was written with [\d,]+. Prepare the text again"),
    "longer": (lambda raw: raw + b"ab", r"has [\d,]+ bytes and was written"),
    "beginning": (lambda raw: b"xy" + raw[2:], "is another file than was written: its edges differ"),
    "end": (lambda raw: raw[:-2] + b"xy", "is another file than was written: its edges differ"),
}


@pytest.mark.parametrize("name", ["train.tokens.npy", "train.ends.npy", "validation.txt", "tokenizer.json"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_noticed(place, name, change):
    make, message = CHANGES[change]
    (place / name).write_bytes(make((place / name).read_bytes()))
    with pytest.raises(DataError, match=f"{name} {message}"):
        read(place)


def test_a_change_within_is_noticed_by_a_check(place):
    """Which reads every byte, and opening does not."""
    file = place / "train.tokens.npy"
    raw = bytearray(file.read_bytes())
    assert len(raw) > 2 * EDGE + 1000
    raw[EDGE + 100] ^= 1
    file.write_bytes(raw)
    read(place)
    with pytest.raises(DataError, match=r"train.tokens.npy is another file than was written: its sha256 differs"):
        verified(place)


def test_a_check_of_what_is_whole_is_silent(places):
    assert verified(places / "chars") == opened(places / "chars") == Meta.read(places / "chars")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*meta.json: No such file .*Give a directory that lmx data prepare wrote"),
        ("", "meta.json is damaged .JSONDecodeError"),
        ("[]", "meta.json is damaged .TypeError"),
        ("{}", "meta.json is damaged .KeyError: 'lmx_format'"),
        ('{"lmx_format": 2}', "has lmx_format 2; this version reads 1. Prepare the text again"),
        ('{"lmx_format": 1}', "is damaged .KeyError: 'files'"),
        ('{"lmx_format": 1, "files": {}}', "is damaged .TypeError"),
    ],
)
def test_a_damaged_account_is_explained(place, text, message):
    (place / "meta.json").unlink()
    if text is not None:
        (place / "meta.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(place)


def test_a_file_that_is_gone_is_explained(place):
    (place / "train.ends.npy").unlink()
    with pytest.raises(DataError, match=r"cannot read .*train.ends.npy: No such file .*Prepare the text again"):
        read(place)
    about = json.loads((place / "meta.json").read_text())
    about["files"].pop("train.ends.npy")
    (place / "meta.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"meta.json is damaged: it names no train.ends.npy"):
        read(place)


def test_a_home_directory_is_known(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    assert TokenFiles(TokenFilesOptions(path="~/chars")).meta == opened(places / "chars")
