"""A step of GRPO is that of its formula, written out slowly, and the policy learns what it is rewarded for."""

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, generate, spec
from lmx_core.data.corpus import DataConfig
from lmx_core.testing import conformance
from lmx_core.train.callback import Callback
from lmx_rl.policy import PolicyGradient

from .answered import (
    BLOCK,
    MODEL,
    Stop,
    material_of,
    model_of,
    options_of,
    rollout_of,
    same,
    some_prompts,
    trainer_of,
    weights_of,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("rewards")]


DATA = DataConfig(dataset=spec("addition", digits=1, held_out=20), tokenizer=spec("chars"))


ADDITION = {"rewards": [{"reward": "exact_match"}], "max_new_tokens": 3, "group_size": 4}


@conformance("trainer.lmx-rl/grpo", options={**ADDITION, "inner_epochs": 2, "beta": 0.1}, config={"data": DATA})
def test_grpo_keeps_the_promises_of_a_component(check):
    check()


def following(trainer):
    """The micro-batch of the next step."""
    found = trainer.source.batch(range(trainer.samples, trainer.samples + trainer.config.batch_size), trainer.step)
    return {name: mx.array(each) for name, each in found.items()}


def slow_logps(model, prompt, completion, temperature):
    """Of the tokens of one completion: the whole sequence, prompt included, is read, and all logits are there."""
    logits = model(mx.array([[*prompt, *completion]])[:, :-1])[0][0, len(prompt) - 1 :] / temperature
    logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return mx.stack([logps[i, token] for i, token in enumerate(completion)])


def without_prompt(model, prompt, completion, temperature):
    """A bug: the completion is read as if nothing had been asked."""
    return slow_logps(model, [0], completion, temperature)


def slow_gradients(trainer, rows, old, beta=0.0, reference=None, logps=slow_logps, whole=False):
    """Of mean over completions of mean over tokens of -min(r A, clip(r) A) + beta k3, one completion after another.

    `old` is the model whose probabilities the ratio is against; with `whole` the ratio is that of the completion.
    """
    rollout, temperature, model = trainer.source.rollout, trainer.source.options.temperature, trainer.model

    def loss(parameters):
        model.update(parameters)
        total = mx.array(0.0)
        for row in rows:
            prompt = trainer.source.prompts[int(rollout.prompts[row])].tokens.tolist()
            completion = rollout.tokens[row, : rollout.lengths[row]].tolist()
            new = logps(model, prompt, completion, temperature)
            ratio = mx.exp(new - logps(old, prompt, completion, temperature))
            if whole:
                ratio = mx.exp((new - logps(old, prompt, completion, temperature)).sum())
            gain = float(rollout.advantages[row])
            each = -mx.minimum(ratio * gain, mx.clip(ratio, 0.8, 1.2) * gain)
            if beta:
                d = logps(reference, prompt, completion, temperature) - new
                each = each + beta * (mx.exp(d) - d - 1)
            total = total + each.mean()
        return total / len(rows)

    before = model.trainable_parameters()
    found = mx.grad(loss)(before)
    model.update(before)
    return found


def distance(one, other):
    """How far two gradients are apart, as a share of the second one's length."""
    pairs = zip(tree_flatten(one), tree_flatten(other), strict=True)
    apart = [(mx.square(a - b).sum().item(), mx.square(b).sum().item()) for (_, a), (_, b) in pairs]
    return float(np.sqrt(sum(a for a, _ in apart) / sum(b for _, b in apart)))


def copy_of(model):
    other = LanguageModel(model.config)
    other.update(tree_map(lambda each: each + 0, model.parameters()))
    return other.eval()


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_a_step_is_that_of_the_formula(beta):
    """The gradient of an update that is not the first of its rollout is that of whole sequences, one after another, by the
    policy that drew them. The two mistakes that E3 knows give others: without the prompt, and with the ratio against the
    reference.
    """
    model = model_of()
    first = copy_of(model)
    trainer = trainer_of(
        options_of(inner_epochs=2, beta=beta, temperature=0.8), model, max_steps=20, learning_rate=1e-2
    )
    kept = {}

    class Keep(Callback):
        def on_step_end(self, trainer, metrics):
            if trainer.step == 6:  # the next rollout is drawn by these weights
                kept["old"] = copy_of(trainer.model)

    trainer.callbacks += [Keep(), Stop(7)]
    trainer.run()
    batch = following(trainer)
    rows = trainer.source._order(3, 1)
    assert trainer.source.rollout.number == 3
    found, old = trainer.update.gradients(batch), kept["old"]
    about = {"beta": beta, "reference": first}

    assert distance(found, slow_gradients(trainer, rows, old, **about)) < 1e-4
    assert distance(found, slow_gradients(trainer, rows, old, **about, logps=without_prompt)) > 0.1
    assert distance(found, slow_gradients(trainer, rows, first, **about, whole=True)) > 0.1


