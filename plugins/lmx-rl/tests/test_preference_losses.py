"""What learning from comparisons makes smaller agrees with TRL, gradients included, and with the formulas of the papers."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from lmx_core import make_config
from lmx_core.errors import ConfigError
from lmx_core.train.config import RunConfig
from lmx_rl.logps import completion_logps
from lmx_rl.preference import losses
from lmx_rl.preference.cpo import CPO, CPOOptions
from lmx_rl.preference.dpo import DPO, DPOOptions
from lmx_rl.preference.kto import KTO, KTOOptions
from lmx_rl.preference.losses import LOSSES, LossOptions, Pairs
from lmx_rl.preference.objective import Compared
from lmx_rl.preference.orpo import ORPO, ORPOOptions
from lmx_rl.preference.reference import Reference
from lmx_rl.preference.rows import Row, Rows
from lmx_rl.preference.simpo import SimPO, SimPOOptions
from lmx_rl.preference.source import JudgedSource, PairSource
from lmx_rl.preference.weights import on_policy_weights

pytestmark = pytest.mark.once

SHARED = Path(__file__).parents[4] / "shared" / "vectors"
RTOL, ATOL = 2e-5, 2e-6
CONFIG = RunConfig(model=make_config("llama", "tiny", vocab_size=11))
given = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the vectors that TRL made, in shared/ beside the project")


class Table(nn.Module):
    """A model whose logits are its parameters."""

    def __init__(self, logits):
        super().__init__()
        self.table = mx.array(logits)

    def hidden(self, inputs):
        return self.table[:, : inputs.shape[1]], None

    def logits(self, hidden):
        return hidden


def vectors(name):
    index = json.loads((SHARED / "index.json").read_text())["cases"]
    case = next(
        each for each in (index if isinstance(index, list) else index.values()) if each["file"] == f"{name}.npz"
    )
    assert (case["rtol"], case["atol"]) == (RTOL, ATOL)
    found = np.load(SHARED / f"{name}.npz")
    inputs, outputs = (
        {key.removeprefix(part): found[key] for key in found if key.startswith(part)} for part in ("in.", "out.")
    )
    return case["params"], inputs, outputs


def close(found, expected):
    np.testing.assert_allclose(np.array(found, np.float64), expected, rtol=RTOL, atol=ATOL)


def batch_of(inputs, reference=None):
    """The rows of TRL's batch as a source reads them."""
    ids, mask = inputs["input_ids"].astype(np.int32), inputs["completion_mask"].astype(bool)
    rows = Rows(Row(row[: on.argmax()], row[on]) for row, on in zip(ids, mask, strict=True))
    order = np.arange(8).reshape(2, 4).T.ravel()  # a source has the rows of a pair one after the other
    pairs = Rows([Row(*_parts(rows, i)) for i in order])
    batch = PairSource("train", pairs, shuffle=False).read(range(4))
    if reference is not None:
        logps = np.array(nn.log_softmax(mx.array(reference.astype(np.float32)), -1))
        width, starts = batch["targets"].shape[1], batch["starts"]
        places = np.minimum(starts[:, None] + np.arange(width), ids.shape[1] - 1)
        at = np.take_along_axis(logps, places[..., None], 1)
        values = np.take_along_axis(at, batch["targets"][..., None].astype(np.int64), -1)[..., 0]
        batch["reference"] = np.where(batch["mask"], values, 0).astype(np.float32)
    return {name: mx.array(value) for name, value in batch.items()}


def _parts(rows, i):
    begin = rows.ends[i] - rows.inputs[i] - 1
    return rows.tokens[begin : begin + rows.prompts[i]], rows.tokens[begin + rows.prompts[i] : rows.ends[i]]


def run(options, inputs, reference_free=False):
    """Loss, gradient by the logits and metrics of `DPO` on the rows of the vectors."""
    model = Table(inputs["policy_logits"])
    batch = batch_of(inputs, None if reference_free else inputs["ref_logits"])
    objective = DPO(CONFIG, options).objective()

    def loss(table):
        model.table = table
        total, count, metrics = objective(model, batch)
        return total / count, {name: value / count for name, value in metrics.items()}

    (found, metrics), gradient = mx.value_and_grad(loss)(model.table)
    return found, gradient, metrics


