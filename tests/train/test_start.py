"""A run starts from the weights of a model that is there already."""

import json

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, hooks, load_model, make_config, save_model
from lmx_core.checkpoint import model_directory
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer, save_tokenizer
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import flat_parameters
from lmx_core.opening import open_model
from lmx_core.registry import registry
from lmx_core.train import main
from lmx_core.train.trainer import Callback

START = """
start = "{place}"

[data]
dataset = {{ name = "text", paths = ["corpus.txt"] }}

[train]
max_steps = 4
batch_size = 4
seq_len = 32
eval_bytes = 200
final_eval_bytes = 500
checkpoint_interval = 2
sample_tokens = 0
"""


@pytest.fixture
def first(train):
    """A run whose tokenizer is fitted: letters, in an order of its own."""
    job, _ = train('data.tokenizer="chars"')
    return job.path


@pytest.fixture
def started(folder, first):
    """The job of `start.toml`."""

    def job(*assignments, place=first):
        (folder / "start.toml").write_text(START.format(place=place))
        return main.started(folder / "start.toml", assignments, None, False)

    return job


def equal(one, other):
    one, other = flat_parameters(one), flat_parameters(other)
    return one.keys() == other.keys() and all(mx.array_equal(each, other[name]).item() for name, each in one.items())


def test_it_begins_with_the_weights_and_the_tokenizer(started, first):
    """Of another text: its letters are those of the first run."""
    job = started()
    assert equal(job.trainer.model, load_model(first))
    assert job.trainer.model.training
    assert job.material.tokenizer.to_dict() == open_model(str(first)).tokenizer.to_dict()
    assert registry("tokenizer").get(job.config.data.tokenizer.name) is CharTokenizer
    job.run()
    assert not equal(job.trainer.model, load_model(first))


def test_half_precision_is_trained_in_full(started, folder):
    model = LanguageModel(make_config("llama", size="tiny"))
    model.set_dtype(mx.bfloat16)
    save_model(model, folder / "half")
    job = started('data.tokenizer="bytes"', place="half")
    assert {weight.dtype for weight in flat_parameters(job.trainer.model).values()} == {mx.float32}


def test_a_resumed_run_needs_the_first_one_no_more(started, first, folder):
    """It goes on bit for bit; model and tokenizer are its own."""
    whole = started()
    whole.run()

    class Stop(Callback):
        def on_step_end(self, trainer, metrics):
            if trainer.step == 2:
                trainer.stop("enough")

    half = started()
    half.run([Stop()])
    first.rename(folder / "elsewhere")
    rest = main.resumed(half.path, [])
    rest.run()
    assert equal(rest.trainer.model, whole.trainer.model)
    with pytest.raises(ConfigError, match="start cannot change"):
        main.resumed(half.path, ["start=other"])


def test_the_config_of_such_a_run_starts_another(started, folder):
    """It says the model in full beside `start`."""
    job = started()
    job.run()
    again = main.started(job.path / "config.toml", [], folder / "again", False)
    assert again.config.model == job.config.model


@pytest.mark.parametrize(
    ("assignments", "place", "message"),
    [
        (['model.factory="llama"', 'model.size="tiny"'], None, r"is another than \[model\] says"),
        ([], "nothing", "nothing is no model of lmx, and nothing that is installed opens it"),
        ([], "bare", "has no tokenizer. Name one: data.tokenizer"),
        ([], "broken", "config.json is damaged or not lmx's"),
        ([], "foreign", "foreign is no model of lmx"),
    ],
)
def test_what_cannot_be_started_from(started, folder, first, monkeypatch, assignments, place, message):
    monkeypatch.setattr(hooks, "openers", lambda place: [])  # whatever else is installed
    save_model(LanguageModel(make_config("llama", size="tiny")), folder / "bare")
    for name, text in {"broken": "{", "foreign": json.dumps({"model_type": "mystery"})}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        started(*assignments, **({"place": place} if place else {}))


def test_a_saved_model_is_opened_with_its_tokenizer(folder):
    save_model(LanguageModel(make_config("llama", size="tiny")), folder / "model")
    assert open_model("model").tokenizer is None
    save_tokenizer("bytes", registry("tokenizer").get("bytes")(), model_directory("model") / "tokenizer.json")
    opened = open_model("model")
    assert opened.tokenizer.encode("a") == [97]
    assert registry("tokenizer").get(opened.named.name) is ByteTokenizer
