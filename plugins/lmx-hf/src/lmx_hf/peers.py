"""What mlx-lm, as it is installed without lmx, makes of a family: found by comparing, and tested to be so still."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import attrs

from lmx_core.errors import LmxWarning
from lmx_hf.described import Described

VERSION = "0.32"
"""The mlx-lm that was compared with."""


def _always(model: Described) -> bool:
    return True


def _having(path: str) -> Callable[[Described], bool]:
    """Of models of which a layer has a value for an option."""
    return lambda model: model.first(path) is not None


def _other_than_fourth(model: Described) -> bool:
    turned = [model.turns(block) for block in model.layers]
    return turned != [(i + 1) % 4 != 0 for i in range(len(turned))]


@attrs.frozen
class Remark:
    """Something that mlx-lm does otherwise."""

    why: str
    concerns: Callable[[Described], bool] = _always
    """Models to which it makes a difference."""


NO_MODEL = "has no such model"
REFUSED = {
    **dict.fromkeys(("bloom", "falcon", "gpt_neo", "ministral", "mpt", "openai-gpt", "opt"), NO_MODEL),
    "olmo": "ends the program unless ai2-olmo is installed, whose model it has",
}
"""Families that it does not load."""
NO_WINDOW = Remark("lets every layer see all tokens", _having("attention.window"))
LONG_ALONE = Remark("has the long factors of longrope for texts of every length", _having("position.scaling"))
EXACT = Remark("has the exact GELU, whatever the config says", lambda model: model.activation() != "gelu")
OTHERWISE: Mapping[str, Sequence[Remark]] = {
    "dbrx": [
        Remark(
            "divides the weights of experts by their sum, whatever the config says",
            lambda model: model.option("ffn.renormalise") is False,
        )
    ],
    "gemma": [Remark("has the exact GELU where Gemma has the tanh form")],
    "gemma2": [NO_WINDOW],
    "glm": [Remark("turns whole heads", lambda model: model.option("position.fraction") != 1)],
    "gpt_bigcode": [EXACT],
    "gpt_neox": [
        Remark("has the tanh form of GELU, whatever the config says", lambda model: model.activation() == "gelu")
    ],
    "gpt_oss": [
        Remark(
            "limits what experts compute by 7, whatever the config says", lambda model: model.option("ffn.clamp") != 7
        )
    ],
    "llama4_text": [Remark("has a rope in all but every fourth layer, whatever the config says", _other_than_fourth)],
    "minicpm3": [LONG_ALONE, Remark("does not scale the logits", lambda model: model.model.tie_embeddings)],
    "mistral": [NO_WINDOW],
    "mixtral": [NO_WINDOW],
    "olmoe": [Remark("does not clamp queries, keys and values", _having("attention.clip"))],
    "phi3": [NO_WINDOW, LONG_ALONE],
    "qwen2": [NO_WINDOW],
    "qwen3_moe": [NO_WINDOW],
    "starcoder2": [NO_WINDOW, EXACT],
}
"""Families of which it computes another model, at least of some."""


def remark(model_type: str, model: Described) -> None:
    """Warn of what mlx-lm will make of a model that is written for it."""
    refused = [REFUSED[model_type]] if model_type in REFUSED else []
    other = [each.why for each in OTHERWISE.get(model_type, ()) if each.concerns(model)]
    if said := [*refused, *other]:
        warnings.warn(
            f"mlx-lm {VERSION} {', and '.join(said)}. `lmx mlx-lm` runs its programs with lmx's model instead.",
            LmxWarning,
            stacklevel=3,
        )
