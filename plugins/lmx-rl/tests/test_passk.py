"""What pass@k promises, as an estimate, as an evaluation of a model, and as a command."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import attrs
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner

from lmx_core import LanguageModel
from lmx_core.checkpoint import TOKENIZER, save_model
from lmx_core.continuations import Continuation
from lmx_core.data.tokenizers import ByteTokenizer, save_tokenizer
from lmx_core.errors import ConfigError, DataError, LmxError
from lmx_core.factories import make_config
from lmx_core.testing import conformance
from lmx_rl.cli.evaluate import evaluate, numbers
from lmx_rl.evaluation import evaluate_pass_at_k, interval, pass_at_k, pass_hat_k, passk
from lmx_rl.evaluation.estimates import student_quantile
from lmx_rl.problems import Case, Problem, generate, write_problems
from lmx_rl.sandbox import Isolation, Outcome, Returned

pytestmark = pytest.mark.once

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "pass_at_k.npz"

# estimates


@pytest.mark.skipif(not VECTORS.exists(), reason="the reference numbers are not beside the project")
def test_pass_at_k_is_that_of_exact_arithmetic():
    with np.load(VECTORS) as data:
        n, c, k = data["in.n_c_k"].T
        np.testing.assert_allclose(pass_at_k(n, c, k), data["out.pass_at_k"], rtol=1e-9, atol=1e-12)


def exact(n, c, k):
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def test_pass_at_k_of_every_small_number_and_of_large_ones():
    """To the last digits, of chances near 0 too."""
    small = [(n, c, k) for n in range(1, 13) for c in range(n + 1) for k in range(1, n + 1)]
    large = [(200, 13, 100), (1000, 1, 3), (10_000, 2, 5), (5000, 2500, 7), (3000, 1500, 1500), (10**6, 3, 2)]
    for n, c, k in [*small, *large]:
        assert pass_at_k(n, c, k) == pytest.approx(exact(n, c, k), rel=1e-13, abs=0)
        assert pass_hat_k(n, c, k) == pytest.approx(float(Fraction(math.comb(c, k), math.comb(n, k))), rel=1e-12, abs=0)
    assert pass_at_k(10, 3, 2) == pytest.approx(0.5333333333333333, rel=1e-15)
    assert pass_at_k(10**9, 1, 1) == 1e-9
    assert pass_at_k(10**9, 5 * 10**8, 5 * 10**8) == 1.0
    assert pass_hat_k(10**9, 5 * 10**8, 5 * 10**8) == 0.0


def test_pass_at_k_is_the_mean_over_all_ways_to_choose():
    tries = [True, False, False, True, False, False, False]
    for k in range(1, 8):
        chosen = [any(each) for each in itertools.combinations(tries, k)]
        all_of = [all(each) for each in itertools.combinations(tries, k)]
        assert pass_at_k(7, 2, k) == pytest.approx(np.mean(chosen), rel=1e-14)
        assert pass_hat_k(7, 2, k) == pytest.approx(np.mean(all_of), rel=1e-14)


def test_arrays_are_broadcast_and_numbers_are_floats():
    found = pass_at_k(10, np.array([0, 3, 10]), np.array([[1], [2]]))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, [[0, 0.3, 1], [0, 0.5333333333333333, 1]], rtol=1e-15)
    assert type(pass_at_k(np.int64(10), 3, 1)) is float


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((5, 2, 6), "k=6 of n=5 samples: k must be from 1 to n. Draw more samples, or ask for a smaller k."),
        ((5, 2, 0), "k=0 of n=5"),
        ((0, 0, 1), "k=1 of n=0"),
        ((5, 6, 1), "c=6 of n=5 samples passed: c must be from 0 to n"),
        ((5, -1, 1), "c=-1 of n=5"),
        ((5.0, 1, 1), "they must be whole numbers"),
        (([5, 5], [1, 6], 1), "c=6 of n=5"),
    ],
)
@pytest.mark.parametrize("chance", [pass_at_k, pass_hat_k])
def test_numbers_that_make_no_sense_are_refused(chance, numbers, message):
    with pytest.raises(ConfigError, match=message):
        chance(*numbers)


def test_students_quantile():
    """As in every table of it."""
    table = {
        1: 12.706204736,
        2: 4.302652730,
        3: 3.182446305,
        4: 2.776445105,
        9: 2.262157163,
        30: 2.042272456,
        163: 1.974624621,
    }
    for degrees, value in table.items():
        assert student_quantile(0.975, degrees) == pytest.approx(value, rel=1e-9)
    stats = pytest.importorskip("scipy.stats")
    for degrees, p in itertools.product((1, 2, 5, 8, 100, 999), (0.6, 0.95, 0.999)):
        assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-9)


def test_the_interval_of_ones_and_noughts_is_wilsons():
    """With Student's quantile, and of as many trials as give the sample variance of the mean."""
    z, n, m = student_quantile(0.975, 9), 9, 0.3
    centre, half = (
        (m + z * z / 2 / n) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(m * (1 - m) / n + (z / 2 / n) ** 2),
    )
    assert interval([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]) == pytest.approx((centre - half, centre + half), rel=1e-12)


