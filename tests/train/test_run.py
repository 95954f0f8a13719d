"""A run keeps what it promises on disk, goes on bit for bit, and survives what interrupts it."""

import json
import math
import signal
import subprocess
import sys

import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import ffn_registry, load_model
from lmx_core.checkpoint import model_directory
from lmx_core.data.tokenizers import load_tokenizer
from lmx_core.errors import CheckpointError, ConfigError, DataError, LmxError
from lmx_core.train import main
from lmx_core.train.callback import COMPLETIONS, REFERENCE
from lmx_core.train.run import checkpoints, locked
from lmx_core.train.trainer import Callback

from .kept import equal, lines, weights


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
    """What a kill leaves behind (half a checkpoint, half a line of metrics) does no harm, and does not stay."""
    straight, _ = train("train.schedule=constant")
    killed, _ = train("train.schedule=constant", "train.max_steps=14")
    newest = checkpoints(killed.path)[-1]
    newest.rename(newest.with_name(".step-00000014-1.tmp"))
    with (killed.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    (killed.path / ".metrics-1.tmp.jsonl").write_text("{")
    resumed, _ = train("train.max_steps=20", resume=killed.path)
    assert not [*killed.path.rglob(".*.tmp*")]
    assert [line["step"] for line in lines(resumed.path) if "loss" in line] == list(range(1, 21))
    assert equal(weights(straight.path), weights(resumed.path))


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


def test_each_run_has_a_directory_of_its_own(train, folder, monkeypatch):
    """By default the next free name; one that is asked for is not overwritten without --force."""
    assert [train("train.max_steps=1")[0].path.name for _ in range(3)] == ["tiny", "tiny-2", "tiny-3"]
    train("train.max_steps=2", run_dir=folder / "mine")
    with pytest.raises(ConfigError, match="mine exists. Choose another --run-dir, go on with --resume"):
        train("train.max_steps=1", run_dir=folder / "mine")
    assert lines(folder / "mine")[-1]["step"] == 2
    (folder / "mine" / COMPLETIONS).write_text("{}\n")
    (folder / "mine" / REFERENCE).mkdir()
    train("train.max_steps=1", run_dir=folder / "mine", force=True)
    assert lines(folder / "mine")[-1]["step"] == 1
    assert not {COMPLETIONS, REFERENCE} & {each.name for each in (folder / "mine").iterdir()}
    (folder / "other").mkdir()
    (folder / "other" / "thesis.txt").write_text("x")
    (folder / "runs" / "tiny" / "thesis.txt").write_text("x")
    (folder / "link").symlink_to(folder / "mine")
    (folder / "project").mkdir()
    (folder / "project" / "config.toml").write_text((folder / "tiny.toml").read_text())
    monkeypatch.chdir(folder / "project")
    for wrong, why in {
        folder / "other": "holds thesis.txt, which no run writes, so that --force does not replace it",
        folder / "corpus.txt": "is no directory",
        folder / "link": "is no directory",
        folder / "project": "is where you work",
    }.items():
        with pytest.raises(ConfigError, match=why):
            train("train.max_steps=1", run_dir=wrong, force=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="holds thesis.txt"):
        train("train.max_steps=1", force=True)
    assert (folder / "runs" / "tiny" / "thesis.txt").read_text() == "x"


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


@pytest.mark.says_names
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
        ("train.optimizer=adamww", ConfigError, "no optimizer named 'adamww'. Did you mean 'adamw'"),
        ("train.optimizer.beta3=1", ConfigError, "train.optimizer.beta3: unknown option; did you mean"),
        (
            'train.callbacks=["memory",{name="samples",tokns=1}]',
            ConfigError,
            r"train.callbacks\[1\].tokns: unknown option",
        ),
        ("train.seed=x", ConfigError, r"train.seed: expected int, got 'x' \(str\)"),
        ("model.d_model=33", ConfigError, "d_model=33 is not a multiple of n_heads=4"),
        ("train.seq_len=40_000", DataError, "seq_len=40000 needs 40001 tokens, the training split has"),
        ("data.dataset.paths=nowhere", DataError, "nowhere"),
        ("train.dtype=int8", ConfigError, "train.dtype: expected 'auto' or 'float32'"),
    ],
)
@pytest.mark.says_names
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
    with pytest.raises(LmxError, match=r"is (nan|inf) at step \d+, .* skipped for the like. A lower train.learning_"):
        train("train.learning_rate=1e30", "train.max_grad_norm=none", "train.warmup_steps=0")


