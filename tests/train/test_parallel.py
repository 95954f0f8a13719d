"""Several ranks train as one would, and end together."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import ExitStack

import click
import mlx.core as mx
import pytest

from lmx_core.checkpoint import model_directory
from lmx_core.cli.options import again
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.train import main
from lmx_core.train.parallel import hosts, launch, together
from lmx_core.train.parallel.ranks import LostRankError, Ranks
from lmx_core.train.run import checkpoints

pytestmark = pytest.mark.once

LMX = [sys.executable, "-P", "-m", "lmx_core", "train"]
STEADY = 1e-4
"""AdamW's eps: with the usual one the direction of its first steps is that of rounding wherever a gradient is nearly 0, which
moves parameters by 1e-4 on one machine and another."""
PLAIN = (
    "model.dropout=0.0",
    "train.schedule=constant",
    f'train.optimizer={{ name = "adamw", eps = {STEADY} }}',
)


def words(assignments):
    return [f"--set={each}" for each in assignments]


def lmx(folder, *arguments, **environment):
    return subprocess.run(
        [*LMX, *arguments], cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def weights(run):
    return mx.load(str(model_directory(run) / "model.safetensors"))


def difference(a, b):
    assert a.keys() == b.keys()
    return max(mx.abs(a[name] - b[name]).max().item() for name in a)


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


RAGGED = """
import sys
import mlx.core as mx
import numpy as np
from lmx_core import make_config, spec
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import from_environment
from lmx_core.train.trainer import Trainer

class Ragged:
    def batch(self, numbers, step):
        rows = [np.random.default_rng(number) for number in numbers]
        tokens = np.stack([row.integers(0, 50, 17) for row in rows]).astype(np.int32)
        lengths = np.array([row.integers(1, 17) for row in rows])
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": np.arange(16) < lengths[:, None]}

class Losses:
    found = []
    def on_step_end(self, trainer, metrics):
        self.found.append(metrics["loss"])

ranks = from_environment()
mx.random.seed(0)
model = LanguageModel(make_config("llama", "tiny", vocab_size=50, d_model=32))
size, accumulate = (4, 2) if ranks.size == 1 else (2, 2)
config = TrainConfig(
    max_steps=20, batch_size=size, seq_len=16, grad_accumulation_steps=accumulate, warmup_steps=2, learning_rate=1e-2,
    optimizer=spec("adamw", eps=float(sys.argv[2])),
)
trainer = Trainer(model, config, Ragged(), callbacks=[Losses()], ranks=ranks)
summary = trainer.run()
assert summary["ranks"] == ranks.size and trainer.samples == 160 and trainer.tokens == 160 * 16
if ranks.first:
    mx.savez(sys.argv[1], losses=mx.array(Losses.found), **flat_parameters(model))
