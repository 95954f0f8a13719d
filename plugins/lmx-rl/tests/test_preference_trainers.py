"""Trainers that learn from comparisons learn, and go on where they were."""

import os
import subprocess
import sys
from contextlib import ExitStack

import mlx.core as mx
import numpy as np
import pytest

from lmx_core import spec
from lmx_core.checkpoint import model_directory
from lmx_core.data.corpus import DataConfig
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import flat_parameters
from lmx_core.testing import conformance
from lmx_core.train import main
from lmx_core.train.parallel import hosts
from lmx_core.train.run import checkpoints
from lmx_rl.preference import (
    CPO,
    DPO,
    KTO,
    ORPO,
    Comparisons,
    CPOOptions,
    DPOOptions,
    KTOOptions,
    ORPOOptions,
    SimPO,
    SimPOOptions,
    pairs_of,
)

from .preferred import (
    Evaluations,
    Steps,
    config_of,
    expected,
    job_of,
    losses_in,
    material_of,
    model_of,
    some_pairs,
    trainer_of,
)

pytestmark = pytest.mark.once


READ = {"data": DataConfig(dataset=spec("addition", digits=1, held_out=20))}


RECIPES = [
    (DPO, DPOOptions()),
    (ORPO, ORPOOptions(beta=1.0)),
    (SimPO, SimPOOptions()),
    (CPO, CPOOptions(beta=1.0)),
    (KTO, KTOOptions(beta=0.5)),
]


recipes = pytest.mark.parametrize(("recipe", "options"), RECIPES, ids=lambda each: getattr(each, "__name__", ""))


@conformance("trainer.lmx-rl/dpo", config=READ)
def test_dpo_keeps_the_promises_of_a_component(check):
    check()


@conformance("trainer.lmx-rl/orpo", config=READ)
def test_orpo_keeps_them(check):
    check()


@conformance("trainer.lmx-rl/simpo", config=READ)
def test_simpo_keeps_them(check):
    check()


@conformance("trainer.lmx-rl/cpo", config=READ)
def test_cpo_keeps_them(check):
    check()


@conformance("trainer.lmx-rl/kto", config=READ)
def test_kto_keeps_them(check):
    check()


@recipes
def test_what_is_held_out_is_told_apart(recipe, options):
    """After 40 steps over 95 % of other pairs are in the right order; of CPO, to which a long completion is an unlikely one,
    after 80.
    """
    summary = trainer_of(recipe, options, max_steps=80 if recipe is CPO else 40).run()
    assert summary["val_accuracy"] > 0.95
    assert summary["val_margin"] > 0


