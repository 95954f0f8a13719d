"""Loggers write every metric once, at its step, and close what they opened, also where training fails."""

import json
import sys
import uuid
from types import ModuleType, SimpleNamespace

import pytest

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.errors import ConfigError, LmxError, LmxWarning
from lmx_core.registry import registry
from lmx_core.testing import cases
from lmx_core.testing.runs import BRIEF, brief_trainer
from lmx_core.train.config import TrainConfig
from lmx_core.train.loggers.logger import flattened, numbers
from lmx_core.train.parallel.ranks import alone

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")
theirs = pytest.mark.filterwarnings("ignore", "error::lmx_core.errors.LmxWarning")
"""What trackers warn of is not ours to mend."""


def called(name):
    """How it is registered, also with --renamed."""
    return registry("callback").find(name).name


def config(*callbacks, **settings):
    return TrainConfig(**{**BRIEF, "max_steps": 6, "warmup_steps": 2, "callbacks": callbacks, **settings})


def trainer(path, *callbacks, **settings):
    made = brief_trainer([], path, config(*callbacks, **settings))
    made.about = {"model": {"block": {"d_model": 64}}, "train": {"seed": 0, "tags": [1, 2]}}
    return made


def resumed(before, step, *callbacks, **settings):
    made = trainer(before.path, *callbacks, **settings)
    made.resume({**before.position, "step": step})
    return made


def failing(made, at):
    """The trainer, whose source breaks at a step."""
    batch = made.source.batch

    def breaking(samples, step):
        if step == at:
            raise ZeroDivisionError
        return batch(samples, step)

    made.source.batch = breaking
    return made


# Fakes, for the calls ----------------------------------------------------------------------------------------------------


class FakeRun:
    def __init__(self, calls):
        self.calls = calls

    def log(self, values, step=None):
        self.calls.append(("log", step, dict(values)))

    def finish(self, exit_code=None):
        self.calls.append(("finish", exit_code))


