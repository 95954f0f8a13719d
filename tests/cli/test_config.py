"""`lmx config check | fill | diff`: what a config file says, is missing, or gets wrong."""

import json
import tomllib
from pathlib import Path

import attrs
import pytest
import tomlkit

import lmx_core
from lmx_core import BlockConfig, ModelConfig, spec
from lmx_core.construct import completed
from lmx_core.data.corpus import DataConfig
from lmx_core.describe import field_docs
from lmx_core.document import commented
from lmx_core.serialize import to_toml
from lmx_core.train.config import RunConfig, TrainConfig, run_config

EXAMPLES = sorted((Path(lmx_core.__file__).parent / "examples").glob("*.toml"))

RUNS = {
    "defaults": RunConfig(model=ModelConfig()),
    "options": RunConfig(
        model=ModelConfig(block=BlockConfig(ffn=spec("gated", activation="relu"), head_dim=32), vocab_size=300),
        data=DataConfig(dataset=spec("text", paths=["a \"quoted\".txt"]), tokenizer=spec("tiktoken", encoding="gpt2")),
        train=TrainConfig(max_grad_norm=None, max_seconds=1.5, sample_prompt='tab\t"', schedule="linear"),
    ),
    "layers": RunConfig(
        model=ModelConfig(n_layers=2, block_configs=[BlockConfig(ffn="none"), BlockConfig(ffn="gated", n_kv_heads=8)])
    ),
    "a pattern": RunConfig(
        model=ModelConfig(
            block=BlockConfig(attention="gqa", n_kv_heads=2),
            blocks={"a": BlockConfig(attention=spec("sliding_window", window=8)), "b": BlockConfig(head_dim=32)},
            block_pattern=["a", "a", "b"],
            final_norm="none",
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_filled_config_is_the_same_config(run):
    """Every key stands in it, and what it says is equal; to fill it again changes nothing."""
    text = commented(run)
    assert completed(run_config(tomllib.loads(text), "x")) == completed(run)
    assert commented(run_config(tomllib.loads(text), "x")) == text
    train = tomllib.loads(text)["train"]
    assert train.keys() == {field.alias for field in attrs.fields(TrainConfig)}
    assert train["optimizer"] == {"name": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}


def test_each_key_is_explained_once():
    """What a class says below a field stands above its key."""
    text = commented(RUNS["layers"])
    said = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    docs = field_docs(BlockConfig) | field_docs(TrainConfig)
    for key in ("d_ff", "n_kv_heads", "max_seconds", "max_grad_norm", "dtype"):
        assert docs[key] in said, key
    assert said.count(docs["n_kv_heads"]) == 2  # of the model's own block, and of the first layer's


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_what_is_filled_trains_alike(lmx, tmp_path, file):
    """The examples: the command line's own comparison finds no difference."""
    (tmp_path / file.name).write_text(file.read_text())
    assert lmx("config", "fill", file.name, "--output", "filled.toml") == ""
    assert lmx("config", "diff", file.name, "filled.toml").strip() == f"{file.name} and filled.toml are the same"
    assert lmx("config", "check", "filled.toml").strip() == "filled.toml is fine"
    assert (tmp_path / "filled.toml").read_text() == lmx("config", "fill", file.name)


def test_a_fitted_vocabulary_is_left_to_the_tokenizer(lmx, tmp_path):
    """To write the default down would be to state it."""
    (tmp_path / "a.toml").write_text('[model]\nfactory = "gpt"\n[data]\ntokenizer = "chars"\n')
    text = lmx("config", "fill", "a.toml")
    assert "vocab_size" not in tomllib.loads(text)["model"]
    assert "# vocab_size: the tokenizer's" in text
    (tmp_path / "a.toml").write_text('[model]\nfactory = "gpt"\nvocab_size = 90\n[data]\ntokenizer = "chars"\n')
    assert tomllib.loads(lmx("config", "fill", "a.toml"))["model"]["vocab_size"] == 90


@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_every_format_is_read(lmx, tmp_path, suffix):
    data = {"model": {"n_layers": 2, "block": {"ffn": "gated"}}, "train": {"seed": 3}}
    if suffix == "yaml":
        pytest.importorskip("yaml", reason="YAML is an extra")
    (tmp_path / f"a.{suffix}").write_text(to_toml(data) if suffix == "toml" else json.dumps(data))
    assert lmx("config", "check", f"a.{suffix}").strip() == f"a.{suffix} is fine"
    filled = tomlkit.parse(lmx("config", "fill", f"a.{suffix}"))
    assert filled["train"]["seed"] == 3
    assert filled["model"]["block"]["ffn"]["activation"] == "silu"


WRONG = """
[model]
n_layers = 3
vocab_size = 200
block_configs = [
    {n_kv_heads = 4, head_dim = 15, attention = "mha", position = "rope"},
    {attention = "gqa", position = "learned", max_seq_len = 64},
    {attention = "none", position = "alibi"},
]
"""


def test_rules_between_parts_are_in_the_report(lmx, tmp_path):
    """Each layer's, each component's, the vocabulary's: all at once, though none shows before the model is built."""
    (tmp_path / "a.toml").write_text(WRONG)
    assert lmx("config", "check", "a.toml", code=2).splitlines() == [
        "Error: 4 problems in a.toml",
        "  model.block_configs[0].attention: attention 'mha' gives each of n_heads=8 its own keys; n_kv_heads=4 needs "
        'attention = "gqa"',
        "  model.block_configs[0].position: position 'rope' turns pairs of numbers, but head_dim=15 is odd",
        "  model.block_configs[2]: attention 'none' takes no position; 'alibi' provides a bias. Set position = \"none\".",
        "  model.vocab_size: model.vocab_size=200 is too small: tokenizer bytes has 256 tokens. Leave it out to take "
        "the tokenizer's.",
    ]


def test_sequences_must_fit_the_positions(lmx, tmp_path):
    (tmp_path / "a.toml").write_text('[model.block]\nposition = "learned"\nmax_seq_len = 64\n[train]\nseq_len = 65\n')
    message = "train.seq_len=65 is longer than the model's max_seq_len=64"
    assert message in lmx("config", "check", "a.toml", code=2)
    assert message in lmx("train", "a.toml", code=2)


def test_a_report_for_programs(lmx, tmp_path):
    (tmp_path / "a.toml").write_text("[model]\nn_layer = 2\n[model.block]\nd_model = '16'\n[train]\nseed = -1\n")
    problems = json.loads(lmx("config", "check", "a.toml", "--json", code=2, out=True))["problems"]
    assert [problem["path"] for problem in problems] == ["model.n_layer", "model.block.d_model", "train.seed"]
    assert problems[2]["message"] == "must be >= 0, got -1"
    (tmp_path / "a.toml").write_text("[model]\n")
    assert json.loads(lmx("config", "check", "a.toml", "--json")) == {"problems": []}
    (tmp_path / "a.toml").write_text("[model\n")
    problems = json.loads(lmx("config", "check", "a.toml", "--json", code=2, out=True))["problems"]
    assert "not valid TOML" in problems[0]["message"]


def test_a_large_model_is_checked_without_its_weights(lmx, tmp_path):
    (tmp_path / "a.toml").write_text('[model]\nfactory = "llama"\nsize = "70b"\n')
    assert lmx("config", "check", "a.toml").strip() == "a.toml is fine"


def test_whole_files_are_compared(lmx, tmp_path):
    """Their data and training too; by the names that --set takes."""
    (tmp_path / "a.toml").write_text("[model.block]\nffn = 'gated'\n[train]\nseed = 1\n")
    (tmp_path / "b.toml").write_text(
        "[data]\ntokenizer = 'chars'\n[model.block]\nffn = {name = 'gated', activation = 'relu'}\n"
    )
    expected = {
        "model.block.ffn.activation": ["silu", "relu"],
        "data.tokenizer": ["bytes", "chars"],
        "train.seed": [1, 0],
        "model.vocab_size": [256, None],
    }
    assert json.loads(lmx("config", "diff", "a.toml", "b.toml", "--json")) == expected
    assert lmx("diff", "a.toml", "b.toml") == lmx("config", "diff", "a.toml", "b.toml")
    assert "train.seed" not in lmx("diff", "a.toml", "llama")
