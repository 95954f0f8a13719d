"""The command line as a person meets it: each command in a process of its own."""

import itertools
import json
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner

from lmx_core import LanguageModel, generate, load_model, make_config, save_model
from lmx_core.cli.generate import generate as generate_command
from lmx_core.data.tokenizers import ByteTokenizer, decode, save_tokenizer


def test_help_lists_every_verb(lmx):
    text = lmx("--help")
    for verb in ("train", "generate", "init", "list", "info", "count", "diff", "doctor", "config"):
        assert f"  {verb} " in text
        assert lmx(verb, "--help").startswith(f"Usage: lmx {verb}")


def test_list_for_people_and_for_machines(lmx):
    assert [line.split()[:3] for line in lmx("list", "norm").splitlines()[1:]] == [
        ["norm", name, "lmx-core"] for name in ("layer_norm", "none", "rms_norm")
    ]
    configs = {row["name"]: row for row in json.loads(lmx("list", "config", "--json"))}
    assert {"distribution": "lmx-core", "version": "0.1.0"}.items() <= configs["llama"].items()
    kinds = {row["kind"] for row in json.loads(lmx("list", "--json"))}
    assert {"attention", "ffn", "norm", "position", "layout", "config", "dataset", "tokenizer"} <= kinds


def test_architectures_are_listed_with_their_source(lmx):
    """An arXiv number, or who wrote what is not there."""
    rows = json.loads(lmx("list", "config", "--json"))
    sources = {row["name"]: row["papers"] for row in rows}
    assert sources["llama"][0] == "arXiv:2302.13971"
    assert [name for name, papers in sources.items() if not papers] == []
    lines = {line.split()[1]: line for line in lmx("list", "config").splitlines()}
    assert lines["NAME"].endswith("  PAPERS")
    assert all(lines[name].endswith(", ".join(papers)) for name, papers in sources.items())


LLAMA = """
# embed
# layers 0-1, 36,992 parameters each
#     │
#     ├── rms_norm ── gqa + rope ──╮
#     ⊕ ◄──────────────────────────╯
#     ├── rms_norm ── gated ──╮
#     ⊕ ◄─────────────────────╯
#     ▼
# rms_norm → head
#
# 106,816 parameters
# 256 bytes of cache a token in bf16
[model]
"""


def test_info_draws_the_block(lmx):
    assert LLAMA in lmx("info", "llama", "--tiny")


def test_info_draws_each_of_several_blocks(lmx, tmp_path):
    """With the layers that it serves; the text is still a config."""
    (tmp_path / "mixed.toml").write_text(
        "[model]\nn_layers = 7\nblock_pattern = ['near', 'near', 'far']\n[model.block]\nposition = 'none'\n"
        "[model.blocks.near]\nattention = { name = 'sliding_window', window = 64 }\n[model.blocks.far]\nffn = 'none'\n"
    )
    text = lmx("info", "mixed.toml", "--svg", "mixed.svg")
    assert "# layers 0-1, 3-4, 6 (near), " in text
    assert "sliding_window, last 64" in text
    assert "# layers 2, 5 (far), " in text
    assert tomllib.loads(text)["model"]["block_pattern"] == ["near", "near", "far"]
    svg = (tmp_path / "mixed.svg").read_text()
    assert svg.startswith("<svg ")
    assert ">near<" in svg
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mixed.svg", "mixed.toml"]


def test_info_shows_a_config_that_is_a_config(lmx, tmp_path):
    text = lmx("info", "llama", "--tiny")
    assert "arXiv:2302.13971" in text
    assert "# 106,816 parameters" in text
    (tmp_path / "same.toml").write_text(text)
    assert tomllib.loads(text)["model"]["n_layers"] == 2
    assert json.loads(lmx("info", "same.toml", "--json")) == json.loads(lmx("info", "llama", "--tiny", "--json"))


def test_count_needs_no_memory_for_the_weights(lmx, tmp_path):
    """A 70B model is counted within 2 GB."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30));"
        "from lmx_core.cli import main; sys.argv = ['lmx', 'count', 'llama', '--size', '70b', '--detail']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    listed = lines[: lines.index("68,976,648,192 parameters")]
    assert listed[0].split() == ["embed.weight", "32000", "x", "8192", "262,144,000"]
    assert sum(int(line.split()[-1].replace(",", "")) for line in listed) == 68_976_648_192


def test_a_file_is_counted_as_it_trains(lmx, tmp_path):
    """With the tokenizer's vocabulary where the file states none, and an architecture's name before a folder's."""
    (tmp_path / "tiny.toml").write_text(lmx("init", "llama"))
    assert lmx("count", "tiny.toml").splitlines()[0] == "885,888 parameters"
    (tmp_path / "llama").mkdir()
    assert "# 106,816 parameters" in lmx("info", "llama", "--tiny")


