"""A function to be written, with the tests that its writer does not see."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from lmx_core.config import as_tuple
from lmx_core.errors import DataError
from lmx_rl.rewards.code_task import Case, CodeTask, table, text

INSTRUCTION = "Complete this Python function. Answer with the whole function in one block of code.\n\n"
"""What a model that chats is told before a prompt."""
FIELDS = ("task_id", "prompt", "function", "tests", "kind", "difficulty", "solution")


@attrs.frozen(kw_only=True)
class Problem:
    """A prompt that begins a function, and what it is tested with."""

    task_id: str
    """Its own among all problems of a file."""
    prompt: str
    """The signature, and a docstring with examples; imports and helpers may come before."""
    function: str
    """The name of what is tested."""
    tests: Sequence[Case] = attrs.field(converter=as_tuple)
    """Calls that are not among the examples, with what they should return."""
    kind: str = ""
    """What it is about: problems of one kind are never on both sides of a split."""
    difficulty: int = 0
    solution: str | None = None
    """What follows the prompt, where one is known."""

    @classmethod
    def read(cls, data: Any) -> "Problem":
        """From a table with these fields. `DataError` names the field that is wrong."""
        row = table(data, "problem", {*FIELDS})
        task = CodeTask.read(row, "problem")
        if f"def {task.function}(" not in task.prompt:
            raise DataError(f"problem.prompt: it has no 'def {task.function}(', which it should begin")
        difficulty, kind, solution = row.get("difficulty", 0), row.get("kind", ""), row.get("solution")
        if type(difficulty) is not int:
            raise DataError(f"problem.difficulty: expected a whole number, got {difficulty!r:.60}")
        if not isinstance(kind, str):
            raise DataError(f"problem.kind: expected a text, got {kind!r:.60}")
        return cls(
            task_id=text(row, "task_id", "problem"),
            **attrs.asdict(task, recurse=False),
            kind=kind,
            difficulty=difficulty,
            solution=None if solution is None else text(row, "solution", "problem"),
        )

    def plain(self) -> dict[str, Any]:
        """What `read` reads."""
        about = {"kind": self.kind, "difficulty": self.difficulty, "solution": self.solution}
        return {"task_id": self.task_id, **self.task.plain(), **{k: v for k, v in about.items() if v is not None}}

    @property
    def task(self) -> CodeTask:
        """What decides on a completion."""
        return CodeTask(prompt=self.prompt, function=self.function, tests=self.tests)

    def asked(self, instruction: str | None) -> str | list[dict[str, str]]:
        """The prompt, or with an instruction a conversation that begins with both."""
        if instruction is None:
            return self.prompt
        return [{"role": "user", "content": f"{instruction}```python\n{self.prompt}```"}]

    @property
    def about(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "difficulty": self.difficulty, "task_id": self.task_id}
