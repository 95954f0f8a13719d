"""What holds for whole models beyond what holds for their parts."""

import tempfile

import mlx.core as mx

from lmx_core.checkpoint import load_model, save_model
from lmx_core.config import ModelConfig
from lmx_core.serialize import plain, structure
from lmx_core.testing.subjects import Maker, Subject, close


def config_round_trips(make: Maker) -> None:
    """The config survives plain data."""
    config = make().config
    assert structure(plain(config), ModelConfig, "the config") == config, "it reads back as another config"


def model_round_trips(make: Maker) -> None:
    """`save_model` and `load_model` give back the same config and the same logits, to the bit."""
    subject = Subject(make)
    x = subject.inputs()
    with tempfile.TemporaryDirectory() as folder:
        save_model(subject.module, folder)
        loaded = load_model(folder)
        assert loaded.config == subject.module.config, "it was loaded with another config"
        close(loaded(x)[0], subject(x), 0.0)


def builds_lazily(make: Maker) -> None:
    """Building and counting a model computes none of its parameters, so that one of any size can be counted."""
    mx.clear_cache()
    before = mx.get_active_memory()
    model = make()
    count = model.count_parameters()
    used = mx.get_active_memory() - before
    assert used <= count, f"{count} parameters took {used} bytes before one was used"
