"""mlx-lm's own programs write what lmx writes, on models that lmx builds."""

import importlib
import json
import sys
import tempfile
from types import SimpleNamespace

import datasets
import mlx.core as mx
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

from lmx_core import generate, quantised
from lmx_core.components.caches import KVCache
from lmx_core.config import spec
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer, save_tokenizer
from lmx_core.errors import LmxError, LmxWarning
from lmx_core.generation import stream_generate
from lmx_core.testing import conformance
from lmx_core.testing.checks import close
from lmx_hf.bridge.memory import memory_of
from lmx_hf.bridge.programs import MODULE, on_lmx
from lmx_hf.cli.mlx_lm import OURS, PROGRAMS, mlx_lm
from lmx_hf.load import opened
from lmx_hf.text.byte_level import hf_form

from .small_models import PROMPTS, QUESTION, checkpoint, greedy, saved, talking

pytest.importorskip("mlx_lm", reason="the tests run mlx-lm's programs")

PLUGINS = {"deepseek_v3": "lmx_attn_mla", "qwen3_next": "lmx_deltanet", "llama4": "lmx_ffn_moe"}
"""Architectures whose components are elsewhere."""


def run(*arguments):
    """What a program writes."""
    found = CliRunner().invoke(mlx_lm, [str(each) for each in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def text(folder, prompt, *more, n=20):
    """What mlx-lm's `generate` writes, without the end of the line."""
    arguments = ["--prompt", prompt, "--max-tokens", n, "--temp", 0, "--verbose", "False", *more]
    return run("generate", "--model", folder, *arguments).removesuffix("\n")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "llama")


def logprobs(model, prompt, answer):
    """Of each token of the answer, in one pass."""
    logits = model(mx.array([prompt + answer]))[0][0, len(prompt) - 1 : -1]
    return mx.take_along_axis(logits - mx.logsumexp(logits, axis=-1, keepdims=True), mx.array(answer)[:, None], 1)[:, 0]


def needs(name):
    for plugin in (PLUGINS.get(name), {"deepseek_v3": "lmx_ffn_moe", "qwen3_next": "lmx_ffn_moe"}.get(name)):
        if plugin is not None:
            pytest.importorskip(plugin, reason=f"{name} has components of {plugin}")


def test_generate_writes_what_lmx_does(llama):
    """For every prompt, with tokens that differ."""
    folder, model = llama
    expected = [greedy(model, prompt) for prompt in PROMPTS]

    assert [text(folder, prompt) for prompt in PROMPTS] == expected
    assert len(set(expected[0])) > 5


def test_a_run_is_a_model(tmp_path):
    """Its last checkpoint is, given in either spelling of the option."""
    saved(tmp_path / "checkpoints" / "step-0001", n_layers=1)
    _, model = saved(tmp_path / "checkpoints" / "step-0002")
    arguments = ["--prompt", "abc", "--max-tokens", 9, "--temp", 0, "--verbose", "False"]

    assert run("generate", f"--model={tmp_path}", *arguments) == greedy(model, "abc", 9) + "\n"


def test_packed_weights_stay_packed(tmp_path, llama):
    _, model = saved(tmp_path / "dense")
    quantised.quantise(model, bits=4, group_size=32)
    folder, _ = saved(tmp_path / "packed", model=model)

    assert text(folder, "abc") == greedy(model, "abc")


@pytest.mark.parametrize("name", ["llama", "gemma3", "ministral", "bloom", "gpt", *PLUGINS])
def test_batches_are_what_each_prompt_is_alone(tmp_path, name):
    """Prompts of five lengths, more than are read or continued at once, of which each ends at its own time."""
    needs(name)
    folder, model = saved(tmp_path / name, name)
    prompts = [list(prompt.encode()) for prompt in PROMPTS]
    room = [3, 20, 8, 20, 12]
    expected = [generate(model, prompt, max_tokens=n, temperature=0) for prompt, n in zip(prompts, room, strict=True)]
    program = importlib.import_module("mlx_lm.generate")
    with on_lmx():
        theirs, tokenizer = importlib.import_module("mlx_lm.utils").load(folder)
        for sizes in (
            {"prefill_batch_size": 2, "completion_batch_size": 3},
            {"prefill_step_size": 16},
            {"prefill_batch_size": 3, "prefill_step_size": 4},
            {"prefill_batch_size": 1, "completion_batch_size": 1},
        ):
            found = program.batch_generate(
                theirs, tokenizer, prompts, max_tokens=room, return_token_ids=True, return_logprobs=True, **sizes
            )
            assert found.token_ids == expected, sizes
            for prompt, answer, chances in zip(prompts, expected, found.logprobs, strict=True):
                close(mx.array(chances), logprobs(model, prompt, answer), 1e-4)


def test_a_batch_goes_on_from_what_each_row_remembers(llama):
    """Memories that a batch gives back continue alone and together, and are left as they are."""
    folder, model = llama
    prompts = [list(prompt.encode()) for prompt in PROMPTS[:3]]
    more = [list(b"and"), list(b" so it goes"), list(b"y")]
    program = importlib.import_module("mlx_lm.generate")
    with on_lmx():
        theirs, tokenizer = importlib.import_module("mlx_lm.utils").load(folder)
        first = program.batch_generate(
            theirs, tokenizer, prompts, max_tokens=4, return_token_ids=True, return_prompt_caches=True
        )
        for _ in range(2):
            again = program.batch_generate(theirs, tokenizer, more, first.caches, max_tokens=6, return_token_ids=True)
            whole = [a + b + c for a, b, c in zip(prompts, first.token_ids, more, strict=True)]
            assert again.token_ids == [generate(model, each, max_tokens=6, temperature=0) for each in whole]


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_next"])
def test_a_prompt_is_kept_in_a_file(tmp_path, name):
    """`cache_prompt`, and what follows it."""
    needs(name)
    folder, model = saved(tmp_path / name, name)
    file = tmp_path / "prompt.safetensors"
    run("cache_prompt", "--model", folder, "--prompt", PROMPTS[1], "--prompt-cache-file", file)

    assert text(folder, "so", "--prompt-cache-file", file) == greedy(model, PROMPTS[1] + "so")


def test_keys_and_values_in_few_bits(llama):
    """`--kv-bits` gives what lmx's quantised cache does, once the prompt is read."""
    folder, model = llama
    for bits in (3, 8):
        memories = model.make_cache("quantised", bits=bits, group_size=32)
        full = model.make_cache()
        *before, last = PROMPTS[1].encode()
        model(mx.array([before]), cache=full)
        for memory, other in zip(memories, full, strict=True):
            memory.update_and_fetch(*other.state[:2])
        expected = list(stream_generate(model, [last], max_tokens=20, cache=memories, temperature=0))
        few = ["--kv-bits", bits, "--kv-group-size", 32, "--quantized-kv-start", 0]

        assert text(folder, PROMPTS[1], *few) == bytes(expected).decode()
    assert greedy(model, PROMPTS[1]) != text(folder, PROMPTS[1], "--kv-bits", 2, "--kv-group-size", 32, *few[-2:])


def test_a_model_drafts_for_another(tmp_path, llama):
    folder, model = llama
    drafts, _ = saved(tmp_path / "small", n_layers=1)

    for draft in (folder, drafts):
        assert text(folder, PROMPTS[3], "--draft-model", draft) == greedy(model, PROMPTS[3])


def test_other_programs_run(llama, tmp_path, monkeypatch):
    folder, _ = llama
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert "Averages: prompt_tps=" in run("benchmark", "--model", folder, "-p", 16, "-g", 4, "-n", 1)
    how = ["--sequence-length", 16, "--num-samples", 4, "--batch-size", 2]
    assert "Perplexity:" in run("perplexity", "--model", folder, "--data-path", data(tmp_path), *how)


def test_chat(tmp_path):
    """At a terminal, a question and its answer."""
    folder, answer = talking(tmp_path / "model")
    arguments = ["chat", "--model", folder, "--max-tokens", "20", "--temp", "0"]
    found = CliRunner().invoke(mlx_lm, arguments, input=f"{QUESTION}\nq\n", catch_exceptions=False)

    assert answer in found.stdout


def test_positions_that_are_placed_anew_are_told(tmp_path):
    """mlx-lm does not read a prompt again where its length changes all positions."""
    scaling = spec("longrope", short_factor=(1.0,) * 8, long_factor=(3.0,) * 8, original_max_seq_len=8)
    folder, model = saved(tmp_path / "llama", rope_scaling=scaling)

    assert text(folder, "abc", n=5) == greedy(model, "abc", 5)
    assert text(folder, "abcdefghijk") == greedy(model, "abcdefghijk")
    with pytest.warns(LmxWarning, match="beyond 8 tokens"):
        text(folder, "abc", n=8)


def test_bytes_are_tokens(tmp_path):
    """As of core's tokenizer, of any text."""
    tokenizer = Tokenizer.from_str(json.dumps(hf_form(ByteTokenizer()).to_dict()["tokenizer"]))
    for each in ("hello", "Zwölf Ā\n\t 日本語 🙂", "".join(map(chr, range(1, 256)))):
        assert tokenizer.encode(each).ids == list(each.encode())
        assert tokenizer.decode(list(each.encode())) == each


def test_nothing_is_left_behind(tmp_path, llama, monkeypatch):
    """mlx-lm is as before, after an error too, and no folder stays."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    utils, cache = importlib.import_module("mlx_lm.utils"), importlib.import_module("mlx_lm.models.cache")
    download, arguments, names = utils._download, list(sys.argv), set(vars(cache))
    text(llama[0], "abc", n=1)
    with pytest.raises(LmxError):
        run("generate", "--model", tmp_path / "nowhere", "--prompt", "a")

    assert (utils._download, sys.argv, MODULE in sys.modules) == (download, arguments, False)
    assert set(vars(cache)) == names
    assert not any((tmp_path / "temporary").iterdir())


@conformance("command.mlx-lm")
def test_the_verb_keeps_the_promises_of_verbs(check):
    check()


def test_programs_are_listed():
    listed = run()
    assert all(name in listed for name in PROGRAMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "no program 'serve'. Did you mean 'server'?"),
        (["generate", "--model", "/nowhere"], "there is no folder /nowhere"),
        *(([name], instead) for name, instead in OURS.items()),
    ],
)
def test_what_cannot_run(arguments, message):
    with pytest.raises(LmxError, match=message.replace("?", r"\?")):
        CliRunner().invoke(mlx_lm, arguments, catch_exceptions=False)


def test_other_tokenizers_are_refused(tmp_path):
    folder, _ = saved(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(LmxError, match="has no tokenizer"):
        run("generate", "--model", folder, "--prompt", "a")
    save_tokenizer("chars", CharTokenizer("abc"), tmp_path / "model" / "tokenizer.json")
    with pytest.raises(LmxError, match="'chars' .* has no form that mlx-lm reads"):
        run("generate", "--model", folder, "--prompt", "a")


def test_what_mlx_lm_refuses_is_one_message(llama, tmp_path):
    with pytest.raises(LmxError, match="mlx-lm's generate: The adapter path does not exist"):
        text(llama[0], "abc", "--adapter-path", tmp_path / "nowhere")
    with pytest.raises(LmxError, match="mlx-lm's lora: Must provide at least one"):
        run("lora", "--model", llama[0], "--data", data(tmp_path))
    (tmp_path / "adapter").mkdir()
    said = {"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0, "dropout": 0.0}}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(LmxError, match="mlx-lm's generate: .*adapters.safetensors"):
        text(llama[0], "abc", "--adapter-path", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("[]")
    with pytest.raises(LmxError, match="mlx-lm's generate: .*must be a mapping"):
        text(llama[0], "abc", "--adapter-path", tmp_path / "adapter")


def test_a_tokenizer_without_an_end_is_not_trained_with(tmp_path):
    """Before anything is written; other programs run."""
    folder, answer = talking(tmp_path / "model")
    assert "eos_token" not in json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    arguments = ["--data", data(tmp_path), "--train", "--iters", 1, "--adapter-path", tmp_path / "adapter"]
    with pytest.raises(LmxError, match="has no end token, and mlx-lm's trainer ends every text with it"):
        run("lora", "--model", folder, *arguments)
    assert not (tmp_path / "adapter").exists()
    assert text(folder, QUESTION) == answer


def test_a_mistyped_option_is_mlx_lms_to_refuse():
    found = CliRunner().invoke(mlx_lm, ["generate", "--promt", "a"])
    assert (found.exit_code, "usage: lmx mlx-lm generate" in found.stderr) == (2, True)


def test_another_mlx_lm(monkeypatch):
    """One whose loader is not what it was says so."""
    monkeypatch.delattr(importlib.import_module("mlx_lm.utils"), "_download")
    with pytest.raises(LmxError, match="loads models in a way that lmx-hf does not know"):
        run("generate", "--model", "here")


def test_memories_that_take_no_rows_are_read_one_by_one():
    """mlx-lm's server batches what has a `merge`."""
    able, bare = memory_of(KVCache()), memory_of(SimpleNamespace(offset=0, state=[], nbytes=0))
    assert (hasattr(able, "merge"), hasattr(bare, "merge")) == (True, False)


def test_texts_end_where_the_checkpoint_says(tmp_path):
    """At any of its end tokens, which are left out."""
    _, model = checkpoint(tmp_path / "model")
    written = greedy(model, "abc")
    end = next(letter for letter in written if letter != written[0])
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [7, ord(end)]}))

    assert text(tmp_path / "model", "abc") == written[: written.index(end)]


