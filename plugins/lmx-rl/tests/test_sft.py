"""Supervised fine-tuning against a loop over the examples, one by one."""

import json

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import BlockConfig, LanguageModel, ModelConfig, spec
from lmx_core.data.corpus import DataConfig
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.errors import ConfigError, DataError
from lmx_core.testing import conformance
from lmx_core.train.config import RunConfig, TrainConfig
from lmx_core.train.main import resumed, started
from lmx_core.train.parallel.ranks import alone
from lmx_rl.sft import SFT, SFTOptions

from .chatting import Chatting

pytestmark = pytest.mark.once

MODEL = ModelConfig(
    block=BlockConfig(d_model=16, n_heads=2, d_ff=32, position="rope", max_seq_len=64), n_layers=2, vocab_size=256
)
SEQ_LEN = 32
LINES = [{"prompt": f"{'?' * (i % 5)}{i}", "completion": "!" * (i % 7 + 1)} for i in range(24)]
LINES.append({"prompt": "!" * 40, "completion": "beyond the cut"})
READ = {"data": DataConfig(dataset=spec("addition", digits=1, held_out=20))}


@conformance("trainer.lmx-rl/sft", config=READ)
def test_sft_keeps_the_promises_of_a_component(check):
    check()


@pytest.fixture
def config(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES[:5]))
    files = {"paths": str(tmp_path / "a.jsonl"), "validation_paths": str(tmp_path / "b.jsonl")}
    train = TrainConfig(batch_size=32, seq_len=SEQ_LEN, max_steps=2, warmup_steps=0, dtype="float32", seed=5)
    return RunConfig(model=MODEL, data=DataConfig(dataset=spec("jsonl", end="\n", **files)), train=train)


def by_hand(model, lines, learned_from):
    """The mean over tokens of minus log-probabilities: each example alone, its tokens from `learned_from` on."""
    nats, count = mx.array(0.0), 0
    for line in lines:
        tokens = ByteTokenizer().encode(line["prompt"] + line["completion"] + "\n")[: SEQ_LEN + 1]
        logits = model(mx.array([tokens[:-1]]))[0][0]
        logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        for i in range(max(learned_from(line), 1), len(tokens)):
            nats, count = nats - logps[i - 1, tokens[i]], count + 1
    return nats / count


def from_prompt(line):
    return len(line["prompt"])


def from_start(line):
    return 0


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(("completion_only", "learned_from"), [(True, from_prompt), (False, from_start)])
def test_loss_and_gradients_are_those_of_each_example_alone(config, packing, completion_only, learned_from):
    """Neither padding nor a neighbour in the row counts, and nothing after the cut does."""
    recipe = SFT(config, SFTOptions(completion_only=completion_only, packing=packing))
    mx.random.seed(0)
    model = LanguageModel(MODEL)
    trainer = recipe.trainer(model, recipe.read(None), alone())
    rows = len(trainer.source)
    assert rows < 15 if packing else rows == (24 if completion_only else 25)  # the last one has its answer cut off
    batch = {name: mx.array(value) for name, value in trainer.source.batch(range(rows), 0).items()}

    def ours():
        loss, count, _ = trainer.objective(model, batch)
        return loss / count

    found, gradients = nn.value_and_grad(model, ours)()
    expected, reference = nn.value_and_grad(model, lambda: by_hand(model, LINES, learned_from))()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    named = dict(tree_flatten(reference))
    for name, value in tree_flatten(gradients):
        assert np.allclose(value, named[name], atol=1e-6), name


def test_conversations_are_learned_where_the_assistant_speaks(tmp_path):
    user, answer = {"role": "user", "content": "to be?"}, {"role": "assistant", "content": "or not"}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": [user, answer] * n}) + "\n" for n in (1, 2, 3)))
    file = str(tmp_path / "a.jsonl")
    data = DataConfig(dataset=spec("jsonl", paths=file, validation_fraction=0.5))
    learned, known = {True: b"or not>", False: b"<user:to be?><assistant:or not>"}, set()
    for completion_only, expected in learned.items():
        config = RunConfig(model=MODEL, data=data, train=TrainConfig(seq_len=64))
        corpus = SFT(config, SFTOptions(completion_only=completion_only)).read(Chatting())
        known |= {corpus.identity, corpus.validation.sha256}
        for documents in (corpus.train, corpus.validation, corpus.glimpse):
            for each in documents:
                turns = bytes(each.tokens.tolist()).count(b"user")
                assert bytes(each.tokens[each.learn].tolist()) == expected * turns
    assert len(known) == 4


def test_what_is_labelled_as_bad_is_never_learned(config, tmp_path):
    lines = [{"prompt": f"{i}", "completion": "yes" if i % 2 else "no", "label": i % 2 == 1} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = SFT(config, SFTOptions(completion_only=False)).read(None)
    learned = {bytes(each.tokens[each.learn].tolist()) for each in corpus.train}
    assert learned == {f"{i}yes\n".encode() for i in range(1, 20, 2)}


def test_texts_are_refused(config, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a text"}\n' * 3)
    (tmp_path / "b.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(
        DataError, match="none of them marks an answer. To learn them as a whole, leave train.trainer out"
    ):
        SFT(config).read(None)


def test_a_source_of_its_own(config):
    config = attrs.evolve(config, data=attrs.evolve(config.data, source=spec("padded")))
    with pytest.raises(ConfigError, match="data.source is .*padded.* has a source of its own"):
        SFT(config)


def test_lmx_trains_with_it(config, tmp_path):
    """From a file; what decides on the samples stays when the run goes on."""
    files = {name: str(tmp_path / f"{each}.jsonl") for name, each in (("paths", "a"), ("validation_paths", "b"))}
    (tmp_path / "run.toml").write_text(
        '[model]\nfactory = "llama"\nsize = "tiny"\n[data.dataset]\nname = "jsonl"\n'
        + "".join(f"{name} = {json.dumps(file)}\n" for name, file in files.items())
        + '[train]\nmax_steps = 2\nbatch_size = 4\nseq_len = 32\n[train.trainer]\nname = "sft"\npacking = true\n'
    )
    summary = started(tmp_path / "run.toml", [], tmp_path / "run", False).run()
    assert summary["val_tokens"] == sum(len(line["completion"]) for line in LINES[:5])
    with pytest.raises(ConfigError, match="train.trainer.packing cannot change when a run is resumed"):
        resumed(tmp_path / "run", ["train.trainer.packing=false", "train.max_steps=4"])
    job = resumed(tmp_path / "run", ["train.max_steps=4"])
    job.run()
    assert job.trainer.step == 4