def options_of(name, params):
    """Those of a case of dpo.npz."""
    fixed = {
        "reference_free_b0.1": {"loss": "sigmoid", "reference_free": True},
        "ipo_unnormalised_b0.1": {"loss": "ipo", "length_normalised": False},
        "dpop_inside_b0.1_lam5": {"loss": "dpop", "penalty": 5.0},
        "dpop_outside_b0.1_lam5": {"loss": "dpop_outside", "penalty": 5.0},
    }
    chosen = fixed.get(name) or {"loss": params["loss_type"].partition(" ")[0]}
    chosen |= {
        "divergence" if key == "f_div" else key: value
        for key, value in params.items()
        if key not in ("loss_type", "lambda", "delta")
    }
    return DPOOptions(**chosen)


def dpo_cases():
    if not SHARED.is_dir():
        return []
    return [name for name in vectors("dpo")[0] if name != "sft"]


@given
@pytest.mark.parametrize("name", dpo_cases())
def test_dpo_is_trls(name):
    """Loss and gradient of every case that TRL computed; where nothing is learned the gradient is exactly 0."""
    params, inputs, outputs = vectors("dpo")
    options = options_of(name, params[name])
    loss, gradient, _ = run(options, inputs, options.reference_free)
    close(loss, outputs[f"{name}.loss"])
    if f"{name}.d_policy_logits" in outputs:
        close(gradient, outputs[f"{name}.d_policy_logits"])
    learned = np.pad(inputs["completion_mask"][:, 1:], ((0, 0), (0, 1))).astype(bool)
    assert (np.array(gradient)[~learned] == 0).all()
    assert (np.array(gradient)[learned] != 0).any()


@given
def test_the_vectors_have_every_loss():
    assert len(dpo_cases()) == 25
    unseen = {"aot_unpaired"}
    seen = {options_of(name, vectors("dpo")[0][name]).loss for name in dpo_cases()}
    assert seen == LOSSES.keys() - unseen


@given
def test_metrics_are_trls():
    _, inputs, outputs = vectors("dpo")
    _, _, metrics = run(DPOOptions(beta=0.1), inputs)
    names = {
        "reward_chosen": "rewards/chosen",
        "reward_rejected": "rewards/rejected",
        "margin": "rewards/margins",
        "accuracy": "rewards/accuracies",
        "logp_chosen": "logps/chosen",
        "logp_rejected": "logps/rejected",
    }
    for mine, theirs in names.items():
        close(metrics[mine], outputs[f"metrics.{theirs}"])


@given
def test_cross_entropy_of_the_chosen_is_trls():
    """TRL's mean is over all tokens, that of `sft_weight` over the pairs: both of the same log-probabilities."""
    _, inputs, outputs = vectors("dpo")
    batch = batch_of(inputs)
    model = Table(inputs["policy_logits"])

    def loss(table):
        model.table = table
        logps = completion_logps(model, batch)[:4]
        return -logps.sum() / batch["mask"][:4].sum()

    found, gradient = mx.value_and_grad(loss)(model.table)
    close(found, outputs["sft.loss"])
    close(gradient, outputs["sft.d_policy_logits"])
    plain, weighted = (run(DPOOptions(sft_weight=weight), inputs)[0] for weight in (0.0, 0.5))
    logps, mask = np.array(completion_logps(Table(inputs["policy_logits"]), batch))[:4], np.array(batch["mask"])[:4]
    assert (weighted - plain).item() == pytest.approx(-0.5 * (logps.sum(-1) / mask.sum(-1)).mean(), rel=1e-5)


@given
def test_the_kl_is_that_of_its_formula():
    _, inputs, _ = vectors("dpo")
    _, _, metrics = run(DPOOptions(), inputs)
    batch = batch_of(inputs, inputs["ref_logits"])
    mask = np.array(batch["mask"])
    log_ratio = np.array(completion_logps(Table(inputs["policy_logits"]), batch) - batch["reference"], np.float64)
    of_rows = [np.mean(np.exp(u[on]) - 1 - u[on]) for u, on in zip(log_ratio, mask, strict=True)]
    assert metrics["kl"].item() == pytest.approx(np.mean(of_rows), rel=1e-5)


