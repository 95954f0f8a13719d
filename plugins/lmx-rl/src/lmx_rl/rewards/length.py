"""How long a completion is."""

from typing import Any

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LengthOptions:
    """Options of `reward="length"`."""

    limit: int = attrs.field(validator=validators.ge(1))
    """Characters that a completion may have; a longer one gets -1."""
    margin: int = attrs.field(default=0, validator=validators.ge(0))
    """Characters before the limit over which it falls from 0 to -1."""

    def __attrs_post_init__(self) -> None:
        if self.margin > self.limit:
            raise ConfigError(f"margin={self.margin} begins before the text does; it lies within limit={self.limit}")


class Length:
    """0 up to `limit - margin` characters, then falling evenly to -1 at `limit`: equation 13 of arXiv:2503.14476 (DAPO).

    That equation counts tokens, this reward characters, since it sees text.
    """

    Options = LengthOptions

    def __init__(self, options: LengthOptions) -> None:
        self.limit, self.margin = options.limit, options.margin

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        beyond = len(completion) - (self.limit - self.margin)
        if beyond <= 0:
            return 0.0
        return -1.0 if beyond >= self.margin else -beyond / self.margin
