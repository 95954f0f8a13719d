"""A kind of trainer reads, learns and measures what it likes, in the one loop and the one run directory."""

import json

import attrs
import mlx.core as mx
import pytest

from lmx_core.checkpoint import POSITION
from lmx_core.config import spec
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.testing.runs import BRIEF, brief_trainer
from lmx_core.train.config import RunConfig, TrainConfig
from lmx_core.train.recipes import LanguageModelling, must_be_left_out
from lmx_core.train.run import STATE, checkpoints
from lmx_core.train.trainer import Trainer

from .kept import lines

pytestmark = pytest.mark.once


class Remembering:
    """A source whose samples depend on how many batches were read, which it therefore keeps."""

    def __init__(self, source):
        self.source, self.read = source, 0

    def __len__(self):
        return len(self.source)

    def batch(self, samples, step):
        self.read += 1
        found = self.source.batch(samples, step)
        return {**found, "inputs": (found["inputs"] + self.read) % 256}

    def on_step_end(self, trainer, metrics):
        metrics["read"] = float(self.read)

    def saved(self):
        return {"read": mx.array(self.read)}

    def restore(self, arrays, run):
        assert checkpoints(run)
        self.read = arrays["read"].item()


@attrs.frozen(kw_only=True)
class Pace:
    pace: int = 1
    loud: bool = False


@pytest.fixture
def remembering():
    @registry("trainer").register("remembering")
    class Recipe(LanguageModelling):
        Options = Pace
        fixed = ("pace",)

        def __init__(self, config, options=None):
            super().__init__(config)
            must_be_left_out(config)

        def trainer(self, model, material, ranks):
            made = super().trainer(model, material, ranks)
            made.source = Remembering(made.source)
            made.criterion, made.sign = "val_bytes", -1
            return made

    yield Recipe
    registry("trainer").unregister("remembering")


def test_what_a_source_keeps_is_given_back(remembering, train):
    straight, _ = train("train.trainer=remembering", "train.max_steps=6")
    half, _ = train("train.trainer=remembering", "train.max_steps=3")
    assert (checkpoints(half.path)[-1] / STATE).is_file()
    resumed, summary = train("train.max_steps=6", resume=half.path)
    assert summary["step"] == 6
    losses = [
        [(line["loss"], line["read"]) for line in lines(job.path) if "loss" in line] for job in (straight, resumed)
    ]
    assert losses[0] == losses[1]
    assert [read for _, read in losses[0]] == [1, 2, 3, 4, 5, 6]


class Keeps:
    """What is kept under a name that others use, too."""

    def __init__(self, value):
        self.value = value

    def saved(self):
        return {"value": mx.array(self.value)}

    def restore(self, arrays, run):
        self.value = run, {name: each.item() for name, each in arrays.items()}


def test_a_source_and_an_objective_keep_their_own(tmp_path):
    trainer = brief_trainer()
    trainer.source, trainer.objective = Keeps(1), Keeps(2)
    trainer.restore(trainer.saved(), tmp_path)
    assert trainer.source.value == (tmp_path, {"value": 1})
    assert trainer.objective.value == (tmp_path, {"value": 2})


def test_without_something_to_keep_there_is_no_file(train):
    job, _ = train("train.max_steps=2")
    assert not (checkpoints(job.path)[-1] / STATE).exists()


def test_the_trainer_of_a_run_stays(remembering, train):
    job, _ = train("train.max_steps=2")
    with pytest.raises(ConfigError, match=r"train\.trainer\.name cannot change when a run is resumed"):
        train("train.trainer=remembering", "train.max_steps=4", resume=job.path)


def test_what_a_recipe_names_stays(remembering, train):
    """And what it does not name may change."""
    job, _ = train("train.trainer=remembering", "train.max_steps=2")
    with pytest.raises(ConfigError, match=r"train\.trainer\.pace cannot change when a run is resumed"):
        train("train.trainer.pace=2", "train.max_steps=4", resume=job.path)
    assert train("train.trainer.loud=true", "train.max_steps=3", resume=job.path)[1]["step"] == 3


def test_the_criterion_ranks_checkpoints(remembering, train):
    """With a minus where more is better, so that the lowest is the best."""
    job, _ = train("train.trainer=remembering", "train.max_steps=4", "train.eval_interval=2", "train.keep_best=1")
    scores = [json.loads((path / POSITION).read_text())["score"] for path in checkpoints(job.path)]
    assert scores == [-200, None]


@pytest.mark.parametrize(("better", "best"), [(False, [1.0, 2.0]), (True, [-9.0, -5.0])])
def test_more_or_less_is_better(better, best):
    rewards = iter([5.0, 1.0, 9.0, 2.0])
    plain = brief_trainer(config=TrainConfig(**BRIEF | {"eval_interval": 1}, max_steps=5, keep_best=2))
    trainer = Trainer(
        plain.model,
        plain.config,
        plain.source,
        evaluate=lambda model, final: {"val_reward": next(rewards, 0.0)},
        criterion="val_reward",
        higher_is_better=better,
    )
    trainer.run()
    assert trainer.lowest == best


@pytest.mark.says_names
@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"train": TrainConfig(objective=spec("next_token", z_loss=1.0))}, "train.objective is next_token"),
        ({"data": {"source": "padded"}}, "data.source is padded.* has a source of its own. Leave data.source out"),
        ({"data": {"curriculum": spec("length", steps=3)}}, "data.curriculum is length"),
    ],
    ids=["objective", "source", "curriculum"],
)
def test_parts_that_a_recipe_has_are_left_out(part, message):
    from lmx_core import ModelConfig
    from lmx_core.data.corpus import DataConfig

    if isinstance(part.get("data"), dict):
        part = {"data": DataConfig(**part["data"])}
    must_be_left_out(RunConfig(model=ModelConfig()))
    with pytest.raises(ConfigError, match=message):
        must_be_left_out(RunConfig(model=ModelConfig(), **part))


def test_a_config_is_refused_before_anything_is_read(remembering, train, monkeypatch):
    monkeypatch.setattr(remembering, "read", lambda *_: pytest.fail("the data was read"))
    with pytest.raises(ConfigError, match=r"has a source of its own"):
        train("train.trainer=remembering", "data.source=padded")


def test_a_live_line_shows_what_is_measured():
    """Also of a run without bits per byte."""
    from lmx_core.cli.live import LiveLine

    trainer = brief_trainer()
    with LiveLine(quiet=True) as line:
        trainer.criterion = "val_reward"
        line.on_eval_end(trainer, {"val_reward": 0.25})
        assert line.validation == "  val_reward 0.250"
        line.on_eval_end(trainer, {"val_loss": 2.0, "val_bpb": 1.5})
        assert line.validation == "  val_bpb 1.500 bits/byte"