def totals(name):
    params, inputs, outputs = vectors("preference_other")
    averages = {side: inputs[f"policy_{side}_logps"] / inputs[f"{side}_len"] for side in ("chosen", "rejected")}
    sums = {side: inputs[f"policy_{side}_logps"] for side in ("chosen", "rejected")}
    chosen = sums if "summed" in params[name].get("uses", "") else averages
    return params[name], [mx.array(chosen[side].astype(np.float32)) for side in ("chosen", "rejected")], outputs


def unreferenced(params):
    """The loss of a case of preference_other.npz: of the chosen and the rejected completions."""
    beta = params["beta"]
    if "formula" in params:
        return lambda chosen, rejected: losses.odds_ratio(chosen, rejected, beta=beta)
    if params["loss_type"] == "simpo":
        more = {"gamma": params["gamma"], "alpha": params.get("alpha", 0.0)}
        return lambda chosen, rejected: losses.simpo(chosen, rejected, beta=beta, **more)
    options = LossOptions(beta=beta, label_smoothing=params.get("ls", 0.0))
    return lambda chosen, rejected: LOSSES[params["loss_type"]](
        Pairs(chosen, rejected, mx.zeros_like(chosen), mx.zeros_like(chosen)), options
    )


@given
@pytest.mark.parametrize(
    "name",
    ["simpo_b2_g0.5", "cpo_b0.1", "cpo_b0.1_ls0.1", "cpo_hinge_b0.1", "cpo_ipo_b0.1", "alphapo_a0.25_b2_g0.5"],
)
def test_losses_without_a_reference_are_trls(name):
    params, sides, outputs = totals(name)
    loss = unreferenced(params)
    close(loss(*sides), outputs[f"{name}.per_pair"])
    found, gradients = mx.value_and_grad(lambda *sides: loss(*sides).mean(), argnums=(0, 1))(*sides)
    close(found, outputs[f"{name}.loss"])
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        close(gradient, outputs[f"{name}.d_{side}"])


@given
def test_the_odds_ratio_is_trls():
    params, sides, outputs = totals("orpo_b0.1")
    loss = unreferenced(params)
    found, gradients = mx.value_and_grad(lambda *sides: loss(*sides).mean(), argnums=(0, 1))(*sides)
    close(found, outputs["orpo_b0.1.or_term"])
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        close(gradient, outputs[f"orpo_b0.1.d_avg_{side}"])


@given
@pytest.mark.parametrize("name", ["kto_b0.1", "kto_b0.3_w1.33"])
def test_kto_is_trls(name):
    params, inputs, outputs = vectors("preference_other")
    chosen, rejected, reference_chosen, reference_rejected, others, reference_others = (
        mx.array(inputs[key])
        for key in (
            *("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps"),
            *("kl_policy_logps", "kl_ref_logps"),
        )
    )
    shift = losses.kl_of_mismatched(others - reference_others)
    close(shift, outputs["kto.kl"])
    weights = {"desirable": params[name]["desirable_weight"], "undesirable": params[name]["undesirable_weight"]}

    def loss(chosen, rejected):
        h = mx.concatenate([chosen - reference_chosen, rejected - reference_rejected])
        return losses.kto(h, mx.arange(10) < 5, shift, beta=params[name]["beta"], **weights).mean()

    found, gradients = mx.value_and_grad(loss, argnums=(0, 1))(chosen, rejected)
    close(found, outputs[f"{name}.loss"])
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        close(gradient, outputs[f"{name}.d_{side}"])


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def softened(x, e):
    return -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


