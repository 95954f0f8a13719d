"""What an evaluation found, problem by problem."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from lmx_core.errors import DataError
from lmx_rl.evaluation.estimates import interval, pass_at_k, pass_hat_k

UNKNOWN = ("unsupported", "broken")
"""What says nothing about a completion."""
INTERVAL = "95 %, Wilson's score interval with the variance between problems and Student's quantile"


@attrs.frozen(kw_only=True)
class ProblemScore:
    """The samples of one problem."""

    task_id: str
    kind: str
    difficulty: int
    outcomes: Mapping[str, int]
    """How many samples: `passed`; `wrong`, some test did not pass; else as the sandbox ends, `failed`, `time`, `memory` and
    `output`, and the unknown `unsupported` and `broken`."""
    cut: int
    """Samples that reached `max_tokens`."""
    detail: str = ""
    """Of the first unknown one, why."""

    @property
    def samples(self) -> int:
        return sum(self.outcomes.values())

    @property
    def unknown(self) -> int:
        """Samples that are left out."""
        return sum(self.outcomes.get(name, 0) for name in UNKNOWN)

    @property
    def known(self) -> int:
        """The n of pass@k."""
        return self.samples - self.unknown

    @property
    def passed(self) -> int:
        """The c of pass@k."""
        return self.outcomes.get("passed", 0)

    @classmethod
    def read(cls, data: Any) -> "ProblemScore":
        """From what `plain` gave."""
        try:
            return cls(**{field.name: data[field.name] for field in attrs.fields(cls) if field.name in data})
        except (TypeError, KeyError):
            raise DataError(f"{data!r:.60} is no result of a problem") from None

    def plain(self, ks: Sequence[int]) -> dict[str, Any]:
        """With n, c and pass@k for the ks that n is enough for."""
        chances = {str(k): pass_at_k(self.known, self.passed, k) for k in ks if k <= self.known}
        return {**attrs.asdict(self), "n": self.known, "c": self.passed, "pass_at_k": chances}


@attrs.frozen(kw_only=True)
class Estimate:
    """The mean over problems, and where it lies with a confidence of 95 %."""

    k: int
    value: float
    low: float
    high: float
    all_pass: float
    """pass^k, that all of k pass."""
    problems: int
    """Those with at least k samples of which something is known."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """Pass@k of a model."""

    ks: Sequence[int]
    problems: Sequence[ProblemScore]
    settings: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What the samples depend on."""
    of: int
    """Problems to be evaluated; more than `problems` while it goes on."""

    @property
    def unknown(self) -> int:
        """Samples that are left out, since the sandbox could not say what they are worth."""
        return sum(each.unknown for each in self.problems)

    @property
    def samples(self) -> int:
        return sum(each.samples for each in self.problems)

    def estimate(self, k: int, problems: Sequence[ProblemScore] | None = None) -> Estimate | None:
        """Over all problems, or some of them; None where none has k samples of which something is known."""
        of = [each for each in (self.problems if problems is None else problems) if each.known >= k]
        if not of:
            return None
        n, c = [each.known for each in of], [each.passed for each in of]
        values = pass_at_k(n, c, k)
        low, high = interval(values.tolist())
        return Estimate(
            k=k,
            value=float(values.mean()),
            low=low,
            high=high,
            all_pass=float(pass_hat_k(n, c, k).mean()),
            problems=len(of),
        )

    def estimates(self, problems: Sequence[ProblemScore] | None = None) -> list[Estimate]:
        return [found for k in self.ks if (found := self.estimate(k, problems)) is not None]

    def by_kind(self) -> dict[str, list[Estimate]]:
        """The estimates for the problems of each kind."""
        kinds = dict.fromkeys(each.kind for each in self.problems)
        return {kind: self.estimates([each for each in self.problems if each.kind == kind]) for kind in kinds}

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "complete": len(self.problems) == self.of,
            "problems_in_all": self.of,
            "samples": self.samples,
            "unknown": self.unknown,
            "interval": INTERVAL,
            "pass_at_k": [attrs.asdict(each) for each in self.estimates()],
            "by_kind": {kind: [attrs.asdict(each) for each in found] for kind, found in self.by_kind().items()},
            "settings": dict(self.settings),
            "problems": [each.plain(self.ks) for each in self.problems],
        }
