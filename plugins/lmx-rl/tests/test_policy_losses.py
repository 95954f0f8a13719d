"""The losses and advantages of the GRPO family, against numbers made with TRL and against their formulas."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from lmx_rl.policy.advantages import ADVANTAGES, advantages, advantages_of_each, has_signal
from lmx_rl.policy.losses import (
    PolicyLossOptions,
    clipped,
    estimated_kl,
    importance_weights,
    normalised,
    token_losses,
)

pytestmark = pytest.mark.once

VECTORS = Path(__file__).parents[4] / "shared/vectors"
CASES = json.loads((VECTORS / "index.json").read_text())["cases"] if VECTORS.is_dir() else {}
needs_vectors = pytest.mark.skipif(not CASES, reason="needs shared/vectors, which lie beside the project")
SURROGATES = {"cispo": ("cispo", "dapo"), "sapo": ("sapo", "grpo")}


def case(name):
    """Inputs and outputs of a file of reference numbers, and how close one must come."""
    arrays, about = np.load(VECTORS / f"{name}.npz"), CASES[name]
    parts = [{key[len(part) :]: arrays[key] for key in arrays if key.startswith(part)} for part in ("in.", "out.")]
    return *parts, lambda found, expected: np.testing.assert_allclose(
        np.array(found), expected, rtol=about["rtol"], atol=about["atol"]
    )


def options_of(loss_type, level="token", lo=0.2, hi=0.2, beta=0.0, bias=False, delta=None, **_):
    surrogate, normalise = SURROGATES.get(loss_type, ("clip", loss_type))
    high = {"delta": hi} if surrogate == "cispo" else {"delta": delta, "epsilon_high": hi}
    return PolicyLossOptions(
        ratio=level, surrogate=surrogate, normalise=normalise, epsilon=lo, beta=beta, kl_corrected=bias, **high
    )


def loss_and_slopes(options, arrays, *, longest=1, on_policy=False, weights=None):
    """The loss, its gradient by the log-probabilities, and what the tokens' losses were made of."""
    names = ("completion_mask", "advantages", "old_logps", "ref_logps")
    mask, gains, old, reference = (mx.array(arrays[name]) if name in arrays else None for name in names)
    mask = mask.astype(mx.bool_)
    found = []

    def loss(logps):
        parts = token_losses(
            options, logps, mask, gains, None if on_policy else old, reference if options.beta else None, weights
        )
        found.append(parts)
        total, count = normalised(parts.loss, mask, options.normalise, longest)
        return total / count

    value, slopes = mx.value_and_grad(loss)(mx.array(arrays["logps"]))
    return value, slopes, found[0]


@needs_vectors
@pytest.mark.parametrize("name", CASES["grpo"]["params"] if CASES else ["absent"])
def test_grpo_is_that_of_trl(name):
    """Every variant: the loss, its gradient, the clipped share and the divergence."""
    arrays, expected, close = case("grpo")
    params = CASES["grpo"]["params"][name]
    options = options_of(**params)
    weights = mx.array(arrays[f"is_ratio.{params['isr']}"].astype(np.float32)) if "isr" in params else None
    how = {"longest": params["max_completion_length"], "on_policy": params.get("onpolicy", False), "weights": weights}
    value, slopes, parts = loss_and_slopes(options, arrays, **how)
    mask = arrays["completion_mask"].astype(bool)

    close(value, expected[f"{name}.loss"])
    close(slopes, expected[f"{name}.d_logps"])
    assert (np.array(slopes)[~mask] == 0).all()

    counted = mask if options.ratio == "token" else mask.any(-1, keepdims=True)
    for side, found in zip(("low", "high"), clipped(options, parts.ratio, mx.array(arrays["advantages"])), strict=True):
        if f"{name}.clip_ratio/{side}_mean" in expected:
            close(np.array(found)[counted].mean(), expected[f"{name}.clip_ratio/{side}_mean"])
    if f"{name}.kl" in expected:
        kl = parts.kl * parts.ratio if options.kl_corrected else parts.kl
        close(np.array(kl)[mask].mean(), expected[f"{name}.kl"])


