"""`lmx data` as a person meets it."""

import json

import pytest

from lmx_core.data.token_files import opened

TEXT = "To be, or not to be, that is the question\n"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(20):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"{i} {TEXT}" * (i + 1))
    file = tmp_path / "a.toml"
    file.write_text('[data]\ndataset = { name = "text", paths = "texts" }\ntokenizer = "chars"\n')
    return file


def test_a_dataset_is_prepared(lmx, config, tmp_path):
    """What was written, and how to train with it; nothing else is said where there is no terminal."""
    said = lmx("data", "prepare", config, "--out", "out", "--workers", "2")
    meta = opened(tmp_path / "out")

    assert f"train      {meta.train['tokens']:,} tokens in {meta.train['documents']} documents" in said
    assert f"validation {meta.validation['bytes']:,} bytes of text" in said
    assert "tokenizer  chars, 26 tokens in its vocabulary" in said
    assert said.endswith('Train with:\n  dataset = { name = "tokens", path = "out" }\n')
    assert meta.train["sha256"] in said
    assert lmx("data", "info", "out", "--check").endswith("every file is as it was written\n")


def test_it_is_told_as_json(lmx, config, tmp_path):
    written = json.loads(lmx("data", "prepare", config, "--out", "out", "--json"))
    assert written == json.loads(lmx("data", "info", "out", "--json"))
    assert written["lmx_format"] == 1
    assert written["dataset"] == {"name": "text", "paths": "texts"}
    assert written["train"]["documents"] + written["validation"]["documents"] == 20


def test_keys_are_overridden(lmx, config, tmp_path):
    lmx("data", "prepare", config, "--out", "out", "--set", "data.tokenizer=bytes")
    assert opened(tmp_path / "out").tokenizer == "bytes"


def test_the_model_of_a_start_gives_its_tokenizer(lmx, saved, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 10)
    (tmp_path / "a.toml").write_text('start = "model"\n[data]\ndataset = { name = "text", paths = "a.txt" }\n')
    lmx("data", "prepare", "a.toml", "--out", "out")
    assert opened(tmp_path / "out").tokenizer == "bytes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "gone.toml", "--out", "out"], "gone.toml: No such file"),
        (["prepare", "a.toml"], "Missing option '--out'"),
        (["prepare", "a.toml", "--out", "texts"], "Error: texts exists. Choose another --out, or remove it."),
        (["prepare", "a.toml", "--out", "out", "--workers", "0"], "0 is not in the range x>=1"),
        (
            ["prepare", "a.toml", "--out", "out", "--set", "data.dataset=txt"],
            "data.dataset: no dataset named 'txt'. Did you mean 'text'?",
        ),
        (["prepare", "a.toml", "--out", "a.toml/out"], "Error: could not write"),
        (["info", "texts"], "Error: cannot read texts/meta.json: No such file or directory. Give a directory"),
    ],
)
def test_mistakes_are_explained(lmx, config, arguments, message):
    assert message in lmx("data", *arguments, code=2)


def test_a_changed_file_is_told(lmx, config, tmp_path):
    lmx("data", "prepare", config, "--out", "out")
    file = tmp_path / "out" / "train.tokens.npy"
    file.write_bytes(file.read_bytes()[:-2] + b"\xff\xff")
    assert "train.tokens.npy is another file than was written" in lmx("data", "info", "out", code=2)


MODEL = (
    '[model]\nfactory = "gpt"\nsize = "tiny"\n[train]\nmax_steps = 3\nbatch_size = 2\nseq_len = 16\neval_bytes = 200\n'
)


def test_a_run_on_tokens_is_the_run_on_their_text(lmx, config, tmp_path):
    """The same losses, the same held-out bytes; a run that is resumed notices that its tokens are others."""
    lmx("data", "prepare", config, "--out", "out")
    (tmp_path / "text.toml").write_text(f"{MODEL}{config.read_text()}")
    (tmp_path / "tokens.toml").write_text(f'{MODEL}[data]\ndataset = {{ name = "tokens", path = "out" }}\n')
    found = [
        json.loads(lmx("train", tmp_path / f"{name}.toml", "--run-dir", name, "--json")) for name in ("text", "tokens")
    ]
    for key in ("train_loss", "val_loss", "val_bpb", "train_sha256", "validation_sha256", "validation_bytes", "sample"):
        assert found[0][key] == found[1][key], key
    assert 'tokenizer = "chars"' in (tmp_path / "tokens" / "config.toml").read_text()

    lmx("train", "--resume", "tokens", "--set", "train.max_steps=4")
    for file in (tmp_path / "texts").iterdir():
        file.write_text(file.read_text()[::-1])
    (tmp_path / "out").rename(tmp_path / "before")
    lmx("data", "prepare", config, "--out", "out")
    refused = lmx("train", "--resume", "tokens", "--set", "train.max_steps=6", code=2)
    assert "the corpus changed since tokens began" in refused


def test_another_tokenizer_is_refused(lmx, config, tmp_path):
    lmx("data", "prepare", config, "--out", "out")
    (tmp_path / "b.toml").write_text(
        f'{MODEL}[data]\ndataset = {{ name = "tokens", path = "out" }}\ntokenizer = "bytes"\n'
    )
    said = lmx("train", "b.toml", code=2)
    assert "were made with tokenizer chars, and data.tokenizer has bytes" in said