COUNTED = """
6,738,415,616 parameters

parameters
  embed                                131,072,000
  layers 0-31                        6,476,267,520  202,383,360 each
  norm                                       4,096
  head                                 131,072,000
  active for a token                 6,738,415,616  all

FLOPs of a token, the last of 2,048
  forward                           14,287,896,576  1,073,741,824 of them for looking at tokens
  backward                          28,575,793,152

cache in bf16
  a token                            524,288 bytes  512 KiB
  2,048 tokens                 1,073,741,824 bytes  1 GiB

weights
  fp32                        26,953,662,464 bytes  25.1 GiB
  bf16                        13,476,831,232 bytes  12.6 GiB
  4-bit                        3,790,741,504 bytes  3.53 GiB
"""


def test_count_for_people(lmx):
    assert lmx("count", "llama", "--size", "7b", "--context", 2048) == COUNTED.lstrip()


def test_count_for_machines(lmx):
    counted = json.loads(lmx("count", "gpt", "--detail", "--json"))
    assert counted["total"] == 124_439_808
    assert counted["parameters"]["positions.0.weight"] == [1024, 768]
    assert counted["flops_backward"] == 2 * counted["flops_forward"]
    assert (counted["context"], counted["cache_bytes_per_token"]) == (1024, 36_864)
    assert counted["layers"][0]["layers"] == list(range(12))
    assert {"active", "cache_bytes", "memory_bytes_fp32", "memory_bytes_bf16", "memory_bytes_4bit"} <= counted.keys()
    assert "parameters" not in json.loads(lmx("count", "gpt", "--json"))


def test_diff_shows_exactly_what_differs(lmx):
    rows = {line.split()[0]: line.split()[1:] for line in lmx("diff", "llama", "gpt").splitlines()[1:]}
    assert rows["model.block.position"] == ["rope", "learned"]
    assert rows["model.block.ffn"] == ["gated", "standard"]
    assert rows["model.block.ffn.activation"] == ["silu", "gelu_tanh"]
    assert "model.block.norm_eps" not in rows
    assert lmx("diff", "gpt", "gpt").strip() == "gpt and gpt are the same"
    assert json.loads(lmx("diff", "llama", "gpt", "--json"))["model.n_layers"] == [32, 12]


def test_diff_tells_blocks_by_what_is_their_own(lmx, tmp_path):
    """A field that blocks have from `block` is told there, and a pattern in one line; what is not there is a dash."""
    head = "[model]\nblock_pattern = ['near', 'far']\n[model.block]\nd_model = 64\nbias = false\n"
    near = "[model.blocks.near]\nattention = { name = 'sliding_window', window = 8 }\n[model.blocks.far]\n"
    (tmp_path / "a.toml").write_text(head + near)
    other = head.replace("['near', 'far']", "['near', 'near', 'far']").replace("64", "128")
    (tmp_path / "b.toml").write_text(other + near.replace("8", "16") + "ffn = 'none'\n")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lmx("diff", "a.toml", "b.toml").splitlines()[1:]}
    assert {key: " ".join(row.split()) for key, row in rows.items()} == {
        "model.block.d_model": "64 128",
        "model.blocks.near.attention.window": "8 16",
        "model.blocks.far.ffn": "standard none",
        "model.blocks.far.ffn.activation": "gelu -",
        "model.block_pattern": "near, far near x 2, far",
    }
    (tmp_path / "c.toml").write_text("[model]\n[model.block]\nd_model = 64\nbias = false\n")
    keys = json.loads(lmx("diff", "c.toml", "a.toml", "--json"))
    assert keys == {
        "model.blocks.near.attention": [None, "sliding_window"],
        "model.blocks.near.attention.window": [None, 8],
        "model.block_pattern": [None, ["near", "far"]],
    }


def test_diff_keeps_what_belongs_together(lmx):
    keys = [line.split()[0] for line in lmx("diff", "llama", "gpt").splitlines()[1:]]
    of_block = [key.startswith("model.block.") for key in keys]
    assert of_block == sorted(of_block, reverse=True)
    assert {"model.block.position", "model.block.position.fraction"} <= set(keys)


@pytest.mark.parametrize("kind", ["llama", "gpt", "block"])
def test_init_writes_a_config_that_trains(lmx, tmp_path, kind):
    """What it prints is the example of the checkout, and one step of it runs."""
    (tmp_path / "tiny.toml").write_text(lmx("init", kind))
    (tmp_path / "text.txt").write_text("some text to learn from, over and over\n" * 500)
    settings = ["train.max_steps=1", "train.batch_size=1", "train.final_eval_bytes=300", "train.sample_tokens=3"]
    settings += ["data.dataset=text", "data.dataset.paths=text.txt"]
    text = lmx("train", "tiny.toml", *(part for setting in settings for part in ("--set", setting)))
    assert "runs/tiny" in text
    assert "bits per byte over 300 held-out bytes" in text


