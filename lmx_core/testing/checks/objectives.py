"""What holds for objectives, with a small model and batches of text.

One that reads more than text says so with a method `example(rows)`, which returns a batch of so many rows for a model of 50
tokens; what is about masks and documents is then its own matter.
"""

from collections.abc import Mapping
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_flatten, tree_map

from lmx_core.config import ModelConfig
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import SMALL, close, largest, random_key, randomise

ROWS, LENGTH, WORDS = 4, 12, 50
Batch = Mapping[str, array]


def _model() -> Any:
    return randomise(LanguageModel(ModelConfig(block=SMALL, vocab_size=WORDS, n_layers=2)))


def _text(**more: array) -> Batch:
    tokens = mx.random.randint(0, WORDS, (ROWS, LENGTH + 1), key=random_key(1))
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], **more}


def _mask() -> array:
    """Another number of targets in each row."""
    return mx.arange(LENGTH) >= mx.array([0, 3, 7, 11])[:, None]


def _batch(made: Any) -> Batch:
    return made.example(ROWS) if hasattr(made, "example") else _text(mask=_mask())


def _reads_text(made: Any) -> bool:
    return not hasattr(made, "example")


@attrs.frozen
class _Found:
    loss: Any
    count: Any
    """A number, or an array of one."""
    metrics: dict[str, Any]
    gradients: dict[str, array]
    """By path."""


def _found(made: Any, model: Any, batch: Batch) -> _Found:

    def loss(parameters: Any) -> Any:
        model.update(parameters)
        total, count, metrics = made(model, batch)
        return total, (total, count, dict(metrics))

    before = model.trainable_parameters()
    mx.random.seed(7)
    (_, (total, count, metrics)), gradients = mx.value_and_grad(loss)(before)
    model.update(before)
    return _Found(total, mx.array(count, mx.float32), metrics, dict(tree_flatten(gradients)))


def sums_are_numbers(objective: Candidate) -> None:
    """The loss, what it counts and each metric are single finite numbers, and it counts something."""
    made, model = objective.bare()(), _model()
    found = _found(made, model, _batch(made))
    for name, value in {"the loss": found.loss, "the count": found.count, **found.metrics}.items():
        assert isinstance(value, array), f"{name} is a {type(value).__name__}, no array"
        assert value.ndim == 0, f"{name} has the shape {value.shape}"
        assert mx.isfinite(value).item(), f"{name} is {value.item()}"
    assert found.count.item() > 0, "it counts nothing"


def parts_are_like_the_whole(objective: Candidate) -> None:
    """Losses, counts, metrics and gradients of parts of a batch add up to those of the whole: nothing is a mean."""
    made, model = objective.bare()(), _model()
    batch = _batch(made)
    whole = _found(made, model, batch)
    cuts = (slice(0, 1), slice(1, ROWS))
    parts = [_found(made, model, {name: value[cut] for name, value in batch.items()}) for cut in cuts]
    for what in ("loss", "count"):
        one, other = getattr(parts[0], what) + getattr(parts[1], what), getattr(whole, what)
        far = abs((one - other).item())
        assert far <= 1e-4 * max(1.0, abs(other.item())), (
            f"the {what} of two parts is {one.item()}, at once {other.item()}"
        )
    for name, value in (whole.metrics | whole.gradients).items():
        found = [(each.metrics | each.gradients)[name] for each in parts]
        close(found[0] + found[1], value, 1e-4)


def what_is_masked_has_no_part(objective: Candidate) -> None:
    """Targets that do not count may be any number, -100 too; where none counts all is exactly 0, the gradient as well."""
    made, model = objective.bare()(), _model()
    if not _reads_text(made):
        return
    batch, mask = _text(), _mask()
    expected = _found(made, model, {**batch, "mask": mask})
    found = _found(made, model, {**batch, "mask": mask, "targets": mx.where(mask, batch["targets"], -100)})
    counted = expected.count.item()
    assert counted == mask.sum().item(), f"it counts {counted:g} of {mask.sum().item()} targets"
    pairs = [(found.gradients[name], gradient) for name, gradient in expected.gradients.items()]
    for one, other in [(found.loss, expected.loss), *pairs]:
        assert largest(one - other) == 0, "a target that is masked makes a difference"
    none = _found(made, model, {**batch, "mask": mx.zeros_like(mask)})
    loss, counted = none.loss.item(), none.count.item()
    assert loss == counted == 0, f"of no target the loss is {loss}, counted {counted:g}"
    for name, gradient in none.gradients.items():
        assert largest(gradient) == 0, f"of no target {name} has a gradient"


