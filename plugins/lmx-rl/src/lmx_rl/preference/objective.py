"""From a batch of pairs, or of judged completions, to a loss and its metrics."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.losses import sequence_means
from lmx_rl.logps import Batch, completion_hidden, completion_logps
from lmx_rl.preference.losses import kl_of_mismatched, kto
from lmx_rl.preference.weights import token_kl

Sums = tuple[array, array, dict[str, array]]


@attrs.frozen(eq=False)
class Compared:
    """A batch of P pairs as a loss sees it: rows are all chosen, then all rejected."""

    logps: array
    """Of each target by the policy, (2P, C)."""
    reference: array | None
    """By the reference."""
    mask: array
    model: Any
    hidden: array


@attrs.frozen(eq=False)
class Outcome:
    """Of each pair, (P,): its loss, and what it makes of the two completions."""

    loss: array
    reward_chosen: array
    reward_rejected: array


class PairObjective:
    """A loss of pairs, in its mean over pairs.

    Metrics: `reward_chosen` and `reward_rejected`, what the loss compares; `margin`, their difference; `accuracy`, in how
    many pairs the chosen one has more; `logp_chosen` and `logp_rejected`, of the completions, in nats; and with a reference
    `kl`, see `token_kl`.
    """

    def __init__(self, outcome: Callable[[Compared], Outcome]) -> None:
        self.outcome = outcome

    def __call__(self, model: Any, batch: Batch) -> Sums:
        hidden, mask, reference = completion_hidden(model, batch), batch["mask"], batch.get("reference")
        logps = completion_logps(model, batch, hidden)
        found = self.outcome(Compared(logps, reference, mask, model, hidden))
        count = mx.array(len(mask) // 2)
        chosen, rejected = mx.split(logps.sum(-1), 2)
        metrics = {
            "reward_chosen": found.reward_chosen,
            "reward_rejected": found.reward_rejected,
            "margin": found.reward_chosen - found.reward_rejected,
            "accuracy": found.reward_chosen > found.reward_rejected,
            "logp_chosen": chosen,
            "logp_rejected": rejected,
        }
        if reference is not None:
            metrics["kl"] = token_kl(logps, reference, mask) / 2
        return found.loss.sum(), count, _summed(metrics)


class JudgedObjective:
    """KTO's loss, in its mean over completions; `mismatched` completions say how far the policy is from the reference.

    Metrics: `reward_good` and `reward_bad`, the mean of `beta h` of either kind where an update has some; `margin`, their
    difference; `accuracy`, how many are on the right side of the shift; `shift`, the z of the loss; `good`, how many are;
    `kl`, see `token_kl`.
    """

    def __init__(self, *, beta: float, desirable: float, undesirable: float, shifted: bool = True) -> None:
        self.beta, self.desirable, self.undesirable, self.shifted = beta, desirable, undesirable, shifted

    def __call__(self, model: Any, batch: Batch) -> Sums:
        shift = self._shift(model, batch) if self.shifted else mx.array(0.0)
        logps, reference, good = completion_logps(model, batch), batch["reference"], batch["good"]
        h = (logps - reference).sum(-1)
        weights = {"desirable": self.desirable, "undesirable": self.undesirable}
        loss = kto(h, good, shift, beta=self.beta, **weights)
        count = mx.array(len(good))
        rewards = self.beta * h
        metrics = {
            "reward_good": mx.where(good, rewards, 0),
            "reward_bad": mx.where(good, 0, rewards),
            "good": good,
            "accuracy": (rewards > self.beta * shift) == good,
            "kl": token_kl(logps, reference, batch["mask"]),
            "shift": mx.broadcast_to(shift, good.shape),
        }
        return loss.sum(), count, _summed(metrics)

    def on_step_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        self.settled(metrics)

    def settled(self, metrics: dict[str, Any]) -> None:
        """Means over all completions become those over the good ones and over the others."""
        for name, share in (("reward_good", metrics["good"]), ("reward_bad", 1 - metrics["good"])):
            summed = metrics.pop(name)
            metrics |= {name: summed / share} if share else {}
        if "reward_good" in metrics and "reward_bad" in metrics:
            metrics["margin"] = metrics["reward_good"] - metrics["reward_bad"]

    def _shift(self, model: Any, batch: Batch) -> array:
        """Before the other completions are read, whose reports components keep."""
        others = {name.removeprefix("other_"): value for name, value in batch.items() if name.startswith("other_")}
        return kl_of_mismatched((completion_logps(model, others) - others["reference"]).sum(-1))


def means(compared: Compared) -> tuple[array, array]:
    """The mean log-probability of a token, of the chosen and of the rejected completions, (P,) each."""
    chosen, rejected = mx.split(sequence_means(compared.logps, compared.mask), 2)
    return chosen, rejected


def _summed(metrics: Mapping[str, array]) -> dict[str, array]:
    return {name: mx.stop_gradient(value).astype(mx.float32).sum() for name, value in metrics.items()}