def test_train_then_generate_then_resume(lmx, tmp_path):
    """The commands that a run suggests are the ones that work."""
    (tmp_path / "text.txt").write_text("some text to learn from, over and over\n" * 500)
    (tmp_path / "a.toml").write_text(
        '[model]\nfactory = "llama"\nsize = "tiny"\n[data]\ndataset = { name = "text", paths = ["text.txt"] }\n'
        "[train]\nmax_steps = 3\nseq_len = 16\nfinal_eval_bytes = 300\nsample_prompt = 'some'\nsample_tokens = 5\n"
    )
    summary = json.loads(lmx("train", "a.toml", "--json", LMX_TRAIN__SEED="3"))
    assert (summary["step"], summary["run"]) == (3, "runs/a")
    assert summary["val_bytes"] == 300
    assert tomllib.loads((tmp_path / "runs/a/config.toml").read_text())["train"]["seed"] == 3
    written = lmx("generate", "runs/a", "--prompt", "some", "--max-tokens", 5, "--seed", 1)
    assert written.startswith("some")
    assert lmx("generate", "runs/a", "--prompt", "some", "--max-tokens", 5, "--seed", 1) == written
    text = lmx("train", "--resume", "runs/a", "--set", "train.max_steps=6")
    assert "6 steps" in text
    suggested = [line.strip() for line in text.splitlines() if line.strip().startswith("lmx ")]
    assert suggested[0] == "lmx generate runs/a --prompt some --max-tokens 200"
    assert suggested[1] == "lmx train --resume runs/a --set train.max_steps=12"
    text = lmx("train", "--resume", "runs/a", "--set", "train.max_steps=7", UV_RUN_RECURSION_DEPTH="1")
    assert "uv run lmx generate runs/a" in text  # as it was started


def test_generate_streams_from_a_saved_model(lmx, saved):
    greedy = lmx("generate", saved, "--prompt", "ab", "--max-tokens", 8, "--temp", 0)
    assert greedy.startswith("ab")
    assert lmx("generate", saved, "--prompt", "ab", "--max-tokens", 8, "--top-k", 1) == greedy


def test_generate_answers_only_where_there_is_a_chat_template(lmx, saved):
    message = "ByteTokenizer has no chat template. Leave --chat out"
    assert message in lmx("generate", saved, "--prompt", "ab", "--chat", code=2)


def test_generate_asks_the_tokenizer_what_it_knows(saved, monkeypatch):
    """Where a text ends, what is not printed, what begins a prompt, how a conversation is written."""
    model, drawn = load_model(saved), {}
    for prompt in ([1, 97], [2, 97]):
        drawn[prompt[0]] = generate(model, prompt, max_tokens=8, temperature=0.0)
    hidden, end = drawn[1][0], drawn[1][-1]
    known = {
        "eos_tokens": (end,),
        "special_tokens": {hidden},
        "encode_prompt": lambda self, text: [1, *text.encode()],
        "apply_chat_template": lambda self, messages: [2, *messages[0]["content"].encode()],
    }
    for name, value in known.items():
        monkeypatch.setattr(ByteTokenizer, name, value, raising=False)
    for first, flags, before in ((1, [], "a"), (2, ["--chat"], "")):
        tokens = list(itertools.takewhile(lambda token: token != end, drawn[first]))
        arguments = [str(saved), "--prompt", "a", "--temp", "0", "--max-tokens", "8", *flags]
        written = CliRunner().invoke(generate_command, arguments, catch_exceptions=False).output
        assert written == before + decode(ByteTokenizer(), tokens, skip={hidden}) + "\n"


def test_a_short_table_of_positions_cuts_the_default_length(lmx, tmp_path):
    """`lmx generate` without --max-tokens takes what fits; what is asked for and does not fit is an error."""
    save_model(LanguageModel(make_config("gpt", size="tiny", max_seq_len=16)), tmp_path / "model")
    save_tokenizer("bytes", ByteTokenizer(), tmp_path / "model" / "tokenizer.json")
    assert lmx("generate", "model", "--prompt", "abc").startswith("abc")
    assert "at most 14 can follow" in lmx("generate", "model", "--prompt", "abc", "--max-tokens", 15, code=2)


def test_doctor_tells_the_backend_and_the_plugins(lmx):
    facts = json.loads(lmx("doctor", "--json"))
    assert facts["problems"] == []
    assert {"lmx-core", "python", "mlx", "device", "blas", "speed", "plugins"} <= facts.keys()
    assert "GFLOP/s" in lmx("doctor")


def test_the_slow_blas_is_said_where_it_matters(lmx, tmp_path):
    """A library that cannot serve is a problem for doctor, with exit code 1."""
    text = lmx("doctor", code=1, LMX_BLAS=str(tmp_path / "nothing.so"), PYTHONWARNINGS="ignore")
    assert "Traceback" not in text


