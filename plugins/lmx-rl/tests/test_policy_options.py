"""What is wrong with a config or with data is said before anything is drawn."""

from pathlib import Path

import attrs
import pytest

from lmx_core import build, spec
from lmx_core.data.corpus import DataConfig
from lmx_core.errors import ConfigError, DataError, LmxError
from lmx_core.serialize import plain, read_file
from lmx_core.train.config import RunConfig, run_config
from lmx_rl.policy import GRPO
from lmx_rl.policy.recipe import longest_row, stop_tokens

from .answered import MODEL, Digits, config_of, material_of, options_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("rewards")]


EXAMPLES = Path(__file__).parents[1] / "examples"


DATA = DataConfig(dataset=spec("addition", held_out=9000), tokenizer=spec("chars"))


ADDITION = {"rewards": [{"reward": "exact_match"}], "max_new_tokens": 3, "group_size": 4}


@pytest.mark.parametrize(
    ("chosen", "train", "message"),
    [
        ({"rollout_size": 24}, {}, "rollout_size=24 is not a multiple of the 16 completions of an update"),
        ({"group_size": 5}, {}, "a rollout of 16 completions has no whole number of groups of group_size=5"),
    ],
)
def test_what_does_not_divide_is_said(chosen, train, message):
    with pytest.raises(ConfigError, match=message):
        GRPO(config_of(**train), options_of(**chosen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "rewards: is missing"),
        ({"rewards": []}, "rewards: expected at least one"),
        ({**ADDITION, "group_size": 1}, "group_size: must be >= 2"),
        ({**ADDITION, "reference": "x"}, "a reference costs nothing with beta=0"),
        ({**ADDITION, "overlong_buffer": 9}, "overlong_buffer=9 begins before the completion does"),
        ({**ADDITION, "surrogate": "cispo"}, "held back by delta alone"),
        ({**ADDITION, "temperature": 0.0}, "temperature: must be > 0"),
        ({**ADDITION, "rewards": [{"reward": "exactmatch"}]}, "exactmatch.*Did you mean 'exact_match'"),
        ({**ADDITION, "rewards": [{"reward": "regex"}]}, "pattern: is missing"),
    ],
)
def test_what_is_wrong_with_options_is_said(options, message):
    with pytest.raises(LmxError, match=message):
        build("trainer", spec("grpo", **options), config_of())


def test_what_is_wrong_with_the_data_is_said():
    recipe = GRPO(RunConfig(model=MODEL, data=DataConfig(dataset="shakespeare")), options_of(group_size=4))
    with pytest.raises(ConfigError, match="shakespeare.* has no prompts, only texts"):
        recipe.read(Digits())
    with pytest.raises(DataError, match="a prompt of 5 tokens and max_new_tokens=14 .* that are longer than 3 tokens"):
        longest_row(material_of(), 14, 16)
    with pytest.raises(DataError, match="do not fit the model's max_seq_len=16. Lower max_new_tokens.$"):
        longest_row(material_of(), 20, 16)
    assert longest_row(material_of(), 12, 16) == 16
    with pytest.raises(ConfigError, match="stop='12' is 2 tokens"):
        stop_tokens(Digits(), ["12"])
    assert stop_tokens(Digits(), ["8"]) == [9, 8]


def test_the_example_is_a_config():
    """Which goes on from a run; here it begins with a model."""
    table = read_file(EXAMPLES / "addition-grpo.toml")
    assert table.pop("start") == "runs/addition-sft"
    config = run_config({**table, "model": plain(MODEL)}, "addition-grpo.toml")
    recipe = build("trainer", config.train.trainer, config)
    assert type(recipe) is GRPO
    assert recipe.options.completions(config.train, 1) == (256, 256)
    assert [each.title for each in recipe.judge.specs] == ["exact_match"]


def test_what_is_read_of_a_dataset():
    recipe = GRPO(RunConfig(model=MODEL, data=DATA), options_of())
    found = recipe.read(None)
    assert (len(found.train), len(found.validation)) == (1000, 9000)
    assert found.identity != found.held_out["prompts"]
    assert found.beginning == found.validation[0].tokens.tolist()
    other = GRPO(
        RunConfig(model=MODEL, data=attrs.evolve(DATA, dataset=spec("addition", held_out=9000, seed=1))), options_of()
    )
    assert other.read(None).identity != found.identity
    wrong = attrs.evolve(found.train[0], answer="999")
    assert attrs.evolve(found, train=[wrong, *found.train[1:]]).identity != found.identity
