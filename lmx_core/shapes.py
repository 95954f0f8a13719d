"""Axis letters for signatures, checked by jaxtyping while tests run and free of cost otherwise.

`B` batch, `L` new tokens, `S` tokens seen, `D` width, `H` heads, `K` key/value heads, `E` head width, `F` FFN width,
`V` vocabulary. A plugin adds its own at the head of its file.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test runs install jaxtyping's import hook first
    from jaxtyping import Bool, Float
    from jaxtyping import Integer as Int  # signed or not
else:

    class _Unchecked:
        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Float = Int = _Unchecked

__all__ = ["Bool", "Float", "Int"]