def test_the_interval_is_as_wide_as_it_should_be():
    """Where all values are equal it still says how few they are; of many it is that of the normal distribution."""
    assert interval([]) == interval([0.5]) == (0.0, 1.0)
    for count in (2, 5, 20, 500):
        low, high = interval([0.0] * count)
        z = student_quantile(0.975, count - 1)
        assert low == 0
        assert high == pytest.approx(z * z / (count + z * z))
        assert interval([1.0] * count) == pytest.approx((1 - high, 1))
    values = np.random.default_rng(0).beta(2, 3, 5000)
    error = 1.96 * values.std(ddof=1) / math.sqrt(5000)
    assert interval(values.tolist()) == pytest.approx((values.mean() - error, values.mean() + error), abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "count", "k"), [((0.3, 2), 5, 1), ((0.3, 2), 20, 5), ((1, 1), 10, 1), ((0.1, 3), 10, 1)]
)
def test_the_interval_holds_the_truth_nineteen_times_of_twenty(shape, count, k):
    """Problems with chances drawn from a beta distribution, 10 samples of each; the chance of a set of problems is drawn
    again 1000 times. What misses may be one in twelve, the rest of what a bootstrap misses of so few problems."""
    draw = np.random.default_rng(1)
    chances = draw.beta(*shape, (1000, count))
    truth = float(np.mean(1 - (1 - draw.beta(*shape, 200_000)) ** k))
    values = pass_at_k(10, draw.binomial(10, chances), k)
    bounds = np.array([interval(row.tolist()) for row in values])
    assert np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])) > 11 / 12


# evaluation


def problem(i, kind="a"):
    return Problem(
        task_id=f"{kind}/{i}",
        prompt=f"def f{i}(x):\n",
        function=f"f{i}",
        tests=[Case(args=[2], expected=2 + i)],
        kind=kind,
    )


PROBLEMS = [problem(1), problem(2), problem(30), problem(4, "b")]


class Scripted:
    """Stands for `continuations`: what it draws depends on the prompt and the seed alone, and it keeps how it was asked."""

    def __init__(self, monkeypatch, draw):
        self.draw, self.calls = draw, []
        monkeypatch.setattr(passk, "continuations", self)

    def __call__(self, model, prompts, *, repeats, seeds, stop, max_tokens, **sampling):
        self.calls.append((len(prompts), repeats, max_tokens, sampling))
        assert len(seeds) == len(prompts) * repeats
        rows = [
            (bytes(prompt).decode(), seed)
            for i, prompt in enumerate(prompts)
            for seed in seeds[i * repeats : (i + 1) * repeats]
        ]
        drawn = [(self.draw(*row).encode(), row[1] % 2 == 0) for row in rows]
        return [Continuation([*text, 0] if ended else [*text], ended) for text, ended in drawn]


class Model:
    config = None

    def room_after(self, prompt, wanted):
        return wanted


def of(prompt):
    return int(prompt.partition("(")[0].removeprefix("def f"))


def right_for_two_thirds(prompt, seed):
    return f"    return x + {of(prompt)}\n" if seed % 3 else "    return x\n"


class Fake:
    """A sandbox that knows only adding; `unknown` says for a source what it cannot run."""

    isolation = Isolation.SYSTEM

    def __init__(self, unknown=lambda source: False):
        self.unknown, self.ran, self.closed = unknown, 0, False

    def run(self, programs):
        self.ran += len(programs)
        return [self._outcome(each) for each in programs]

    def _outcome(self, program):
        if self.unknown(program.source):
            return Outcome(status="unsupported", detail="no such thing")
        added = program.source.partition("return x")[2].strip(" +\n")
        return Outcome(status="done", returned=[Returned(value=program.calls[0].args[0] + int(added or 0))])

    def close(self):
        self.closed = True


