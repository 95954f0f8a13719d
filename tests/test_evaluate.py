"""An evaluation is exact, changes nothing, and is the same however it is shared out."""

import math

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from lmx_core import LanguageModel, ModelConfig, ffn_registry
from lmx_core.data.corpus import HeldOut
from lmx_core.data.documents import Example, joined
from lmx_core.errors import DataError
from lmx_core.evaluate import count_learned, evaluate, total_nats
from lmx_core.testing import SMALL, randomise

RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, 50, 107).astype(np.uint16)
LENGTHS = (1, 2, 40, 9, 17, 33, 16, 3)
DOCUMENTS = [RANDOM.integers(0, 50, length) for length in LENGTHS]
LEARN = [RANDOM.random(length) < 0.6 for length in LENGTHS]


def model(**block):
    config = ModelConfig(block=attrs.evolve(SMALL, position="rope", **block), vocab_size=50, n_layers=2)
    return randomise(LanguageModel(config))


def nats(net, tokens, seq_len):
    """Of each token but the first, one window after another, without batches."""
    found = []
    for start in range(0, len(tokens) - 1, seq_len):
        window = mx.array(tokens[start : start + seq_len + 1].astype(np.int32))
        logits = net(window[None, :-1])[0][0]
        found += nn.losses.cross_entropy(logits, window[1:]).tolist()
    return found


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("seq_len", "batch_size"), [(16, 4), (106, 1), (200, 3), (7, 1)])
def test_each_token_of_a_text_is_predicted_once(seq_len, batch_size, compiled):
    """But for the first; the last window may be shorter."""
    net = model().eval()
    found = evaluate(
        net, HeldOut(tokens=TOKENS, size=300, scored=297, sha256=""), seq_len, batch_size, compile=compiled
    )
    expected = sum(nats(net, TOKENS, seq_len))
    assert found["val_loss"] == pytest.approx(expected / 106, rel=1e-5)
    assert found["val_bpb"] == pytest.approx(expected / math.log(2) / 297, rel=1e-5)
    assert found["val_bytes"] == 300


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize(("seq_len", "batch_size"), [(16, 3), (64, 8), (5, 1)])
def test_each_document_is_read_by_itself(seq_len, batch_size, learned):
    """The mean over what is learned: rows of several lengths, filled up, are what each document is alone."""
    net = model().eval()
    texts = [Example(*each) for each in zip(DOCUMENTS, LEARN if learned else [None] * len(DOCUMENTS), strict=True)]
    counted = [loss for text in texts for loss in _learned(net, text, seq_len)]
    documents = joined(texts, 50)
    found = evaluate(net, documents, seq_len, batch_size)
    assert found["val_tokens"] == count_learned(documents) == len(counted)
    assert found["val_loss"] == pytest.approx(np.mean(counted), rel=1e-5)


def _learned(net, text, seq_len):
    """The loss of each token that counts."""
    losses = nats(net, text.tokens, seq_len)
    return losses if text.learn is None else np.array(losses)[text.learn[1:]].tolist()


def test_documents_of_which_nothing_is_learned_are_refused():
    texts = [Example(DOCUMENTS[2], np.arange(40) == 0), Example(DOCUMENTS[0])]
    with pytest.raises(DataError, match="nothing is learned"):
        evaluate(model(), joined(texts, 50), 16)


class Two:
    """Ranks one after the other: the first pass notes what each would add."""

    def __init__(self, size):
        self.size, self.rank, self.parts = size, 0, []

    def sum(self, tree):
        self.parts.append(tree)
        return sum(self.parts)


@pytest.mark.parametrize("text", [TOKENS, joined(map(Example, DOCUMENTS, LEARN), 50)], ids=["text", "documents"])
@pytest.mark.parametrize("size", [2, 3, 40])
def test_ranks_share_the_batches(text, size):
    """Each batch is read by one of them, whether there are fewer or more; together they are one."""
    net, ranks = model(), Two(size)
    alone = total_nats(net, text, 16, 2)
    for ranks.rank in range(size):
        together = total_nats(net, text, 16, 2, ranks=ranks)
    assert together == pytest.approx(alone, rel=1e-6)
    busy = [part.item() for part in ranks.parts if part.item() > 0]
    assert 1 < len(busy) <= size
    assert max(busy) < alone


class Dropping(nn.Module):
    """An FFN that draws numbers in training, and reports."""

    def __init__(self, config):
        super().__init__()
        self.up, self.dropout = nn.Linear(config.d_model, config.d_model), nn.Dropout(0.5)

    def __call__(self, x):
        self._report = {"load_loss": x.sum()}
        return self.dropout(self.up(x))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was(training, compiled):
    """Its mode, what it has reported, and the random numbers to come; dropout is off."""
    ffn_registry.register("dropping")(Dropping)
    try:
        net = model(ffn="dropping").train(training)
    finally:
        ffn_registry.unregister("dropping")
    held_out = HeldOut(tokens=TOKENS, size=300, scored=297, sha256="")
    before = mx.random.state[0].tolist()
    found = [evaluate(net, held_out, 16, compile=compiled)["val_loss"] for _ in range(2)]
    assert found[0] == found[1] == pytest.approx(np.mean(nats(net.eval(), TOKENS, 16)), rel=1e-5)
    assert mx.random.state[0].tolist() == before
    net.train(training)
    evaluate(net, held_out, 16, compile=compiled)
    assert all(module.training == training for module in net.modules())
    assert not any("_report" in module for module in net.modules())
