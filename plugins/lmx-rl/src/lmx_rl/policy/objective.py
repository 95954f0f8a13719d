"""The loss of a policy on completions that were drawn from it, or from what it was a few updates ago."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.losses import hidden_logps, sequence_sums
from lmx_rl.logps import completion_hidden
from lmx_rl.policy.losses import PolicyLossOptions, TokenLosses, clipped, normalised, token_losses

ROWS, TOKENS = "_rows", "_tokens"
"""Counts that metrics are divided by."""
OF_TOKENS, OF_RATIOS = ("kl", "entropy"), ("ratio", "clip_low", "clip_high")


class PolicyGradient:
    """`token_losses`, normalised, of a batch with `inputs`, (B, L); `targets` and `mask`, (B, C), the completions, the first
    token of which follows input `starts`, (B,); `advantages`, (B,); `old_logps`, (B, C), unless the policy itself drew them;
    `reference_logps`, (B, C), where beta > 0; `weights`, (B, C) or (B, 1), where another program drew them.

    Log-probabilities are those of what is drawn at the temperature: of the logits divided by it. Metrics are means over
    tokens: `kl`, and `entropy`, in nats, estimated by the mean of -log p of what was drawn; and over ratios: `ratio`, and
    with `clip` `clip_low` and `clip_high`, the shares without a gradient.
    """

    unit = ""

    def __init__(self, options: PolicyLossOptions, *, temperature: float = 1.0, longest: int = 1) -> None:
        """`longest` is how many tokens a completion may have."""
        self.options, self.temperature, self.longest = options, temperature, longest

    def __call__(self, model: Any, batch: Mapping[str, array]) -> tuple[array, array, dict[str, array]]:
        mask, advantages = batch["mask"], batch["advantages"]
        logps = self.logps(model, batch)
        names = ("old_logps", "reference_logps", "weights")
        found = token_losses(self.options, logps, mask, advantages, *(batch.get(name) for name in names))
        total, count = normalised(found.loss, mask, self.options.normalise, self.longest)
        return total, count, self._metrics(found, logps, mask, advantages)

    def logps(self, model: Any, batch: Mapping[str, array]) -> array:
        """Of the targets, (B, C)."""
        return hidden_logps(model, completion_hidden(model, batch), batch["targets"], temperature=self.temperature)

    def on_step_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """Means over what each is a mean of, which is not what the loss is a mean of."""
        tokens, rows = metrics.pop(TOKENS), metrics.pop(ROWS)
        ratios = tokens if self.options.ratio == "token" else rows
        for names, count in ((OF_TOKENS, tokens), (OF_RATIOS, ratios)):
            for name in names:
                if name in metrics:
                    metrics[name] = metrics[name] / count if count else 0.0

    def _metrics(self, found: TokenLosses, logps: array, mask: array, advantages: array) -> dict[str, array]:
        counted = mask if self.options.ratio == "token" else mask.any(-1, keepdims=True)
        sums = {"ratio": (found.ratio, counted)}
        if self.options.surrogate == "clip":
            low, high = clipped(self.options, found.ratio, advantages)
            sums |= {"clip_low": (low, counted), "clip_high": (high, counted)}
        sums |= {"entropy": (-logps, mask)} | ({} if found.kl is None else {"kl": (found.kl, mask)})
        metrics = {name: sequence_sums(each.astype(mx.float32), where).sum() for name, (each, where) in sums.items()}
        counts = {ROWS: mask.any(-1).sum(), TOKENS: mask.sum()}
        return {name: mx.stop_gradient(each.astype(mx.float32)) for name, each in (metrics | counts).items()}