def evaluated(**options):
    options = {"samples": 6, "ks": (1, 5), "sandbox": Fake(), **options}
    return evaluate_pass_at_k(Model(), ByteTokenizer(), options.pop("problems", PROBLEMS), **options)


def seeds_of(place, samples=6, seed=0):
    return [int(np.random.SeedSequence([seed, place, i]).generate_state(1, np.uint64)[0]) for i in range(samples)]


def test_samples_are_counted_and_estimated(monkeypatch):
    drawn = Scripted(monkeypatch, right_for_two_thirds)
    sandbox = Fake()
    found = evaluated(sandbox=sandbox, temperature=0.5, top_p=None, max_tokens=7)
    passed = [sum(seed % 3 != 0 for seed in seeds_of(i)) for i in range(4)]
    assert len({*passed}) > 1
    assert [each.task_id for each in found.problems] == ["a/1", "a/2", "a/30", "b/4"]
    assert [each.outcomes for each in found.problems] == [
        {k: v for k, v in {"passed": c, "wrong": 6 - c}.items() if v} for c in passed
    ]
    assert [each.cut for each in found.problems] == [sum(seed % 2 for seed in seeds_of(i)) for i in range(4)]
    for k in (1, 5):
        values = [exact(6, c, k) for c in passed]
        estimate = found.estimate(k)
        assert estimate.value == pytest.approx(np.mean(values))
        assert (estimate.low, estimate.high) == pytest.approx(interval(values))
        assert estimate.all_pass == pytest.approx(np.mean([math.comb(c, k) / math.comb(6, k) for c in passed]))
        assert estimate.problems == 4
    assert found.by_kind()["b"][0].value == pytest.approx(passed[3] / 6)
    assert drawn.calls == [(4, 6, 7, {"temperature": 0.5, "top_p": None})]
    assert sandbox.ran == sum(len({seed % 3 != 0 for seed in seeds_of(i)}) for i in range(4))  # equal ones once
    assert not sandbox.closed


@pytest.mark.parametrize("broken", [False, True])
def test_sandboxes_that_were_opened_for_it_are_closed(monkeypatch, broken):
    """Also where something goes wrong."""
    Scripted(monkeypatch, right_for_two_thirds)
    sandboxes = [Fake(), Fake()]
    monkeypatch.setattr(passk, "open_sandboxes", lambda *_: sandboxes)
    with pytest.raises(ZeroDivisionError) if broken else nullcontext():
        evaluated(sandbox="process", progress=lambda _: 1 / (not broken))
    assert all(each.closed for each in sandboxes)


def test_none_is_opened_for_what_cannot_be_asked(monkeypatch):
    """Nobody would close it."""
    monkeypatch.setattr(passk, "open_sandboxes", lambda *_: pytest.fail("opened"))
    with pytest.raises(DataError, match="ByteTokenizer has none"):
        evaluated(sandbox="process", chat=True)


def test_samples_do_not_depend_on_what_is_drawn_with_them(monkeypatch):
    drawn = Scripted(monkeypatch, right_for_two_thirds)
    whole = evaluated()
    assert evaluated(rows=4) == whole
    assert [call[:2] for call in drawn.calls[1:]] == [(1, 4), (1, 2)] * 4
    told = []
    assert evaluated(rows=12, progress=lambda scores: told.append([each.task_id for each in scores])) == whole
    assert told == [["a/1", "a/2"], ["b/4", "a/30"]]
    assert evaluated(seed=1) != whole


def test_samples_that_cannot_be_judged_are_left_out(monkeypatch):
    Scripted(monkeypatch, right_for_two_thirds)
    found = evaluated(sandbox=Fake(lambda source: "def f2(" in source or source.endswith("return x\n")))
    assert found.unknown == 6 + sum(seed % 3 == 0 for i in (0, 2, 3) for seed in seeds_of(i))
    assert found.problems[1].known == 0
    assert found.problems[1].detail == "no such thing"
    first = found.estimate(1)
    assert (first.value, first.problems) == (1.0, 3)
    assert (found.estimate(5) or first).problems == sum(each.known >= 5 for each in found.problems)
    nothing = evaluated(sandbox=Fake(lambda source: True))
    assert nothing.estimates() == []
    assert nothing.unknown == 24