B, E, LAMBDA, TAU = 0.3, 0.1, 5.0, 0.05
FORMULAS = {
    "aot": lambda c, r, m, n: softened(B * (np.sort(c - r) - np.sort(m - n)), E),
    "aot_unpaired": lambda c, r, m, n: softened(B * (np.sort(c - m) - np.sort(r - n)), E),
    "apo_down": lambda c, r, m, n: sigmoid(B * (c - m)) + 1 - sigmoid(B * (c - m - r + n)),
    "apo_zero": lambda c, r, m, n: 1 - sigmoid(B * (c - m)) + sigmoid(B * (r - n)),
    "bco_pair": lambda c, r, m, n: -log_sigmoid(B * (c - m)) - log_sigmoid(-B * (r - n)),
    "discopop": lambda c, r, m, n: (
        -log_sigmoid(B * (c - m - r + n)) * sigmoid(-B * (c - m - r + n) / TAU)
        + np.exp(-B * (c - m - r + n)) * sigmoid(B * (c - m - r + n) / TAU)
    ),
    "dpop": lambda c, r, m, n: softened(B * (c - m - r + n - LAMBDA * np.maximum(0, m - c)), E),
    "dpop_outside": lambda c, r, m, n: softened(B * (c - m - r + n), E) + LAMBDA * np.maximum(0, m - c),
    "exo_pair": lambda c, r, m, n: (
        sigmoid(B * (c - m - r + n)) * np.log(sigmoid(B * (c - m - r + n)) / (1 - E))
        + sigmoid(-B * (c - m - r + n)) * np.log(sigmoid(-B * (c - m - r + n)) / E)
    ),
    "hinge": lambda c, r, m, n: np.maximum(0, 1 - B * (c - m - r + n)),
    "ipo": lambda c, r, m, n: (c - m - r + n - 1 / (2 * B)) ** 2,
    "nca_pair": lambda c, r, m, n: (
        -log_sigmoid(B * (c - m)) - 0.5 * log_sigmoid(-B * (c - m)) - 0.5 * log_sigmoid(-B * (r - n))
    ),
    "robust": lambda c, r, m, n: (
        (-(1 - E) * log_sigmoid(B * (c - m - r + n)) + E * log_sigmoid(-B * (c - m - r + n))) / (1 - 2 * E)
    ),
    "sigmoid": lambda c, r, m, n: softened(B * (c - m - r + n), E),
    "sigmoid_norm": lambda c, r, m, n: softened(B * (c - m - r + n), E),
    "sppo_hard": lambda c, r, m, n: (c - m - 1 / (2 * B)) ** 2 + (r - n + 1 / (2 * B)) ** 2,
}
FOUR = [*np.random.default_rng(3).normal(-9, 2, (4, 6))]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_their_formulas(name):
    """Also where no vectors are; gradients as differences in float64."""
    options = LossOptions(beta=B, label_smoothing=E, penalty=LAMBDA, temperature=TAU)
    sides = [mx.array(each.astype(np.float32)) for each in FOUR]

    def loss(*sides):
        return LOSSES[name](Pairs(*sides), options)

    np.testing.assert_allclose(np.array(loss(*sides)), FORMULAS[name](*FOUR), rtol=2e-5, atol=2e-6)
    gradients = mx.grad(lambda *sides: loss(*sides).sum(), argnums=(0, 1))(*sides)
    for side, gradient in enumerate(gradients):
        for place in range(6):
            moved = [[each.copy() for each in FOUR] for _ in range(2)]
            for by, where in zip((1e-6, -1e-6), moved, strict=True):
                where[side][place] += by
            up, down = (FORMULAS[name](*where).sum() for where in moved)
            assert gradient[place].item() == pytest.approx((up - down) / 2e-6, rel=1e-3, abs=1e-4)