@needs_vectors
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("how", ["truncate", "mask"])
def test_importance_weights_are_those_of_trl(level, how):
    arrays, _, close = case("grpo")
    found = importance_weights(
        *(mx.array(arrays[name]) for name in ("old_logps", "sampling_logps")),
        mx.array(arrays["completion_mask"].astype(bool)),
        sequence=level == "sequence",
        drop=how == "mask",
    )
    close(found, arrays[f"is_ratio.{level}_{how}"])


@needs_vectors
def test_rloo_is_that_of_trl():
    """The ratio of a completion as it is, not a mean over its tokens."""
    arrays, expected, close = case("rloo")
    value, slopes, _ = loss_and_slopes(PolicyLossOptions(ratio="product"), arrays)
    close(value, expected["loss"])
    close(slopes, expected["d_logps"])
    with pytest.raises(AssertionError):
        close(loss_and_slopes(PolicyLossOptions(ratio="sequence"), arrays)[0], expected["loss"])


@needs_vectors
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_of_the_divergence(kind):
    arrays, expected, close = case("kl")
    logps, reference = mx.array(arrays["logps"]), mx.array(arrays["ref_logps"])
    close(estimated_kl(kind, logps, reference), expected[kind])
    close(mx.grad(lambda logps: estimated_kl(kind, logps, reference).sum())(logps), expected[f"d_{kind}"])


@needs_vectors
def test_the_clamped_estimate_and_the_exact_divergence():
    """k1 and k3 are KL(policy || reference) in the mean over what the policy draws, and not the other one."""
    arrays, expected, close = case("kl")
    close(
        estimated_kl("k3_clamped", mx.array(arrays["logps"]), mx.array(arrays["ref_logps"])),
        expected["k3_verl_clamped"],
    )
    logps, reference = (
        mx.array(arrays[name]) - mx.logsumexp(mx.array(arrays[name]), axis=-1, keepdims=True)
        for name in ("policy_logits", "ref_logits")
    )
    for kind in ("k1", "k3"):
        close((mx.exp(logps) * estimated_kl(kind, logps, reference)).sum(-1), expected["full_reverse"])
        close((mx.exp(reference) * estimated_kl(kind, reference, logps)).sum(-1), expected["full_forward"])


@needs_vectors
def test_advantages_are_those_of_trl():
    arrays, expected, close = case("advantages")
    names = {
        "group": "group",
        "no_std": "none",
        "batch": "batch",
        "leave_one_out": "rloo",
        "leave_one_out_scaled": "rloo_normalised",
    }
    assert names.keys() == ADVANTAGES.keys()
    for ours, theirs in names.items():
        close(advantages(arrays["rewards"], ours).reshape(-1), expected[theirs])
    with pytest.raises(AssertionError):
        close(advantages(arrays["rewards"]).reshape(-1), expected["group_population_std"])
    np.testing.assert_array_equal(~has_signal(arrays["rewards"]), expected["zero_variance_group"])

    several, weights = arrays["multi_rewards"].reshape(4, 4, 3), arrays["reward_weights"]
    close(advantages_of_each(several, weights).reshape(-1), expected["multi.normalize_then_sum"])
    close(advantages(expected["multi.total_reward"].reshape(4, 4)).reshape(-1), expected["multi.sum_then_normalize"])


def test_advantages_by_hand():
    """Numbers that are always checked: rewards 1, 0, 0, 1 and 3, none, 1, 1."""
    rewards = np.array([[1.0, 0, 0, 1], [3, np.nan, 1, 1]])
    std = np.sqrt(1 / 3)
    np.testing.assert_allclose(advantages(rewards)[0], np.array([0.5, -0.5, -0.5, 0.5]) / (std + 1e-4))
    np.testing.assert_allclose(advantages(rewards, "no_std")[1], np.array([4 / 3, 0, -2 / 3, -2 / 3]))
    np.testing.assert_allclose(advantages(rewards, "leave_one_out")[1], [2, 0, -1, -1])