def test_a_table_of_json_comes_of_it(monkeypatch):
    Scripted(monkeypatch, right_for_two_thirds)
    found = json.loads(json.dumps(evaluated().plain(), allow_nan=False))
    assert found["complete"] is True
    assert [each["k"] for each in found["pass_at_k"]] == [1, 5]
    row = found["problems"][0]
    assert row["pass_at_k"] == {"1": pytest.approx(row["c"] / 6), "5": pytest.approx(exact(6, row["c"], 5))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": (1, 7)}, "k=7 needs as many samples of each problem, got samples=6"),
        ({"ks": ()}, "k must be at least 1, got none"),
        ({"ks": (0,)}, "k must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature=0 draws one text alone, which says nothing of k=5"),
    ],
)
def test_what_cannot_be_estimated_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        evaluated(**options)


def test_as_many_samples_as_the_ks_ask_for(monkeypatch):
    drawn = Scripted(monkeypatch, right_for_two_thirds)
    evaluated(samples=None, ks=(1, 4))
    evaluated(samples=None, ks=(1,), temperature=0.0)
    assert [call[1] for call in drawn.calls] == [8, 1]


# the command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that knows one solution by heart, saved with its tokenizer."""
    mx.random.seed(0)
    made = LanguageModel(make_config("llama", "tiny", vocab_size=256, max_seq_len=256))
    prompt, body = 'def f(x):\n    """Add 3."""\n', "    return x + 3\n\n"
    tokens = mx.array([list((prompt + body).encode())])
    optimizer = optim.Adam(learning_rate=3e-3)

    def loss(made):
        return nn.losses.cross_entropy(made(tokens[:, :-1])[0], tokens[:, 1:], reduction="mean")

    step = nn.value_and_grad(made, loss)
    for _ in range(80):
        value, gradients = step(made)
        optimizer.update(made, gradients)
        mx.eval(made.parameters(), optimizer.state)
        if value.item() < 0.01:
            break
    assert value.item() < 0.05
    folder = tmp_path_factory.mktemp("solver") / "model"
    save_model(made, folder)
    save_tokenizer("bytes", ByteTokenizer(), folder / TOKENIZER)
    known = Problem(task_id="known", prompt=prompt, function="f", tests=[Case(args=[4], expected=7)], kind="known")
    write_problems(folder.parent / "problems.jsonl", [known, *generate(kinds=["lists.sums"], per_kind=2)])
    return folder


LMX = [sys.executable, "-m", "lmx_core"]
OPTIONS = ["--sandbox", "process", "--minimum-isolation", "process", "--max-tokens", "20"]


def run(model, *options, problems=None):
    file = problems or str(model.parent / "problems.jsonl")
    return CliRunner().invoke(evaluate, ["passk", str(model), "--problems", file, *OPTIONS, *options])


@conformance("command.lmx-rl/eval")
def test_eval_keeps_the_promises_of_a_command(check):
    check()


def test_what_a_model_knows_by_heart_passes(model):
    found = run(model, "--temperature", "0", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert {each["task_id"]: each["c"] for each in told["problems"]} == {
        "known": 1,
        "lists.sums/1/0": 0,
        "lists.sums/2/0": 0,
    }
    assert told["pass_at_k"][0]["value"] == pytest.approx(1 / 3)
    shown = run(model, "--temperature", "0")
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0][:3] == ["KIND", "K", "PASS@K"]
    assert [line[:3] for line in lines[1:]] == [
        ["all", "1", "0.333"],
        ["known", "1", "1.000"],
        ["lists.sums", "1", "0.000"],
    ]
    assert "samples reached --max-tokens" in shown.stderr


def test_a_model_that_knows_nothing_scores_0(tmp_path):
    made = LanguageModel(make_config("llama", "tiny", vocab_size=256, max_seq_len=600))
    save_model(made, tmp_path / "model")
    save_tokenizer("bytes", ByteTokenizer(), tmp_path / "model" / TOKENIZER)
    found = run(tmp_path / "model", "--k", "1,2", "--samples", "2", "--json", problems="handwritten")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert [(each["k"], each["value"], each["problems"]) for each in told["pass_at_k"]] == [(1, 0.0, 22), (2, 0.0, 22)]
    assert told["samples"] == 44


class Stopping:
    """`continuations` that Ctrl-C ends at a call."""

    def __init__(self, monkeypatch, at):
        self.left, self.draw = at, passk.continuations
        monkeypatch.setattr(passk, "continuations", self)

    def __call__(self, *args, **options):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.draw(*args, **options)


