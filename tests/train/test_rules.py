"""What must hold between a model and how it is trained."""

import attrs

from lmx_core import LanguageModel, ModelConfig
from lmx_core.testing import SMALL
from lmx_core.train.config import TrainConfig
from lmx_core.train.rules import training_problem


def model(*blocks):
    configs = tuple(attrs.evolve(SMALL, **block) for block in blocks)
    return LanguageModel(ModelConfig(block_configs=configs, block=SMALL, vocab_size=50, n_layers=len(blocks)))


def test_sequences_may_be_as_long_as_the_table():
    table = {"position": "learned", "max_seq_len": 8}
    assert training_problem(model(table, table), TrainConfig(seq_len=8)) is None
    problem = training_problem(model(table, table), TrainConfig(seq_len=9))
    assert problem == "train.seq_len=9 is longer than the model's max_seq_len=8"


def test_dropout_of_any_block_rules_recomputing_out():
    assert training_problem(model({}, {}), TrainConfig(recompute_every=2)) is None
    problem = str(training_problem(model({"dropout": 0.0}, {"dropout": 0.1}), TrainConfig(recompute_every=2)))
    assert problem.startswith("train.recompute_every=2 needs dropout = 0, got 0.1")
