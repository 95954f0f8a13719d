"""What a family's rules say of how tensors are stored."""

from collections.abc import Mapping, Sequence

from lmx_hf.adapters.places import Asked
from lmx_hf.rules import Rule, Use, reading
from lmx_hf.transforms import Chain, InTurn, Transform, Turned


def layouts(rules: Sequence[Rule], names: Mapping[str, str]) -> tuple[Asked, Asked]:
    """`transposed` and `interleaved` for `fused`. `names` are those of a checkpoint, each with the one that rules know."""
    whole, left = reading([rule for rule in rules if rule.full], names)
    uses, _ = reading([rule for rule in rules if not rule.full], [names[name] for name in left])
    turned = _theirs([use for use in (*whole, *uses) if isinstance(_steps(use.rule.how)[0], Turned)])
    in_turn = _theirs([use for use in (*whole, *uses) if any(map(_one_by_one, _steps(use.rule.how)))])
    return (
        lambda name: name in turned or names.get(name) in turned,
        lambda name: name in in_turn or names.get(name) in in_turn,
    )


def _steps(how: Transform) -> Sequence[Transform]:
    return how.steps if isinstance(how, Chain) else (how,)


def _one_by_one(step: Transform) -> bool:
    return isinstance(step, InTurn) and tuple(step.sizes) == (1, 1)


def _theirs(uses: Sequence[Use]) -> set[str]:
    return {name for use in uses for name in use.theirs}