def test_what_is_done_when_it_is_stopped_is_kept_and_gone_on_with(model, tmp_path, monkeypatch):
    """The results are those of a run that was not stopped, and nothing is drawn again."""
    options = ["--k", "1,2", "--samples", "33"]
    out, whole = tmp_path / "results.json", tmp_path / "whole.json"
    assert run(model, *options, "--out", str(whole)).exit_code == 0
    with monkeypatch.context() as patch:
        Stopping(patch, at=2)
        stopped = run(model, *options, "--out", str(out))
    assert stopped.exit_code == 130
    assert f"Stopped after 2 of 3 problems. {out} has what is done; the same command goes on." in stopped.stderr
    kept = json.loads(out.read_text())
    assert (kept["complete"], len(kept["problems"])) == (False, 2)
    with monkeypatch.context() as patch:
        Stopping(patch, at=1)
        assert run(model, *options, "--out", str(out)).exit_code == 0
    assert json.loads(out.read_text()) == json.loads(whole.read_text())
    with monkeypatch.context() as patch:
        Stopping(patch, at=0)
        assert run(model, *options, "--out", str(out)).exit_code == 0
        assert "With --out FILE what is done would be kept." in run(model, *options).stderr


def test_results_are_of_these_weights_and_problems(model, tmp_path):
    """Which stand in the same places, and are others."""
    place, out, file = tmp_path / "model", tmp_path / "results.json", tmp_path / "problems.jsonl"
    shutil.copytree(model, place)
    write_problems(file, PROBLEMS[:1])
    options = ["--out", str(out), "--samples", "1", "--max-tokens", "1"]
    assert run(place, *options, problems=str(file)).exit_code == 0
    write_problems(file, [attrs.evolve(PROBLEMS[0], tests=[Case(args=[2], expected=4)])])
    other = run(place, *options, problems=str(file))
    assert "has results with problems" in str(other.exception)
    write_problems(file, PROBLEMS[:1])
    save_model(LanguageModel(make_config("llama", "tiny", vocab_size=256, max_seq_len=256)), place)
    other = run(place, *options, problems=str(file))
    assert "has results with weights" in str(other.exception)


def test_results_of_something_else_are_not_overwritten(model, tmp_path):
    out = tmp_path / "results.json"
    assert run(model, "--out", str(out)).exit_code == 0
    before = out.read_text()
    other = run(model, "--out", str(out), "--temperature", "0.5")
    assert isinstance(other.exception, ConfigError)
    assert "has results with temperature: 0.8, and now it is 0.5. Give another name" in str(other.exception)
    assert out.read_text() == before
    out.write_text("[]")
    assert "holds no results of this command" in str(run(model, "--out", str(out)).exception)
    assert out.read_text() == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--problems", "none.jsonl"], "cannot read none.jsonl: No such file or directory."),
        (["--k", "1,x"], "--k '1,x': write whole numbers with commas between"),
        (["--k", "2", "--samples", "1"], "k=2 needs as many samples of each problem, got samples=1"),
        (["--sandbox", "proces"], "no sandbox named 'proces'. Did you mean 'process'?"),
        (["--sandbox", "unsafe"], 'sandbox "unsafe" obtains isolation none on this machine'),
    ],
)
def test_mistakes_are_named(model, words, message):
    found = run(model, *words)
    assert isinstance(found.exception, LmxError)
    assert message in str(found.exception)


def test_a_mistake_is_one_message_and_exit_code_2(tmp_path):
    words = ["eval", "passk", str(tmp_path / "none"), "--problems", "handwritten"]
    done = subprocess.run([*LMX, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupt_of_the_process_loses_nothing(model, tmp_path):
    """A real one, in its own group, as a terminal sends it; left alone, the run would end by itself before long."""
    out = tmp_path / "results.json"
    write_problems(tmp_path / "many.jsonl", generate(per_kind=2))
    words = ["eval", "passk", str(model), "--problems", str(tmp_path / "many.jsonl"), *OPTIONS[:4], "--samples", "64"]
    words += ["--max-tokens", "20", "--out", str(out)]
    listening = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # as in a terminal
    listening += "runpy.run_module('lmx_core', run_name='__main__', alter_sys=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", listening, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 120
        while not out.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, error
    assert b"Stopped after" in error
    assert b"Traceback" not in error
    kept = json.loads(out.read_text())
    assert 1 <= len(kept["problems"]) < 60
    assert all(each["n"] == 64 for each in kept["problems"])


def test_ks_are_read():
    assert numbers("10,1, 5,1") == [1, 5, 10]