"""


def test_two_ranks_are_one_with_the_double_batch(tmp_path):
    """20 AdamW steps over rows of uneven length, two micro-batches each: losses to 1e-5, parameters to 1e-6."""
    with ExitStack() as held:
        places = hosts.here(2, held)
        environments = [place.variables(tmp_path) for place in places]
        commands = [
            [sys.executable, "-P", "-c", RAGGED, str(tmp_path / name), str(STEADY)] for name in ("two.npz", "two.npz")
        ]
        several = [
            subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.DEVNULL)
            for command, environment in zip(commands, environments, strict=True)
        ]
        assert [process.wait(60) for process in several] == [0, 0]
    subprocess.run([sys.executable, "-P", "-c", RAGGED, str(tmp_path / "one.npz"), str(STEADY)], check=True, timeout=60)
    one, two = (dict(mx.load(str(tmp_path / f"{name}.npz"))) for name in ("one", "two"))
    found = [each.pop("losses") for each in (one, two)]
    assert found[0].size == 20
    assert found[0][-1].item() < found[0][0].item()
    assert mx.abs(found[0] - found[1]).max().item() < 1e-5
    assert difference(one, two) < 1e-6


def test_a_run_goes_on_with_another_number_of_ranks(folder, train):
    """Two ranks and then one, with the same samples in each update, are the run of one; the first rank alone writes."""
    straight, _ = train(*PLAIN)
    settings = words([*PLAIN, "train.max_steps=10", "train.batch_size=2"])
    done = lmx(folder, "tiny.toml", "--nproc", "2", "--run-dir", "half", "--json", *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["ranks"], summary["tokens"], summary["step"]) == (2, 10 * 4 * 32, 10)
    resumed, _ = train("train.batch_size=4", "train.max_steps=20", resume=folder / "half")
    assert difference(weights(straight.path), weights(resumed.path)) < 1e-6
    assert losses(straight.path) == pytest.approx(losses(resumed.path), abs=1e-5)
    assert len(losses(resumed.path)) == 20


@pytest.mark.parametrize(
    "settings",
    [
        ('data.source={ name = "padded", bucketed = true, multiple = 1 }',),
        ('data.source="padded"', 'data.curriculum={ name = "difficulty", steps = 9, start = 1e-3 }'),
    ],
    ids=["bucketed", "difficulty"],
)
def test_ranks_share_the_samples_of_one(folder, settings):
    """Also where the size of a batch decides on what is read: two ranks read what one does of the double batch."""
    text = (folder / "corpus.txt").read_text()
    (folder / "corpus.txt").write_text("\n\n".join(text[i : i + 2 + i % 29] for i in range(0, len(text), 31)))
    settings = ('data.dataset={ name = "text", paths = ["corpus.txt"], separator = "\\n\\n" }', *settings)
    alone = main.started(folder / "tiny.toml", [*settings, "train.batch_size=4"], None, False).trainer.source
    shared = main.started(
        folder / "tiny.toml", [*settings, "train.batch_size=2"], None, False, Recording()
    ).trainer.source
    for step, first in ((0, 0), (4, 40), (9, 400)):
        one, two = (dict(each.batch(range(first, first + 4), step)) for each in (alone, shared))
        assert one.keys() == two.keys()
        assert all((one[name] == two[name]).all() for name in one)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(state) and not state.startswith("Z")


def started(folder, *how):
    """A run without an end on several ranks, once it has made some steps, and the process ids of its ranks."""
    endless = ["train.max_steps=100000", "train.checkpoint_interval=100000", "train.eval_interval=100000"]
    process = subprocess.Popen(
        [*LMX, "tiny.toml", *how, "--run-dir", "run", *words(endless)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = folder / "run" / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return process, sorted(map(int, children.stdout.split()))


@pytest.mark.parametrize(("lost", "count"), [(1, 2), (0, 3)])
def test_a_dead_rank_ends_all_with_a_checkpoint(folder, train, lost, count):
    """A kill -9 of a rank, of the first one too: all end at once, what was trained is saved, and it says how to go on.

    Of three ranks one has no connection to the lost one, and would wait for ever.
    """
    process, ranks = started(folder, "--nproc", str(count))
    os.kill(ranks[lost], signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL
    assert f"Error: rank {lost} of {count} was killed by SIGKILL." in err
    assert f"Go on with:\n{'' if lost else 'rank 1: '}  lmx train --resume run --nproc {count}" in err
    assert "Traceback" not in err
    assert out == ""
    assert not any(map(alive, ranks))
    (saved,) = checkpoints(folder / "run")
    step = int(saved.name.removeprefix("step-"))
    assert f"after step {step}, which is saved in run/checkpoints/{saved.name}" in err
    assert step >= 3
    job, _ = train(f"train.max_steps={step + 2}", resume=folder / "run")
    assert job.trainer.step == step + 2
    assert all(loss < 6 for loss in losses(job.path))


HANGS = """
import sys, time
from lmx_core.cli import main
from lmx_core.train.parallel import ranks
asked = []

def hanging(self, flag):
    asked.append(flag)
    with self.answering():
        if len(asked) == 3:
            print("hangs", flush=True)
            time.sleep(1000)

