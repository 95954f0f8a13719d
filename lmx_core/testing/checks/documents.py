"""What holds where a row holds several documents."""

from typing import Any

import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.errors import LmxError
from lmx_core.testing.subjects import Maker, Subject, close, random_key

ROWS = ((9, 1, 23), (20, 13))
"""Tokens of each document."""


def documents_of_a_row_are_apart(make: Maker) -> None:
    """Documents that follow each other in a row come out as each does alone, gradients included, compiled too. A mixer that
    cannot keep them apart is refused (`LmxError`).
    """
    subject = Subject(make)
    x = subject.inputs()
    numbers = mx.array([[i for i, n in enumerate(row) for _ in range(n)] for row in ROWS])
    try:
        y = subject.of_documents(x, numbers)
    except LmxError:
        return
    close(y, _alone(subject, x))
    compiled: Any = mx.compile(subject.of_documents, inputs=[subject.module.state])
    close(compiled(x, numbers), y, 1e-5)

    weights = mx.random.normal(y.shape, key=random_key(3))
    point = [subject.module.trainable_parameters(), mx.zeros(()) if subject.takes_tokens else x]

    def gradients(outputs: Any) -> dict[str, array]:
        def value(point: Any) -> array:
            subject.module.update(point[0])
            return (outputs(x if subject.takes_tokens else point[1]) * weights).sum()

        found: Any = tree_flatten(mx.grad(value)(point))
        subject.module.update(point[0])
        return dict(found)

    together = gradients(lambda x: subject.of_documents(x, numbers))
    for name, gradient in gradients(lambda x: _alone(subject, x)).items():
        assert mx.isfinite(together[name]).all().item(), f"the gradient of {name} is not finite"
        close(together[name], gradient, 1e-3)


def _alone(subject: Subject, x: array) -> array:
    """Each document in a batch of its own, put together again."""
    rows: list[array] = []
    for i, row in enumerate(ROWS):
        ends = [sum(row[:n]) for n in range(1, len(row))]
        parts = [subject(part) for part in mx.split(x[i : i + 1], ends, axis=1)]
        rows.append(mx.concatenate(parts, axis=1))
    return mx.concatenate(rows)
