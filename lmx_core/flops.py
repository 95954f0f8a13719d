"""What training costs by a model's shapes."""

from lmx_core.census import census
from lmx_core.model import LanguageModel


def training_flops(model: LanguageModel, seq_len: int) -> float:
    """FLOPs of a token, forwards and backwards, in the mean over a sequence of `seq_len` tokens.

    Counted as `lmx count` does it, which says what the last token costs; mixers that look at what came before cost less
    for those before it. What is computed twice to save memory is not counted twice.
    """
    counted = census(model.config, seq_len)
    mixing = 0.0
    for layers in counted.layers:
        mixer = model.layers[layers.layers[0]].attention
        if hasattr(mixer, "mixing_flops"):
            mean = sum(mixer.mixing_flops(seen) for seen in range(1, seq_len + 1)) / seq_len
            mixing += len(layers.layers) * mean
    return 3 * (counted.flops_forward - counted.flops_attention + mixing)
