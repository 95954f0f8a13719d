"""Components that work, though not as core's do, are not refused."""

import re

import attrs
import click
import mlx.core as mx
import numpy as np
import pytest
from attrs import validators
from mlx import nn

from lmx_core.components.attention import GroupedQueryAttention
from lmx_core.components.caches import KVCache
from lmx_core.registry import registry
from lmx_core.testing import SMALL, cases


def failures(suite):
    """What fails, with the reason."""
    found = []
    for case in suite:
        try:
            case.run()
        except Exception as error:
            found.append(f"{case.name}: {error}")
    return found


class Plain(nn.Module):
    """No base class: the position is what it is handed."""

    def __init__(self, config):
        super().__init__()
        self.inner = GroupedQueryAttention(config)

    def make_cache(self):
        return KVCache()


class AsksForAPosition(Plain):
    def __call__(self, x, mask=None, cache=None, *, position):
        return self.inner(x, mask, cache, position=position)


class MayHaveAPosition(Plain):
    def __call__(self, x, mask=None, cache=None, *, position=None):
        position.rotate  # noqa: B018
        return self.inner(x, mask, cache, position=position)


class LastTokens:
    """Keeps as many tokens as a window has, and can take some back until it is full."""

    def __init__(self, size):
        self.size, self.offset, self.kept = size, 0, []

    def update_and_fetch(self, keys, values):
        new = (keys, values)
        whole = [mx.concatenate(pair, axis=2) for pair in zip(self.kept, new, strict=True)] if self.kept else new
        self.offset += keys.shape[2]
        self.kept = [each[:, :, -self.size :] for each in whole]
        return whole

    def is_trimmable(self):
        return self.offset <= self.size

    def trim(self, n):
        n = min(n, self.offset)
        self.offset -= n
        self.kept = [each[:, :, : each.shape[2] - n] for each in self.kept]
        return n

    def checkpoint(self):
        return self.offset, self.kept

    def restore(self, mark):
        self.offset, self.kept = mark

    @property
    def state(self):
        return [*self.kept, mx.array(self.offset)]

    @state.setter
    def state(self, arrays):
        *self.kept, offset = arrays
        self.offset = offset.item()

    @property
    def nbytes(self):
        return sum(each.nbytes for each in self.kept)


@attrs.frozen(kw_only=True)
class WindowOptions:
    window: int = attrs.field(default=30, validator=validators.gt(0))


class Window(GroupedQueryAttention):
    """Each token sees the last `window` of them."""

    Options = WindowOptions

    def __init__(self, config, options):
        super().__init__(config)
        self.window = options.window

    def make_cache(self):
        return LastTokens(self.window)

    def __call__(self, x, mask=None, cache=None, *, position=None):
        position = self._position if position is None else position
        return super().__call__(x, mask, cache, position=Near(position, self.window))


class Near:
    """A position whose bias hides what is beyond a window."""

    def __init__(self, position, window):
        self.rotate, self.inner, self.window = position.rotate, position, window

    def bias(self, queries, keys):
        bias = self.inner.bias(queries, keys)
        bias = mx.zeros((1, SMALL.n_heads, len(queries), len(keys))) if bias is None else bias
        return mx.where(queries[:, None] - keys < self.window, bias, -mx.inf)


class LowRank(nn.Module):
    """Half as wide as a group of 8-bit numbers."""

    def __init__(self, config):
        super().__init__()
        self.down = nn.Linear(config.d_model, 16, bias=False)
        self.up = nn.Linear(16, config.d_model, bias=False)

    def __call__(self, x):
        return self.up(nn.silu(self.down(x)))


class NumpyRate(registry("schedule").get("constant")):
    def __call__(self, step, progress):
        return np.float32(super().__call__(step, progress))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def hands_on(arguments):
    """Hands its arguments to another tool."""


@pytest.mark.parametrize(
    ("kind", "component", "options", "those"),
    [
        ("attention", AsksForAPosition, {}, "(?!.*_with_).*"),
        ("attention", MayHaveAPosition, {}, "a_boolean.*"),
        ("attention", Window, {"window": 30}, "(past|long|cache|a_boolean).*"),
        *(("attention", Window, {"window": size}, "(?!.*_with_)cache.*") for size in (8, 25, 32, 33)),
        ("ffn", LowRank, {}, ".*"),
        ("schedule", NumpyRate, {}, ".*"),
        ("command", hands_on, {}, ".*"),
    ],
)
def test_it_passes(kind, component, options, those):
    """Its whole suite, or the cases that are in question."""
    suite = [case for case in cases(kind, component, options=options) if re.fullmatch(those, case.name)]
    assert len(suite) > 2
    assert failures(suite) == []


@pytest.mark.parametrize("limit", [33, 34, 64, 131])
def test_a_position_with_few_rows(limit):
    suite = cases("position.learned", config={"max_seq_len": limit})
    suite = [case for case in suite if case.name.startswith(("long", "past", "knows"))]
    assert len(suite) == 3
    assert failures(suite) == []