def test_resuming_refuses_another_model_and_another_corpus(train, folder):
    job, _ = train("train.max_steps=2")
    for change in (
        "model.n_layers=3",
        "train.seed=5",
        "train.seq_len=16",
        "train.optimizer.name=sgd",
        'train.freeze=["embed.*"]',
        "data.tokenizer=chars",
    ):
        key = change.partition("=")[0] if change.startswith("train") else change.partition(".")[0]
        with pytest.raises(ConfigError, match=f"{key} cannot change when a run is resumed"):
            train(change, resume=job.path)
    with pytest.raises(ConfigError, match="is finished: 2 steps, .* raise its budget: --set train.max_steps=4"):
        train(resume=job.path)
    assert train("train.max_steps=3", "train.final_eval_bytes=400", resume=job.path)[1]["val_bytes"] == 400
    (folder / "corpus.txt").write_text("something else\n" * 500)
    with pytest.raises(CheckpointError, match="the corpus changed since"):
        train("train.max_steps=4", resume=job.path)


def test_resuming_refuses_another_held_out_text(train, folder):
    """Losses of two texts cannot be compared; another share of the same text can."""
    (folder / "held.txt").write_text("def held(x):\n    return x\n" * 60)
    held = 'data.dataset.validation_paths=["held.txt"]'
    job, _ = train(held, "train.max_steps=2")
    assert train("train.max_steps=3", "train.eval_bytes=300", resume=job.path)[1]["step"] == 3
    (folder / "held.txt").write_text("def hold(x):\n    return x\n" * 60)
    with pytest.raises(CheckpointError, match="the held-out text changed since"):
        train("train.max_steps=4", resume=job.path)


def test_resuming_what_is_no_run(train, folder):
    with pytest.raises(CheckpointError, match="is no run directory: it has no config.toml"):
        train(resume=folder)


@pytest.mark.parametrize("damage", ["optimizer", "moments", "weights", "position"])
def test_damaged_checkpoints_say_so(train, damage):
    job, _ = train("train.max_steps=2")
    checkpoint = model_directory(job.path)
    optimizer, weights = checkpoint / "optimizer.safetensors", checkpoint / "model.safetensors"
    if damage == "optimizer":
        optimizer.write_bytes(optimizer.read_bytes()[:-100])
    elif damage == "moments":
        kept = {name: value for name, value in mx.load(str(optimizer)).items() if not name.endswith(".m")}
        mx.save_safetensors(str(optimizer), kept)
    elif damage == "position":
        (checkpoint / "training.json").write_text("{}")
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
            train("train.max_steps=4", resume=job.path)
        return
    with pytest.raises(CheckpointError, match=r"is damaged .* Remove it to go on from the one before"):
        train("train.max_steps=4", resume=job.path)


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


def test_a_second_interrupt_ends_a_run_at_once(train, folder, monkeypatch, capsys):
    """With the code of an interrupted command, and a word on what is left."""
    from lmx_core.cli import train as verb

    monkeypatch.chdir(folder)
    job = main.started(folder / "tiny.toml", ["train.checkpoint_interval=3"], folder / "run", False)

    def impatient(self, metrics):
        if self.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(job.trainer), "_tell", _then(type(job.trainer)._tell, impatient))
    with pytest.raises(SystemExit) as ended:
        verb._watched(job, quiet=True)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "Stopped at once, in step 6. Go on from step-00000003 with:" in said
    assert f"train --resume {folder / 'run'}" in said


def _then(tell, after):
    def told(self, event, *about):
        tell(self, event, *about)
        if event == "on_step_end":
            after(self, *about)

    return told


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
    held_out = job.material.validation
    model = job.trainer.model.eval()
    nats = 0.0
    for start in range(0, len(held_out.tokens) - 1, 32):
        window = held_out.tokens[start : start + 33].astype("int32")
        logits = model(mx.array(window[None, :-1]))[0][0]
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        nats -= sum(logs[i, int(token)].item() for i, token in enumerate(window[1:]))
    assert summary["val_bpb"] == pytest.approx(nats / math.log(2) / (held_out.size - 1), rel=1e-5)
    assert held_out.size == 500


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


