"""Weights that are divided among ranks train as whole ones do.

MLX has `sum_scatter`, of which it makes the gradients, for NCCL alone. Here two ranks of a CPU put it together from
`all_sum`; all else is what runs on GPUs.
"""

import os
import subprocess
import sys
from contextlib import ExitStack

import mlx.core as mx
import pytest

from lmx_core import make_config
from lmx_core.config import spec
from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.hosts import here
from lmx_core.train.parallel.ranks import Ranks
from lmx_core.train.trainer import Trainer

pytestmark = pytest.mark.once

SCRIPT = """
import sys
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from lmx_core import make_config
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.train.parallel import sharding
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import from_environment
from lmx_core.train.trainer import Trainer

ranks = from_environment()

def scattered(x, group):
    rows = x.shape[0] // ranks.size
    return mx.distributed.all_sum(x, group=group)[ranks.rank * rows : (ranks.rank + 1) * rows]

mx.distributed.sum_scatter = scattered
sharding.SCATTERING.add("ring")

class Source:
    def batch(self, numbers, step):
        tokens = np.stack([np.random.default_rng(n).integers(0, 50, 17) for n in numbers]).astype(np.int32)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

class Saved:
    losses, norms, kept = [], [], {}

    def on_step_end(self, trainer, metrics):
        self.losses.append(metrics["loss"])
        self.norms.append(metrics["grad_norm"])
        assert trainer.model.layers[0].ffn.up.weight.shape[0] == 128 // ranks.size
        moments = dict(tree_flatten(trainer.optimizer.state))["layers.0.ffn.up.weight.m"]
        assert moments.shape[0] == 128 // ranks.size

    def on_checkpoint(self, trainer):
        trees = {"p": trainer.model.parameters(), "o": trainer.optimizer.state, "e": trainer.update.averages}
        for name, tree in trees.items():
            self.kept |= {f"{name}.{trainer.step}.{path}": each for path, each in tree_flatten(tree)}

def evaluated(model, final):
    return {"val_loss": model(mx.array([[1, 2, 3]] * (1 + ranks.rank)))[0].mean().item()}  # ranks may differ

mx.random.seed(0)
model = LanguageModel(make_config("llama", "tiny", vocab_size=50, d_model=32, d_ff=128))
config = TrainConfig(
    max_steps=6, batch_size=4 // ranks.size, seq_len=16, grad_accumulation_steps=2, warmup_steps=2, learning_rate=1e-2,
    parallel="fsdp", checkpoint_interval=4, eval_interval=5, recompute_every=2, ema_decay=0.9, max_grad_norm=0.5,
)
saved = Saved()
summary = Trainer(model, config, Source(), callbacks=[saved], ranks=ranks, evaluate=evaluated).run()
measured = {"losses": mx.array(saved.losses), "norms": mx.array(saved.norms), "val": mx.array(summary["val_loss"])}
if ranks.first:
    mx.savez(sys.argv[1], **measured, **saved.kept)
"""


def test_divided_weights_train_as_whole_ones(tmp_path):
    """Losses, norms, an evaluation, and what checkpoints hold of parameters, optimizer and averages: whole, and the same."""
    with ExitStack() as held:
        places = here(2, held)
        ranks = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "two.npz")],
                env=os.environ | place.variables(tmp_path),
                stdin=subprocess.DEVNULL,
            )
            for place in places
        ]
        assert [rank.wait(60) for rank in ranks] == [0, 0]
    subprocess.run([sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "one.npz")], check=True, timeout=60)
    one, two = (mx.load(str(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert {name[:4] for name in one} >= {"p.4.", "o.4.", "e.4.", "p.6.", "o.6.", "e.6."}
    assert max(mx.abs(one[name] - two[name]).max().item() for name in one if name != "norms") < 2e-6
    assert mx.allclose(one["norms"], two["norms"], rtol=1e-5).item()


class Nothing:
    """A source that is never read."""

    def __len__(self):
        return 1

    def batch(self, numbers, step):
        raise NotImplementedError


class Two(Ranks):
    """The first of two ranks, which meet nowhere."""

    def __init__(self, backend):
        super().__init__()
        self.size, self.backend = 2, backend


def refused(message, backend="nccl", **settings):
    numbers = {name: settings.pop(name) for name in ("d_ff",) if name in settings}
    model = LanguageModel(make_config("llama", "tiny", vocab_size=50, d_model=32, **numbers))
    config = TrainConfig(parallel="fsdp", **settings)
    with pytest.raises(ConfigError, match=message):
        Trainer(model, config, Nothing(), ranks=Two(backend))
    assert "Divided" not in str(type(model.layers[0]))


def test_a_backend_that_cannot_divide_weights_is_refused():
    refused("needs NCCL, that is NVIDIA GPUs; these ranks meet through ring. With train.parallel=.data. each", "ring")


def test_an_axis_must_be_divisible():
    refused(
        r"layers.0.ffn.\w+.weight of shape \(65, 32\) cannot be divided among 2 ranks along its first axis", d_ff=65
    )


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_an_optimizer_that_needs_whole_matrices_is_refused(optimizer):
    """Found by what it does to a matrix and to its halves, so of a plugin's optimizer, too."""
    refused("reads a matrix as a whole, .* Choose one that treats each number by itself", optimizer=spec(optimizer))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "lion"])
def test_one_that_does_not_is_taken(optimizer):
    model = LanguageModel(make_config("llama", "tiny", vocab_size=50, d_model=32))
    Trainer(model, TrainConfig(parallel="fsdp", optimizer=spec(optimizer)), Nothing(), ranks=Two("nccl"))


def test_one_rank_divides_nothing():
    """On any backend, and without one."""
    model = LanguageModel(make_config("llama", "tiny", vocab_size=50, d_model=32))
    trainer = Trainer(model, TrainConfig(parallel="fsdp"), Nothing())
    with trainer.update.joined():
        assert trainer.update.shards is None
