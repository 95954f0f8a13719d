"""Learning from rewards."""

from typing import Any

import attrs

from lmx_core.errors import ConfigError, DataError
from lmx_core.model import LanguageModel
from lmx_core.protocols import Tokenizer
from lmx_core.train.config import RunConfig
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_core.train.recipes import must_be_left_out
from lmx_core.train.trainer import Trainer
from lmx_rl.policy.forward import check_reference
from lmx_rl.policy.groups import Asking, Drawing, seeds_of
from lmx_rl.policy.objective import PolicyGradient
from lmx_rl.policy.options import GRPOOptions
from lmx_rl.policy.prompts import Prompts, read_prompts
from lmx_rl.policy.source import Rollouts, figures
from lmx_rl.rewards.judge import Judge


class GRPO:
    """Group relative policy optimisation (arXiv:2402.03300), and by its options Dr. GRPO, DAPO, GSPO, RLOO, CISPO and SAPO.

    The policy answers prompts of the dataset several times, rewards say how well, and what is above the mean of its group
    becomes likelier. `train.batch_size` counts completions. Evaluations answer held-out prompts: `val_reward`, where higher
    is better. `train.seq_len` is not read.
    """

    Options = GRPOOptions
    fixed = ("group_size", "rollout_size", "inner_epochs", "max_new_tokens", "temperature", "curriculum", "reference")

    def __init__(self, config: RunConfig, options: GRPOOptions) -> None:
        must_be_left_out(config)
        options.completions(config.train, 1)
        self.config, self.options = config, options
        self.judge = Judge(
            options.rewards, concurrency=options.reward_concurrency, time_limit=options.reward_time_limit
        )

    def read(self, tokenizer: Tokenizer | None) -> Prompts:
        return read_prompts(self.config.data, tokenizer)

    def trainer(self, model: LanguageModel, material: Prompts, ranks: Ranks | None = None) -> Trainer:
        ranks = ranks or alone()
        options, train = self.options, self.config.train
        if options.reference is not None:
            check_reference(options.reference, model.config)
        objective = PolicyGradient(options, temperature=options.temperature, longest=options.max_new_tokens)
        size, update = options.completions(train, ranks.size)
        asking = Asking(material.tokenizer, self.judge, self._drawing(material.tokenizer), ranks)
        longest = longest_row(material, options.max_new_tokens, model.longest())
        source = Rollouts(
            material.train,
            options,
            asking,
            objective.logps,
            size=size,
            update=update,
            rows=train.batch_size,
            longest=longest,
            seed=train.seed,
            compiled=train.compile,
            ranks=ranks,
        )
        return Trainer(
            model,
            attrs.evolve(train, seq_len=longest),
            source,
            objective=objective,
            evaluate=self._evaluation(material, asking),
            ranks=ranks,
            criterion="val_reward",
            higher_is_better=True,
        )

    def _drawing(self, tokenizer: Any) -> Drawing:
        options = self.options
        names = ("temperature", "top_k", "top_p", "min_p")
        return Drawing(
            repeats=options.group_size,
            max_tokens=options.max_new_tokens,
            stop=frozenset(stop_tokens(tokenizer, options.stop)),
            sampling={name: getattr(options, name) for name in names},
            rows=options.rows_at_once,
        )

    def _evaluation(self, material: Prompts, asking: Asking) -> Any:
        """From a model, and whether it is the last time, to what held-out prompts earn."""
        options, seed = self.options, self.config.train.seed
        sampling = {"temperature": options.eval_temperature}
        once = asking.drawing_otherwise(attrs.evolve(asking.drawing, repeats=1, sampling=sampling))

        def measured(model: LanguageModel, final: bool) -> dict[str, Any]:
            held_out = material.validation if final else material.validation[: options.eval_prompts]
            places = range(len(held_out))
            found = once.groups(model, held_out, places, seeds_of(seed, -1, places, 1))
            return {"val_reward": float("nan")} | {
                f"val_{name}": value for name, value in figures(found, once.names).items()
            }

        return measured


def stop_tokens(tokenizer: Any, texts: Any) -> list[int]:
    """What ends a completion: the tokenizer's own, and the tokens of these texts, one each."""
    found = [*getattr(tokenizer, "eos_tokens", ())]
    for text in texts:
        tokens = tokenizer.encode(text)
        if len(tokens) != 1:
            raise ConfigError(
                f"stop={text!r} is {len(tokens)} tokens of this tokenizer; a completion ends with a single one"
            )
        found += tokens
    return found


def longest_row(material: Prompts, max_new_tokens: int, limit: int | None) -> int:
    """Inputs of the longest prompt with the longest completion; `DataError` where the model cannot place so many."""
    longest = material.longest + max_new_tokens - 1
    if limit is not None and longest > limit:
        fitting = limit + 1 - max_new_tokens
        raise DataError(
            f"a prompt of {material.longest} tokens and max_new_tokens={max_new_tokens} do not fit the model's max_seq_len="
            f"{limit}. Lower max_new_tokens"
            + (f", or leave prompts out that are longer than {fitting} tokens." if fitting > 0 else ".")
        )
    return longest