class FakeClient:
    """MLflow's, of one experiment."""

    def __init__(self, calls):
        self.calls, self.entities, self.runs = calls, SimpleNamespace(Param=tuple_of(2), Metric=tuple_of(4)), 0

    def MlflowClient(self, tracking_uri=None):  # noqa: N802
        self.calls.append(("client", tracking_uri))
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if any(call[0] == "experiment" for call in self.calls) else None

    def create_experiment(self, name):
        self.calls.append(("experiment", name))
        return "7"

    def create_run(self, experiment, run_name=None):
        self.calls.append(("run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run, status):
        self.calls.append(("again", run, status))

    def log_batch(self, run, metrics=(), params=()):
        for key, value, _, step in metrics:
            self.calls.append(("log", step, {key: value}))
        self.calls += [("param", *param) for param in params]

    def log_text(self, run, text, file):
        self.calls.append(("text", file, text))

    def set_terminated(self, run, status):
        self.calls.append(("finish", run, status))


def tuple_of(number):
    return lambda *values: values if len(values) == number else pytest.fail(f"{values}: {number} values are expected")


@pytest.fixture
def fakes(monkeypatch):
    """What was called, in place of the trackers that are no files."""
    calls = []

    def init(**given):
        calls.append(("init", given))
        return FakeRun(calls)

    wandb, trackio = ModuleType("wandb"), ModuleType("trackio")
    wandb.init = trackio.init = init
    wandb.Settings = lambda **given: given
    wandb.Table = lambda columns, data: {"columns": columns, "data": data}
    trackio.Markdown = lambda text: f"md:{text}"
    for name, module in (("wandb", wandb), ("trackio", trackio), ("mlflow", FakeClient(calls))):
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def logged(calls, name):
    """The steps at which a metric was logged."""
    return [call[1] for call in calls if call[0] == "log" and name in call[2]]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_metrics_are_logged_once_at_their_steps(name, fakes, tmp_path):
    """Where the run directory has them; evaluations too; also by a run that takes steps again after a kill."""
    chosen = (name, spec("gradient_stats", every=3), spec("samples", prompts=["a"], tokens=2))
    first = trainer(tmp_path, *chosen, log_interval=2)
    first.run()
    assert logged(fakes, "loss") == [2, 3, 4, 6]
    assert logged(fakes, "gradient/embed/norm") == [3, 6]
    assert logged(fakes, "val_loss") == [2, 4, 6]
    resumed(first, 3, *chosen, log_interval=2, max_steps=8).run()
    assert logged(fakes, "loss") == [2, 3, 4, 6, 8]
    assert logged(fakes, "val_loss") == [2, 4, 6, 8]
    for call in fakes:
        assert call[0] != "log" or "step" not in call[2]


@pytest.mark.parametrize(("name", "failure"), [("wandb", ("finish", 1)), ("mlflow", ("finish", "r1", "FAILED"))])
def test_a_run_that_fails_is_closed_as_one(name, failure, fakes, tmp_path):
    with pytest.raises(ZeroDivisionError):
        failing(trainer(tmp_path, name), 2).run()
    assert fakes[-1] == failure
    (tmp_path / "other").mkdir()
    trainer(tmp_path / "other", name).run()
    assert fakes[-1] == {"wandb": ("finish", 0), "mlflow": ("finish", "r1", "FINISHED")}[name]
    assert [call[0] for call in fakes].count("finish") == 2


def test_wandb(fakes, tmp_path):
    """A resumed run has the id of the first; the config is nested as it is; samples are a table."""
    options = {"project": "p", "entity": "e", "mode": "online", "tags": ["x"]}
    chosen = (spec("wandb", **options), spec("samples", prompts=["a"], tokens=2, every=2))
    first = trainer(tmp_path / "run", *chosen)
    first.path.mkdir()
    first.run()
    resumed(first, 6, *chosen, max_steps=8).run()
    one, other = (call[1] for call in fakes if call[0] == "init")
    assert one == other
    assert one["id"] == json.loads((tmp_path / "run" / "logs" / "wandb.json").read_text())["id"]
    assert one["dir"] == str(tmp_path / "run" / "logs")
    assert one["config"] == first.about
    found = {key: one[key] for key in ("project", "entity", "name", "mode", "tags", "resume", "reinit")}
    assert found == {**options, "name": "run", "resume": "allow", "reinit": "create_new"}
    tables = [call[2]["samples"] for call in fakes if call[0] == "log" and "samples" in call[2]]
    assert len(tables) == 4
    assert tables[0]["columns"] == ["prompt", "text"]
    assert tables[0]["data"][0][0] == "a"


def test_wandb_offline_does_not_ask_to_resume(fakes, tmp_path):
    """Which it cannot; what is synced later has the same id."""
    trainer(tmp_path, spec("wandb", mode="offline", run_name="mine")).run()
    assert (fakes[0][1]["resume"], fakes[0][1]["name"]) == (None, "mine")


def test_mlflow(fakes, tmp_path):
    """The config as parameters, once; a resumed run goes on in MLflow's run; samples are files."""
    chosen = (spec("mlflow", tracking_uri="u", experiment="x"), spec("samples", prompts=["a"], tokens=2))
    first = trainer(tmp_path / "run", *chosen)
    first.path.mkdir()
    first.run()
    resumed(first, 6, *chosen, max_steps=8).run()
    assert fakes[:3] == [("client", "u"), ("experiment", "x"), ("run", "7", "run")]
    params = {call[1:] for call in fakes if call[0] == "param"}
    assert params == {("model.block.d_model", "64"), ("train.seed", "0"), ("train.tags", "[1, 2]")}
    assert [call for call in fakes if call[0] in ("run", "again")] == [("run", "7", "run"), ("again", "r1", "RUNNING")]
    assert [call[1] for call in fakes if call[0] == "text"] == [f"samples/step-0000000{i}-0.txt" for i in (2, 4, 6, 8)]


def test_trackio(fakes, tmp_path):
    """A name that no other run has, by which a resumed run finds its own."""
    first = trainer(tmp_path / "run", spec("trackio", project="p"), spec("samples", prompts=["a"], tokens=2))
    first.path.mkdir()
    first.run()
    resumed(first, 6, spec("trackio", project="p"), max_steps=8).run()
    one, other = (call[1] for call in fakes if call[0] == "init")
    assert one == other
    assert (one["project"], one["resume"], one["config"]["model.block.d_model"]) == ("p", "allow", 64)
    assert one["name"].startswith("run-")
    assert len(one["name"]) == 10
    assert fakes[-1] == ("finish", None)
    assert any(call[0] == "log" and str(call[2].get("samples/0")).startswith("md:a") for call in fakes)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_run_without_a_directory_is_logged(name, fakes):
    trainer(None, name).run()
    assert logged(fakes, "loss") == [1, 2, 3, 4, 5, 6]


def test_what_a_tracker_refuses_does_not_end_the_training(fakes, monkeypatch, tmp_path):
    """It is told once."""

    def refused(self, values, step=None):
        raise OSError("the network is down")

    monkeypatch.setattr(FakeRun, "log", refused)
    made = trainer(tmp_path, "wandb")
    with pytest.warns(LmxWarning, match="does not take what is logged .*the network is down.*training goes on") as told:
        made.run()
    assert (made.step, len(told)) == (6, 1)


def test_a_tracker_that_cannot_begin_is_told_before_the_first_step(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **given: 1 / 0)
    made = trainer(tmp_path, "trackio")
    with pytest.raises(LmxError, match="trackio could not begin .ZeroDivisionError"):
        made.run()
    assert made.step == 0
    assert fakes == []


def test_a_damaged_note_is_told(fakes, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "wandb.json").write_text('{"id"')
    with pytest.raises(LmxError, match="wandb.json is damaged .* Remove it"):
        trainer(tmp_path, "wandb").run()


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_is_not_installed(name, monkeypatch):
    """It is told when the callback is built, with what to install."""
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'lmx-core\[{name}\]'"):
        build("callback", name, config())


def test_other_ranks_log_nothing(fakes, tmp_path):
    made = trainer(tmp_path, "wandb")
    made.ranks = alone()
    made.ranks.rank = 1
    made.run()
    assert fakes == []


def test_only_numbers_are_metrics():
    found = numbers({"step": 3, "loss": 1, "text": "a", "flag": True, "none": None, "rate": float("inf")})
    assert found == {"loss": 1.0, "rate": float("inf")}
    assert type(found["loss"]) is float


def test_a_config_is_flattened():
    assert flattened({"a": {"b": {"c": 1}, "d": []}, "e": None}) == {"a.b.c": 1, "a.d": [], "e": None}


# The trackers themselves -------------------------------------------------------------------------------------------------


def events(folder):
    """TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard(tmp_path):
    """TensorBoard reads each step once, the later one after a resume; config and samples are texts."""
    pytest.importorskip("tensorboard")
    chosen = ("tensorboard", spec("samples", prompts=["a"], tokens=2))
    first = trainer(tmp_path, *chosen)
    first.run()
    again = resumed(first, 3, *chosen)
    metrics = {}
    again.callbacks.append(
        SimpleNamespace(on_step_end=lambda trainer, found: metrics.update({trainer.step: dict(found)}))
    )
    again.run()
    found = events(tmp_path / "logs" / "tensorboard")
    loss = {event.step: event.value for event in found.Scalars("loss")}
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in found.Scalars("val_loss")] == [2, 4, 6]
    assert {step: loss[step] for step in (4, 5, 6)} == pytest.approx(
        {step: metrics[step]["loss"] for step in (4, 5, 6)}
    )
    text = found.Tensors("samples/a")[-1].tensor_proto.string_val[0].decode()
    assert text == json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[-1])["text"]
    assert b"d_model = 64" in found.Tensors("config")[0].tensor_proto.string_val[0]
    assert not any(name in sys.modules for name in ("torch", "tensorflow"))


def test_tensorboard_writes_what_came_before_a_failure(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(ZeroDivisionError):
        failing(trainer(None, spec("tensorboard", folder=str(tmp_path / "tb"))), 4).run()
    assert [event.step for event in events(tmp_path / "tb").Scalars("loss")] == [1, 2, 3, 4]


def test_tensorboard_needs_a_folder():
    pytest.importorskip("tensorboard")
    with pytest.raises(ConfigError, match="Give its option folder"):
        trainer(None, "tensorboard").run()


@theirs
@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_loggers_are_callbacks(name, tmp_path, monkeypatch):
    """The suite of the kind, with the tracker itself, and no network."""
    pytest.importorskip(name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)  # where MLflow keeps files
    options = {"wandb": {"mode": "offline"}, "mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    for case in cases(f"callback.{called(name)}", options=options.get(name, {})):
        case.run()


@theirs
def test_mlflow_keeps_what_it_is_given(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where it keeps files
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = trainer(tmp_path, spec("mlflow", tracking_uri=uri))
    first.run()
    resumed(first, 3, spec("mlflow", tracking_uri=uri), max_steps=8).run()
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("lmx").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.block.d_model"] == "64"
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [*range(1, 9)]


@theirs
def test_trackio_keeps_what_it_is_given(tmp_path, monkeypatch):
    """In a project of its own: trackio reads where it keeps them when it is imported, which may have been before."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    project = f"p-{uuid.uuid4().hex}"
    first = trainer(tmp_path, spec("trackio", project=project))
    first.run()
    resumed(first, 3, spec("trackio", project=project), max_steps=8).run()
    (name,) = [run.name for run in trackio.Api().runs(project)]
    assert [row["step"] for row in trackio.SQLiteStorage.get_logs(project, name) if "loss" in row] == [*range(1, 9)]
