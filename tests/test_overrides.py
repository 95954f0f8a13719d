"""The file, then the environment, then the command line."""

import pytest

from lmx_core.errors import ConfigError
from lmx_core.overrides import overridden

TABLE = {"model": {"factory": "llama", "n_layers": 2}, "train": {"seed": 1, "optimizer": "adamw"}}


def test_the_command_line_comes_last():
    environ = {"LMX_TRAIN__SEED": "2", "LMX_TRAIN__LEARNING_RATE": "1e-3", "LMX_PLUGINS": "a", "OTHER__X": "1"}
    table, origins = overridden(TABLE, ["train.seed=3", "model.n_layers=4"], environ)
    assert table["train"] == {"seed": 3, "learning_rate": 1e-3, "optimizer": "adamw"}
    assert table["model"] == {"factory": "llama", "n_layers": 4}
    assert origins == ["LMX_TRAIN__LEARNING_RATE", "LMX_TRAIN__SEED", "--set train.seed=3", "--set model.n_layers=4"]
    assert TABLE["train"]["seed"] == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 1e-3),
        ("true", True),
        ("adamw", "adamw"),
        ('"7"', "7"),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_values_are_toml_and_names_need_no_quotes(text, value):
    assert overridden({}, [f"a.b={text}"], {})[0] == {"a": {"b": value}}


def test_a_bare_name_gets_an_option():
    table, _ = overridden(TABLE, ["train.optimizer.beta2=0.9"], {})
    assert table["train"]["optimizer"] == {"name": "adamw", "beta2": 0.9}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.seed", "expected KEY=VALUE"),
        ("=3", "names no key"),
        ("train..seed=3", "names no key"),
        ("train.seed.x=3", "has no key 'x'"),
    ],
)
def test_what_is_no_assignment_is_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        overridden(TABLE, [assignment], {})


def test_an_environment_name_without_a_key_is_refused():
    with pytest.raises(ConfigError, match="LMX_TRAIN__ names no key"):
        overridden({}, [], {"LMX_TRAIN__": "1"})
