"""What holds for optimizers, on two parameters that are pulled to a target."""

import math
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten, tree_unflatten

from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import close, largest, random_key

SHAPES = {"weight": (12, 8), "gain": (8,)}


def _module(seed: int = 1, dtype: mx.Dtype = mx.float32) -> Any:
    module: Any = nn.Module()
    for i, (name, shape) in enumerate(SHAPES.items()):
        module[name] = mx.random.normal(shape, key=random_key(10 * seed + i)).astype(dtype)
    return module


def _flat(module: Any) -> dict[str, array]:
    return dict(tree_flatten(module.parameters()))


def _gradients(module: Any, target: Any) -> dict[str, array]:
    """Of half the squared distance to the target."""
    return {name: weight - target[name].astype(weight.dtype) for name, weight in _flat(module).items()}


def _distance(module: Any, target: Any) -> float:
    parts: list[Any] = [mx.square(_flat(module)[name] - target[name]).sum().item() for name in SHAPES]
    return sum(parts)


def _started(optimizer: Candidate, module: Any, **changes: Any) -> Any:
    made = optimizer.bare().changed(**changes)()
    made.init(module.trainable_parameters())
    return made


def _run(optimizer: Any, module: Any, target: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.update(module, _gradients(module, target))
        mx.eval(module.state, optimizer.state)


def lowers_a_loss(optimizer: Candidate) -> None:
    """After 200 steps at the config's learning rate, less than half of a quadratic loss is left."""
    module, target = _module(1), _module(2)
    before = _distance(module, target)
    _run(_started(optimizer, module), module, target, 200)
    after = _distance(module, target)
    assert after < before / 2, f"a loss of {before:.4g} became {after:.4g}"


def every_parameter_moves(optimizer: Candidate) -> None:
    """One update changes every tensor, and keeps its shape and dtype."""
    for dtype in (mx.float32, mx.bfloat16):
        module, target = _module(1, dtype), _module(2, dtype)
        before = _flat(module)
        _run(_started(optimizer, module), module, target, 1)
        for name, weight in _flat(module).items():
            assert weight.dtype == dtype, f"{name} in {dtype} became {weight.dtype}"
            assert weight.shape == before[name].shape, f"{name} {before[name].shape} became {weight.shape}"
            assert largest(weight - before[name]) > 0, f"{name} does not move"


def honours_the_learning_rate(optimizer: Candidate) -> None:
    """It starts at `learning_rate`; set to another one it follows, also to 0, where nothing moves."""
    rates = (0.01, 0.001, 0.0)
    moved: list[float] = []
    for rate in rates:
        module, target = _module(1), _module(2)
        made = _started(optimizer, module)
        peak = optimizer.config.learning_rate
        assert abs(float(made.learning_rate) - peak) <= 1e-6 * peak, "it does not start at learning_rate"
        before = _flat(module)
        made.learning_rate = rate
        _run(made, module, target, 1)
        moved.append(max(largest(weight - before[name]) for name, weight in _flat(module).items()))
    assert moved[0] > moved[1] > moved[2] == 0, f"rates {rates} move the parameters by {moved}"


def decays_weights_alone(optimizer: Candidate) -> None:
    """`weight_decay` takes its share, times the rate that is set, of a matrix at each update, and nothing of what has one
    axis: norms and biases. One whose class says `decays = False` leaves matrices alone, too.
    """
    decay = 0.1
    decays = getattr(optimizer.component, "decays", True)
    for rate in (0.01, 0.05):
        left: list[dict[str, array]] = []
        for each in (0.0, decay):
            module, target = _module(1), _module(2)
            before = _flat(module)
            made = _started(optimizer, module, weight_decay=each)
            made.learning_rate = rate
            _run(made, module, target, 1)
            left.append(_flat(module))
        gone = {name: left[0][name] - left[1][name] for name in SHAPES}
        assert largest(gone["gain"]) <= 1e-6, "weight_decay moves what has one axis"
        if not decays:
            assert largest(gone["weight"]) <= 1e-6, "weight_decay moves a matrix, and the class says decays = False"
            continue
        share = (gone["weight"] * before["weight"]).sum().item() / mx.square(before["weight"]).sum().item()
        far = largest(gone["weight"] - rate * decay * before["weight"])
        assert far <= 0.02 * rate * decay * largest(before["weight"]), (
            f"weight_decay={decay} at rate {rate} takes {share:.3g} of a matrix, not {rate * decay:.3g}"
        )


def rates_by_width_begin_at_1(optimizer: Candidate) -> None:
    """Where it has a `mup_rate`, that is a positive number, and 1 for what has not grown."""
    module = _module()
    made = _started(optimizer, module)
    if not hasattr(made, "mup_rate"):
        return
    for name, weight in _flat(module).items():
        grown = [made.mup_rate(name, weight, *growth) for growth in ((1.0, 1.0), (4.0, 4.0), (1.0, 4.0), (4.0, 1.0))]
        assert all(0 < factor < math.inf for factor in grown), f"mup_rate of {name} gives {grown}"
        assert abs(grown[0] - 1) <= 1e-6, f"mup_rate of {name} is {grown[0]:.4g} where nothing has grown"


def saved_state_continues(optimizer: Candidate) -> None:
    """With its `state` saved and loaded, another one goes on as it would have, to the bit."""
    module, target = _module(1), _module(2)
    made = _started(optimizer, module)
    _run(made, module, target, 3)
    other = _module(3)
    other.update(tree_unflatten(list(_flat(module).items())))
    resumed = _started(optimizer, other)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "state.safetensors")
        mx.save_safetensors(file, dict(tree_flatten(made.state)))
        saved: Any = mx.load(file)
        fresh: Any = dict(tree_flatten(resumed.state))
        found, expected = ({name: value.shape for name, value in each.items()} for each in (saved, fresh))
        assert found == expected, "init() makes another state than a step leaves"
        resumed.state = tree_unflatten(list(saved.items()))
        mx.eval(resumed.state)
    for each, parameters in ((made, module), (resumed, other)):
        _run(each, parameters, target, 3)
    for name, weight in _flat(module).items():
        close(_flat(other)[name], weight, 0.0)


def compiled_updates_are_the_same(optimizer: Candidate) -> None:
    """`mx.compile` of an update changes no number beyond rounding, also when the rate changes between updates."""
    found: list[dict[str, array]] = []
    for compiled in (False, True):
        module, target = _module(1), _module(2)
        made = _started(optimizer, module)
        state = [module.state, made.state]
        update: Any = lambda gradients, made=made, module=module: made.update(module, gradients)  # noqa: E731
        if compiled:
            update = mx.compile(update, inputs=state, outputs=state)
        for rate in (0.01, 0.03, 0.001):
            made.learning_rate = rate
            update(_gradients(module, target))
            mx.eval(module.state, made.state)
        found.append(_flat(module))
    for name, weight in found[0].items():
        close(found[1][name], weight, 1e-6)
