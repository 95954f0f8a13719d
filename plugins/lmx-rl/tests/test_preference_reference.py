"""The reference is the policy as it began, or another model, whatever the policy becomes."""

import mlx.core as mx
import numpy as np
import pytest

from lmx_core.checkpoint import save_model
from lmx_core.errors import ConfigError
from lmx_rl.logps import windows
from lmx_rl.preference import DPO, DPOOptions
from lmx_rl.preference.reference import Reference, logps_of
from lmx_rl.preference.rows import Row, Rows

from .preferred import Steps, expected, material_of, model_of, trainer_of

pytestmark = pytest.mark.once


def test_the_reference_stays_the_first_policy():
    """Through a run that moves the policy, whatever the batch; also that of what is held out."""
    model, material = model_of(), material_of(pairs=60, held_out=20)
    rows = {"train": material.train.rows, "validation": material.validation.rows}
    first = {name: expected(model, each) for name, each in rows.items()}
    trainer = trainer_of(DPO, DPOOptions(), model, material)
    trainer.run()
    for name, each in rows.items():
        numbers = np.random.default_rng(2).permutation(len(each))[:20]
        batch = each.batch(numbers)
        kept = trainer.source.reference.of(name, numbers, batch)
        for place, number in enumerate(numbers):
            np.testing.assert_allclose(kept[place][batch["mask"][place]], first[name][number], atol=1e-5)
    moved = expected(model, rows["train"])
    assert np.mean([np.abs(a - b).mean() for a, b in zip(moved, first["train"], strict=True)]) > 0.3


def test_another_model_is_the_reference(tmp_path):
    """From a folder, before the run or batch by batch: the same numbers, which are its own."""
    other = model_of(seed=5)
    save_model(other, tmp_path / "other")
    losses = []
    for precompute in (True, False):
        options = DPOOptions(reference=str(tmp_path / "other"), precompute=precompute)
        trainer = trainer_of(DPO, options, max_steps=5)
        steps = []
        trainer.callbacks.append(Steps(steps))
        trainer.run()
        losses.append([step["loss"] for step in steps])
        assert (trainer.source.reference.model is None) == precompute
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][0] != pytest.approx(np.log(2), abs=1e-4)
    rows = material_of().train.rows
    kept = Reference({"train": rows}, 8, str(tmp_path / "other"))
    kept.compute(other)
    for number, values in enumerate(expected(other, rows)):
        found = kept.values["train"][rows.firsts[number] : rows.firsts[number] + rows.targets[number]]
        np.testing.assert_allclose(found, values, atol=1e-5)


def test_the_reference_is_computed_once(tmp_path, monkeypatch):
    """The next run of the same model and rows takes it from the cache; another model, other rows, another precision do not;
    a damaged file is as good as none."""
    rows = material_of().train.rows
    model, counted = model_of(), []
    computed = Reference._computed
    monkeypatch.setattr(Reference, "_computed", lambda *args: counted.append(1) or computed(*args))

    def compute(model, rows, dtype="float32"):
        found = Reference({"train": rows}, 8)
        found.compute(model, dtype=dtype)
        return found.values["train"]

    first = compute(model, rows)
    assert (compute(model, rows) == first).all()
    assert len(counted) == 1
    compute(model_of(seed=3), rows)
    compute(model, material_of(pairs=10).train.rows)
    compute(model, rows, "bfloat16")
    assert len(counted) == 4
    files = list((tmp_path / "cache" / "reference").iterdir())
    assert len(files) == 4
    for file in files:
        file.write_bytes(b"nonsense")
    assert (compute(model, rows) == first).all()
    assert len(counted) == 5
    for file in files:
        mx.save_safetensors(str(file), {"train": mx.zeros(len(first) - 1)})
    assert (compute(model, rows) == first).all()
    assert len(counted) == 6


def test_a_reference_with_another_vocabulary_is_refused(tmp_path):
    save_model(model_of(vocabulary=20), tmp_path / "other")
    options = DPOOptions(reference=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"other knows 20 tokens, and the policy 16: both must read the same tokens"):
        trainer_of(DPO, options)
    with pytest.raises(ConfigError, match="precompute=false needs a reference"):
        trainer_of(DPO, DPOOptions(precompute=False))


def test_log_probabilities_are_those_of_all_logits():
    """What is computed of the completions alone, of a padded batch, is what the whole rows have, without dropout."""
    lengths = (4, 5), (0, 3), (9, 1)
    model = model_of(dropout=0.5)
    rows = Rows(Row(np.arange(prompt), np.arange(completion)) for prompt, completion in lengths)
    found = np.array(logps_of(model)(rows.batch([0, 1, 2])))
    for row, values in enumerate(expected(model, rows)):
        np.testing.assert_allclose(found[row, : len(values)], values, atol=1e-5)
        assert (found[row, len(values) :] == 0).all()


def test_windows_are_slices():
    """Each row from its own start; also their gradients, as far as they lie within the row."""
    draw = np.random.default_rng(0)
    hidden, weights = (mx.array(draw.normal(size=shape).astype(np.float32)) for shape in ((3, 7, 2), (3, 4, 2)))
    starts = mx.array([0, 3, 5])

    def plain(hidden):
        return mx.stack([hidden[i, start : start + 4] for i, start in enumerate([0, 3])])

    assert mx.array_equal(windows(hidden, starts, 4)[:2], plain(hidden)).item()
    assert mx.array_equal(windows(hidden, starts, 4)[2, :2], hidden[2, 5:]).item()
    found = mx.grad(lambda hidden: (windows(hidden, starts, 4) * weights).sum())(hidden)
    assert mx.array_equal(found[:2], mx.grad(lambda hidden: (plain(hidden) * weights[:2]).sum())(hidden)[:2]).item()
    assert mx.array_equal(found[2, 5:], weights[2, :2]).item()
    assert not found[2, :5].any().item()
