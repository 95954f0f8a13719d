"""A mixer with a memory of its own kind: the moving average of all that came."""

import attrs
import mlx.core as mx
from mlx import nn

from lmx_core import LmxError


class Average:
    """`D` numbers a row, however long the sequence."""

    def __init__(self):
        self.offset, self.value = 0, None

    @property
    def state(self):
        return [] if self.value is None else [self.value, mx.array(self.offset)]

    @state.setter
    def state(self, arrays):
        self.value, self.offset = (arrays[0], int(arrays[1].item())) if arrays else (None, 0)

    @property
    def nbytes(self):
        return 0 if self.value is None else self.value.nbytes

    def is_trimmable(self):
        return False

    def trim(self, n):
        return 0

    def checkpoint(self):
        return self.value, self.offset

    def restore(self, mark):
        self.value, self.offset = mark


@attrs.frozen(kw_only=True)
class EMAOptions:
    half_life: float = attrs.field(default=8.0, validator=attrs.validators.gt(0))
    """Tokens after which a token counts half, before training."""


class EMA(nn.Module):
    """`out(h)` with `h_t = a h_(t-1) + (1 - a) in(x_t)`, the undamped average of Mega, arXiv:2209.10655."""

    Options = EMAOptions
    takes = frozenset()

    def __init__(self, config, options):
        super().__init__()
        self.into = nn.Linear(config.d_model, config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        kept = 2 ** (-1 / options.half_life)
        self.logit = mx.full((config.d_model,), float(mx.log(mx.array(kept / (1 - kept)))))

    def make_cache(self):
        return Average()

    def __call__(self, x, mask=None, cache=None):
        if isinstance(mask, mx.array):
            raise LmxError("attention 'ema' knows no order but the causal one, and would ignore a mask of its own")
        kept = mx.sigmoid(self.logit.astype(mx.float32))
        new = self.into(x).astype(mx.float32)
        steps = mx.arange(x.shape[1])
        ages = steps[:, None] - steps  # (L, L)
        weights = mx.where((ages >= 0)[..., None], kept ** mx.maximum(ages, 0)[..., None], 0.0) * (1 - kept)
        average = mx.einsum("tsd,bsd->btd", weights, new)
        if cache is not None:
            if cache.value is not None:
                average = average + kept ** (steps + 1)[:, None] * cache.value[:, None]
            cache.value, cache.offset = average[:, -1], cache.offset + x.shape[1]
        return self.out(average.astype(x.dtype)), cache