def test_numbers_of_trl_hold_without_its_file():
    """What it makes of the log-probabilities of four pairs."""
    policy = [-23.36025, -13.24801, -15.22111, -17.49961], [-22.39933, -22.59804, -8.18332, -28.09261]
    reference = [-23.41415, -12.00866, -17.39339, -18.7542], [-23.79065, -23.67693, -9.39945, -29.38397]
    pairs = Pairs(*map(mx.array, (*policy, *reference)))
    known = {
        ("sigmoid", 0.1): 0.7298710,
        ("hinge", 2.0): 2.5962234,
        ("nca_pair", 0.1): 1.4080373,
        ("aot", 0.1): 0.7290675,
        ("sppo_hard", 0.5): 6.8876645,
    }
    for (name, beta), expected in known.items():
        found = LOSSES[name](pairs, LossOptions(beta=beta)).mean().item()
        assert found == pytest.approx(expected, rel=2e-5)
    lengths = [7, 5, 5, 5], [5, 8, 2, 8]
    tokens = [mx.array(each) for each in (*lengths, *lengths)]
    means = Pairs(*(mx.array(each) / count for each, count in zip((*policy, *reference), tokens, strict=True)))
    assert losses.ipo(means, LossOptions(beta=0.1)).mean().item() == pytest.approx(26.9079766, rel=2e-5)
    noisy = losses.robust(pairs, LossOptions(beta=0.3, label_smoothing=0.1))
    assert noisy.mean().item() == pytest.approx(0.8437943, rel=2e-5)


def test_what_stands_in_for_what_is_not_given():
    """EXO without smoothing takes a little of it; KTO's shift is never below 0, and nothing is learned through it."""
    pairs = Pairs(*(mx.array(each.astype(np.float32)) for each in FOUR))
    unsaid, said = (LOSSES["exo_pair"](pairs, LossOptions(label_smoothing=e)) for e in (0.0, 1e-3))
    np.testing.assert_array_equal(unsaid, said)
    h = mx.array([-3.0, 1.0])
    assert losses.kl_of_mismatched(h).item() == 0
    assert losses.kl_of_mismatched(-h).item() == 1
    assert not mx.grad(losses.kl_of_mismatched)(-h).any().item()
    assert mx.grad(lambda z: losses.kto(h, h > 0, z, beta=0.3).sum())(mx.array(0.5)).item() == 0


def test_far_away_losses_are_finite():
    """Nothing overflows where a pair is clear, nor its gradient."""
    far = mx.array([1e4, -1e4, 0.0])
    for name in sorted(LOSSES.keys() - {"discopop"}):  # which grows with exp(-beta D)

        def loss(chosen, name=name):
            nothing = mx.zeros_like(chosen)
            return LOSSES[name](Pairs(chosen, nothing, nothing, nothing), LossOptions()).sum()

        assert mx.isfinite(mx.stack([loss(far), *mx.grad(loss)(far)])).all().item(), name
    certain = mx.array([0.0, -1e-9, -50.0, -1e4])
    odds = mx.grad(lambda a: losses.odds_ratio(a, a[::-1], beta=0.1).sum())(certain)
    assert mx.isfinite(odds).all().item()
    judged = mx.grad(lambda h: losses.kto(h, h > 0, mx.array(0.0), beta=1.0).sum())(far)
    assert mx.isfinite(judged).all().item()


def test_divergences():
    """Each is the log-ratio near 0, but for a factor; alpha goes from one KL to the other."""
    h = mx.array([-2.0, 0.0, 1.5])
    for alpha, name in ((0.0, "reverse_kl"), (1.0, "forward_kl")):
        np.testing.assert_allclose(losses.divergence("alpha_divergence", alpha)(h), losses.divergence(name, 0.5)(h))
    np.testing.assert_allclose(
        losses.divergence("alpha_divergence", 0.5)(h), -2 * np.expm1(-np.array(h) / 2), rtol=1e-6
    )
    js = math.log(2) + log_sigmoid(np.array(h))
    np.testing.assert_allclose(losses.divergence("js_divergence", 0.5)(h), js, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("loss", "margin"), [("sigmoid", 0.5 - 0.1), ("sigmoid_norm", 0.5 / 2 - 0.1 / 3)])
def test_another_divergence_is_of_whole_completions(loss, margin):
    """And divided by their lengths then: `1 - exp(-h)` of the two completions is 0.5 and 0.1, as TRL has it."""
    logps = mx.array([[-1 + math.log(2), 1.0, 0.0], [math.log(10 / 9), -2.0, 2.0]])
    mask = mx.array([[True, True, False], [True, True, True]])
    compared = Compared(logps, None, mask, None, mx.zeros((2, 3, 1)))
    options = DPOOptions(loss=loss, beta=1.0, reference_free=True, divergence="forward_kl")
    found = DPO(CONFIG, options).outcome(compared).loss.item()
    assert found == pytest.approx(-log_sigmoid(margin), rel=1e-5)