@recipes
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
def test_micro_batches_are_one_batch(recipe, options, compiled):
    """Four of 4 pairs make the update of one of 16, in loss, metrics and weights; KTO's shift is that of each batch."""
    if recipe is KTO:
        options = KTOOptions(loss="apo_zero_unpaired")
    found, material = [], material_of(pairs=60, held_out=20, judged=recipe is KTO)
    for parts in (1, 4):
        train = {"batch_size": 16 // parts, "grad_accumulation_steps": parts, "max_steps": 3, "compile": compiled}
        trainer = trainer_of(recipe, options, None, material, optimizer=spec("adamw", eps=1e-4), **train)
        steps = []
        trainer.callbacks.append(Steps(steps))
        trainer.run()
        found.append((steps, flat_parameters(trainer.model)))
    (one, weights), (several, others) = found
    for a, b in zip(one, several, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"tokens_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5), name
    assert max(mx.abs(weights[name] - others[name]).max().item() for name in weights) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_policy_begins_at_the_reference(dtype):
    """Every log-ratio is 0 before the first step, whatever it computes in: the loss is ln 2."""
    trainer = trainer_of(DPO, DPOOptions(), eval_at_start=True, max_steps=2, dtype=dtype)
    seen = []
    trainer.callbacks.append(Evaluations(seen))
    steps = []
    trainer.callbacks.append(Steps(steps))
    trainer.run()
    assert seen[0]["val_loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert seen[0]["val_kl"] == pytest.approx(0, abs=1e-9)
    assert steps[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert steps[1]["loss"] < steps[0]["loss"]


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_a_run_goes_on_as_if_it_had_not_stopped(folder, name):
    """Bit for bit, with dropout and two micro-batches, from the first policy's reference, though the cache is gone."""
    straight = job_of(folder, name)
    straight.run()
    half = job_of(folder, name, "train.max_steps=7")
    half.run()
    for file in (folder / "cache" / "reference").iterdir():
        file.unlink()
    again = main.resumed(half.path, ["train.max_steps=12"])
    again.run()
    one, two = (mx.load(str(model_directory(each.path) / "model.safetensors")) for each in (straight, half))
    assert one.keys() == two.keys()
    assert all(mx.array_equal(one[key], two[key]).item() for key in one)
    assert losses_in(straight.path) == losses_in(half.path)
    assert len(losses_in(half.path)) == 12
    first, last = straight.trainer.source.reference.values, again.trainer.source.reference.values
    assert first.keys() == last.keys()
    assert all((first[table] == last[table]).all() for table in first)
    assert not list((folder / "cache" / "reference").iterdir())


def test_what_a_resumed_run_keeps(folder):
    begun = job_of(folder, "dpo", "train.max_steps=3")
    begun.run()
    with pytest.raises(ConfigError, match=r"train.trainer.loss cannot change when a run is resumed"):
        main.resumed(begun.path, ['train.trainer={ name = "dpo", loss = "ipo" }', "train.max_steps=9"])
    (checkpoints(begun.path)[-1] / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not have the reference's numbers of these 80 rows"):
        main.resumed(begun.path, ["train.max_steps=9"])


RANKS = """
import sys
import mlx.core as mx
sys.path.insert(0, sys.argv[2])
import preferred
from lmx_core import spec
from lmx_rl.preference import DPO, ORPO, DPOOptions, ORPOOptions
from lmx_core.model import flat_parameters
from lmx_core.train.parallel.ranks import from_environment

ranks = from_environment()
train = dict(max_steps=6, batch_size=8 // ranks.size, optimizer=spec("adamw", eps=1e-4))
for recipe, options in ((DPO, DPOOptions()), (ORPO, ORPOOptions())):
    material = preferred.material_of(pairs=60, held_out=20)
    trainer = recipe(preferred.config_of(**train), options).trainer(preferred.model_of(), material, ranks)
    summary = trainer.run()
    values = trainer.source.reference.values if trainer.source.reference else {}
    if ranks.rank == ranks.size - 1:
        found = {name: mx.array(summary[name]) for name in summary if name.startswith("val_")}
        kept = {f"reference.{name}": mx.array(value) for name, value in values.items()}
        mx.savez(f"{sys.argv[1]}-{recipe.__name__}.npz", **flat_parameters(trainer.model), **found, **kept)
"""


def test_two_ranks_are_one_with_the_double_batch(tmp_path):
    """Weights, evaluation and the reference's numbers, of which each rank computes a part."""
    command = [sys.executable, "-P", "-c", RANKS]
    tests = os.path.dirname(__file__)
    with ExitStack() as held:
        environments = [place.variables(tmp_path) for place in hosts.here(2, held)]
        several = [
            subprocess.Popen([*command, str(tmp_path / "two"), tests], env=os.environ | environment)
            for environment in environments
        ]
        try:
            assert [process.wait(90) for process in several] == [0, 0]
        finally:
            for process in several:
                process.kill()
                process.wait()
    cache = {"LMX_CACHE": str(tmp_path / "another")}
    subprocess.run([*command, str(tmp_path / "one"), tests], env=os.environ | cache, check=True, timeout=90)
    for name in ("DPO", "ORPO"):
        one, two = (dict(mx.load(str(tmp_path / f"{many}-{name}.npz"))) for many in ("one", "two"))
        assert one.keys() == two.keys()
        assert ("reference.train" in one) == (name == "DPO")
        assert max(mx.abs(one[key] - two[key]).max().item() for key in one) < 2e-5


def test_evaluations_read_the_first_and_the_last_reads_all():
    """Without dropout."""
    trainer = trainer_of(ORPO, ORPOOptions(eval_pairs=10), model_of(dropout=0.5))
    first, whole = (trainer.evaluator(trainer.model, final)["val_logp_chosen"] for final in (False, True))
    logps = expected(trainer.model, material_of().validation.rows)[::2]
    assert first == pytest.approx(np.mean([each.sum() for each in logps[:10]]), rel=1e-4)
    assert whole == pytest.approx(np.mean([each.sum() for each in logps]), rel=1e-4)


@pytest.mark.parametrize(
    "part",
    [
        'train.objective={ name = "next_token", z_loss = 1e-4 }',
        'data.source="padded"',
        'data.curriculum={ name = "length", steps = 9 }',
    ],
)
def test_parts_of_its_own_are_left_out(folder, part):
    with pytest.raises(ConfigError, match=r"train.trainer='dpo' has a \w+ of its own. Leave"):
        job_of(folder, "dpo", part)


def test_pairs_of_ones_own_need_no_file():
    """Nor a dataset, nor a run directory: as the documentation has it."""
    pairs = [*some_pairs(60)]
    material = Comparisons(
        tokenizer=ByteTokenizer(), train=pairs_of(pairs[:50], 16), validation=pairs_of(pairs[50:], 16)
    )
    summary = DPO(config_of(max_steps=3), DPOOptions(beta=0.2)).trainer(model_of(), material).run()
    assert summary["step"] == 3
    assert material.fingerprint() == {
        "train_pairs": 50,
        "validation_pairs": 10,
        "train_sha256": material.identity,
        "validation_sha256": material.held_out["all"],
    }
