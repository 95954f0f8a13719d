"""`lmx eval`"""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from lmx_rl.evaluation import Estimate, Evaluation, ProblemScore

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""
ISOLATION = ("none", "process", "system", "interpreter")


@click.group(name="eval")
def evaluate() -> None:
    """Say how good a model is."""


@evaluate.command()
@click.argument("model")
@click.option(
    "--problems", "place", required=True, metavar="FILE", help="In JSON Lines; or 'handwritten' for those of lmx-rl."
)
@click.option("--k", "stated", default="1", show_default=True, metavar="K,K,...", help="Of pass@k, as 1,5,10.")
@click.option("--samples", type=click.IntRange(min=1), help="Of each problem; twice the largest k unless given.")
@click.option(
    "--temperature", default=0.8, show_default=True, type=click.FloatRange(min=0), help="0 takes the likeliest token."
)
@click.option(
    "--top-p",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Draw from the likeliest tokens that reach this probability.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Of a sample; 512, or what fits the model, unless given."
)
@click.option("--chat", is_flag=True, help="Ask as the tokenizer's chat template writes it.")
@click.option(
    "--sandbox",
    metavar="NAME",
    help="Where programs run; unless given monty, if it is installed, and what fails there again in process.",
)
@click.option(
    "--minimum-isolation",
    "minimum",
    type=click.Choice(ISOLATION),
    default="system",
    show_default=True,
    help="What the sandbox must obtain, or nothing runs.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of the samples.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep results in this file as they come; the same command goes on with it.",
)
@as_json
def passk(
    model: str, place: str, stated: str, minimum: str, out: Path | None, as_json: bool, seed: int, **settings: Any
) -> None:
    """Say how likely one of k tries of a model solves a problem of code.

    MODEL is a run directory, a saved model, or what a plugin opens. Each sample runs with the tests of its problem, in a
    sandbox; where that cannot say what a sample is worth, it is left out. Intervals are of 95 %, for problems like these.
    """
    from lmx_rl.evaluation import evaluate_pass_at_k
    from lmx_rl.evaluation.passk import checked_samples
    from lmx_rl.problems import problems_of
    from lmx_rl.rewards.code_tests import isolation, open_sandboxes

    ks = numbers(stated)
    settings["samples"] = checked_samples(settings["samples"], ks, settings["temperature"])
    problems = problems_of(place)
    opened, tokenizer = _opened(model)
    sandboxes = open_sandboxes(settings.pop("sandbox"), isolation(minimum))
    named = {"sandbox": ", ".join(type(each).__name__ for each in sandboxes), "minimum_isolation": minimum}
    kept = _Kept(out, ks, len(problems))
    kept.begin(lambda: {"model": model, **_digests(opened, problems), **settings, **named, "seed": seed})
    try:
        with _bar(as_json, len(problems), len(kept.scores)) as advance:
            found = evaluate_pass_at_k(
                opened,
                tokenizer,
                problems,
                ks=ks,
                seed=seed,
                sandbox=sandboxes,
                finished=kept.scores,
                progress=lambda scores: advance(kept.add(scores)),
                **settings,
            )
    except KeyboardInterrupt:
        click.echo(kept.interrupted(), err=True)
        sys.exit(INTERRUPTED)
    finally:
        for each in sandboxes:
            each.close()
    kept.write(found)
    _tell(found, as_json)


def numbers(stated: str) -> list[int]:
    """The ks of `1,5,10`, each once, rising."""
    try:
        return sorted({int(each) for each in stated.split(",")})
    except ValueError:
        raise ConfigError(f"--k {stated!r}: write whole numbers with commas between, such as 1,5,10") from None


class _Kept:
    """What is done so far, in a file if there is one."""

    def __init__(self, path: Path | None, ks: Sequence[int], of: int) -> None:
        self.path, self.ks, self.of = path, ks, of
        self.scores: list[ProblemScore] = []
        self.record: Any = None

    def begin(self, settings: Any) -> None:
        from lmx_rl.evaluation.record import Record

        if self.path is not None:
            self.record = Record(self.path, settings())
            self.scores = self.record.finished()

    def add(self, scores: "Sequence[ProblemScore]") -> int:
        """How many problems there are with these."""
        from lmx_rl.evaluation import Evaluation

        self.scores = [*self.scores, *scores]
        self.write(Evaluation(ks=self.ks, problems=self.scores, of=self.of))
        return len(self.scores)

    def write(self, evaluation: "Evaluation") -> None:
        if self.record is not None:
            self.record.write(evaluation)

    def interrupted(self) -> str:
        done = f"Stopped after {len(self.scores)} of {self.of} problems."
        if self.path is None:
            return f"{done} With --out FILE what is done would be kept."
        return f"{done} {self.path} has what is done; the same command goes on." if self.scores else done


def _opened(place: str) -> tuple[Any, Any]:
    from lmx_core.opening import open_model

    found = open_model(place)
    if found.tokenizer is None:
        raise CheckpointError(f"{place} has no tokenizer, so that no prompt can be read. Put one beside the model.")
    return found.model, found.tokenizer


def _digests(model: Any, problems: Any) -> dict[str, str]:
    from lmx_core.train.parallel.together import fingerprint
    from lmx_rl.evaluation.record import digest

    return {"weights": fingerprint(model), "problems": digest(problems)}


@contextmanager
def _bar(quiet: bool, total: int, done: int) -> Generator[Any, None, None]:
    """Problems done, on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("problems", total=total, completed=done)
        yield lambda count: bar.update(task, completed=count)


def _tell(found: "Evaluation", as_json: bool) -> None:
    from lmx_core.cli.table import show

    if as_json:
        import json

        click.echo(json.dumps(found.plain(), indent=2))
        return
    rows = [["all", *row] for row in map(_row, found.estimates())]
    kinds = found.by_kind()
    if len(kinds) > 1:
        rows += [[kind or "no kind", *_row(each)] for kind, estimates in kinds.items() for each in estimates]
    show(["KIND", "K", "PASS@K", "95 %", "ALL OF K", "PROBLEMS"], rows)
    for line in _notes(found):
        click.echo(line, err=True)


def _row(each: "Estimate") -> list[str]:
    return [
        str(each.k),
        f"{each.value:.3f}",
        f"{each.low:.3f} to {each.high:.3f}",
        f"{each.all_pass:.3f}",
        str(each.problems),
    ]


def _notes(found: "Evaluation") -> list[str]:
    """What one should know beside the figures."""
    cut = sum(each.cut for each in found.problems)
    notes = [f"{cut} of {found.samples} samples reached --max-tokens."] if cut else []
    if found.unknown:
        why = next(each.detail for each in found.problems if each.unknown)
        notes.append(f"{found.unknown} of {found.samples} samples are left out: the sandbox cannot run them ({why}).")
    few = [k for k in found.ks if any(each.known < k for each in found.problems)]
    if few:
        notes.append(f"For k={', '.join(map(str, few))} problems with fewer samples left are left out.")
    return notes
