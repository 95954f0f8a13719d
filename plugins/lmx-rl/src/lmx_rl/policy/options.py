"""What GRPO and its family can be told."""

from collections.abc import Sequence
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import as_tuple, at_least_one, exact_types
from lmx_core.errors import ConfigError
from lmx_core.train.config import TrainConfig
from lmx_rl.policy.losses import PolicyLossOptions, not_negative, positive
from lmx_rl.problems.curriculum import PassRateOptions
from lmx_rl.rewards.judge import RewardSpec

a_share: Any = validators.optional([validators.ge(0), validators.le(1)])
some: Any = validators.optional(validators.and_(*at_least_one))


def _at_least_one_reward(instance: object, attribute: Any, value: Sequence[RewardSpec]) -> None:
    if not value:
        raise ValueError('expected at least one, such as [{ reward = "exact_match" }]')


@attrs.frozen(kw_only=True, slots=False, field_transformer=exact_types)
class GRPOOptions(PolicyLossOptions):
    """Options of `trainer="grpo"`."""

    rewards: tuple[RewardSpec, ...] = attrs.field(converter=as_tuple, validator=_at_least_one_reward)
    """What completions are worth: tables with a `reward`, its `weight` and a `name`. They are added up."""
    reward_concurrency: int = attrs.field(default=16, validator=at_least_one)
    """Calls at once of a reward that is `async` or says that it may be called so."""
    reward_time_limit: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """Seconds of one call of an `async` reward, after which it has failed."""
    group_size: int = attrs.field(default=8, validator=validators.ge(2))
    """Completions of a prompt, which are compared with each other."""
    rollout_size: int | None = attrs.field(default=None, validator=some)
    """Completions that are drawn at once, a multiple of an update's; those of one update unless given. An update has
    `train.batch_size` completions, times `train.grad_accumulation_steps`, times the number of ranks."""
    inner_epochs: int = attrs.field(default=1, validator=at_least_one)
    """How often each completion is learned from before others are drawn."""
    advantages: Literal["group", "no_std", "batch", "leave_one_out", "leave_one_out_scaled", "each_reward"] = "group"
    """What of a reward is above the mean of its group: divided by the standard deviation `group` of the group
    (arXiv:2402.03300) or `batch` of the rollout, or `no_std` as it is (arXiv:2503.20783). `leave_one_out` is the difference
    to the mean of the others (RLOO, arXiv:2402.14740), which `leave_one_out_scaled` divides by the rollout's deviation.
    `each_reward` does the same as `group` for each reward, and then weighs and adds (arXiv:2601.05242)."""
    max_new_tokens: int = attrs.field(default=256, validator=at_least_one)
    """Where a completion is cut off."""
    temperature: float = attrs.field(default=1.0, validator=positive)
    """At which completions are drawn, and their probabilities are compared."""
    top_k: int | None = attrs.field(default=None, validator=some)
    """Draws from so many of the likeliest tokens. Like `top_p` and `min_p` it makes what is drawn differ from what the
    probabilities are of: better left alone."""
    top_p: float | None = attrs.field(default=None, validator=a_share)
    """Draws from the fewest likeliest tokens whose probabilities reach so much."""
    min_p: float | None = attrs.field(default=None, validator=a_share)
    """Draws from tokens at least so many times as likely as the likeliest."""
    stop: Sequence[str] = attrs.field(default=(), converter=as_tuple)
    """Tokens, each as the text that it stands for, that end a completion beside the tokenizer's own: `["\\n"]`."""
    rows_at_once: int = attrs.field(default=256, validator=at_least_one)
    """Completions that are drawn together; fewer take less memory."""
    mask_truncated: bool = False
    """Whether nothing is learned from a completion that was cut off."""
    overlong_buffer: int = attrs.field(default=0, validator=not_negative)
    """Tokens before `max_new_tokens` over which a penalty grows linearly from 0 (DAPO, arXiv:2503.14476, eq. 13); 0 is for
    no penalty."""
    overlong_penalty: float = attrs.field(default=1.0, validator=not_negative)
    """What is taken off the reward of a completion that is as long as it may be."""
    max_resamples: int = attrs.field(default=0, validator=not_negative)
    """Rounds in which groups whose rewards are all equal, which teach nothing, are replaced by those of other prompts
    (DAPO's dynamic sampling); what is still missing then is taken from them."""
    curriculum: PassRateOptions | None = None
    """Chooses prompts by their `difficulty`, which rises with what is solved: a table of its options, `{}` for the usual
    ones. All prompts in an order drawn for each epoch unless given."""
    reference: str | None = None
    """With `beta`: a model, in place of the policy as it was at the beginning."""
    log_completions: int = attrs.field(default=1, validator=not_negative)
    """Of how many rollouts one is written to the run's completions.jsonl; 0 is for none."""
    eval_prompts: int | None = attrs.field(default=256, validator=some)
    """Held-out prompts, always the first, of the evaluations on the way; the last one takes all."""
    eval_temperature: float = attrs.field(default=0.0, validator=not_negative)
    """Of the completions of an evaluation; 0 takes the likeliest token."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.overlong_buffer > self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer={self.overlong_buffer} begins before the completion does; it lies within "
                f"max_new_tokens={self.max_new_tokens}"
            )
        if self.reference is not None and not self.beta:
            raise ValueError("a reference costs nothing with beta=0; give beta, or leave reference out")

    def completions(self, train: TrainConfig, ranks: int) -> tuple[int, int]:
        """How many a rollout has, and how many an update; `ConfigError` where they do not divide."""
        update = train.batch_size * train.grad_accumulation_steps * ranks
        size = update if self.rollout_size is None else self.rollout_size
        if size % update:
            raise ConfigError(
                f"rollout_size={size} is not a multiple of the {update} completions of an update: train.batch_size="
                f"{train.batch_size} times train.grad_accumulation_steps={train.grad_accumulation_steps} times {ranks} ranks"
            )
        if size % self.group_size:
            raise ConfigError(
                f"a rollout of {size} completions has no whole number of groups of group_size={self.group_size}. Change "
                "train.batch_size, rollout_size or group_size."
            )
        return size, update