@pytest.mark.parametrize("how", [*ADVANTAGES])
def test_what_advantages_do_not_depend_on(how):
    """A number added to all rewards of a group; the order of the groups; how often a reward was not known."""
    draw = np.random.default_rng(0)
    rewards = draw.normal(size=(5, 4))
    rewards[2, 1] = np.nan
    found = advantages(rewards, how)
    assert found[2, 1] == 0
    if how != "batch":  # whose deviation is over all groups
        np.testing.assert_allclose(advantages(rewards + draw.normal(size=(5, 1)), how), found, atol=1e-12)
    np.testing.assert_allclose(advantages(rewards + 3, how), found, atol=1e-12)
    order = draw.permutation(5)
    np.testing.assert_allclose(advantages(rewards[order], how), found[order], atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-12)
    alone = np.delete(rewards[2:3], 1, axis=1)
    if how in ("group", "no_std", "leave_one_out"):  # in which groups do not meet
        np.testing.assert_allclose(np.delete(found[2:3], 1, axis=1), advantages(alone, how))


@pytest.mark.parametrize("how", [*ADVANTAGES])
def test_equal_rewards_have_no_advantage(how):
    """Exactly, though their mean may be another number than they are: 0.1 + 0.1 + 0.1 is not 0.3."""
    rewards = np.array([[0.1, 0.1, 0.1], [np.nan, 0.7, 0.7], [np.nan, np.nan, np.nan], [np.nan, 5, np.nan]])
    assert (advantages(rewards, how) == 0).all()
    assert not has_signal(rewards).any()
    assert (advantages(np.concatenate([rewards, [[0.0, 1.0, 2.0]]]), how)[:4] == 0).all()


def arrays_of(seed=0, rows=4, length=6):
    draw = np.random.default_rng(seed)
    logps = -np.abs(draw.normal(1.2, 0.8, (rows, length)))
    found = {
        "logps": logps,
        "old_logps": logps + draw.normal(0, 0.25, (rows, length)),
        "ref_logps": logps + draw.normal(0, 0.35, (rows, length)),
        "advantages": advantages(draw.normal(size=(1, rows)))[0],
    }
    lengths = draw.integers(1, length + 1, (rows, 1))
    return {name: each.astype(np.float32) for name, each in found.items()} | {
        "completion_mask": np.arange(length) < lengths
    }


EVERY = [
    *({"normalise": how} for how in ("grpo", "bnpo", "dapo", "dr_grpo")),
    *({"ratio": ratio} for ratio in ("sequence", "product")),
    *({"surrogate": name, "delta": 5.0} for name in ("cispo", "sapo")),
    *({"beta": 0.1, "kl": kl} for kl in ("k1", "k2", "k3", "k3_clamped")),
    {"beta": 0.1, "kl_corrected": True},
    {"delta": 1.1},
]


@pytest.mark.parametrize("chosen", EVERY, ids=str)
def test_what_is_masked_has_no_part_in_it(chosen):
    """Whatever number stands there: the loss is the same, and the gradient exactly 0."""
    arrays = arrays_of()
    mask = arrays["completion_mask"]
    value, slopes, parts = loss_and_slopes(PolicyLossOptions(**chosen), arrays)
    assert (np.array(slopes)[~mask] == 0).all()
    assert (np.array(slopes)[mask] != 0).any()
    assert (np.array(parts.loss)[~mask] == 0).all()
    for garbage in (np.nan, np.inf, -np.inf, 1e30):
        spoilt = {**arrays}
        for name in ("logps", "old_logps", "ref_logps"):
            spoilt[name] = np.where(mask, arrays[name], np.float32(garbage))
        again, also, _ = loss_and_slopes(PolicyLossOptions(**chosen), spoilt)
        assert again.item() == value.item()
        assert mx.array_equal(also, slopes)


def test_the_first_update_is_a_plain_policy_gradient():
    """Where the policy drew the tokens itself the loss is 0 for advantages whose sum is, and the gradient -A / (B T)."""
    arrays = arrays_of()
    mask, gains = arrays["completion_mask"], arrays["advantages"]
    for old in ({"on_policy": True}, {}):
        value, slopes, _ = loss_and_slopes(PolicyLossOptions(), {**arrays, "old_logps": arrays["logps"]}, **old)
        assert abs(value.item()) < 1e-6
        np.testing.assert_allclose(slopes, -gains[:, None] * mask / mask.sum(1, keepdims=True) / 4, rtol=1e-5)


