"""A small policy, prompts, and rewards that it learns from."""

from contextlib import contextmanager

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from lmx_core import LanguageModel, ModelConfig, spec
from lmx_core.config import BlockConfig
from lmx_core.data.prompts import Prompt
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_core.train.callback import Callback
from lmx_core.train.config import RunConfig, TrainConfig
from lmx_rl.policy import GRPO, GRPOOptions
from lmx_rl.policy.prompts import Prompts
from lmx_rl.rewards.judge import RewardSpec

VOCABULARY, PROMPTS = 10, 12


BLOCK = BlockConfig(
    attention="mha",
    ffn="standard",
    norm="layer_norm",
    position="learned",
    d_model=32,
    n_heads=2,
    d_ff=64,
    max_seq_len=16,
)


MODEL = ModelConfig(block=BLOCK, vocab_size=VOCABULARY, n_layers=1, tie_embeddings=False)


class Digits:
    """A digit is a token, and 9 ends a completion."""

    vocab_size = VOCABULARY
    eos_tokens = (9,)

    @classmethod
    def fit(cls, texts):
        return cls()

    @classmethod
    def from_dict(cls, data):
        return cls()

    def encode(self, text):
        return [int(each) for each in text]

    def decode_bytes(self, tokens):
        return "".join(str(each) for each in tokens).encode()

    def to_dict(self):
        return {}


class Even:
    """The share of even digits."""

    def __call__(self, prompt, completion, answer=None):
        return sum(int(each) % 2 == 0 for each in completion) / max(len(completion), 1)


class Known(Even):
    """The same; of a completion without a digit nothing is known."""

    def __call__(self, prompt, completion, answer=None):
        return super().__call__(prompt, completion, answer) if completion else None


class Level:
    def __call__(self, prompt, completion, answer=None):
        return 0.1


class Silent:
    """Knows nothing of any completion."""

    def __call__(self, prompt, completion, answer=None):
        return None


class Fails:
    """Of completions that begin with 3."""

    def __call__(self, prompt, completion, answer=None):
        if completion.startswith("3"):
            raise RuntimeError("3 is too much")
        return float(len(completion))


class Once:
    """Only one prompt is worth asking: of the others all completions are worth the same."""

    def __call__(self, prompt, completion, answer=None):
        return float(len(completion)) if prompt == self.prompt else 1.0


class Vast:
    """A float of Python's, and none of the backend's."""

    def __call__(self, prompt, completion, answer=None):
        return 1e300


class Leaving:
    """Ends whatever calls it."""

    def __call__(self, prompt, completion, answer=None):
        raise SystemExit(3)


REWARDS = {
    "even": Even,
    "known": Known,
    "level": Level,
    "silent": Silent,
    "fails": Fails,
    "once": Once,
    "vast": Vast,
    "leaving": Leaving,
}


@contextmanager
def rewards():
    """Within it these are components."""
    for name, component in REWARDS.items():
        registry("reward").register(name)(component)
    try:
        yield
    finally:
        for name in REWARDS:
            registry("reward").unregister(name)


def some_prompts(count=PROMPTS, seed=0):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        tokens = draw.integers(0, 9, draw.integers(1, 6)).astype(np.int32)
        text = "".join(map(str, tokens))
        yield Prompt(tokens=tokens, text=text, answer=text[::-1], about={"difficulty": float(len(tokens) % 2)})


def material_of(train=PROMPTS):
    return Prompts(tokenizer=Digits(), train=[*some_prompts(train)], validation=[*some_prompts(6, seed=1)])


def model_of(seed=0, config=MODEL):
    mx.random.seed(seed)
    model = LanguageModel(config)
    mx.eval(model.parameters())
    return model


def options_of(reward="even", **chosen):
    rewards = [RewardSpec(reward=spec(reward))] if isinstance(reward, str) else reward
    return GRPOOptions(**{"rewards": rewards, "group_size": 4, "max_new_tokens": 6, **chosen})


def config_of(**train):
    usual = {"max_steps": 6, "batch_size": 16, "seq_len": 8, "warmup_steps": 0, "schedule": spec("constant")}
    rest = {"learning_rate": 3e-3, "weight_decay": 0.0, "log_interval": 1}
    return RunConfig(model=MODEL, train=TrainConfig(**{**usual, **rest, **train}))


class Metrics(Callback):
    def __init__(self):
        self.steps, self.evaluations = [], []

    def on_step_end(self, trainer, metrics):
        self.steps.append(dict(metrics))

    def on_eval_end(self, trainer, metrics):
        self.evaluations.append(dict(metrics))


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, metrics):
        if trainer.step == self.step:
            trainer.stop("enough")


def trainer_of(options=None, model=None, material=None, **train):
    recipe = GRPO(config_of(**train), options or options_of())
    trainer = recipe.trainer(model or model_of(), material or material_of())
    trainer.metrics = Metrics()
    trainer.callbacks.append(trainer.metrics)
    return trainer


def rollout_of(trainer):
    """The first rollout, without a step."""
    trainer.source.on_train_begin(trainer)
    trainer.source.batch(range(trainer.config.batch_size), 0)
    return trainer.source.rollout


def weights_of(model):
    return tree_map(lambda weight: weight + 0, flat_parameters(model))


def same(one, other):
    return all(mx.array_equal(weight, other[name]).item() for name, weight in one.items())
