"""A family of checkpoints: how a config.json becomes a model, and tensors its parameters, and both again a checkpoint."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError, LmxError, told
from lmx_core.factories import make_config
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.rules import Rule

Rules = Sequence[Rule] | Callable[[ModelConfig], Sequence[Rule]]


@functools.cache
def _known_defaults() -> dict[str, Any]:
    return json.loads(files("lmx_hf").joinpath("defaults.json").read_text(encoding="utf-8"))


@attrs.frozen(kw_only=True)
class Family:
    """What a component `loader.<model_type>` is. Another author's, for a `model_type` of any name, is one line in its
    package's entry points.

    Names of tensors are written without the prefix that all but the head's have, and read with any.
    """

    model_type: str
    factory: str
    """The architecture in lmx, by name."""
    arguments: Callable[[Config], Mapping[str, Any]]
    """What the factory is given, of a config.json; `tie_embeddings` is added to it."""
    keys: Callable[[Described], Mapping[str, Any]]
    """A config.json of a model, in the layout of transformers 4, without `model_type` and `vocab_size`. A model that it
    does not say is found out: what it writes is read again."""
    rules: Rules
    mlx_rules: Rules = ()
    """Names of tensors that mlx-lm writes otherwise."""
    composite: str = ""
    """The `model_type` of the composite as whose text part mlx-lm has it."""
    architecture: str = ""
    """The class of transformers, as `architectures` has it."""
    prefix: str = "model."
    bare: Sequence[str] = ("lm_head.",)
    """Beginnings of names that have no prefix."""
    ignored: Sequence[str] = ()
    """Regular expressions for beginnings of names, without their prefix, that a checkpoint may have beside the model;
    `{n_layers}` in one stands for the number of layers."""
    ties: bool = True
    """Whether transformers can tie the head to the embedding."""
    defaults: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What a config.json may leave out, in the layout of transformers 5."""

    def rules_of(self, config: ModelConfig) -> Sequence[Rule]:
        """The rules for a model, those of mlx-lm's names left out."""
        return self.rules(config) if callable(self.rules) else self.rules

    def mlx_rules_of(self, config: ModelConfig) -> Sequence[Rule]:
        return self.mlx_rules(config) if callable(self.mlx_rules) else self.mlx_rules

    def reading(self, config: ModelConfig, tensors: Mapping[str, mx.array]) -> Sequence[Rule]:
        """The rules for a checkpoint that has these tensors, by their names without prefix."""
        return [*self.rules_of(config), *self.mlx_rules_of(config)]

    def writing(self, config: ModelConfig, mlx_lm: bool, packed: bool) -> Sequence[Rule]:
        """The rules for a checkpoint that is written for mlx-lm, or for transformers; `packed` where weights are."""
        return [*(self.mlx_rules_of(config) if mlx_lm else ()), *self.rules_of(config)]

    def config(self, data: Mapping[str, Any], tied: bool | None = None) -> ModelConfig:
        """The model of a config.json. Whether its head is tied the tensors say, where one has them, and else the config."""
        known = {**_known_defaults().get(self.model_type, {}), **self.defaults}
        found = Config({"model_type": self.model_type, **data}, known)
        if tied is None:
            tied = bool(found.get("tie_word_embeddings", True))
        try:
            arguments: dict[str, Any] = {**self.arguments(found), "tie_embeddings": tied}
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            if isinstance(error, LmxError):
                raise
            raise ConfigError(f"config.json of {self.model_type} cannot be read: {told(error)}") from None
        return make_config(self.factory, **arguments)

    def beside(self, config: ModelConfig) -> list[str]:
        """What a checkpoint may have beside this model, as regular expressions."""
        return [f"^{each.replace('{n_layers}', str(config.n_layers))}" for each in self.ignored]

    def record(self, data: Mapping[str, Any], mlx_lm: bool) -> dict[str, Any]:
        """What `keys` says as a whole config.json."""
        classes = {"architectures": [self.architecture]} if self.architecture else {}
        own = {**classes, "model_type": self.model_type, **data}
        if not (mlx_lm and self.composite):
            return own
        tokens = {key: value for key, value in data.items() if key.endswith("_token_id")}
        return {"model_type": self.composite, "text_config": own, **tokens}

    def full_name(self, name: str, mlx_lm: bool = False) -> str:
        """A tensor's name as the checkpoint has it."""
        full = name if name.startswith(tuple(self.bare)) else f"{self.prefix}{name}"
        return f"language_model.{full}" if mlx_lm and self.composite else full


def layered(layers: str, names: Mapping[str, str], numbers: Sequence[int] | None = None) -> list[Rule]:
    """Rules for parts of layers, `{ours: theirs}`, such as `{"attention.q_proj": "self_attn.q_proj"}`."""
    return [
        Rule(f"{layers}.{{i}}.{theirs}.{{p}}", f"layers.{{i}}.{ours}.{{p}}", layers=numbers)
        for ours, theirs in names.items()
    ]


def whole(names: Mapping[str, str]) -> list[Rule]:
    """Rules for parts of the model, `{ours: theirs}`."""
    return [Rule(f"{theirs}.{{p}}", f"{ours}.{{p}}") for ours, theirs in names.items()]


def in_full(rules: Sequence[Rule], prefix: str, bare: Sequence[str] = ("lm_head.",)) -> list[Rule]:
    """The rules under whole names."""
    names = {
        name: name if name.startswith(tuple(bare)) else f"{prefix}{name}" for rule in rules for name in rule.theirs
    }
    return [attrs.evolve(rule, theirs=[names[name] for name in rule.theirs], full=True) for rule in rules]
