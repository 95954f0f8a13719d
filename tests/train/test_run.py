"""A run keeps what it promises on disk, goes on bit for bit, and survives what interrupts it."""

import json
import math
import resource
import signal
import subprocess
import sys

import mlx.core as mx
import pytest

from lmx_core import load_model
from lmx_core.checkpoint import model_directory
from lmx_core.data.tokenizers import load_tokenizer
from lmx_core.errors import CheckpointError, ConfigError, DataError, LmxError
from lmx_core.train.run import checkpoints
from lmx_core.train.trainer import Callback


def weights(run):
    return mx.load(str(model_directory(run) / "model.safetensors"))


def equal(a, b):
    return a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]).item() for name in a)


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_directory_holds_everything(train):
    """Config, metrics, curve, summary, checkpoints; the model in it loads and writes."""
    job, summary = train()
    assert {file.name for file in job.path.iterdir()} >= {"config.toml", "metrics.jsonl", "summary.json", "checkpoints"}
    logged = lines(job.path)
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, 21))
    assert [line["step"] for line in logged if "val_bpb" in line] == [7, 14, 20]
    assert [line["val_bytes"] for line in logged if "val_bpb" in line] == [200, 200, 500]
    assert logged[-1]["val_bpb"] == summary["val_bpb"] == json.loads((job.path / "summary.json").read_text())["val_bpb"]
    assert [path.name for path in checkpoints(job.path)] == ["step-00000010", "step-00000020"]
    assert summary["sample"].startswith(summary["prompt"])
    assert len(summary["sample"].encode()) >= 8 + 12
    model = load_model(job.path)
    tokens = mx.array([load_tokenizer(model_directory(job.path) / "tokenizer.json").encode("def f1(x)")])
    assert mx.array_equal(model(tokens)[0], job.trainer.model.eval()(tokens)[0]).item()


def test_training_learns(train):
    """300 steps of a tiny model halve the bits that its first steps need."""
    _, summary = train("train.max_steps=300", "train.learning_rate=1e-2", "train.eval_interval=10")
    first = summary["val_bpb"]
    assert first < 0.4 * 8