@pytest.fixture
def reporting():
    """An FFN that reports, registered in this process."""

    @ffn_registry.register("reporting")
    class Reporting(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.up = nn.Linear(config.d_model, config.d_model)

        def __call__(self, x):
            y = self.up(x)
            self._report = {"size_loss": mx.square(y).mean(), "load": mx.array(0.5)}
            return y

    yield
    ffn_registry.unregister("reporting")


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_reports_survive_evaluations(train, folder, reporting, compiled):
    """What components report is logged, and an evaluation in between changes no weight."""
    text = (folder / "tiny.toml").read_text()
    block = (
        'block = { attention = "gqa", ffn = "reporting", position = "rope", d_model = 32, n_heads = 4 }\nn_layers = 2'
    )
    (folder / "tiny.toml").write_text(
        text.replace('factory = "llama"\nsize = "tiny"\nd_model = 32\ndropout = 0.1', block)
    )
    runs = [train(f"train.compile={compiled}", f"train.eval_interval={every}")[0] for every in (7, 1000)]
    assert equal(weights(runs[0].path), weights(runs[1].path))
    logged = [line for line in lines(runs[0].path) if "loss" in line]
    assert all(line["layers.1.ffn.size_loss"] > 0 and line["layers.0.ffn.load"] == 0.5 for line in logged)


def test_a_checkpoint_is_never_of_broken_weights(train, folder):
    """A step that destroys the weights after a good loss ends the run before they are saved."""
    huge = ("train.learning_rate=1e30", "train.max_grad_norm=none", "train.warmup_steps=0", "train.weight_decay=1e10")
    with pytest.raises(LmxError, match="A checkpoint, if there is one, is from before"):
        train(*huge, "train.checkpoint_interval=1", "train.max_steps=4")
    for checkpoint in checkpoints(folder / "runs" / "tiny"):
        assert all(mx.isfinite(weight).all().item() for weight in weights(checkpoint).values())


def test_only_the_last_checkpoints_stay(train):
    job, _ = train("train.checkpoint_interval=3", "train.keep_checkpoints=3")
    assert [path.name[-2:] for path in checkpoints(job.path)] == ["15", "18", "20"]


def test_two_runs_at_once_have_two_directories(train, folder):
    """The name is claimed when the directory is made; a directory in use is not trained in twice."""
    jobs = [main.started(folder / "tiny.toml", ["train.max_steps=2"], None, False) for _ in range(2)]
    assert [job.path.name for job in jobs] == ["tiny", "tiny-2"]
    with locked(jobs[0].path), pytest.raises(CheckpointError, match="another process is training in runs/tiny"):
        jobs[0].run()
    assert [job.run()["step"] for job in jobs] == [2, 2]


def test_a_run_that_goes_on_is_not_replaced(train, folder):
    """`--force` leaves a directory alone in which a process trains."""
    job, _ = train()
    with locked(job.path), pytest.raises(CheckpointError, match="another process is training in runs/tiny"):
        train("train.max_steps=1", force=True)
    assert len(checkpoints(job.path)) == 2
    assert len(lines(job.path)) == 23


def test_a_stop_before_the_first_line_of_metrics(train):
    """A run that is stopped at once still says how to go on."""

    class StopAtOnce(Callback):
        def on_step_end(self, trainer, metrics):
            trainer.stop("for a test")

    job, summary = train("train.log_interval=1000", watchers=[StopAtOnce()])
    assert summary["step"] == 1
    assert train(resume=job.path)[1]["step"] == 20


def test_whether_steps_are_compiled_is_ones_choice(train, folder):
    """`compile = false` reaches training and evaluation: a component may look at its numbers."""

    @ffn_registry.register("looking")
    class Looking(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.up = nn.Linear(config.d_model, config.d_model)

        def __call__(self, x):
            y = self.up(x)
            return y if mx.stop_gradient(y).sum().item() > 1e9 else y * 2

    text = (folder / "tiny.toml").read_text()
    block = 'block = { attention = "gqa", ffn = "looking", position = "rope", d_model = 32, n_heads = 4 }\nn_layers = 1'
    (folder / "tiny.toml").write_text(
        text.replace('factory = "llama"\nsize = "tiny"\nd_model = 32\ndropout = 0.1', block)
    )
    try:
        assert train("train.compile=false")[1]["step"] == 20
        with pytest.raises(ValueError, match="compile"):
            train("train.compile=true")
    finally:
        ffn_registry.unregister("looking")


def test_what_is_no_number_in_json_is_null(train):
    """In the summary as in the metrics: NaN is no JSON."""
    job, _ = train("train.max_steps=2", watchers=[Unmeasured()])
    text = (job.path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["odd"] is None


class Unmeasured(Callback):
    def on_train_end(self, trainer, summary):
        summary["odd"] = float("nan")
