"""Completions of the policy itself, as the samples that it learns from."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from lmx_core.data.prompts import Prompt
from lmx_core.errors import CheckpointError, LmxError, LmxWarning
from lmx_core.train.callback import COMPLETIONS
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_rl.policy.advantages import advantages, advantages_of_each
from lmx_rl.policy.forward import Forward, Logps, keep_reference, kept_reference, reference_of
from lmx_rl.policy.groups import Asking, Groups, seeds_of
from lmx_rl.policy.options import GRPOOptions
from lmx_rl.policy.prompts import order_of
from lmx_rl.policy.rollout import OLD, REFERENCE, Arrays, Rollout
from lmx_rl.policy.table import forget_later, write_down
from lmx_rl.precision import lowered

ROLLOUT, ORDER, SIZES = "rollout", "order", "sizes"


class Rollouts:
    """Sample n is of rollout `n // (rollout_size * inner_epochs)`, which the policy draws when its first sample is asked for.

    What is drawn depends on the seed, the rollout and the policy, and not on the number of ranks. An epoch is as many samples
    as all prompts have, were none of them asked twice.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        options: GRPOOptions,
        asking: Asking,
        logps: Logps,
        *,
        size: int,
        update: int,
        rows: int,
        longest: int,
        seed: int = 0,
        compiled: bool = True,
        ranks: Ranks | None = None,
    ) -> None:
        """`size` completions of a rollout, `update` of a step, `rows` that run at once; `longest` inputs of a row."""
        self.prompts, self.options, self.asking, self.logps = prompts, options, asking, logps
        self.size, self.rows, self.longest, self.seed, self.compiled = size, rows, longest, seed, compiled
        self._sizes = [size, options.inner_epochs, update]
        self.ranks = ranks or alone()
        self.order = order_of(prompts, options.curriculum, seed)
        self.on_policy = size == update and options.inner_epochs == 1
        """Whether each completion is learned from once, by the policy that drew it."""
        self.rollout: Rollout | None = None
        self._reference: Any = None
        self._forwards: dict[str, Forward] = {}
        self._measured: dict[str, float] = {}
        self._unjudged = 0
        """Rollouts in a row of which no reward could judge anything."""

    def __len__(self) -> int:
        return len(self.prompts) * self.options.group_size * self.options.inner_epochs

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        """Those samples of the rollout that they are of, which is drawn if it is another one than the last."""
        numbers = np.asarray(samples, np.int64)
        number, *others = {int(each) for each in numbers // (self.size * self.options.inner_epochs)}
        if others:
            raise LmxError("a batch of two rollouts: their size is not a multiple of its samples")
        if self.rollout is None or self.rollout.number != number:
            self.rollout = self._rolled(number)
        again, places = np.divmod(numbers % (self.size * self.options.inner_epochs), self.size)
        orders = {each: self._order(number, each) for each in set(again.tolist())}
        rows = [int(orders[each][place]) for each, place in zip(again.tolist(), places.tolist(), strict=True)]
        return self.rollout.batch(rows, self.prompts, self.longest)

    def on_train_begin(self, trainer: Any) -> None:
        """Meet the policy; copy it, where it is to be held to what it was."""
        self.trainer = trainer
        if not self.on_policy:
            self._forwards[OLD] = Forward(trainer.model, self.logps, self.compiled)
        if self.options.beta and self._reference is None:
            self._reference = reference_of(trainer.model, self.options.reference)
        if self._reference is not None:
            if trainer.path and self.ranks.first:
                keep_reference(self._reference, trainer.path)
            lowered(self._reference, trainer.update.dtype)
            self._forwards[REFERENCE] = Forward(self._reference, self.logps, self.compiled)
        if trainer.path and self.ranks.first:
            forget_later(trainer.path, trainer.step)

    def on_step_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """What the rollout of this step was, if it began one."""
        metrics |= self._measured
        self._measured = {}

    def on_train_end(self, trainer: Any, summary: Mapping[str, Any]) -> None:
        """End what rewards have started."""
        self.asking.judge.close()

    def on_train_fail(self, trainer: Any, error: BaseException) -> None:
        self.asking.judge.close()

    def saved(self) -> dict[str, array]:
        """The rollout that is being learned from, and which prompts come next."""
        known = self.rollout.saved() if self.rollout else {}
        own = {SIZES: mx.array(self._sizes)}
        parts = {ROLLOUT: known, ORDER: self.order.saved()}
        return {**own, **{f"{part}.{name}": each for part, kept in parts.items() for name, each in kept.items()}}

    def restore(self, arrays: Mapping[str, array], run: Path) -> None:
        """`CheckpointError` where the run had rollouts of another size, or no reference."""
        before: Any = arrays[SIZES].tolist() if SIZES in arrays else None
        if before != self._sizes:
            raise CheckpointError(
                f"completions of a rollout, inner epochs and completions of an update were {before} in {run} and are "
                f"{self._sizes}: the samples that it has read would be others. Keep them (train.batch_size, "
                "train.grad_accumulation_steps and the number of ranks make an update), or start a new run."
            )
        rollout, order = (
            {name.removeprefix(f"{part}."): each for name, each in arrays.items() if name.startswith(f"{part}.")}
            for part in (ROLLOUT, ORDER)
        )
        self.order.restore(order)
        self.rollout = Rollout.restored(rollout) if rollout else None
        if self.options.beta:
            self._reference = kept_reference(run)

    def _order(self, number: int, again: int) -> NDArray[np.int64]:
        """In which a rollout is learned from, another one each time."""
        return np.random.default_rng([self.seed, number, again]).permutation(self.size)

    def _rolled(self, number: int) -> Rollout:
        trainer, spent = self.trainer, self.asking.seconds
        spent.update(dict.fromkeys(spent, 0.0))
        with trainer.update.joined(), trainer.update.rounded():
            drawn = self._groups(trainer.model, number)
            groups = self._chosen(drawn)
            gains = self._advantages(groups)
            rollout = self._compared(self._of(number, groups, gains))
        self._measured = {**self._figures(drawn), **spent}
        self._notice(drawn)
        every = self.options.log_completions
        if every and number % every == 0 and trainer.path and self.ranks.first:
            write_down(trainer.path, trainer.step + 1, self.asking, self.prompts, groups, gains)
        return rollout

    def _notice(self, drawn: Groups) -> None:
        """Say that rewards judge nothing; `LmxError` after more than `train.max_bad_steps` such rollouts in a row."""
        self._unjudged = self._unjudged + 1 if np.isnan(drawn.rewards).all() else 0
        problem = (
            f"no reward could judge any of the {drawn.rewards.size} completions of step {self.trainer.step + 1} "
            f"({', '.join(self.asking.names)}), so that nothing is learned from them. Look at {COMPLETIONS} in the run, and "
            "whether the rows of the dataset have the answer that rewards need."
        )
        if self._unjudged > self.trainer.config.max_bad_steps:
            raise LmxError(f"{problem} It was so {self._unjudged} times in a row.")
        if self._unjudged == 1 and self.ranks.first:
            warnings.warn(problem, LmxWarning, stacklevel=2)

    def _groups(self, model: Any, number: int) -> Groups:
        """Those that are learned from, and others that were drawn because they tell nothing."""
        wanted = self.size // self.options.group_size
        found = self._asked(model, number, range(wanted))
        for _ in range(self.options.max_resamples):
            missing = wanted - int(found.telling.sum())
            if missing <= 0:
                break
            found = found.joined(self._asked(model, number, range(len(found), len(found) + missing)))
        return found

    def _asked(self, model: Any, number: int, groups: range) -> Groups:
        draw = np.random.default_rng([self.seed, number, groups.start])
        places = self.order.choose(len(groups), draw)
        seeds = seeds_of(self.seed, number, groups, self.options.group_size)
        found = self.asking.groups(model, self.prompts, places, seeds)
        self.order.tell(places, found.rewards)
        return found

    def _chosen(self, groups: Groups) -> Groups:
        """As many as a rollout has: those first that tell something."""
        places = np.concatenate([np.flatnonzero(groups.telling), np.flatnonzero(~groups.telling)])
        wanted = self.size // self.options.group_size
        return groups if len(groups) == wanted else groups.take(places[:wanted])

    def _advantages(self, groups: Groups) -> NDArray[np.float64]:
        """(G, K); of a group in which a reward failed nothing is used."""
        options = self.options
        left_out = groups.dropped[:, None]
        penalties = -options.overlong_penalty * overlong(
            groups.lengths, options.max_new_tokens, options.overlong_buffer
        )
        if options.advantages != "each_reward":
            return advantages(np.where(left_out, np.nan, groups.rewards + penalties), options.advantages)
        each = np.where(left_out[..., None], np.nan, groups.each)
        weights = [spec.weight for spec in options.rewards]
        if options.overlong_buffer:
            unknown = np.isnan(each).all(-1)
            each = np.concatenate([each, np.where(unknown, np.nan, penalties)[..., None]], axis=-1)
            weights.append(1.0)
        return advantages_of_each(each, np.array(weights))

    def _of(self, number: int, groups: Groups, gains: NDArray[np.float64]) -> Rollout:
        counts = np.broadcast_to(~groups.dropped[:, None], groups.lengths.shape)
        if self.options.mask_truncated:
            counts = counts & (groups.ended > 0)
        return Rollout(
            number=number,
            prompts=np.repeat(groups.prompts, self.options.group_size),
            tokens=groups.tokens.reshape(self.size, -1),
            lengths=groups.lengths.reshape(-1),
            counts=counts.reshape(-1),
            advantages=gains.reshape(-1).astype(np.float32),
        )

    def _compared(self, rollout: Rollout) -> Rollout:
        """With the log-probabilities that its loss needs; each rank computes a part of them."""
        logps: dict[str, NDArray[np.float32]] = {}
        for name, forward in self._forwards.items():
            found = np.zeros(rollout.tokens.shape, np.float32)
            forward(self._parts(rollout), found)
            logps[name] = found if self.ranks.size == 1 else np.array(self.ranks.sum(mx.array(found)))
        return attrs.evolve(rollout, logps=logps)

    def _parts(self, rollout: Rollout) -> Any:
        """Completions of like length together."""
        order = np.argsort(rollout.lengths, kind="stable")
        for i, start in enumerate(range(0, self.size, self.rows)):
            if i % self.ranks.size == self.ranks.rank:
                rows = order[start : start + self.rows]
                yield rows, rollout.batch(rows, self.prompts, self.longest)

    def _figures(self, groups: Groups) -> dict[str, float]:
        """Of all completions that were drawn."""
        found = figures(groups, self.asking.names)
        known = [row[~np.isnan(row)] for row in groups.rewards]
        deviations = [float(row.std(ddof=1)) for row in known if row.size > 1]
        return {
            **found,
            "reward_std": float(np.mean(deviations)) if deviations else 0.0,
            "groups_without_signal": float((~groups.telling).mean()),
            "dropped_groups": float(groups.dropped.sum()),
        }


def overlong(lengths: NDArray[np.integer], longest: int, buffer: int) -> NDArray[np.float64]:
    """0 up to `longest - buffer` tokens, from there a straight line to 1 at `longest`; eq. 13 of arXiv:2503.14476 has -1."""
    return np.clip((lengths - (longest - buffer)) / max(buffer, 1), 0, 1)


def figures(groups: Groups, names: Sequence[str]) -> dict[str, float]:
    """Means over completions: `reward`, each reward by name, `completion_tokens`, and `truncated`, the share cut off. What no
    reward could judge is left out, and what has no value then, too.
    """
    values = {"reward": groups.rewards, **{f"reward/{name}": groups.each[..., i] for i, name in enumerate(names)}}
    means = {
        name: float(np.nanmean(each, dtype=np.float64)) for name, each in values.items() if not np.isnan(each).all()
    }
    return {
        **means,
        "completion_tokens": float(groups.lengths.mean(dtype=np.float64)),
        "truncated": float((groups.ended == 0).mean()),
    }