def documents_are_by_themselves(objective: Candidate) -> None:
    """With `segments` the documents of a row have the loss that they have in rows of their own."""
    made, model = objective.bare()(), _model()
    if not _reads_text(made):
        return
    batch, half = _text(), LENGTH // 2
    segments = mx.broadcast_to(mx.arange(LENGTH) // half, (ROWS, LENGTH))
    together = _found(made, model, {**batch, "segments": segments})
    apart = _found(made, model, {name: value.reshape(2 * ROWS, half) for name, value in batch.items()})
    found, expected = together.loss.item(), apart.loss.item()
    assert abs(found - expected) <= 1e-4 * abs(expected), f"the loss of documents in one row is {found}, not {expected}"
    for name, gradient in apart.gradients.items():
        close(together.gradients[name], gradient, 1e-4)


def gradients_are_its_slopes(objective: Candidate) -> None:
    """Along its gradient the loss changes as the gradient says."""
    made, model = objective.bare()(), _model()
    batch = _batch(made)
    gradients = _found(made, model, batch).gradients
    length: Any = mx.sqrt(sum((mx.square(each).sum() for each in gradients.values()), start=mx.array(0.0))).item()
    assert length > 0, "no parameter has a gradient"
    step = 1e-2 / length
    sides: list[float] = []
    before: Any = model.trainable_parameters()
    for side in (step, -step):
        flat = dict(tree_flatten(before))
        model.load_weights([(name, flat[name] + side * each) for name, each in gradients.items()], strict=False)
        mx.random.seed(7)
        sides.append(made(model, batch)[0].item())
        model.update(before)
    found, expected = (sides[0] - sides[1]) / 2, step * length**2
    assert abs(found - expected) <= 0.05 * expected, f"the loss changes by {found:.4g}, by its gradient {expected:.4g}"


def compiled_losses_are_the_same(objective: Candidate) -> None:
    """`mx.compile` changes no number beyond rounding, of a second batch of the same shape too."""
    made, model = objective.bare()(), _model()
    first = _batch(made)
    second = {name: value[::-1] for name, value in first.items()}

    def loss(parameters: Any, batch: Batch) -> Any:
        before = model.trainable_parameters()
        gradients = mx.value_and_grad(lambda each: (model.update(each), made(model, batch)[0])[1])(parameters)
        model.update(before)
        return gradients

    compiled: Any = mx.compile(loss)
    for batch in (first, second):
        eager = _found(made, model, batch)
        mx.random.seed(7)
        total, others = compiled(model.trainable_parameters(), batch)
        found, expected = total.item(), eager.loss.item()
        assert abs(found - expected) <= 1e-4 * max(1.0, abs(expected)), f"compiled, the loss is {found}, not {expected}"
        flat: Any = dict(tree_flatten(others))
        for name, gradient in eager.gradients.items():
            close(flat[name], gradient, 1e-4)


def the_model_is_left_alone(objective: Candidate) -> None:
    """Parameters, modes and the batch are afterwards what they were."""
    made, model = objective.bare()(), _model()
    batch = _batch(made)
    arrays = {**flat_parameters(model), **{f"batch.{name}": value for name, value in batch.items()}}
    copies = tree_map(lambda each: each + 0, arrays)
    for training in (True, False):
        model.train(training)
        mx.eval(copies, made(model, batch)[0])
        modes = {module.training for module in model.modules()}
        assert modes == {training}, f"training={training} became {modes}"
    after = {**flat_parameters(model), **{f"batch.{name}": value for name, value in batch.items()}}
    for name, value in after.items():
        assert mx.array_equal(value, copies[name]).item(), f"{name} has changed"
