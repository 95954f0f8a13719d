"""The table of families that lmx-hf reads and writes: each is tried out on a small model."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx

from lmx_core import LanguageModel, make_config, quantised
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_core.testing import randomise

HEAD = "| `model_type` | architecture | also needs | read and written | mlx-lm {version} | packed | adapters |"
EXPERTS = {"n_experts": 4, "top_k": 2, "expert_d_ff": 32, "shared_d_ff": 32}
SMALLEST = {
    "openai-gpt": {"pre_norm": False},
    "qwen3_5_moe_text": EXPERTS,
    "qwen3_next": EXPERTS,
}
"""What makes the smallest size of an architecture one of a family, where it is one of another."""


def table() -> str:
    """A line for each family."""
    from lmx_hf import peers

    names = [name for name in registry("loader").names() if registry("loader").find(name).dist == "lmx-hf"]
    names = [name for name in names if registry("loader").get(name).model_type == name]  # others are further names
    rule = "|---" * HEAD.count(" | ") + "|---|"
    return "\n".join([HEAD.format(version=peers.VERSION), rule, *map(_row, names)])


def _row(model_type: str) -> str:
    from lmx_hf import peers

    family = registry("loader").get(model_type)
    model = randomise(LanguageModel(make_config(family.factory, size="tiny", **SMALLEST.get(model_type, {}))))
    owners = {_owner(kind, name) for kind, name in _parts(model)} | {_owner("config", family.factory)}
    needs = ", ".join(sorted(owners - {"lmx-core"}))
    told = [each.why for each in peers.OTHERWISE.get(model_type, ())]
    mlx_lm = peers.REFUSED.get(model_type) or "; ".join(told) or "yes"
    written = _comes_back(model, model_type, "hf")
    quantised.quantise(model, 4, 32)
    packed = _comes_back(model, model_type, "mlx-lm")
    cells = [f"`{model_type}`", f"`{family.factory}`", needs, written, mlx_lm, packed, _adapted(model_type)]
    return f"| {' | '.join(cells)} |"


def _owner(kind: str, name: str) -> str:
    return registry(kind).find(name).dist


def _parts(model: Any) -> list[tuple[str, str]]:
    from lmx_core.parts import components

    return [(kind, chosen.name) for kind, chosen in components(model.config)]


def _comes_back(model: Any, model_type: str, program: Any) -> str:
    """Whether what is written is read again bit by bit."""
    from lmx_hf import export, load_from_hf

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(model, Path(folder, "out"), program, family=model_type)
        back = flat_parameters(load_from_hf(Path(folder, "out"))[0])
        ours = flat_parameters(model)
        if ours.keys() != back.keys():
            return "no"
        if all(mx.array_equal(ours[name], back[name]).item() for name in ours):
            return "yes"
        near = all(mx.allclose(ours[name], back[name], rtol=0, atol=2**-20).item() for name in ours)
        return "norms are rounded" if near else "no"


def _of_attention(name: str, tensor: mx.array) -> bool:
    return tensor.ndim == 2 and "att" in name and "norm" not in name.split(".")[-2]


def _adapted(model_type: str) -> str:
    """Whether an adapter of the first matrix of a layer changes the model by what it says."""
    from lmx_hf import export, load_from_hf

    family = registry("loader").get(model_type)
    model = randomise(LanguageModel(make_config(family.factory, size="tiny", **SMALLEST.get(model_type, {}))))
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = Path(folder, "base"), Path(folder, "adapter")
        export(model, base, family=model_type)
        tensors: Any = mx.load(str(base / "model.safetensors"))
        name = next(name for name in sorted(tensors) if name.endswith(".weight") and _of_attention(name, tensors[name]))
        rows, columns = tensors[name].shape
        turned = model_type in ("gpt2", "openai-gpt")
        shapes = (rows, columns) if turned else (columns, rows)
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        matrices = {"lora_A": mx.ones((1, shapes[0])), "lora_B": mx.ones((shapes[1], 1))}
        adapter.mkdir()
        mx.save_safetensors(
            str(adapter / "adapter_model.safetensors"),
            {f"{stem}.{part}.weight": each for part, each in matrices.items()},
        )
        about = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["all"], "fan_in_fan_out": turned}
        (adapter / "adapter_config.json").write_text(json.dumps(about))
        after, before = flat_parameters(load_from_hf(base, adapter=adapter)[0]), flat_parameters(model)
    change = sum(mx.abs(after[name] - before[name]).sum().item() for name in before)
    return "yes" if abs(change / (rows * columns) - 1) < 1e-3 else "no"
