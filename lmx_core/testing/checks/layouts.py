"""What holds for layouts, with sublayers of the kit's own."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.testing.subjects import Make, close, largest, random_key, randomise


class _Sublayer:
    """Counts its calls: `tanh(h W)`, or zeros."""

    def __init__(self, width: int, number: int, zero: bool = False) -> None:
        self.weight = mx.random.normal((width, width), key=random_key(number)) * (0 if zero else 1)
        self.calls = 0

    def __call__(self, h: array) -> array:
        self.calls += 1
        return mx.tanh(h @ self.weight)


def _input(make: Make) -> array:
    """Far from normalised."""
    return 3 * mx.random.normal((2, 9, make.config.d_model), key=random_key(1))


def sublayers_are_called_once(make: Make) -> None:
    """Each sublayer that is there is computed once: a second call would give its cache every token twice."""
    width = make.config.d_model
    for has in ((True, True), (True, False), (False, True)):
        layout: Any = make(attention=has[0], ffn=has[1])
        sublayers = [_Sublayer(width, i) if there else None for i, there in enumerate(has)]
        layout(_input(make), *sublayers)
        calls = [sublayer.calls for sublayer in sublayers if sublayer]
        assert set(calls) == {1}, f"the sublayers are called {calls} times"


def zeros_add_nothing(make: Make) -> None:
    """Of sublayers that return zeros comes x, or x normalised; to x that is normalised one of them is as good as none. As
    the layout is built: gains are 1.
    """
    width, x = make.config.d_model, _input(make)
    built = {has: make(attention=has[0], ffn=has[1]).eval() for has in ((True, True), (True, False), (False, True))}
    both = built[True, True]
    zero = _Sublayer(width, 2, zero=True)
    found = both(x, zero, zero)
    normalises = largest(found - x) > 1e-4
    if normalises:
        close(_standard(found), _standard(x), 1e-3)
        close(mx.square(found).mean(axis=-1), mx.ones(x.shape[:2]), 0.01)
    seen = _standard if normalises and not both.normalised else _as_it_is  # such a stream is normalised once more
    x, sublayer = _standard(x), _Sublayer(width, 3)
    close(seen(built[True, False](x, sublayer, None)), seen(both(x, sublayer, zero)), 1e-3)
    close(seen(built[False, True](x, None, sublayer)), seen(both(x, zero, sublayer)), 1e-3)


def _as_it_is(x: array) -> array:
    return x


def _standard(x: array) -> array:
    """With mean 0 and variance 1, or 0 where all is equal."""
    return mx.fast.layer_norm(x, None, None, 1e-6)


def says_whether_it_normalises(make: Make) -> None:
    """With `normalised = True`, which leaves out the model's final norm, what comes out has a mean square of 1."""
    layout: Any = make(attention=True, ffn=True).eval()
    assert isinstance(layout.normalised, bool), f"normalised is {layout.normalised!r}"
    width, x = make.config.d_model, _input(make)
    found = mx.square(layout(x, _Sublayer(width, 2), _Sublayer(width, 3))).mean(axis=-1)
    if layout.normalised:
        close(found, mx.ones(found.shape), 0.01)


def dropout_is_for_training(make: Make) -> None:
    """The config's `dropout` drops in training, each time something else, and changes nothing in evaluation."""
    width, x = make.config.d_model, _input(make)
    sublayers = (_Sublayer(width, 2), _Sublayer(width, 3))
    usual: Any = randomise(make.changed(dropout=0.0)(attention=True, ffn=True)).eval()
    layout: Any = randomise(make.changed(dropout=0.9)(attention=True, ffn=True)).eval()
    whole = usual(x, *sublayers)
    close(layout(x, *sublayers), whole, 1e-6)
    layout.train()
    mx.random.seed(0)
    one, other = layout(x, *sublayers), layout(x, *sublayers)
    assert largest(one - whole) > 1e-3, "dropout = 0.9 drops nothing in training"
    assert largest(one - other) > 1e-3, "dropout = 0.9 drops the same each time"
