"""The errors that users meet. Each message names the value, the rule and the way out."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class LmxError(Exception):
    """Something a person can mend. At the command line: its message and exit code 2, no traceback."""


class ConfigError(LmxError, ValueError):
    """A configuration that breaks a rule."""


class ComponentError(LmxError):
    """A component that cannot be found, chosen or loaded."""


class UnknownComponentError(ComponentError, LookupError):
    """No installed distribution offers this name.

    `provider` is the distribution that would; with `hidden_by` it is installed, and that variable keeps it out.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], provider: str | None = None, hidden_by: str | None = None
    ) -> None:
        names = sorted(known)
        if hidden_by:
            way_out = f"{provider} offers it, and {hidden_by} hides that."
        elif provider:
            way_out = f"{provider} provides it: pip install {provider}"
        else:
            way_out = f"{did_you_mean(name, names)}Installed: {', '.join(names) or 'none'}."
        super().__init__(f"no {kind} named {name!r}. {way_out}")
        self.kind, self.name, self.known, self.provider, self.hidden_by = kind, name, names, provider, hidden_by

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.name, self.known, self.provider, self.hidden_by)


class AmbiguousComponentError(ComponentError, LookupError):
    """Several distributions offer this name, and the bare name does not choose."""

    def __init__(self, kind: str, name: str, dists: Iterable[str]) -> None:
        owners = sorted(dists)
        qualified = ", ".join(f"{dist}/{name}" for dist in owners)
        super().__init__(f"{kind} {name!r} is provided by {' and '.join(owners)}. Write one of: {qualified}.")
        self.kind, self.name, self.dists = kind, name, owners

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.name, self.dists)


class StopRun(LmxError):
    """What a hook raises to end the program with this message; of anything else that it raises there is a warning."""


class LmxWarning(UserWarning):
    """Something that a person should know and that stops nothing."""


class DataError(LmxError):
    """A corpus that is missing, empty, damaged, or does not fit what is asked of it."""


class CheckpointError(LmxError):
    """A saved model or run that cannot be read or written."""


class BackendError(LmxError, ImportError):
    """MLX is missing, or has no backend on this machine."""


def told(error: BaseException) -> str:
    """`Type: message` of another author's error, which may fail to say even that."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? `, or nothing when no known name is near."""
    near = near_miss(name, known)
    return f"Did you mean {near!r}? " if near else ""


def report(where: str, problems: Sequence[tuple[str, str]]) -> str:
    """All problems of one source on one screen: a headline, then `path: message` lines."""
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in {where}"
    return "\n".join([count, *(f"  {path}: {message}" if path else f"  {message}" for path, message in problems)])


class ReportError(ConfigError):
    """Everything that is wrong in one place, `problems` as (path, message) pairs."""

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(report(where, problems))
        self.where, self.problems = where, problems

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.problems)
