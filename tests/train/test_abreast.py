"""Rows of a batch side by side give what the batch gives at once."""

import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import wait

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, build, make_config, spec
from lmx_core.train import abreast
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step

pytestmark = pytest.mark.skipif(
    mx.default_device() != mx.Device(mx.cpu) or abreast._threads() is None,
    reason="needs MLX on a CPU, with MKL or OpenBLAS",
)
ROWS, LENGTH = 4, 16


@pytest.fixture
def two(monkeypatch):
    """Two cores, and a batch of any size is worth it."""
    monkeypatch.setattr(abreast, "_cores", lambda: 2)
    monkeypatch.setattr(abreast, "LEAST", 0)


@pytest.fixture
def counted(monkeypatch):
    """How many parts were computed."""
    calls = []
    found = abreast.Abreast._found
    monkeypatch.setattr(
        abreast.Abreast, "_found", lambda self, *a: calls.append(threading.get_ident()) or found(self, *a)
    )
    return calls


def model_of(**more):
    mx.random.seed(0)
    model = LanguageModel(make_config("llama", size="tiny", **more))
    mx.eval(model.parameters())
    return model


def step_of(model, change=lambda objective: objective, **more):
    """A step by the usual objective, or by what `change` makes of it."""
    config = TrainConfig(optimizer=spec("sgd", momentum=0.0), **more)
    objective, optimizer = (build(kind, getattr(config, kind), config) for kind in ("objective", "optimizer"))
    changed = change(objective)
    if changed is not objective:
        changed.by_rows = True
    return Step(model, changed, optimizer, config)


def stepped(step, steps=3):
    return [step([micro(step.model, i)], 1e-2) for i in range(steps)]


def micro(model, seed, rows=ROWS, mask=True):
    tokens = mx.random.randint(0, model.config.vocab_size, (rows, LENGTH + 1), key=mx.random.key(seed))
    ragged = {"mask": mx.arange(LENGTH) >= 3 * mx.arange(rows)[:, None]} if mask else {}
    return Micro({"inputs": tokens[:, :-1], "targets": tokens[:, 1:], **ragged}, seed)


def test_parts_give_what_the_whole_gives(two, counted, monkeypatch):
    """Rows that count different numbers of tokens; losses, norms and weights after three steps."""
    model = model_of()
    found = stepped(step_of(model))
    assert len(counted) == 6
    assert len(set(counted)) == 2
    monkeypatch.setattr(abreast, "_cores", lambda: 1)
    whole = model_of()
    expected = stepped(step_of(whole))
    assert len(counted) == 6
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-5)
    before = dict(tree_flatten(model_of().parameters()))
    for (path, one), (_, other) in zip(tree_flatten(model.parameters()), tree_flatten(whole.parameters()), strict=True):
        assert mx.abs(one - other).max().item() <= 2e-5, path
        assert not mx.array_equal(one, before[path]), path


def test_a_resumed_run_is_the_same_to_the_bit(two, counted):
    """The first update of a step that is new, as that of one that has been used."""
    model, resumed = model_of(), model_of()
    step = step_of(model)
    step([micro(model, 0)], 1e-2)
    resumed.update(model.parameters())
    for each in (step, step_of(resumed)):
        each([micro(model, 1)], 1e-2)
    assert len(counted) == 6
    for (path, one), (_, other) in zip(
        tree_flatten(model.parameters()), tree_flatten(resumed.parameters()), strict=True
    ):
        assert mx.array_equal(one, other), path


def test_weights_that_nobody_has_looked_at(two, counted):
    """Of a second model, which the objective reads: lazy arrays belong to the thread that began them."""
    other = LanguageModel(make_config("llama", size="tiny"))

    def beside(objective):
        def of_batch(model, batch):
            total, count, metrics = objective(model, batch)
            return total + objective(other, batch)[0], count, metrics

        return of_batch

    stepped(step_of(model_of(), beside), steps=1)
    assert counted


def test_dropout_differs_from_part_to_part_and_not_from_run_to_run(two, counted):
    """Rows that are alike would else be dropped alike; what is drawn before does not change it."""
    found = []
    for draws in (0, 3):
        model = model_of(dropout=0.5)
        [mx.eval(mx.random.uniform()) for _ in range(draws)]
        step, row = step_of(model), micro(model, 0, rows=1, mask=False).arrays
        twice = Micro({name: mx.concatenate([each, each]) for name, each in row.items()}, 7)
        losses = [[part[0].item() for part in step._found(twice)] for _ in range(2)]
        assert losses[0] == losses[1]
        assert losses[0][0] != losses[0][1]
        found.append(losses)
    assert found[0] == found[1]
    assert len(counted) == 8