@pytest.mark.parametrize("compiled", ["true", "false"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_the_same_run(train, compiled, accumulate):
    """20 steps straight and 10 + resume + 10 end in the same parameters, to the bit, dropout included."""
    settings = (f"train.compile={compiled}", f"train.grad_accumulation_steps={accumulate}")
    straight, _ = train(*settings)

    class StopAtTen(Callback):
        def on_step_end(self, trainer, metrics):
            if trainer.step == 10:
                trainer.stop("for a test")

    stopped, summary = train(*settings, watchers=[StopAtTen()])
    assert (summary["step"], summary["stopped"]) == (10, "for a test")
    resumed, _ = train(resume=stopped.path)
    assert equal(weights(straight.path), weights(resumed.path))
    assert not equal(weights(straight.path), mx.load(str(checkpoints(straight.path)[0] / "model.safetensors")))
    optimizer = [mx.load(str(model_directory(job.path) / "optimizer.safetensors")) for job in (straight, resumed)]
    assert equal(*optimizer)
    compared = [[line for line in lines(job.path) if "loss" in line] for job in (straight, resumed)]
    assert [(line["step"], line["loss"]) for line in compared[0]] == [
        (line["step"], line["loss"]) for line in compared[1]
    ]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(train, folder):
    """What a kill leaves behind (half a checkpoint, half a line of metrics) does no harm."""
    straight, _ = train()
    killed, _ = train("train.max_steps=14")
    newest = checkpoints(killed.path)[-1]
    newest.rename(newest.with_name(".step-00000014-1.tmp"))
    with (killed.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    resumed, _ = train("train.max_steps=20", resume=killed.path)
    # The schedule of the first ten steps looked at 14, not 20: compare with the same two budgets in a row.
    assert resumed.trainer.step == 20
    assert [line["step"] for line in lines(resumed.path) if "loss" in line] == list(range(1, 21))
    assert lines(resumed.path)[:5] == lines(killed.path)[:5]
    assert straight.trainer.step == 20


def test_compiled_steps_equal_eager_ones(train):
    """To rounding, dropout off; a compiled step draws its random numbers in another order."""
    jobs = [train(f"train.compile={compiled}", "model.dropout=0.0")[0] for compiled in ("true", "false")]
    first, second = (weights(job.path) for job in jobs)
    assert max(mx.abs(first[name] - second[name]).max().item() for name in first) < 2e-4


def test_accumulated_batches_equal_one_large_batch(train):
    """Three batches of four make the update of one of twelve."""
    settings = ("model.dropout=0.0", "train.max_steps=3")
    jobs = [
        train(*settings, "train.batch_size=12")[0],
        train(*settings, "train.batch_size=4", "train.grad_accumulation_steps=3")[0],
    ]
    losses = [[line["loss"] for line in lines(job.path) if "loss" in line] for job in jobs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    norms = [[line["grad_norm"] for line in lines(job.path) if "loss" in line] for job in jobs]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_runs_are_reproducible_and_seeds_differ(train):
    runs = [train(f"train.seed={seed}")[0] for seed in (1, 1, 2)]
    assert equal(weights(runs[0].path), weights(runs[1].path))
    assert not equal(weights(runs[0].path), weights(runs[2].path))


def test_each_run_has_a_directory_of_its_own(train, folder):
    """By default the next free name; one that is asked for is not overwritten without --force."""
    assert [train("train.max_steps=1")[0].path.name for _ in range(3)] == ["tiny", "tiny-2", "tiny-3"]
    train("train.max_steps=2", run_dir=folder / "mine")
    with pytest.raises(ConfigError, match="mine exists. Choose another --run-dir, go on with --resume"):
        train("train.max_steps=1", run_dir=folder / "mine")
    assert lines(folder / "mine")[-1]["step"] == 2
    train("train.max_steps=1", run_dir=folder / "mine", force=True)
    assert lines(folder / "mine")[-1]["step"] == 1
    (folder / "other").mkdir()
    (folder / "other" / "thesis.txt").write_text("x")
    for wrong in (folder / "other", folder / "corpus.txt"):
        with pytest.raises(ConfigError, match="is not a run directory, so that --force does not replace it"):
            train("train.max_steps=1", run_dir=wrong, force=True)
    (folder / "runs" / "tiny" / "config.toml").unlink()
    with pytest.raises(ConfigError, match="is not a run directory"):
        train("train.max_steps=1", force=True)


def test_time_is_a_budget(train):
    """max_seconds ends a run that has steps left, with its last evaluation done and its learning rate come down."""
    job, summary = train("train.max_steps=1_000_000", "train.max_seconds=1.5")
    assert 1.5 <= summary["seconds"] < 4
    assert summary["stopped"] is None
    assert "val_bpb" in summary
    assert [line["learning_rate"] for line in lines(job.path) if "loss" in line][-1] < 0.5 * 1e-3


def test_characters_are_saved_with_the_model(train, folder):
    """A fitted tokenizer sets the vocabulary and travels in the checkpoint."""
    job, _ = train("data.tokenizer=chars", "train.max_steps=1")
    tokenizer = load_tokenizer(model_directory(job.path) / "tokenizer.json")
    assert load_model(job.path).config.vocab_size == tokenizer.vocab_size < 40
    assert tokenizer.decode_bytes(tokenizer.encode("def f1")) == b"def f1"


def test_a_stated_vocabulary_must_be_large_enough(train):
    with pytest.raises(ConfigError, match=r"model.vocab_size=100 is too small: tokenizer bytes has 256 tokens"):
        train("model.vocab_size=100")
    job, _ = train("model.vocab_size=300", "train.max_steps=1")
    assert load_model(job.path).config.vocab_size == 300


@pytest.mark.parametrize(
    ("assignment", "error", "message"),
    [
        ("model.factory=lama", ConfigError, "Did you mean 'llama'"),
        ("train.lerning_rate=1", ConfigError, "did you mean 'learning_rate'"),
        ("train.optimizer=adamv", ConfigError, "no optimizer named 'adamv'. Did you mean 'adamw'"),
        ("train.optimizer.beta3=1", ConfigError, "train.optimizer.beta3: unknown option; did you mean"),
        ("train.seed=x", ConfigError, r"train.seed: expected int, got 'x' \(str\)"),
        ("model.d_model=33", ConfigError, "d_model=33 is not a multiple of n_heads=4"),
        ("train.seq_len=40_000", DataError, "seq_len=40000 needs 40001 tokens, the training split has"),
        ("data.dataset.paths=nowhere", DataError, "nowhere"),
        ("train.dtype=int8", ConfigError, "train.dtype: expected 'auto' or 'float32'"),
    ],
)
def test_a_mistake_leaves_nothing_behind(train, folder, assignment, error, message):
    """Every mistake is found before the run directory is made."""
    with pytest.raises(error, match=message):
        train(assignment)
    assert not (folder / "runs").exists()


def test_a_sequence_longer_than_the_table_is_refused(train, folder):
    (folder / "tiny.toml").write_text((folder / "tiny.toml").read_text().replace('"llama"', '"gpt"'))
    with pytest.raises(ConfigError, match="train.seq_len=300 is longer than the model's max_seq_len=256"):
        train("train.seq_len=300")
    assert not (folder / "runs").exists()


def test_a_loss_that_is_no_number_ends_the_run(train):
    with pytest.raises(LmxError, match=r"the loss is (nan|inf) at step \d+. A lower train.learning_rate"):
        train("train.learning_rate=1e30", "train.max_grad_norm=none", "train.warmup_steps=0")


def test_resuming_refuses_another_model_and_another_corpus(train, folder):
    job, _ = train("train.max_steps=2")
    with pytest.raises(CheckpointError, match="cannot change when it is resumed"):
        train("model.n_layers=3", resume=job.path)
    (folder / "corpus.txt").write_text("something else\n" * 500)
    with pytest.raises(CheckpointError, match="the corpus changed since"):
        train("train.max_steps=4", resume=job.path)


def test_resuming_what_is_no_run(train, folder):
    with pytest.raises(CheckpointError, match="is no run directory: it has no config.toml"):
        train(resume=folder)


def test_damaged_checkpoints_say_so(train):
    job, _ = train("train.max_steps=2")
    file = model_directory(job.path) / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"is damaged: .* Remove it to go on from the one before"):
        train(resume=job.path)


def test_a_full_disk_keeps_the_checkpoint_before(train, folder):
    """A write that fails ends the run with a message; the last checkpoint is whole, and no half one is left."""
    script = (
        "import resource, signal, sys\n"
        "from lmx_core.cli import main\n"
        "from lmx_core.train.run import RunDirectory\n"
        "save = RunDirectory.on_checkpoint\n"
        "def full(self, trainer):\n"
        "    if trainer.step > 10:\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    save(self, trainer)\n"
        "RunDirectory.on_checkpoint = full\n"
        "sys.argv = ['lmx', 'train', 'tiny.toml']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Error: could not write" in done.stderr
    assert "Traceback" not in done.stderr
    run = folder / "runs" / "tiny"
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000010"]
    load_model(run)
    resumed, _ = train(resume=run)
    assert resumed.trainer.step == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(folder, train, number):
    """The first one ends the run after a step, with a checkpoint and exit code 130; so does a polite kill."""
    command = [sys.executable, "-P", "-m", "lmx_core", "train", "tiny.toml", "--set", "train.max_steps=100000"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        metrics = folder / "runs" / "tiny" / "metrics.jsonl"
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "train --resume runs/tiny" in out
    assert "Traceback" not in err
    (saved,) = checkpoints(folder / "runs" / "tiny")
    step = int(saved.name.removeprefix("step-"))
    job, _ = train(f"train.max_steps={step + 2}", resume=folder / "runs" / "tiny")
    assert job.trainer.step == step + 2


def test_the_curve_is_drawn(train):
    pytest.importorskip("matplotlib", reason="the curve needs the extra plot")
    job, _ = train()
    assert (job.path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_counts_every_byte_but_the_first(train):
    """Bits per byte of the held-out text, against a slow sum over windows."""
    job, summary = train("train.max_steps=3")
    held_out = job.corpus.validation
    model = job.trainer.model.eval()
    nats = 0.0
    for start in range(0, len(held_out.tokens) - 1, 32):
        window = held_out.tokens[start : start + 33].astype("int32")
        logits = model(mx.array(window[None, :-1]))[0][0]
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        nats -= sum(logs[i, int(token)].item() for i, token in enumerate(window[1:]))
    assert summary["val_bpb"] == pytest.approx(nats / math.log(2) / held_out.size, rel=1e-5)
    assert held_out.size == 500


def test_limits_of_the_process_are_back(folder):
    """The full-disk test limits its own child only."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_the_sample_continues_what_is_asked_for(train):
    """By default the beginning of the held-out text, whose characters every tokenizer knows."""
    job, summary = train("train.max_steps=1", "data.tokenizer=chars")
    assert summary["sample"].startswith(summary["prompt"])
    with pytest.raises(DataError, match="have no token"):
        train("train.max_steps=1", "data.tokenizer=chars", "train.sample_prompt=\u00e9")
    assert len(list(job.path.parent.iterdir())) == 1
    job, summary = train("train.max_steps=1", "train.sample_prompt=\"a 'b'\"")
    assert summary["prompt"] == "a 'b'"
    assert summary["sample"].startswith("a 'b'")
