"""Which format a checkpoint is packed in."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from lmx_core.errors import CheckpointError
from lmx_hf.packed.awq import from_awq
from lmx_hf.packed.fp8 import from_fp8
from lmx_hf.packed.gptq import from_gptq
from lmx_hf.packed.mxfp4 import from_mxfp4
from lmx_hf.transforms import Tensors

FORMATS: dict[str, Callable[[Tensors, Mapping[str, Any]], Tensors]] = {
    "awq": from_awq,
    "fp8": from_fp8,
    "gptq": from_gptq,
    "mxfp4": from_mxfp4,
}
READ = (
    "MLX's own as mlx-lm writes it (affine, mxfp4, mxfp8, nvfp4), GPTQ and AWQ (gemm), mxfp4 of gpt-oss, and fp8 with a "
    "scale for each block"
)


def unpacked(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """MLX's `X.weight` (uint32), `X.scales` and `X.biases` in place of what other programs store of a module X.

    `config` is the checkpoint's config.json, which says the method; what is packed, and in how many bits, the tensors do.
    All stays lazy, tensor by tensor, but for GPTQ's `g_idx`. What MLX has no packed form for becomes dense. Packed weights
    are (out, in) whatever the dense ones of the family are. `CheckpointError` for methods that are not read.
    """
    how = _packing(config)
    method = how.get("quant_method")
    if "quantization" in config or not (method or any(name.endswith(".qweight") for name in tensors)):
        return _whole(tensors)
    if method in FORMATS:
        return FORMATS[method](tensors, how)
    if method and all(mx.issubdtype(each.dtype, mx.floating) for each in tensors.values()):
        return tensors  # dequantised by someone who left the config as it was
    said = (
        f"by method {method!r}"
        if method
        else "and its config.json has no quantization_config that says by which method"
    )
    raise CheckpointError(
        f"the checkpoint is quantised, {said}. lmx reads {READ}. Take a version that is not quantised."
    )


def _packing(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantization_config; of a composite, the text part's where it has one of its own."""
    text: Any = config.get("text_config") or {}
    found: Any = config.get("quantization_config") or text.get("quantization_config") or {}
    if not isinstance(found, Mapping) or not isinstance(found.get("quant_method", ""), str):
        raise CheckpointError(f"quantization_config is {found!r}, which names no method. Correct config.json.")
    return found


def _whole(tensors: Tensors) -> Tensors:
    """As mlx-lm writes them."""
    if scaled := next((name for name in tensors if name.endswith(".global_scale")), None):
        raise CheckpointError(f"{scaled}: nvfp4 with a scale for whole tensors is not read. Take one without it.")
    return tensors
