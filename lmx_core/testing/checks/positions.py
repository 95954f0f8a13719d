"""What holds for encodings of position."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.block import ConfigurableBlock
from lmx_core.components.positions import token_positions
from lmx_core.errors import LmxError
from lmx_core.testing.subjects import Maker, close, config_of, largest, random_key, randomise

KEYS = 20


def _inputs(config: Any, length: int, batch: int = 2) -> tuple[array, array, array]:
    """Embeddings, queries and keys."""
    shapes = (
        (batch, length, config.d_model),
        (batch, config.n_heads, length, config.head_dim),
        (batch, config.n_kv_heads, length, config.head_dim),
    )
    x, q, k = (mx.random.normal(shape, key=random_key(i)) for i, shape in enumerate(shapes, 1))
    return x, q, k


def _placed(
    position: Any, inputs: tuple[array, array, array], offset: int | array = 0, first_key: int = 0
) -> list[array]:
    """All that it does to these inputs at this offset; the bias in a row of its own for each sequence."""
    x, q, k = inputs
    bias = position.bias(token_positions(x.shape[1], offset), mx.arange(first_key, first_key + KEYS))
    rows = [] if bias is None else [mx.broadcast_to(bias, (x.shape[0], *bias.shape[1:]))]
    return [position.embed(x, offset), *position.rotate(q, k, offset), *rows]


def offsets_continue(make: Maker) -> None:
    """What an encoding does to tokens at an offset is what it does to them within the whole sequence."""
    position: Any = randomise(make())
    inputs = _inputs(config_of(make), 20)
    whole = _placed(position, inputs)
    x, q, k = inputs
    for part, all_of_it in zip(_placed(position, (x[:, 13:], q[:, :, 13:], k[:, :, 13:]), 13), whole, strict=True):
        close(part, all_of_it[..., 13:, :], 1e-5)
    starts = (13, 5)
    x, q, k = (mx.stack([each[row, ..., start : start + 7, :] for row, start in enumerate(starts)]) for each in inputs)
    for part, all_of_it in zip(_placed(position, (x, q, k), mx.array(starts)), whole, strict=True):
        for row, start in enumerate(starts):
            close(part[row], all_of_it[row, ..., start : start + 7, :], 1e-5)


def documents_begin_anew(make: Maker) -> None:
    """Where a row holds several documents, an offset (B, L) says where each token stands in its own: all are placed as they
    are alone.
    """
    position: Any = randomise(make())
    x, q, k = _inputs(config_of(make), 20)
    offset = mx.array([[*range(8), *range(12)], [*range(20)]])
    together = [position.embed(x, offset), *position.rotate(q, k, offset)]
    bias = position.bias(offset, offset)
    for row, start, end in ((0, 0, 8), (0, 8, 20), (1, 0, 20)):
        inputs = [each[row : row + 1, ..., start:end, :] for each in (x, q, k)]
        alone = [position.embed(inputs[0], 0), *position.rotate(*inputs[1:], 0)]
        for part, each in zip(together, alone, strict=True):
            close(part[row : row + 1, ..., start:end, :], each, 1e-5)
        if bias is not None:
            places = mx.arange(end - start)
            close(bias[row, :, start:end, start:end], position.bias(places, places)[0], 1e-5)


def dtypes_are_kept(make: Maker) -> None:
    """Embeddings, queries and keys in bfloat16 stay so, and keep their shapes; a bias is (1 or B, H, L, S)."""
    config = config_of(make)
    position: Any = randomise(make())
    position.set_dtype(mx.bfloat16)
    x, q, k = (each.astype(mx.bfloat16) for each in _inputs(config, 6))
    for before, after in zip((x, q, k), (position.embed(x, 3), *position.rotate(q, k, 3)), strict=True):
        assert after.dtype == before.dtype, f"{before.dtype} became {after.dtype}"
        assert after.shape == before.shape, f"{before.shape} became {after.shape}"
    for queries in (mx.arange(3, 9), mx.array([[*range(3, 9)], [*range(6)]])):
        bias: Any = position.bias(queries, mx.arange(9))
        rows = (1,) if queries.ndim == 1 else (1, 2)
        if bias is not None:
            right = bias.shape[0] in rows and bias.shape[1:] == (config.n_heads, 6, 9)
            assert right, f"the bias of queries {queries.shape} and 9 keys has shape {bias.shape}"


def knows_its_limit(make: Maker) -> None:
    """The token at `limit` is refused (`LmxError`), all before it are placed; without a limit far tokens are told apart."""
    position: Any = randomise(make())
    inputs = _inputs(config_of(make), 1, batch=1)
    limit = getattr(position, "limit", None)
    last = 5000 if limit is None else limit - 1
    near, far = (_placed(position, inputs, at, max(last - KEYS, 0)) for at in (last - 1, last))
    assert all(mx.isfinite(each).all().item() for each in far), f"position {last} is not finite"
    moved = any(one.shape != other.shape or largest(one - other) > 1e-6 for one, other in zip(near, far, strict=True))
    assert moved, f"positions {last - 1} and {last} are the same"
    if limit is not None:
        try:
            mx.eval(_placed(position, inputs, limit))
        except LmxError:
            return
        raise AssertionError(f"limit = {limit}, but a token at {limit} is placed somewhere")


def turns_by_distance(make: Maker) -> None:
    """What a rotation does to the score of a query and a key depends on how far apart they are, not on where they are."""
    position: Any = randomise(make())
    config = config_of(make)
    _, q, k = _inputs(config, 12)
    k = mx.repeat(k, config.n_heads // config.n_kv_heads, axis=1)
    near, far = (turned @ keys.swapaxes(-1, -2) for turned, keys in (position.rotate(q, k, each) for each in (0, 40)))
    close(far, near)


def tells_positions_apart(make: Maker) -> None:
    """With the encoding, the order of the past makes a difference; to one block without any it makes none."""
    position: Any = randomise(make())
    config = config_of(make)
    block: Any = randomise(ConfigurableBlock(config, position)).eval()
    x = mx.random.normal((1, 12, config.d_model), key=random_key(1))
    swapped = x[:, mx.array([5, 1, 2, 3, 4, 0, *range(6, 12)])]
    last, other = (block(position.embed(tokens), "causal")[0][:, -1] for tokens in (x, swapped))
    assert largest(last - other) > 1e-4, "the order of the past makes no difference"