def test_the_policy_that_draws_is_the_old_one():
    """Its log-probabilities are kept for the whole rollout, at the sampling temperature; the ratio begins at 1."""
    trainer = trainer_of(options_of(inner_epochs=3, temperature=0.7, beta=0.1), max_steps=6, learning_rate=1e-2)
    drawn = {}

    class Keep(Callback):
        def on_step_end(self, trainer, metrics):
            rollout = trainer.source.rollout
            known = drawn.setdefault(rollout.number, rollout)
            assert known is rollout

    trainer.callbacks.append(Keep())
    policy = copy_of(trainer.model)
    trainer.run()
    for row, prompt in enumerate(drawn[0].prompts.tolist()):
        completion = drawn[0].tokens[row, : drawn[0].lengths[row]].tolist()
        expected = slow_logps(policy, trainer.source.prompts[prompt].tokens.tolist(), completion, 0.7)
        for name in ("old_logps", "reference_logps"):
            np.testing.assert_allclose(drawn[0].logps[name][row, : len(completion)], expected, rtol=1e-4, atol=1e-5)
    ratios = [each["ratio"] for each in trainer.metrics.steps]
    np.testing.assert_allclose([ratios[0], ratios[3]], 1, atol=1e-5)
    assert all(abs(each - 1) > 1e-5 for each in (*ratios[1:3], *ratios[4:]))
    assert trainer.metrics.steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert trainer.metrics.steps[-1]["kl"] > 0
    assert set(drawn) == {0, 1}


def test_a_rollout_of_several_updates_knows_the_policy_that_drew_it():
    """Also where each completion is learned from once; its probabilities are without dropout. Of one update they are not
    needed.
    """
    model = model_of(config=attrs.evolve(MODEL, block=attrs.evolve(BLOCK, dropout=0.5)))
    policy = copy_of(model)
    rollout = rollout_of(trainer_of(options_of(rollout_size=32), model))
    for row, prompt in enumerate(rollout.prompts.tolist()):
        completion = rollout.tokens[row, : rollout.lengths[row]].tolist()
        expected = slow_logps(policy, [*some_prompts()][prompt].tokens.tolist(), completion, 1.0)
        np.testing.assert_allclose(rollout.logps["old_logps"][row, : len(completion)], expected, rtol=1e-4, atol=1e-5)
    assert not rollout_of(trainer_of(options_of())).logps


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rewards_that_differ_move_the_weights(optimizer):
    """After one step; and of completions that are all worth the same nothing is learned, to the bit."""
    for reward, moves in (("even", True), ("level", False)):
        trainer = trainer_of(options_of(reward), max_steps=1, optimizer=spec(optimizer))
        before = weights_of(trainer.model)
        trainer.run()
        assert same(before, weights_of(trainer.model)) != moves
        assert trainer.metrics.steps[0]["groups_without_signal"] == (0 if moves else 1)


def test_the_policy_learns():
    """Even digits become all there are, in a few dozen steps; evaluations say so, and higher counts as better."""
    trainer = trainer_of(
        options_of(eval_temperature=1.0), max_steps=60, batch_size=32, learning_rate=1e-2, eval_interval=20, keep_best=1
    )
    summary = trainer.run()
    rewards = [each["reward"] for each in trainer.metrics.steps]
    assert rewards[0] < 0.65
    assert np.mean(rewards[-5:]) > 0.9
    assert summary["val_reward"] > 0.9
    assert trainer.criterion == "val_reward"
    assert trainer.lowest == [-max(each["val_reward"] for each in trainer.metrics.evaluations[:-1])]


def test_evaluations_ask_what_is_held_out():
    """Each prompt once, on the way the first of them and at the end all, by default for the likeliest tokens."""
    model, prompts = model_of(), material_of().validation
    earned = []
    for prompt in prompts:
        tokens = generate(model, prompt.tokens.tolist(), max_tokens=6, temperature=0.0)
        said = tokens[: tokens.index(9)] if 9 in tokens else tokens
        earned.append(sum(token % 2 == 0 for token in said) / max(len(said), 1))
    assert np.mean(earned[:2]) != pytest.approx(np.mean(earned))
    trainer = trainer_of(options_of(eval_prompts=2), model)
    assert trainer.evaluator(model, False)["val_reward"] == pytest.approx(np.mean(earned[:2]))
    assert trainer.evaluator(model, True)["val_reward"] == pytest.approx(np.mean(earned))
    drawn = trainer_of(options_of(eval_temperature=1.0), model).evaluator
    assert drawn(model, True) == drawn(model, True)
    assert drawn(model, True)["val_reward"] != pytest.approx(np.mean(earned))