def test_pairs_that_the_policy_would_write_count_more():
    """Both completions are of tokens with a probability of 0.8, and then 0.2, where there are two tokens; by the first, pairs
    count more than once, as TRL has it.
    """
    for chance in (0.8, 0.2):
        logps, collided = (mx.full((2, 3), math.log(each)) for each in (chance, 0.8**2 + 0.2**2))
        mask = mx.array([[True, True, False], [True, True, True]])
        found = on_policy_weights(logps, collided, mask).item()
        assert found == pytest.approx((chance / 0.68) ** 2, rel=1e-5)


ROWS = [
    (
        Row(np.array(prompt, np.int32), np.array(chosen, np.int32)),
        Row(np.array(prompt, np.int32), np.array(rejected, np.int32)),
    )
    for prompt, chosen, rejected in ([[1, 2], [3, 4, 5], [6]], [[7], [1, 1], [2, 2, 2, 2]], [[3, 3, 3], [4], [5, 6]])
]


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        *[(DPO, DPOOptions(loss=name, beta=0.5)) for name in sorted(LOSSES)],
        (DPO, DPOOptions(reference_free=True)),
        (DPO, DPOOptions(use_weighting=True, ld_alpha=0.3, sft_weight=0.2)),
        (ORPO, ORPOOptions()),
        (SimPO, SimPOOptions(sft_weight=0.1)),
        (CPO, CPOOptions()),
        (KTO, KTOOptions()),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else getattr(each, "loss", ""),
)
def test_prompts_and_padding_have_no_gradient(recipe, options):
    """It is exactly 0 there, in every trainer, and what stands in the padding does not matter, were it a NaN's cause."""
    rows = Rows(row for pair in ROWS for row in pair)
    draw = np.random.default_rng(0)
    reference = Fixed(draw.normal(-2, 1, int(rows.targets.sum())).astype(np.float32))
    if recipe is KTO:
        good = np.array([True, False] * 3)
        source = JudgedSource(("train", "others"), rows, rows, good, reference, shuffle=False)
        batch = source.read(range(6))
    else:
        free = recipe is not DPO or options.reference_free
        batch = PairSource("train", rows, shuffle=False, reference=None if free else reference).read(range(3))
    logits = draw.normal(0, 2, (6, batch["inputs"].shape[1], 11)).astype(np.float32)
    learned = np.zeros(logits.shape[:2], bool)
    for row, (start, on) in enumerate(zip(batch["starts"], batch["mask"], strict=True)):
        learned[row, start : start + on.sum()] = True
    logits[~learned] = 1e4 * draw.normal(size=((~learned).sum(), 11))
    model, objective = Table(logits), recipe(CONFIG, options).objective()
    arrays = {name: mx.array(value) for name, value in batch.items()}

    def loss(table):
        model.table = table
        return objective(model, arrays)[0]

    gradient = np.array(mx.grad(loss)(mx.array(logits)))
    assert np.isfinite(gradient).all()
    assert (gradient[~learned] == 0).all()
    assert (gradient[learned] != 0).any(-1).all() or recipe is DPO
    assert (gradient[learned] != 0).any()


