"""What a distribution can answer and be told, as pluggy hooks: functions of the module that its entry point `hooks` names.

Chosen by a name in a config: a component. Everyone reacts: a hook. None is called inside a forward pass.
"""
# pyright: reportReturnType=false

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from lmx_core.model import LanguageModel
    from lmx_core.opening import Opened
    from lmx_core.train.trainer import Trainer

PROJECT = "lmx"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def lmx_model_built(model: "LanguageModel") -> None:
    """A model was built; its parameters are lazy still, and may belong to a checkpoint that is about to be read."""


@hookspec
def lmx_train_start(trainer: "Trainer") -> None:
    """A run starts, or goes on. `trainer.stop(reason)` ends it after the next step, with a checkpoint."""


@hookspec
def lmx_train_step(trainer: "Trainer", metrics: dict[str, float]) -> None:
    """A step was taken: its loss in nats a token, gradient norm, learning rate, speed, and the components' reports."""


@hookspec
def lmx_train_end(trainer: "Trainer", summary: dict[str, Any]) -> None:
    """A run came to its end, or was stopped."""


@hookspec
def lmx_missing(kind: str, name: str) -> str | None:
    """The distribution that would provide a component which nobody here offers, or None."""


@hookspec
def lmx_opener(place: str) -> "Callable[[], Opened] | None":
    """How to read a model that lmx did not write, a folder or a name of any kind, or None where it is not this one's.

    Reading it happens in the call of what is returned, whose errors the user sees. It may also have a method `config()`,
    the model's config without its weights. The first distribution by name decides.
    """


@hookspec
def lmx_report_header() -> str | Sequence[str]:
    """Lines for the top of `lmx train` and for `lmx doctor`: versions, devices, where things are logged."""
