"""lmx generates with mlx-lm's models."""

import importlib
import json

import mlx.core as mx
import pytest
from click.testing import CliRunner

from lmx_core import LanguageModel, generate, make_config
from lmx_core.cli.generate import generate as command
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.errors import ConfigError
from lmx_core.generation import generate_batch, stream_generate
from lmx_core.model import flat_parameters
from lmx_core.opening import open_model
from lmx_core.testing import randomise
from lmx_core.train.start import begun
from lmx_hf import export, from_mlx_lm, load_from_hf
from lmx_hf.cli.mlx_lm import mlx_lm
from lmx_hf.load import opened
from lmx_hf.text.byte_level import hf_form

from .small_models import spelling

pytest.importorskip("mlx_lm", reason="the tests make models of mlx-lm")

pytestmark = pytest.mark.once

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
LIKE_LLAMA = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS = {
    "exaone": {**LIKE_LLAMA, "num_layers": 2, "rope_theta": 1e4, "layer_norm_epsilon": 1e-5},
    "gemma3_text": {**LIKE_LLAMA, "num_hidden_layers": 4, "sliding_window": 8, "sliding_window_pattern": 2},
    "mamba": {
        "vocab_size": 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
    },
    "falcon_h1": {
        **LIKE_LLAMA,
        "num_hidden_layers": 2,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "max_position_embeddings": 128,
    },
}
"""Memories of keys and values, of windows, of states, and of several of these in a layer."""


def theirs(kind):
    """A model of mlx-lm with random weights."""
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    return randomise(module.Model(module.ModelArgs.from_dict({"model_type": kind, **CONFIGS[kind]}))).eval()


def written(folder, kind):
    """A folder of it, with the tokenizer of bytes that the bridge writes."""
    folder.mkdir()
    model = theirs(kind)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS[kind]}))
    mx.save_safetensors(str(folder / "model.safetensors"), flat_parameters(model))
    hf_form(ByteTokenizer()).write(folder)
    return model


def expected(model, prompt, n=20):
    """mlx-lm's own greedy tokens."""
    steps = importlib.import_module("mlx_lm.generate").generate_step(mx.array(prompt), model, max_tokens=n)
    return [token for token, _ in steps]


@pytest.mark.parametrize("kind", CONFIGS)
def test_tokens_are_those_of_mlx_lm(kind):
    """In one go, from a cache, and as a stream."""
    model = theirs(kind)
    ours = from_mlx_lm(model)
    tokens = expected(model, PROMPT)
    cache = ours.make_cache()

    assert len(set(tokens)) > 3
    assert generate(ours, PROMPT, max_tokens=20, temperature=0) == tokens
    list(stream_generate(ours, PROMPT[:5], max_tokens=1, cache=cache, temperature=0))
    assert generate(ours, PROMPT[5:], max_tokens=20, cache=cache, temperature=0) == tokens


def test_long_prompts_are_read_in_parts():
    model = theirs("gemma3_text")
    prompt = [(7 * i) % 251 for i in range(1100)]

    assert generate(from_mlx_lm(model), prompt, max_tokens=5, temperature=0) == expected(model, prompt, 5)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "mamba"])
def test_a_batch_is_refused(kind):
    with pytest.raises(ConfigError, match="cannot join a batch.*one prompt at a time"):
        generate_batch(from_mlx_lm(theirs(kind)), [PROMPT, PROMPT[:4]])


def test_a_batch_of_states_is_what_each_row_is_alone():
    """mlx-lm's recurrent memories take rows in."""
    model = from_mlx_lm(theirs("mamba"))
    prompts = [PROMPT, PROMPT[:4], PROMPT[3:]]
    expected = [generate(model, prompt, max_tokens=9, temperature=0) for prompt in prompts]

    assert generate_batch(model, prompts, max_tokens=9, temperature=0) == expected


def test_a_checkpoint_that_lmx_does_not_know(tmp_path, capsys):
    """It is opened by mlx-lm's loader, which is said; `lmx generate` and mlx-lm's programs run it."""
    model = written(tmp_path / "model", "exaone")
    place, prompt = str(tmp_path / "model"), list(b"hello")
    found = open_model(place)
    assert "lmx has no model of type 'exaone', so mlx-lm's own runs" in capsys.readouterr().err
    assert generate(found.model, found.tokenizer.encode("hello"), max_tokens=9, temperature=0) == expected(
        model, prompt, 9
    )

    arguments = ["--prompt", "hello", "--max-tokens", "9", "--temp", "0"]
    ours = CliRunner().invoke(command, [place, *arguments], catch_exceptions=False)
    text = bytes(expected(model, prompt, 9)).decode("utf-8", "replace")
    assert ours.stdout == f"hello{text}\n"
    other = CliRunner().invoke(mlx_lm, ["generate", "--model", place, *arguments], catch_exceptions=False)
    assert (other.exit_code, "so mlx-lm's own runs" in other.stderr) == (0, True)


def test_a_checkpoint_that_lmx_knows_is_run_by_lmx(tmp_path, capsys):
    model = spelling(randomise(LanguageModel(make_config("llama", size="tiny", tie_embeddings=False))))
    export(model, tmp_path / "model", family="llama")

    assert isinstance(open_model(str(tmp_path / "model")).model, LanguageModel)
    assert capsys.readouterr().err == ""
    loaded = from_mlx_lm(tmp_path / "model")
    assert generate(loaded, PROMPT, max_tokens=9, temperature=0) == generate(model, PROMPT, max_tokens=9, temperature=0)


def test_it_is_for_generating(tmp_path):
    """Training and other loaders say so."""
    written(tmp_path / "model", "exaone")
    with pytest.raises(ConfigError, match="lmx mlx-lm lora"):
        begun({"start": str(tmp_path / "model")})
    for load in (load_from_hf, opened):
        with pytest.raises(ConfigError, match="model_type 'exaone'"):
            load(str(tmp_path / "model"))
    model = from_mlx_lm(tmp_path / "model")
    with pytest.raises(ConfigError, match="cache='quantised' is one of lmx's"):
        generate_batch(model, [PROMPT], cache="quantised")


def test_what_nobody_knows(tmp_path):
    """Neither a type that mlx-lm lacks too, nor one of its modules that is no model; and no code of a folder runs."""
    written(tmp_path / "model", "exaone")
    config = tmp_path / "model" / "config.json"
    for name in ("nobody_s", "cache", "base", "..utils", "os"):
        config.write_text(json.dumps({"model_type": name, **CONFIGS["exaone"]}))
        with pytest.raises(ConfigError, match="model_type"):
            open_model(str(tmp_path / "model"))
    config.write_text(json.dumps({"model_type": "exaone", "model_file": "code.py", **CONFIGS["exaone"]}))
    (tmp_path / "model" / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ConfigError, match="brings code of its own"):
        open_model(str(tmp_path / "model"))
