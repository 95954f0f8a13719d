"""An evaluation in a file, which can be taken up where it was stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmx_core.data.datasets.files import read_text
from lmx_core.errors import ConfigError, DataError
from lmx_core.files import write_text
from lmx_rl.evaluation.result import Evaluation, ProblemScore
from lmx_rl.problems.problem import Problem

ANOTHER = "Give another name, or remove the file."


@attrs.frozen
class Record:
    """A file of results, and what those that belong into it depend on."""

    path: Path
    settings: Mapping[str, Any]

    def finished(self) -> list[ProblemScore]:
        """The problems that it has; none where there is no file. `ConfigError` for results of something else."""
        if not self.path.exists():
            return []
        try:
            data = json.loads(read_text(self.path))
            settings, rows = data["settings"], data["problems"]
            found = [ProblemScore.read(row) for row in rows]
        except (ValueError, KeyError, TypeError, DataError):
            raise ConfigError(
                f"{self.path} is there already, and holds no results of this command. {ANOTHER}"
            ) from None
        for name, value in self.settings.items():
            if settings.get(name) != value:
                raise ConfigError(
                    f"{self.path} has results with {name}: {settings.get(name)!r:.70}, and now it is {value!r:.70}. "
                    f"{ANOTHER}"
                )
        return found

    def write(self, evaluation: Evaluation) -> None:
        write_text(self.path, json.dumps(attrs.evolve(evaluation, settings=self.settings).plain(), indent=2) + "\n")


def digest(problems: Sequence[Problem]) -> str:
    """Of what is asked and how it is tested."""
    found = hashlib.sha256()
    for each in problems:
        found.update(json.dumps([each.task_id, each.task.plain()]).encode())
    return found.hexdigest()
