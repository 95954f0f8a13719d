"""The files of an adapter."""

from pathlib import Path

from lmx_core.errors import CheckpointError
from lmx_hf.adapters import mlx_lm, peft
from lmx_hf.adapters.changes import Adapter
from lmx_hf.shards import read_file
from lmx_hf.tables import read_table
from lmx_hf.transforms import Tensors

CONFIG = "adapter_config.json"
OLD = {
    "adapter_model.bin": "a pickle, and reading a pickle runs whatever code it holds",
    "adapters.npz": "an old format",
}


def read(folder: Path) -> Adapter:
    """What PEFT or mlx-lm wrote there."""
    config = read_table(folder / CONFIG, "an adapter")
    if "peft_type" in config:
        peft.check(config)
        return peft.read(config, _weights(folder, "adapter_model.safetensors"))
    if "lora_parameters" in config or "fine_tune_type" in config:
        return mlx_lm.read(config, _weights(folder, "adapters.safetensors"))
    raise CheckpointError(
        f"{folder / CONFIG} has neither peft_type, which PEFT writes, nor fine_tune_type or lora_parameters, which mlx-lm "
        "writes. lmx reads adapters of these two."
    )


def _weights(folder: Path, name: str) -> Tensors:
    file = folder / name
    if file.is_file():
        if tensors := read_file(file):
            return dict(sorted(tensors.items()))
        raise CheckpointError(
            f"{file} holds no tensor: nothing of a model was trained, or the file was not written well."
        )
    for old, what in OLD.items():
        if (folder / old).is_file():
            raise CheckpointError(
                f"{folder} holds its weights as {old}, {what}. lmx reads safetensors alone. Where you trust it, load it "
                f"with the program that wrote it and write it again as {name}: PEFT's model.save_pretrained(folder) does, "
                "and so does mx.save_safetensors of what mx.load reads."
            )
    raise CheckpointError(f"{folder} has a {CONFIG} and no {name}. Download it again.")
