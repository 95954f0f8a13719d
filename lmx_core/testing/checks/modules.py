"""What holds for every module that computes: parts of a block, blocks, models."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten, tree_map

from lmx_core.objective import take_reports
from lmx_core.testing.subjects import Maker, Subject, close, largest, random_key


def keeps_shape_and_dtype(make: Maker) -> None:
    """Float32 in, float32 out; bfloat16 in, bfloat16 out, through a cache too; every number finite."""
    for dtype in (mx.float32, mx.bfloat16):
        subject = Subject(make, dtype=dtype)
        x = subject.inputs()
        for y in (subject(x), *([subject(x, subject.make_cache())] if subject.remembers else [])):
            assert y.dtype == dtype, f"{dtype} became {y.dtype}"
            assert y.shape[:2] == x.shape[:2], f"(B, L) {x.shape[:2]} became {y.shape[:2]}"
            assert subject.takes_tokens or y.shape == x.shape, f"{x.shape} became {y.shape}"
            assert mx.isfinite(y).all().item(), f"{dtype}: not finite"


def reports_are_scalars(make: Maker) -> None:
    """What a forward reports are finite scalars of this forward (arrays for who can `settle`): a second one does not add to
    them."""
    subject = Subject(make)
    x = subject.inputs()

    def reports(passes: int) -> dict[str, array]:
        for _ in range(passes):
            mx.random.seed(0)  # for dropout
            subject(x)
        return take_reports(subject.module)

    for training in (False, True):
        subject.module.train(training)
        once, twice = reports(1), reports(2)
        assert once.keys() == twice.keys(), "reports come and go"
        settles = {path for path, module in subject.module.named_modules() if hasattr(module, "settle")}
        for name, value in once.items():
            scalar = value.ndim == 0 or name.rpartition(".")[0] in settles
            assert scalar, f"{name} has shape {value.shape}, a report is a scalar"
            assert mx.isfinite(value).all().item(), f"{name} is not finite"
            close(twice[name], value, 1e-6)


def rows_are_independent(make: Maker) -> None:
    """A sequence comes out of a batch as it does alone, whatever the others are."""
    subject = Subject(make)
    x, other = subject.inputs(batch=3, seed=1), subject.inputs(batch=3, seed=2)
    y = subject(x)
    for row in range(3):
        close(subject(x[row : row + 1]), y[row : row + 1], 1e-5)
    mixed = mx.concatenate([x[:1], other[1:]])
    close(subject(mixed)[:1], y[:1], 1e-5)


def nothing_stays_behind(make: Maker) -> None:
    """The same input gives the same output, also after another one."""
    subject = Subject(make)
    x = subject.inputs(seed=1)
    y = subject(x)
    subject(subject.inputs(length=12, seed=2))
    close(subject(x), y, 0.0)


def input_is_left_alone(make: Maker) -> None:
    """The array that was handed in holds the same numbers afterwards: it is the residual stream of others."""
    subject = Subject(make)
    x = subject.inputs()
    before = mx.array(x)
    mx.eval(before)
    subject(x)
    close(x, before, 0.0)


def training_changes_nothing(make: Maker) -> None:
    """Without dropout, a forward pass in training computes what it computes in evaluation."""
    subject = Subject(make)
    dropouts = [each for each in subject.module.modules() if isinstance(each, nn.Dropout)]
    x = subject.inputs()
    y = subject(x)
    subject.module.train()
    for dropout in dropouts:
        dropout.eval()
    close(subject(x), y, 1e-6)


def compiled_equals_eager(make: Maker) -> None:
    """`mx.compile` changes no number beyond rounding, whatever the function was traced with."""
    subject = Subject(make)
    x, other = subject.inputs(seed=1), subject.inputs(seed=2)
    compiled: Any = mx.compile(lambda x: subject(x), inputs=[subject.module.state])
    for inputs in (x, other):
        close(compiled(inputs), subject(inputs), 1e-5)


def gradients_reach_everything(make: Maker) -> None:
    """Every trainable tensor gets a finite gradient that is not all zero, and so does the input."""
    subject = Subject(make)
    x = subject.inputs()
    weights = mx.random.normal(subject(x).shape, key=random_key(3))
    has_parameters = bool(tree_flatten(subject.module.trainable_parameters()))
    gradients = value_and_grad(subject.module, lambda: (subject(x) * weights).sum()) if has_parameters else None
    found: Any = tree_flatten(gradients()[1]) if gradients else []
    for name, gradient in found:
        assert mx.isfinite(gradient).all().item(), f"the gradient of {name} is not finite"
        assert largest(gradient) > 0, f"no gradient reaches {name}"
    if not subject.takes_tokens and not getattr(subject.module, "silent", False):
        reached = mx.grad(lambda x: (subject(x) * weights).sum())(x)
        assert mx.isfinite(reached).all().item(), "the gradient of the input is not finite"
        assert (mx.abs(reached).max(axis=-1) > 0).all().item(), "no gradient reaches some positions of the input"


def gradients_are_slopes(make: Maker) -> None:
    """Along a random direction through all parameters and the input, the gradient is the slope of the output. For what is
    `sensitive` one of three directions will do: others may cross a step."""
    subject = Subject(make)
    x = subject.inputs(length=9)
    weights = mx.random.normal(subject(x).shape, key=random_key(3))
    point: Any = [subject.module.trainable_parameters(), mx.zeros(()) if subject.takes_tokens else x]

    def value(point: Any) -> array:
        subject.module.update(point[0])
        return (subject(x if subject.takes_tokens else point[1]) * weights).sum()

    gradients = mx.grad(value)(point)
    problem = ""
    for seed in (4, 5, 6) if _sensitive(subject.module) else (4,):
        problem = _slope_problem(value, point, gradients, random_key(seed))
        if problem is None:
            return
    raise AssertionError(problem)


def _sensitive(module: nn.Module) -> bool:
    """Whether it says of itself that a small change of the input may make a large one of the output."""
    return any(getattr(each, "sensitive", False) for each in module.modules())


def _slope_problem(value: Callable[[Any], array], point: Any, gradients: Any, key: array) -> str | None:
    """How the slope along a random direction differs from what the gradient says, if it does."""
    keys = iter(mx.random.split(key, 10_000))
    direction = tree_map(lambda each: mx.random.normal(each.shape, key=next(keys)) * (mx.abs(each).mean()), point)

    def moved(step: float) -> float:
        found: Any = value(tree_map(lambda each, way: each + step * way, point, direction)).item()
        return found

    along: Any = tree_flatten(tree_map(lambda gradient, way: (gradient * way).sum(), gradients, direction))
    parts = [each.item() for _, each in along]
    slope, size = sum(parts), sum(part**2 for part in parts) ** 0.5
    measured = (moved(STEP) - moved(-STEP)) / (2 * STEP)
    near = abs(measured - slope) <= 0.02 * size + 1e-3
    return None if near else f"the slope is {measured:.4g}, the gradient says {slope:.4g}"


STEP = 5e-4
GROUP = 32


def quantised_runs(make: Maker) -> None:
    """With its linear layers in 8 bits it still runs, and stays near; what is `sensitive` at three positions of four. Layers
    too narrow for that stay as they are."""
    subject = Subject(make)
    x = subject.inputs()
    y = subject(x)
    nn.quantize(subject.module, group_size=GROUP, bits=8, class_predicate=_fills_groups)
    found = subject(x)
    positions = y.shape[0] * y.shape[1]
    kept = 3 * positions // 4 if _sensitive(subject.module) else positions
    nearest = mx.argsort(mx.abs(found - y).max(axis=-1).flatten())[:kept]
    close(found.flatten(0, 1)[nearest], y.flatten(0, 1)[nearest], 0.1)


def _fills_groups(_: str, layer: Any) -> bool:
    """Whether a layer can be quantised in groups of its inputs."""
    return hasattr(layer, "to_quantized") and layer.weight.shape[-1] % GROUP == 0


def weights_round_trip(make: Maker) -> None:
    """Saved and loaded into a fresh module, the parameters are all that matters: outputs are equal to the bit."""
    subject, fresh = Subject(make, seed=0), Subject(make, seed=5)
    x = subject.inputs()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.safetensors")
        mx.save_safetensors(file, {"": mx.zeros(1), **dict(tree_flatten(subject.module.parameters()))})
        loaded: Any = mx.load(file)
        fresh.module.load_weights([(name, weight) for name, weight in loaded.items() if name])
        close(fresh(x), subject(x), 0.0)


def copies_are_independent(make: Maker) -> None:
    """A deep copy computes the same, and goes on apart: a reference model stays while the other one learns."""
    subject = Subject(make)
    x = subject.inputs()
    y = subject(x)
    other = copy.copy(subject)
    other.module = copy.deepcopy(subject.module)
    close(other(x), y, 0.0)
    other.module.update(tree_map(lambda weight: weight * 2, other.module.parameters()))
    close(subject(x), y, 0.0)
