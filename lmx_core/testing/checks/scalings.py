"""What holds for the scalings of rotary wavelengths."""

import math
from typing import Any

from lmx_core.testing.subjects import Make

LENGTHS = (1, 100, 2048, 2049, 20_000)


def frequencies_fit(make: Make) -> None:
    """One finite number for each pair, not below 0, and a positive factor, whatever the length."""
    scaling: Any = make()
    for length in LENGTHS:
        frequencies, factor = scaling.frequencies(length)
        assert len(frequencies) == make.config.width // 2, (
            f"{len(frequencies)} numbers for {make.config.width // 2} pairs"
        )
        assert all(math.isfinite(each) and each >= 0 for each in frequencies), f"{frequencies} at {length} tokens"
        assert 0 < factor < math.inf, f"the factor is {factor} at {length} tokens"


def waves_are_only_stretched(make: Make) -> None:
    """No pair turns faster than it did before it was scaled, and the first ones are the fastest."""
    scaling, before = make(), make.config.frequencies()
    for length in LENGTHS:
        after = scaling.frequencies(length)[0]
        faster = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new > old * (1 + 1e-9)]
        assert not faster, f"pairs {faster} turn faster at {length} tokens"
        assert list(after) == sorted(after, reverse=True), f"later pairs turn faster at {length} tokens"


def says_what_it_depends_on(make: Make) -> None:
    """Where the length of the sequence makes a difference, `by_length` says so, and `horizon` where that is one step."""
    scaling: Any = make()
    found = [scaling.frequencies(length) for length in LENGTHS]
    if not scaling.by_length:
        assert all(each == found[0] for each in found), "by_length is False, but the frequencies change"
        assert scaling.horizon is None, f"horizon = {scaling.horizon}, but by_length is False"
    if scaling.horizon is not None:
        last, beyond, far = (scaling.frequencies(scaling.horizon + more) for more in (0, 1, 999))
        assert last == scaling.frequencies(1), f"the frequencies change before horizon = {scaling.horizon}"
        assert beyond == far, f"the frequencies change again beyond horizon = {scaling.horizon}"
