"""TensorBoard's event files, written with the package tensorboard alone: neither torch nor TensorFlow is needed."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError
from lmx_core.serialize import to_toml
from lmx_core.train.loggers.logger import Logger
from lmx_core.train.trainer import Trainer


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TensorBoardOptions:
    """Options of `callback="tensorboard"`."""

    folder: str | None = None
    """Where the event files are; logs/tensorboard in the run's directory, unless given."""


class TensorBoard(Logger):
    """Metrics as scalars, the config and samples as texts; `tensorboard --logdir RUNS` shows many runs in one.

    A resumed run marks where it begins, and TensorBoard forgets what an earlier process wrote from there on.
    """

    Options = TensorBoardOptions
    extra, needs, replaces = "tensorboard", "tensorboard.summary.writer.event_file_writer", True

    def begin(self, trainer: Trainer, folder: Path | None) -> None:
        names = ("event_pb2", "summary_pb2", "tensor_pb2", "types_pb2")
        protos: Any = [importlib.import_module(f"tensorboard.compat.proto.{name}") for name in names]
        self._event, self._summary, self._tensor, self._types = protos
        if self.options.folder is None and folder is None:
            raise ConfigError("tensorboard needs a folder for a run without a directory. Give its option folder.")
        self.writer = self.module.EventFileWriter(self.options.folder or str(folder / "tensorboard" if folder else ""))
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self.writer.add_event(self._event.Event(wall_time=time.time(), step=trainer.step + 1, session_log=start))
        if trainer.about:
            self.write_text(trainer.step, {"config": f"```toml\n{to_toml(trainer.about)}```"}, "")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._add(step, [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()])

    def write_text(self, step: int, texts: Mapping[str, str], prefix: str = "samples/") -> None:
        plugin = self._summary.SummaryMetadata.PluginData(plugin_name="text")
        metadata = self._summary.SummaryMetadata(plugin_data=plugin)
        values: list[Any] = []
        for name, text in texts.items():
            encoded = [text.encode("utf-8", "replace")]
            tensor = self._tensor.TensorProto(dtype=self._types.DT_STRING, string_val=encoded)
            values.append(self._summary.Summary.Value(tag=f"{prefix}{name}", metadata=metadata, tensor=tensor))
        self._add(step, values)

    def _add(self, step: int, values: list[Any]) -> None:
        summary = self._summary.Summary(value=values)
        self.writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))

    def end(self, failed: bool) -> None:
        self.writer.close()
