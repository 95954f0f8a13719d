"""Pass@k of a model: samples of its answers, run."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from lmx_core.config import ComponentSpec
from lmx_core.continuations import Continuation, continuations
from lmx_core.data.answers import Answers
from lmx_core.data.tokenizers import decode
from lmx_core.errors import ConfigError
from lmx_rl.evaluation.result import Evaluation, ProblemScore
from lmx_rl.problems.files import unique
from lmx_rl.problems.problem import INSTRUCTION, Problem
from lmx_rl.rewards.code_tests import Judgement, judgements, open_sandboxes
from lmx_rl.sandbox import Isolation, Sandbox

ROWS = 64
"""Samples that are drawn together."""
DEFAULT_TOKENS = 512
Progress = Callable[[Sequence[ProblemScore]], None]


def evaluate_pass_at_k(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    *,
    samples: int | None = None,
    ks: Sequence[int] = (1,),
    temperature: float = 0.8,
    top_p: float | None = 0.95,
    max_tokens: int | None = None,
    sandbox: Sandbox | Sequence[Sandbox] | ComponentSpec | str | None = None,
    minimum: Isolation = Isolation.SYSTEM,
    chat: bool = False,
    seed: int = 0,
    rows: int = ROWS,
    progress: Progress | None = None,
    finished: Sequence[ProblemScore] = (),
) -> Evaluation:
    """Draws so many samples of each problem, twice the largest k unless given, runs them, and counts those that pass.

    Samples of which the sandbox cannot say what they are worth are left out: the n of a problem is then smaller. With `chat`
    a model is asked in its chat template. `max_tokens` are 512 unless given, or what fits the model. `progress` is told
    problems that are done, some at a time; `finished` ones are not done again.
    A sample depends on its problem's place, its number and the seed, and not on what is drawn with it. `ConfigError` for
    a k above the number of samples.
    """
    count = checked_samples(samples, ks, temperature)
    done = {each.task_id: each for each in finished}
    left = [i for i, each in enumerate(unique(problems)) if each.task_id not in done]
    prompts = _prompts(tokenizer, problems, chat)
    most = max_tokens or model.room_after(max(map(len, prompts), default=0), DEFAULT_TOKENS)
    draw = functools.partial(continuations, model, temperature=temperature, top_p=top_p, max_tokens=most)
    asking = _Asking(tokenizer, prompts, count, seed, draw)
    ours = open_sandboxes(sandbox, minimum) if sandbox is None or isinstance(sandbox, ComponentSpec | str) else []
    opened: Any = ours or sandbox
    try:
        for places in asking.batches(left, rows):
            scores = _scores(opened, [problems[place] for place in places], asking.texts(places, rows))
            done |= {each.task_id: each for each in scores}
            if progress is not None:
                progress(scores)
    finally:
        for each in ours:
            each.close()
    return Evaluation(ks=[*ks], problems=[done[each.task_id] for each in problems], of=len(problems))


def checked_samples(samples: int | None, ks: Sequence[int], temperature: float) -> int:
    """How many samples of a problem these ks ask for, where it is not said."""
    if not ks or min(ks) < 1:
        raise ConfigError(f"k must be at least 1, got {', '.join(map(str, ks)) or 'none'}")
    if temperature == 0 and max(ks) > 1:
        raise ConfigError(
            f"temperature=0 draws one text alone, which says nothing of k={max(ks)}. Ask for k=1, or raise it."
        )
    count = samples or (1 if temperature == 0 else 2 * max(ks))
    if count < max(ks):
        raise ConfigError(f"k={max(ks)} needs as many samples of each problem, got samples={count}")
    return count


def _prompts(tokenizer: Any, problems: Sequence[Problem], chat: bool) -> list[list[int]]:
    answers = Answers.of(tokenizer)
    return [answers.asked(each.asked(INSTRUCTION if chat else None))[0] for each in problems]


@attrs.frozen
class _Sample:
    text: str
    cut: bool


@attrs.frozen
class _Asking:
    """How problems are put to a model."""

    tokenizer: Any
    prompts: Sequence[Sequence[int]]
    samples: int
    seed: int
    draw: Callable[..., list[Continuation]]

    def batches(self, left: Sequence[int], rows: int) -> Iterator[list[int]]:
        """Places of problems of much the same length, as many as fit into so many rows."""
        at_once = max(rows // self.samples, 1)
        order = sorted(left, key=lambda place: len(self.prompts[place]))
        yield from (order[start : start + at_once] for start in range(0, len(order), at_once))

    def texts(self, places: Sequence[int], rows: int) -> list[list[_Sample]]:
        """The samples of each problem; several times where those of one alone are more than the rows."""
        found: list[list[_Sample]] = [[] for _ in places]
        prompts = [self.prompts[place] for place in places]
        for first in range(0, self.samples, rows):
            repeats = min(rows, self.samples - first)
            seeds = [self._seed(place, first + i) for place in places for i in range(repeats)]
            drawn = self.draw(prompts, repeats=repeats, seeds=seeds, stop=self._stop)
            for row, each in enumerate(drawn):
                found[row // repeats].append(self._sample(each))
        return found

    def _seed(self, place: int, sample: int) -> int:
        return int(np.random.SeedSequence([self.seed, place, sample]).generate_state(1, np.uint64)[0])

    @property
    def _stop(self) -> Sequence[int]:
        return getattr(self.tokenizer, "eos_tokens", ())

    def _sample(self, drawn: Continuation) -> _Sample:
        tokens = drawn.tokens[:-1] if drawn.ended else drawn.tokens
        return _Sample(decode(self.tokenizer, tokens, getattr(self.tokenizer, "special_tokens", ())), not drawn.ended)


def _scores(
    sandbox: Sandbox | Sequence[Sandbox], problems: Sequence[Problem], samples: Sequence[Sequence[_Sample]]
) -> list[ProblemScore]:
    """All run at once, but equal samples of a problem as one."""
    programs = [*dict.fromkeys((i, each.text) for i, texts in enumerate(samples) for each in texts)]
    tasks = [each.task for each in problems]
    found = judgements(sandbox, [tasks[i] for i, _ in programs], [text for _, text in programs])
    by_text = dict(zip(programs, found, strict=True))
    return [
        _score(problem, texts, [by_text[i, each.text] for each in texts])
        for i, (problem, texts) in enumerate(zip(problems, samples, strict=True))
    ]


def _score(problem: Problem, samples: Sequence[_Sample], judged: Sequence[Judgement]) -> ProblemScore:
    return ProblemScore(
        task_id=problem.task_id,
        kind=problem.kind,
        difficulty=problem.difficulty,
        outcomes=dict(Counter(map(_became, judged))),
        cut=sum(each.cut for each in samples),
        detail=next((each.outcome.detail for each in judged if not each.outcome.known), ""),
    )


def _became(judged: Judgement) -> str:
    if judged.solved:
        return "passed"
    return "wrong" if judged.outcome.status == "done" else judged.outcome.status
