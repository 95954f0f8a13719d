"""Lower triangular matrices of many small blocks, which grow by twos: exact, and matrix products alone."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.core import array

from lmx_core.shapes import Float

Products = list[array]
"""What stands below the diagonal, in levels: the corners of blocks of 2, 4, 8, .. rows, each half as wide as its block,
(*B, T / 2, 1, 1), (*B, T / 4, 2, 2), .. (*B, 1, T / 2, T / 2)."""


def across(
    rows: Sequence[Float[array, "*B T E"]], columns: Float[array, "*B T E"], left: Float[array, "*B T D"]
) -> tuple[list[array], array, array, list[Products]]:
    """Products of rows with earlier columns, `sum over E of row_t column_i left_(i+1) .. left_t`, for each of the `rows`.

    `left` is what each of T = 2^n tokens leaves of what came before, one number (D = 1) or one for each channel (D = E).
    Two neighbouring blocks are put together at a time: the second looks at the first across the border between them, so
    that only products of what is left occur and never a quotient of two. Nothing overflows, however little is left.
    Before the products come the rows, decayed since before the first token; the columns, decayed until after the last
    one; and what all tokens together leave.
    """
    blocks = [(row * left)[..., None, :] for row in rows]
    columns, left = columns[..., None, :], left[..., None, :]
    products: list[Products] = [[] for _ in rows]
    while columns.shape[-3] > 1:
        (first, second), (before, after) = pairs(columns), pairs(left)
        for i, (early, late) in enumerate(map(pairs, blocks)):
            products[i].append(late @ first.swapaxes(-1, -2))
            blocks[i] = mx.concatenate([early, before * late], axis=-2)
        columns, left = mx.concatenate([first * after, second], axis=-2), before * after
    return [block.squeeze(-3) for block in blocks], columns.squeeze(-3), left.squeeze(-3), products


def below(rows: Float[array, "*B T E"], columns: Float[array, "*B T E"]) -> Products:
    """The products of `across` where nothing is lost between."""
    products: Products = []
    for level in range(rows.shape[-2].bit_length() - 1):
        late, first = (pairs(x.reshape(*x.shape[:-2], -1, 1 << level, x.shape[-1])) for x in (rows, columns))
        products.append(late[1] @ first[0].swapaxes(-1, -2))
    return products


def lower(diagonal: Float[array, "*B T"], products: Products) -> Float[array, "*B T T"]:
    """The matrix with this diagonal and these products below it."""
    blocks = diagonal[..., None, None]
    for product in products:
        first, second = pairs(blocks)
        blocks = corners(first, product, second)
    return blocks.squeeze(-3)


def unit_lower_inverse(size: int, products: Products) -> Float[array, "*B T T"]:
    """The inverse of the matrix with ones on its diagonal and these products below it, in `2 log2(T)` matrix products.

    That of [[X, 0], [c, Y]] is [[x, 0], [-y c x, y]] with x and y those of X and Y. As stable as substitution; a series
    of powers is not.
    """
    blocks = mx.ones((size, 1, 1))
    for product in products:
        first, second = pairs(blocks)
        blocks = corners(first, -second @ product @ first, second)
    return blocks.squeeze(-3)


def pairs(x: Float[array, "*B N T E"]) -> tuple[Float[array, "*B M T E"], Float[array, "*B M T E"]]:
    """The first and the second of each two neighbouring blocks."""
    first, second = x.reshape(*x.shape[:-3], -1, 2, *x.shape[-2:]).split(2, axis=-3)
    return first.squeeze(-3), second.squeeze(-3)


def corners(
    first: Float[array, "*B T T"], below: Float[array, "*C T T"], second: Float[array, "*B T T"]
) -> Float[array, "*C T2 T2"]:
    """[[first, 0], [below, second]]."""
    first, second = (mx.broadcast_to(part, below.shape) for part in (first, second))
    above = mx.concatenate([first, mx.zeros_like(first)], axis=-1)
    return mx.concatenate([above, mx.concatenate([below, second], axis=-1)], axis=-2)
