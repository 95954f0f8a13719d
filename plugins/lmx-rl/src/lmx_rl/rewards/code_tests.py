"""Code, by what it gives when it is run."""

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmx_core.config import ComponentSpec, exact_types, optional_slot
from lmx_rl.rewards.code_task import CodeTask
from lmx_rl.sandbox.protocol import Isolation, Outcome, Program, Sandbox

IsolationName = Literal["none", "process", "system", "interpreter"]


def isolation(name: str) -> Isolation:
    """`Isolation.SYSTEM` for `system`."""
    return Isolation[name.upper()]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class CodeTestsOptions:
    """Options of `reward="code_tests"`."""

    sandbox: ComponentSpec | None = optional_slot("sandbox")
    """Where programs run; `monty` unless given, if it is installed, else `process`."""
    minimum: IsolationName = "system"
    """What the sandbox must obtain on this machine, or nothing runs: a process of its own with limits (`process`), without
    files and network, too (`system`), or an interpreter that has none of these (`interpreter`)."""
    partial: bool = False
    """Whether the reward is the share of the tests that pass, and not 1 for all and 0 for fewer."""


@attrs.frozen(kw_only=True)
class Judgement:
    """What became of one completion."""

    outcome: Outcome
    passed: int | None
    """Tests; None where the sandbox cannot say."""
    tests: int

    @property
    def solved(self) -> bool | None:
        return None if self.passed is None else self.passed == self.tests


def judgements(sandbox: Sandbox, tasks: Sequence[CodeTask], completions: Sequence[str]) -> list[Judgement]:
    """Runs what each completion makes of its task, and compares in this process what the calls gave."""
    programs: list[Program] = [task.program(text) for task, text in zip(tasks, completions, strict=True)]
    outcomes = sandbox.run(programs)
    return [
        Judgement(outcome=outcome, passed=task.passed(outcome), tests=len(task.tests))
        for task, outcome in zip(tasks, outcomes, strict=True)
    ]


class CodeTests:
    """1 where the function that the completion writes passes all tests of the answer, else 0.

    The answer is a table, as a row of a file of problems: `prompt`, `function` and `tests`, each with `args` and what is
    `expected`. The code is taken from a block between fences, or as what goes on with the prompt. What the program gives is
    compared here, outside of the sandbox, which is never told what is expected. None without such an answer, and where the
    sandbox lacks what the program uses or fails itself.
    """

    Options = CodeTestsOptions

    def __init__(self, options: CodeTestsOptions | None = None) -> None:
        self.options = options or CodeTestsOptions()
        self._sandbox: Sandbox | None = None

    @property
    def sandbox(self) -> Sandbox:
        """Opened at first use. `ConfigError` where it obtains too little isolation."""
        if self._sandbox is None:
            from lmx_rl.sandbox import open_sandbox

            self._sandbox = open_sandbox(self.options.sandbox, isolation(self.options.minimum))
        return self._sandbox

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.all([prompt], [completion], [answer])[0]

    def all(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
        """Of many at once. `DataError` for an answer that is a table and no task."""
        places = [i for i, answer in enumerate(answers) if isinstance(answer, dict)]
        rewards: list[float | None] = [None] * len(answers)
        if places:
            tasks = [CodeTask.read(answers[i]) for i in places]
            for i, found in zip(places, judgements(self.sandbox, tasks, [completions[i] for i in places]), strict=True):
                rewards[i] = self._reward(found)
        return rewards

    def _reward(self, found: Judgement) -> float | None:
        if found.passed is None or not self.options.partial:
            return None if found.solved is None else float(found.solved)
        return found.passed / found.tests

    def close(self) -> None:
        """End the sandbox's workers."""
        if self._sandbox is not None:
            self._sandbox.close()