def test_without_a_signal_only_the_divergence_has_a_gradient():
    arrays = {**arrays_of(), "advantages": np.zeros(4, np.float32)}
    assert (np.array(loss_and_slopes(PolicyLossOptions(), arrays)[1]) == 0).all()
    slopes = loss_and_slopes(PolicyLossOptions(beta=0.1), arrays)[1]
    d = arrays["ref_logps"] - arrays["logps"]
    mask = arrays["completion_mask"]
    np.testing.assert_allclose(
        slopes, 0.1 * (1 - np.exp(d)) * mask / mask.sum(1, keepdims=True) / 4, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("how", ["grpo", "dapo", "dr_grpo"])
def test_micro_batches_add_up(how):
    """Sums and counts of parts, each by itself, give the loss of all; a row that is masked as a whole changes nothing."""
    arrays = arrays_of(rows=6)
    losses, mask = mx.array(arrays["logps"]), mx.array(arrays["completion_mask"])
    total, count = normalised(losses, mask, how, 6)
    parts = [normalised(losses[part], mask[part], how, 6) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    np.testing.assert_allclose(
        sum(part[0] for part in parts) / sum(part[1] for part in parts), total / count, rtol=1e-5
    )
    wider = normalised(mx.pad(losses, [(0, 2), (0, 0)]), mx.pad(mask, [(0, 2), (0, 0)]), how, 6)
    np.testing.assert_allclose(wider[0] / wider[1], total / count, rtol=1e-6)


def test_bnpo_is_a_mean_of_means():
    """What tells it from dapo: each micro-batch counts as much as any other."""
    losses = mx.array([[1.0, 1, 1], [4, 0, 0]])
    mask = mx.array([[True, True, True], [True, False, False]])
    parts = [normalised(losses[i : i + 1], mask[i : i + 1], "bnpo", 3) for i in range(2)]
    assert sum(part[0] for part in parts).item() / sum(part[1] for part in parts).item() == 2.5
    total, count = normalised(losses, mask, "dapo", 3)
    assert total.item() / count.item() == 7 / 4
    nothing = normalised(losses, mx.zeros_like(mask), "bnpo", 3)
    assert [each.item() for each in nothing] == [0, 0]


def test_weights_multiply_what_is_gained():
    """Not the divergence; and they have no gradient of their own."""
    arrays = arrays_of()
    mask, sampled = mx.array(arrays["completion_mask"]), mx.array(arrays["old_logps"] - 0.1)
    weights = importance_weights(mx.array(arrays["old_logps"]), sampled, mask, sequence=True)
    found = {
        (beta, given is None): loss_and_slopes(PolicyLossOptions(beta=beta), arrays, weights=given)[0].item()
        for beta in (0.0, 0.5)
        for given in (None, weights)
    }
    assert found[0.0, True] != pytest.approx(found[0.0, False], rel=1e-2)
    assert found[0.5, True] - found[0.0, True] == pytest.approx(found[0.5, False] - found[0.0, False], rel=1e-4)
    for drop in (False, True):
        slopes = mx.grad(lambda old, drop=drop: importance_weights(old, sampled, mask, drop=drop).sum())
        assert not slopes(mx.array(arrays["old_logps"])).any().item()


def test_the_clamped_estimate_by_hand():
    """Linear in a d far below 0 until it is 10; no gradient beyond, nor a NaN where e^d is infinite."""
    d = np.array([-200, -15, -10.5, -1, 0.5, 2.3, 15, 200], np.float32)
    within = np.array([False, False, True, True, True, True, False, False])
    expected = np.where(within, np.exp(np.minimum(d, 3)) - d - 1, 10)
    reference = mx.array(d)
    np.testing.assert_allclose(estimated_kl("k3_clamped", mx.zeros(8), reference), expected, rtol=1e-5)
    slopes = mx.grad(lambda logps: estimated_kl("k3_clamped", logps, reference).sum())(mx.zeros(8))
    np.testing.assert_allclose(slopes, np.where(within, 1 - np.exp(np.minimum(d, 3)), 0), rtol=1e-5)


def test_cispo_needs_its_bound():
    with pytest.raises(ValueError, match="give it, such as delta = 5.0"):
        PolicyLossOptions(surrogate="cispo")