def test_trainers_put_their_losses_together():
    """Of each pair, or completion, what the papers add up, and the metrics of it."""
    rows, draw = Rows(row for pair in ROWS for row in pair), np.random.default_rng(0)
    reference = Fixed(draw.normal(-6, 1, int(rows.targets.sum())).astype(np.float32))
    plain = PairSource("train", rows, shuffle=False).read(range(3))
    model = Table(draw.normal(0, 2, (6, plain["inputs"].shape[1], 11)).astype(np.float32))

    def sums(batch):
        values = np.array(completion_logps(model, {name: mx.array(each) for name, each in batch.items()}), np.float64)
        return values.sum(-1), (values - batch.get("reference", 0)).sum(-1)

    def run(recipe, options, batch):
        loss, count, metrics = recipe(CONFIG, options).objective()(model, {k: mx.array(v) for k, v in batch.items()})
        return loss.item() / count.item(), {name: value.item() / count.item() for name, value in metrics.items()}

    total, _ = sums(plain)
    mean = total / plain["mask"].sum(-1)
    (won, lost), (a, b) = np.split(total, 2), np.split(mean, 2)
    odds = a - np.log1p(-np.exp(a)) - b + np.log1p(-np.exp(b))
    paired = [
        (ORPO, ORPOOptions(beta=0.4), -a - 0.4 * log_sigmoid(odds), 0.4 * (a - b)),
        (SimPO, SimPOOptions(gamma=0.7, sft_weight=0.3), -log_sigmoid(2 * (a - b) - 0.7) - 0.3 * a, 2 * (a - b)),
        (CPO, CPOOptions(label_smoothing=0.1), softened(0.1 * (won - lost), 0.1) - a, 0.1 * (won - lost)),
        (CPO, CPOOptions(loss="ipo", sft_weight=0.5), (a - b - 5) ** 2 - 0.5 * a, 0.1 * (a - b)),
    ]
    for recipe, options, expected, margin in paired:
        loss, metrics = run(recipe, options, plain)
        assert loss == pytest.approx(expected.mean(), rel=1e-5)
        assert metrics["margin"] == pytest.approx(margin.mean(), rel=1e-5)
        assert metrics["accuracy"] == (margin > 0).mean()
        assert "kl" not in metrics

    good = np.array([True, False, True, True, False, True])
    judged = JudgedSource(("train", "others"), rows, rows, good, reference, shuffle=False).read(range(6))
    options = KTOOptions(beta=0.3, desirable_weight=1.2, undesirable_weight=0.8)
    _, h = sums(judged)
    z = max(0, h.mean())
    expected = np.where(good, 1.2 * (1 - sigmoid(0.3 * (h - z))), 0.8 * (1 - sigmoid(0.3 * (z - h))))
    loss, metrics = run(KTO, options, judged)
    assert z > 0
    assert loss == pytest.approx(expected.mean(), rel=1e-5)
    assert metrics["shift"] == pytest.approx(z, rel=1e-5)
    KTO(CONFIG, options).objective().settled(metrics)
    assert metrics["reward_good"] == pytest.approx(0.3 * h[good].mean(), rel=1e-5)
    assert metrics["reward_bad"] == pytest.approx(0.3 * h[~good].mean(), rel=1e-5)
    assert metrics["margin"] == pytest.approx(0.3 * (h[good].mean() - h[~good].mean()), rel=1e-5)
    assert metrics["accuracy"] == ((h > z) == good).mean()
    unshifted, _ = run(KTO, KTOOptions(loss="apo_zero_unpaired", beta=0.3), judged)
    assert unshifted == pytest.approx(np.where(good, sigmoid(-0.3 * h), sigmoid(0.3 * h)).mean(), rel=1e-5)


class Fixed(Reference):
    """A reference with numbers of one's own, the same for every table."""

    def __init__(self, values):
        self.values = values

    def of(self, table, numbers, batch):
        found = np.zeros(batch["targets"].shape, np.float32)
        found[batch["mask"]] = self.values[: batch["mask"].sum()]
        return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_free": True, "reference": "runs/a"}, "reference_free=true knows no reference"),
        ({"loss": "apo_zero", "divergence": "forward_kl"}, "loss='apo_zero' is none. Choose one of discopop"),
        ({"loss": "aot", "use_weighting": True}, "loss='aot' puts the numbers of a batch in order"),
        ({"loss": "dop"}, "loss: expected 'aot' or"),
        ({"beta": 0}, "beta: must be > 0, got 0"),
        ({"label_smoothing": 0.5}, "label_smoothing: must be < 0.5, got 0.5"),
    ],
)
def test_what_is_wrong_with_options_is_said(options, message):
    with pytest.raises(ConfigError, match=message):
        DPOOptions(**options)