NO_BACKEND = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("mlx.core"):
            raise ImportError("libmlx.so: cannot open shared object file", name="core", path="/x/mlx/core.cpython-311.so")
sys.meta_path.insert(0, Missing())
from lmx_core.cli import main
sys.argv = ["lmx", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("arguments", [["count", "llama"], ["generate", ".", "--prompt", "x"], ["train", "tiny.toml"]])
def test_mlx_without_a_backend_says_what_to_install(tmp_path, arguments):
    """As `pip install mlx` leaves it on Linux."""
    (tmp_path / "tiny.toml").write_text('[model]\nfactory = "llama"\nsize = "tiny"\n')
    command = [sys.executable, "-P", "-c", NO_BACKEND, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "lmx-core[cpu]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "no command 'lst'. Did you mean 'list'?"),
        (["list", "atention"], "no kind of component named 'atention'. Did you mean 'attention'?"),
        (["info", "lama"], "no config named 'lama'. Did you mean 'llama'?"),
        (["info", "llama", "--size", "tny"], "llama has no size 'tny'. Did you mean 'tiny'?"),
        (["info", "llama", "--tiny", "--svg", "tiny.toml/a.svg"], "could not write tiny.toml/a.svg: "),
        (["info", "llama", "--tiny", "--svg", "empty"], "is a directory"),
        (["count", "gpt", "--context", "1025"], "context=1025 is longer than what the model's positions can place"),
        (["count", "gpt", "--context", "0"], "0 is not in the range x>=1"),
        (["count", "none.toml"], "cannot read none.toml: No such file"),
        (["count", "runs/none"], "cannot read runs/none: No such file"),
        (["count", "empty.toml"], "empty.toml has no [model]"),
        (["train"], "give a config file, or --resume RUN"),
        (["train", "none.toml"], "cannot read none.toml: No such file"),
        (["train", "empty.toml"], "model: is missing"),
        (["train", "tiny.toml", "--set", "train.seed"], "expected KEY=VALUE"),
        (["train", "tiny.toml", "--set", "train.sed=3"], "train.sed: unknown key; did you mean 'seed'?"),
        (["train", "tiny.toml", "--set", "model.d_model=65"], "d_model=65 is not a multiple of n_heads=4"),
        (["train", "tiny.toml", "--set", "model.d_model=x"], "model.d_model: expected int, got 'x' (str)"),
        (["train", "tiny.toml", "--set", "data.dataset=text"], "paths: is missing"),
        (["train", "tiny.toml", "--set", "data.dataset=text", "--set", "data.dataset.paths=empty"], "empty"),
        (["train", "tiny.toml", "--set", "train.seq_len=100_000_000"], "seq_len=100000000 needs 100000001 tokens"),
        (["train", "--resume", "nowhere"], "nowhere is no run directory"),
        (["train", "tiny.toml", "--resume", "nowhere"], "--resume nowhere goes on with that run's own config"),
        (["generate", "./nowhere", "--prompt", "x"], "./nowhere is no model of lmx"),
        (["generate", "empty", "--prompt", "x"], "empty holds neither a model"),
        (["generate", "x", "--temp", "-1"], "is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message(lmx, tmp_path, arguments, message):
    """Exit code 2, no traceback, one screen, nothing written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "tiny.toml").write_text('[model]\nfactory = "llama"\nsize = "tiny"\n')
    text = lmx(*arguments, code=2)
    assert message in text
    assert len(text.splitlines()) < 24
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "empty.toml", "tiny.toml"]


def test_generate_says_what_is_wrong_with_a_checkpoint(lmx, saved):
    """Truncated weights, weights of another shape, a damaged config."""
    weights, config = saved / "model.safetensors", saved / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors cannot be read" in lmx("generate", saved, "--prompt", "x", code=2)
    weights.write_bytes(whole)
    record = config.read_text()
    config.write_text(record.replace('"d_ff": 128', '"d_ff": 96'))
    text = lmx("generate", saved, "--prompt", "x", code=2)
    assert "has shape (64, 128), the config asks for (64, 96)" in text
    assert "The weights belong to another config." in text
    config.write_text(record[:50])
    assert "config.json is damaged or not lmx's" in lmx("generate", saved, "--prompt", "x", code=2)


def test_starting_is_fast(lmx):
    """`lmx --help` and `lmx list` import neither MLX nor numpy, so that they answer at once."""
    for verb in ("--help", "list"):
        script = (
            "import sys\nfrom lmx_core.cli import lmx\n"
            f"try: lmx(['{verb}'], prog_name='lmx')\nexcept SystemExit: pass\n"
            "print([name for name in ('mlx', 'numpy', 'rich', 'tomlkit', 'cattrs') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