ranks.Ranks.any = hanging
sys.argv = ["lmx", "train", "tiny.toml", "--run-dir", "run"]
main()
"""


def test_a_rank_that_waits_for_a_lost_one_in_vain_saves_and_ends(folder):
    """Where the backend does not notice, the launcher does, and says so on standard input."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HANGS],
        cwd=folder,
        env=os.environ | {hosts.LAUNCHED: "--nproc 2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "hangs\n"
        _, err = process.communicate("lost 1\n", timeout=30)
    assert process.returncode == launch.LOST
    assert "waits for it in vain after step 3, which is saved in run/checkpoints/step-00000003. Go on with:" in err
    assert len(checkpoints(folder / "run")) == 1


@pytest.mark.parametrize("who", ["launcher", "rank"])
def test_a_signal_ends_all_after_the_same_step(folder, who):
    """Ctrl-C of the command, or a polite kill of one rank: a checkpoint, and exit code 130."""
    process, ranks = started(folder, "--nproc", "2")
    os.kill(process.pid if who == "launcher" else ranks[1], signal.SIGINT if who == "launcher" else signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "train --resume run --nproc 2" in out
    assert "Traceback" not in err
    assert len(checkpoints(folder / "run")) == 1


def test_ranks_end_when_their_launcher_is_killed(folder):
    process, ranks = started(folder, "--nproc", "2")
    process.kill()
    process.communicate(timeout=30)
    assert len(checkpoints(folder / "run")) == 1
    until = time.monotonic() + 10
    while time.monotonic() < until and any(map(alive, ranks)):
        time.sleep(0.1)
    assert not any(map(alive, ranks))


def test_a_mistake_is_told_once(folder):
    """Though every rank makes it."""
    done = lmx(folder, "tiny.toml", "--nproc", "2", "--set", "train.lerning_rate=1")
    assert done.returncode == 2
    assert done.stderr.count("did you mean 'learning_rate'") == 1
    assert "rank" not in done.stderr
    assert not (folder / "runs").exists()


def test_machines_of_a_file_are_reached_by_ssh(folder, monkeypatch):
    """As mlx.launch reads it, and Ctrl-C reaches them; here both are this machine, and ssh runs what it is given."""
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"""#!/bin/sh\nshift 3\necho "$1" >> {folder}/seen\nshift\nexec sh -c "$*"\n""")
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(ssh.parent), prepend=os.pathsep)
    machines = [{"ssh": name, "ips": ["127.0.0.1"]} for name in ("a", "b")]
    (folder / "hosts.json").write_text(
        json.dumps({"backend": "ring", "envs": ["MKL_NUM_THREADS=1"], "hosts": machines})
    )
    process, _ = started(folder, "--hostfile", "hosts.json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "train --resume run --hostfile hosts.json" in out
    assert sorted((folder / "seen").read_text().split()) == ["a", "b"]
    assert len(checkpoints(folder / "run")) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "names no host"),
        ([{"ips": ["10.0.0.1"]}], r"is no file of hosts \(KeyError: 'ssh'\)"),
        ([{"ssh": "a"}, {"ssh": "b", "ips": ["10.0.0.2"]}], 'a needs "ips", an address'),
        ([{"ssh": "a", "ips": "10.0.0.1"}], "\"ips\" is a list of addresses, got '10.0.0.1'"),
        ({"backend": "mpi", "hosts": [{"ssh": "a"}]}, "asks for the backend 'mpi'. .* mpirun -n 1 lmx train CONFIG"),
        ({"backend": "ring", "envs": ["A"], "hosts": [{"ssh": "a"}]}, "is no file of hosts"),
    ],
)
def test_a_file_of_hosts_that_cannot_be_used(tmp_path, table, message):
    (tmp_path / "hosts.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=message):
        hosts.listed(tmp_path / "hosts.json")


def test_what_each_machine_is_told(tmp_path, monkeypatch):
    """Ring: the addresses of all. NCCL: the first one's, and a GPU for each rank of a machine. Cores are shared out."""
    several = [{"ssh": "a", "ips": ["10.0.0.1"]}, {"ssh": "a", "ips": ["10.0.0.1"]}, {"ssh": "b", "ips": ["10.0.0.2"]}]
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"backend": "ring", "hosts": several}))
    rank, _, last = hosts.listed(file)
    assert json.loads(rank.meeting) == [["10.0.0.1:32323"], ["10.0.0.1:32324"], ["10.0.0.2:32325"]]
    assert last.environment["MLX_RANK"] == "2"
    assert last.command(["train", "it's.toml"], tmp_path)[-2] == "b"
    file.write_text(json.dumps({"backend": "nccl", "hosts": several}))
    told = [place.environment for place in hosts.listed(file)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in told] == ["0", "1", "0"]
    assert {(each["NCCL_HOST_IP"], each["MLX_WORLD_SIZE"]) for each in told} == {("10.0.0.1", "3")}
    monkeypatch.setattr(hosts, "cores", lambda: 9)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    with ExitStack() as held:
        assert {place.environment["MKL_NUM_THREADS"] for place in hosts.here(4, held)} == {"2"}