def test_numbers_drawn_later_do_not_depend_on_it(two, counted):
    mx.random.seed(5)
    expected = mx.random.uniform().item()
    step = step_of(model_of(dropout=0.5))
    mx.random.seed(5)
    stepped(step, steps=1)
    assert counted
    assert mx.random.uniform().item() == expected


def test_what_is_not_finite_is_left_out(two, counted):
    """Also where only the last row's part is not."""

    def broken(objective):
        def of_batch(model, batch):
            total, count, metrics = objective(model, batch)
            return total * mx.log(mx.where(batch["inputs"].max() == 0, -1.0, math.e)), count, metrics

        return of_batch

    model = model_of()
    step = step_of(model, broken)
    stepped(step, steps=1)
    before = {path: each + 0 for path, each in tree_flatten(model.parameters())}
    batch = micro(model, 9).arrays
    found = step([Micro({**batch, "inputs": batch["inputs"] * (mx.arange(ROWS) < ROWS // 2)[:, None]}, 0)], 1e-2)
    assert len(counted) == 4
    assert found["loss"] != found["loss"]
    for path, each in tree_flatten(model.parameters()):
        assert mx.array_equal(each, before[path]), path


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_is_raised_here_and_leaves_the_weights(cores, two, monkeypatch):
    """Of a trace, whose weights are no numbers; the threads go on."""
    monkeypatch.setattr(abreast, "_cores", lambda: cores)

    def failing(objective):
        def of_batch(model, batch):
            if len(batch["inputs"]) > 1:
                raise ValueError("no")
            return objective(model, batch)

        return of_batch

    model = model_of()
    with pytest.raises(ValueError, match="no"):
        stepped(step_of(model, failing), steps=1)
    for (path, one), (_, other) in zip(
        tree_flatten(model.parameters()), tree_flatten(model_of().parameters()), strict=True
    ):
        assert mx.array_equal(one, other), path
    stepped(step_of(model))


def test_an_error_waits_for_the_other_parts(two):
    """A thread that were still at work would find the model changed under its hands."""
    began, ended = [], []

    def failing(objective):
        def of_batch(model, batch):
            if threading.current_thread() is not threading.main_thread():
                began.append(1)
                if len(began) == 1:
                    raise ValueError("no")
                time.sleep(0.3)
                ended.append(1)
            return objective(model, batch)

        return of_batch

    with pytest.raises(ValueError, match="no"):
        stepped(step_of(model_of(), failing), steps=1)
    assert ended == [1]


def test_an_interrupt_waits_for_the_parts(two, monkeypatch):
    """A thread that is at work when Python ends would take it down."""
    waited = []

    def interrupted(futures):
        waited.append(futures)
        if len(waited) == 1:
            raise KeyboardInterrupt
        return wait(futures)

    monkeypatch.setattr(abreast, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stepped(step_of(model_of()), steps=1)
    assert all(each.done() for each in waited[0])


def test_weights_that_were_changed_between_steps(two, counted):
    """Lazily, as a callback does that loads or shrinks them."""
    model = model_of()
    step = step_of(model)
    stepped(step, steps=1)
    model.update(tree_map(lambda weight: weight * 0.5, model.parameters()))
    other = model_of()
    other.update(model.parameters())
    found, expected = stepped(step, steps=1), stepped(step_of(other, compile=False), steps=1)
    assert len(counted) == 4
    assert found[0] == pytest.approx(expected[0], rel=2e-5)


def test_products_take_their_share_of_the_cores(two, monkeypatch):
    """While parts are computed, in what comes before and after, and no longer."""
    shares = []
    monkeypatch.setattr(abreast, "_cores", lambda: 8)
    monkeypatch.setattr(abreast, "_threads", lambda: (lambda: 8, shares.append))
    found = abreast.Abreast._found
    monkeypatch.setattr(abreast.Abreast, "_found", lambda self, *a: shares.append("part") or found(self, *a))
    step = step_of(model_of())
    monkeypatch.setattr(step, "_norm", lambda gradients: shares.append("norm") or mx.array(1.0))
    step._to_compile = False
    step._gradients = step._compiled_gradients()
    stepped(step, steps=1)
    assert shares == [2, *["part"] * 4, "norm", 8]


def test_there_are_as_many_cores_as_the_blas_takes_threads():
    script = "from lmx_core.train import abreast; print(abreast._cores())"
    for wish in ("1", "2"):
        environ = {**os.environ, "OMP_NUM_THREADS": wish, "MKL_NUM_THREADS": "", "OPENBLAS_NUM_THREADS": ""}
        done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, env=environ)
        assert int(done.stdout) <= int(wish), done.stderr


def test_a_batch_that_cannot_be_cut_stays_whole(two, counted, monkeypatch):
    model = model_of()
    size = 10**6
    arrays = dict(micro(model, 0).arrays)
    assert abreast.parts_of(arrays, size) == 2
    assert abreast.parts_of({name: each[:1] for name, each in arrays.items()}, size) == 1
    assert abreast.parts_of({name: each[:3] for name, each in arrays.items()}, size) == 1
    assert abreast.parts_of({**arrays, "more": mx.array(1.0)}, size) == 1
    assert abreast.parts_of({**arrays, "more": mx.zeros((2,))}, size) == 1
    assert abreast.parts_of({name: each[:0] for name, each in arrays.items()}, size) == 1
    assert abreast.parts_of({}, size) == 1
    assert abreast.parts_of(arrays, abreast.LARGEST + 1) == 1
    monkeypatch.setattr(abreast, "_cores", lambda: 64)
    assert abreast.parts_of({name: mx.concatenate([each] * 16) for name, each in arrays.items()}, size) == abreast.MOST
    monkeypatch.setattr(abreast, "LEAST", 10**9)
    assert abreast.parts_of(arrays, size) == 1
    stepped(step_of(model), steps=2)
    assert not counted


def test_a_step_that_is_not_compiled_stays_whole(two, counted):
    stepped(step_of(model_of(), compile=False), steps=2)
    assert not counted


def test_a_model_whose_weights_are_shared_out_stays_whole(two):
    """Each of its blocks asks other ranks for weights, in an order that is the same for all."""
    step = step_of(model_of())
    batch = micro(step.model, 0)
    assert step._parts(batch) == 2
    step.shards = object()
    assert step._parts(batch) == 1


def test_frozen_weights_count(two):
    """Each part rounds them for itself, and has a trace with all of them."""
    model = model_of()
    whole = step_of(model).size
    model.freeze()
    model.layers[0].unfreeze()
    assert step_of(model).size == whole


def test_an_objective_that_does_not_say_so_stays_whole(two, counted):
    """Its rows may belong together."""
    step = step_of(model_of(), lambda objective: lambda *batch: objective(*batch))
    assert step._rows_apart
    config = TrainConfig(optimizer=spec("sgd", momentum=0.0))
    objective = step.objective
    del objective.by_rows
    step = Step(step.model, objective, build("optimizer", config.optimizer, config), config)
    stepped(step)
    assert not counted


def test_a_model_that_reports_stays_whole(two, counted, monkeypatch):
    """What its reports are about is a batch: here, what a mixture of experts would balance."""

    def reporting(objective):
        def of_batch(model, batch):
            found = objective(model, batch)
            model["_report"] = {"balance_loss": mx.array(1.0)}
            return found

        return of_batch

    shares = []
    monkeypatch.setattr(abreast, "_threads", lambda: (lambda: 2, shares.append))
    found = stepped(step_of(model_of(), reporting))
    assert not counted
    assert not shares  # products have all cores
    assert all(1.0 in each.values() for each in found), found


def test_a_step_that_is_gone_leaves_nothing(two):
    model = model_of()
    step = step_of(model)
    stepped(step)
    gone = weakref.ref(step), weakref.ref(model)
    workers = abreast._all[:2]
    assert all(worker.made for worker in workers)
    del step, model
    gc.collect()
    until = time.monotonic() + 10
    while any(worker.made for worker in workers) and time.monotonic() < until:
        time.sleep(0.01)
    gc.collect()
    assert not any(worker.made for worker in workers)
    assert [each() for each in gone] == [None, None]


SCRIPT = """
import gc
import mlx.core as mx
from lmx_core import LanguageModel, build, make_config, spec
from lmx_core.train import abreast
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step
abreast._cores, abreast.LEAST = lambda: 2, 0
model = LanguageModel(make_config("llama", size="tiny"))
config = TrainConfig()
objective, optimizer = (build(kind, getattr(config, kind), config) for kind in ("objective", "optimizer"))
step = Step(model, objective, optimizer, config)
tokens = mx.zeros((4, 9), mx.int32)
loss = step([Micro({"inputs": tokens, "targets": tokens}, 0)], 1e-3)["loss"]
print(loss > 0, [len(each.made) for each in abreast._all])
"""
DROPPED = "del step, model, objective, optimizer; gc.collect()"


@pytest.mark.parametrize("last", ["", DROPPED], ids=["kept", "dropped"])
def test_a_process_ends_well(last):
    """Traces of other threads are never let go of when Python is half gone."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-P", "-c", SCRIPT + last], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True [1, 1]\n", "")
