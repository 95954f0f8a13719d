"""Tiny checkpoints of transformers, with the logits that it computes; where they are."""

import importlib.util
import json
from pathlib import Path

import mlx.core as mx
import pytest

from lmx_core.errors import UnknownComponentError
from lmx_core.registry import registry
from lmx_hf.lookup import family_of, text_part

SHARED = Path(__file__).parents[4] / "shared"
CASES = SHARED / "hf_cases"
NEEDS = {
    "lmx-attn-mla": ("deepseek", "deepseek_v3", "minicpm3", "kimi_linear"),
    "lmx-ffn-moe": (
        *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "gpt_oss", "llama4", "glm4_moe"),
        *("minimax_m2", "dbrx", "deepseek", "deepseek_v3", "qwen3_next", "kimi_linear"),
    ),
    "lmx-deltanet": ("qwen3_next", "qwen3_5", "kimi_linear", "olmo_hybrid"),
}
"""Factories of which a plugin provides the components."""


def needed(data):
    """The distributions that a config.json's model needs beside core."""
    factory = family_of(data).factory
    dists = [dist for dist, factories in NEEDS.items() if factory in factories]
    return [*dists, "lmx-ffn-moe"] if text_part(data)["model_type"] == "qwen3_5_moe_text" else dists


def missing(data):
    """Those of them that are not here."""
    return [dist for dist in needed(data) if importlib.util.find_spec(dist.replace("-", "_")) is None]


def known(data):
    try:
        registry("loader").get(text_part(data)["model_type"])
    except UnknownComponentError:
        return False
    return True


def param(*values, data, name):
    """A test's case, skipped where its plugins are not installed."""
    lacking = missing(data)
    marks = pytest.mark.skipif(bool(lacking), reason=f"needs {' and '.join(lacking)}")
    return pytest.param(*values, id=name, marks=marks if needed(data) else pytest.mark.once)


def every(name="config*.json"):
    """Each config file of each case of a family that there is."""
    found = [(file, json.loads(file.read_text())) for file in sorted(CASES.glob(f"*/{name}"))]
    return [param(file, data=data, name=f"{file.parent.name}-{file.stem}") for file, data in found if known(data)]


def laid_out(file, folder):
    """A folder with a case's weights and this config, as one downloads it."""
    folder.mkdir()
    (folder / "config.json").write_text(file.read_text())
    for weights in file.parent.glob("model*"):
        (folder / weights.name).symlink_to(weights)
    return folder


def expected(file):
    """What transformers computes, and how close one may ask another to be."""
    return mx.load(str(file.parent / "case.safetensors")), json.loads((file.parent / "case.json").read_text())[
        "tolerance"
    ]


def loaders():
    """The families of lmx-hf, by their `model_type`; one that is another under a further name is left out."""
    names = [name for name in registry("loader").names() if registry("loader").find(name).dist == "lmx-hf"]
    return [name for name in names if registry("loader").get(name).model_type == name]


EXPERTS = {"n_experts": 4, "top_k": 2, "expert_d_ff": 32, "shared_d_ff": 32}
ARGUMENTS = {
    "openai-gpt": {"pre_norm": False},
    "qwen3_5_moe_text": EXPERTS,
    "qwen3_next": EXPERTS,
}
"""Of factories whose smallest size is of another family."""