def test_a_repository_of_the_hub(hub, tmp_path):
    _, model = checkpoint(tmp_path / "model")
    hub.put("owner/name", {file.name: file.read_bytes() for file in tmp_path.joinpath("model").iterdir()})

    assert text("owner/name", "abc") == greedy(model, "abc")


def test_mlx_lm_is_optional(monkeypatch):
    """Without it there is one message, with what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlx_lm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    with pytest.raises(LmxError, match=r'pip install "lmx-hf\[mlx-lm\]"'):
        run("generate", "--model", "here")


def data(folder):
    """What mlx-lm's trainer reads."""
    (folder / "data").mkdir(exist_ok=True)
    for name in ("train", "valid", "test"):
        rows = [{"text": f"the cat number {i} sat on the mat"} for i in range(6)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "data"


@pytest.mark.parametrize("kind", ["lora", "dora", "full", "packed", "checkpoint"])
def test_an_adapter_is_trained_used_and_fused(tmp_path, kind):
    """lmx with the adapter in its weights writes what mlx-lm does with the adapter beside them."""
    folder, model = (checkpoint if kind == "checkpoint" else saved)(tmp_path / "model")
    if kind == "packed":
        quantised.quantise(model, bits=8, group_size=32)
        saved(folder, model=model)
    adapter, how = tmp_path / "adapter", kind if kind in ("dora", "full") else "lora"
    arguments = ["--data", data(tmp_path), "--iters", 4, "--batch-size", 2, "--num-layers", 2, "--learning-rate", 2e-2]
    run("lora", "--model", folder, "--train", "--adapter-path", adapter, "--fine-tune-type", how, *arguments)

    fused = opened(folder, adapter=adapter).model
    assert all(name.startswith("lmx.layers.") for name in mx.load(str(adapter / "adapters.safetensors")))
    assert json.loads((adapter / "adapter_config.json").read_text())["model"] == folder
    written = text(folder, PROMPTS[1], "--adapter-path", adapter)
    assert written == greedy(fused, PROMPTS[1])
    assert written != greedy(model, PROMPTS[1])
    assert bool(quantised.packed_modules(fused)) == (kind == "packed")  # the head, which has no adapter