def test_the_command_is_run_again_as_it_was_given():
    """But for the options that are the launcher's own."""
    seen = []

    @click.command()
    @click.argument("file", required=False)
    @click.option("--set", "assignments", multiple=True)
    @click.option("--force", is_flag=True)
    @click.option("--nproc", type=int)
    @click.option("--steps", type=int, default=3)
    @click.pass_context
    def verb(context, **_):
        seen.append(again(context, "nproc"))

    given = ["--force", "--set", "a=1 2", "--nproc=2", "--set=b='c'", "--", "-x.toml"]
    verb.main(given, "verb", standalone_mode=False)
    verb.main(["--steps", "3"], "verb", standalone_mode=False)
    assert seen == [["verb", "--set=a=1 2", "--set=b='c'", "--force", "--", "-x.toml"], ["verb", "--steps=3", "--"]]


class Recording(Ranks):
    """The first of two ranks, which notes what it compares; the other has another `wrong`."""

    def __init__(self, wrong=None):
        super().__init__()
        self.size, self.wrong, self.texts = 2, wrong, []

    def differing(self, text):
        self.texts.append(text)
        return [1] if text == self.wrong else []


def test_ranks_that_begin_elsewhere_are_refused(folder):
    """Another config, corpus, step or weights on one rank is told on all of them."""
    texts = []
    for assignments in ([], [], ["train.seed=1"]):
        job = main.started(folder / "tiny.toml", assignments, None, False)
        job.trainer.ranks = Recording()
        together.check_same(job.trainer, job.material.identity)
        texts.append(job.trainer.ranks.texts)
    assert texts[0] == texts[1]
    assert [a == b for a, b in zip(texts[0], texts[2], strict=True)] == [False, True, True, False]
    job.trainer.ranks = Recording(wrong=job.material.identity)
    with pytest.raises(ConfigError, match="rank 1 of 2 has another corpus than rank 0. All ranks need the same"):
        job.run()
    assert not checkpoints(job.path)


def test_what_cannot_be_saved_is_told(folder, monkeypatch):
    """Before the first step, where the disk is full, and where a lost rank had a part of the weights."""
    job = main.started(folder / "tiny.toml", ["train.max_steps=1", "train.checkpoint_interval=5"], None, False)
    lost = LostRankError("rank 0 of 2 lost another rank")
    assert "before step 1 was finished" in str(job.rescued(lost))
    job.trainer.step = 1

    def full(*_):
        raise CheckpointError("could not write x: No space left on device")

    monkeypatch.setattr(job.directory, "on_checkpoint", full)
    assert "Step 1 could not be saved: could not write x: No space left" in str(job.rescued(lost))
    job.trainer.update.shards = object()
    assert "with it a part of the weights: only checkpoints are left" in str(job.rescued(lost))
    assert not checkpoints(job.path)