FAMILY = {
    "dr_grpo": {"advantages": "no_std", "normalise": "dr_grpo"},
    "dapo": {"normalise": "dapo", "epsilon_high": 0.28, "max_resamples": 3, "overlong_buffer": 2},
    "gspo": {"ratio": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "rloo": {"advantages": "leave_one_out", "ratio": "product"},
    "cispo": {"surrogate": "cispo", "delta": 5.0, "normalise": "dapo"},
    "sapo": {"surrogate": "sapo"},
    "gdpo": {"advantages": "each_reward"},
    "bnpo": {"normalise": "bnpo", "beta": 0.01, "kl": "k2"},
}


@pytest.mark.parametrize("name", FAMILY)
def test_each_of_the_family_learns(name):
    """Two passes over each rollout, the first at a ratio of 1; in 20 steps, here not compiled, the rewards rise."""
    trainer = trainer_of(
        options_of(inner_epochs=2, **FAMILY[name]), max_steps=20, batch_size=32, learning_rate=1e-2, compile=False
    )
    trainer.run()
    rewards = [each["reward"] for each in trainer.metrics.steps if "reward" in each]
    assert len(rewards) == 10
    assert np.mean(rewards[-3:]) > rewards[0] + 0.1
    for even, odd in zip(trainer.metrics.steps[::2], trainer.metrics.steps[1::2], strict=True):
        assert even["ratio"] == pytest.approx(1, abs=1e-4)
        assert np.isfinite([even["loss"], odd["loss"], odd["ratio"]]).all()
    assert ("clip_low" in trainer.metrics.steps[0]) == (name not in ("cispo", "sapo"))


def test_a_high_cost_keeps_the_policy_where_it_was():
    """Without a cost to speak of the rewards move it far away in 40 steps, and with one they do not."""
    kl, rewards = {}, {}
    for beta in (1e-6, 10.0):
        trainer = trainer_of(options_of(beta=beta, inner_epochs=2), max_steps=40)
        trainer.run()
        kl[beta] = np.mean([each["kl"] for each in trainer.metrics.steps[-6:]])
        rewards[beta] = np.mean([each["reward"] for each in trainer.metrics.steps[-6:] if "reward" in each])
    assert kl[1e-6] > 0.5
    assert kl[10.0] < 0.05
    assert rewards[1e-6] > 0.9
    assert rewards[10.0] < 0.75


def test_accumulated_micro_batches_are_one_batch():
    """Of one rollout, for the losses that say so; the same weights come out."""
    for how in ("grpo", "dapo", "dr_grpo"):
        found = []
        for train in ({"batch_size": 32}, {"batch_size": 8, "grad_accumulation_steps": 4}):
            trainer = trainer_of(options_of(normalise=how, beta=0.1), max_steps=2, optimizer=spec("sgd"), **train)
            trainer.run()
            found.append((trainer.metrics.steps[-1], weights_of(trainer.model)))
        (one, weights), (other, others) = found
        for name in ("loss", "grad_norm", "kl", "entropy", "ratio"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-6), name
        for name, weight in weights.items():
            np.testing.assert_allclose(weight, others[name], rtol=1e-3, atol=2e-5)


def test_half_precision_begins_at_ratio_one():
    """The old probabilities, and those of the reference, are computed in the precision of the steps, in which some weights
    stay whole.
    """
    model = model_of()
    model.norm.full_precision = frozenset({"weight"})
    model.norm.weight = model.norm.weight * 1.001
    options = options_of(inner_epochs=2, beta=0.1)
    trainer = trainer_of(options, model, max_steps=1, dtype="bfloat16", learning_rate=0.0)
    trainer.run()
    first = trainer.metrics.steps[0]
    assert first["ratio"] == pytest.approx(1, abs=1e-6)
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert trainer.source._reference.head.weight.dtype == mx.bfloat16
    assert trainer.source._reference.norm.weight.dtype == mx.float32


def test_a_batch_without_anything_that_counts_changes_nothing():
    """Every completion was cut off, and is masked: a loss of 0, and the weights stay."""
    trainer = trainer_of(options_of(mask_truncated=True, max_new_tokens=1, stop=()), max_steps=2)
    trainer.source.asking.drawing = attrs.evolve(trainer.source.asking.drawing, stop=frozenset())
    before = weights_of(trainer.model)
    trainer.run()
    last = trainer.metrics.steps[-1]
    assert (last["loss"], last["ratio"], last["truncated"]) == (0, 0, 1)
    assert same(before, weights_of(trainer.model))


def test_the_objective_alone():
    """On a batch of one's own, whose log-probabilities another program gave: weights multiply what is gained."""
    model, trainer = model_of(), trainer_of(options_of(inner_epochs=2))
    rollout_of(trainer)
    batch = following(trainer)
    objective = PolicyGradient(options_of(), longest=6)
    loss = {w: objective(model, {**batch, "weights": mx.full(batch["mask"].shape, w)})[0].item() for w in (1.0, 3.0)}
    plain = objective(model, batch)[0].item()
    assert loss[1.0] == pytest.approx(plain, abs=1e-6)
    assert loss[3.0] == pytest.approx(3 * plain, abs=1e-5)
    metrics, logps = objective(model, batch)[2], np.array(objective.logps(model, batch))
    objective.on_step_end(trainer, metrics)
    assert metrics["entropy"].item() == pytest.approx(-logps[np.array(batch["mask"])].mean(), rel=1e-5)
