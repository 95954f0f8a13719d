"""Code, by what it gives when it is run."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmx_core.config import ComponentSpec, exact_types, optional_slot
from lmx_core.errors import LmxError
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
    """Where programs run. Unless given `monty`, if it is installed, and what does not pass there again in `process`, if
    that obtains the minimum: Monty has not all of Python. Without Monty in `process` alone."""
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


def open_sandboxes(chosen: ComponentSpec | str | None, minimum: Isolation) -> list[Sandbox]:
    """Those that `judgements` takes: the one chosen, or else `monty`, where it is installed, and then `process`.

    `ConfigError` where the first obtains less than `minimum` on this machine.
    """
    from lmx_rl.sandbox import open_sandbox

    found = [open_sandbox(chosen, minimum)]
    if chosen is None and found[0].isolation is Isolation.INTERPRETER:
        with contextlib.suppress(LmxError):  # of what the first lacks, nothing is known then
            found.append(open_sandbox("process", minimum))
    return found


def judgements(
    sandbox: Sandbox | Sequence[Sandbox], tasks: Sequence[CodeTask], completions: Sequence[str]
) -> list[Judgement]:
    """Runs what each completion makes of its task, and compares in this process what the calls gave.

    Of several sandboxes the second runs what did not pass in the first, and its word counts.
    """
    programs: list[Program] = [task.program(text) for task, text in zip(tasks, completions, strict=True)]
    found: dict[int, Judgement] = {}
    for each in sandbox if isinstance(sandbox, Sequence) else [sandbox]:
        left = [i for i in range(len(programs)) if i not in found or not found[i].solved]
        for i, outcome in zip(left, each.run([programs[i] for i in left]), strict=True):
            found[i] = Judgement(outcome=outcome, passed=tasks[i].passed(outcome), tests=len(tasks[i].tests))
    return [found[i] for i in range(len(programs))]


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
        self._sandboxes: list[Sandbox] = []

    @property
    def sandboxes(self) -> list[Sandbox]:
        """Opened at first use. `ConfigError` where they obtain too little isolation."""
        self._sandboxes = self._sandboxes or open_sandboxes(self.options.sandbox, isolation(self.options.minimum))
        return self._sandboxes

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.all([prompt], [completion], [answer])[0]

    def all(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
        """Of many at once. `DataError` for an answer that is a table and no task."""
        places = [i for i, answer in enumerate(answers) if isinstance(answer, dict)]
        rewards: list[float | None] = [None] * len(answers)
        if places:
            tasks = [CodeTask.read(answers[i]) for i in places]
            judged = judgements(self.sandboxes, tasks, [completions[i] for i in places])
            for i, found in zip(places, judged, strict=True):
                rewards[i] = self._reward(found)
        return rewards

    def _reward(self, found: Judgement) -> float | None:
        if found.passed is None or not self.options.partial:
            return None if found.solved is None else float(found.solved)
        return found.passed / found.tests

    def close(self) -> None:
        """End the workers of the sandboxes."""
        for each in self._sandboxes:
            each.close()
