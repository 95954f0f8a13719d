"""What holds for datasets. At most the first 2000 documents of a split are read."""

import itertools
from collections.abc import Container
from typing import Any

from lmx_core.data.tokenizers import as_bytes
from lmx_core.testing.candidate import Candidate

MOST = 2000
SOUGHT = 50
"""How many of the held-out documents are looked for within others."""
SHARED = 0.01
"""Share of the held-out text that may be in the training text too: short documents happen to be equal."""


def _documents(dataset: Any, split: str) -> list[Any]:
    return list(itertools.islice(dataset.documents(split), MOST))


def documents_are_text(dataset: Candidate) -> None:
    """Each split has documents: texts that are not empty, and stand for bytes."""
    made = dataset.bare()()
    for split in ("train", "validation"):
        documents = _documents(made, split)
        assert documents, f"{split} has no documents"
        for i, document in enumerate(documents):
            assert type(document) is str, f"document {i} of {split} is a {type(document).__name__}"
            assert as_bytes(document), f"document {i} of {split} is empty"


def documents_come_again(dataset: Candidate) -> None:
    """The same documents in the same order, each time they are asked for, and from a dataset built anew."""
    made, anew = dataset.bare()(), dataset.bare()()
    for split in ("train", "validation"):
        first = _documents(made, split)
        assert _documents(made, split) == first, f"{split} is another one the second time"
        assert _documents(anew, split) == first, f"{split} of a dataset built anew is another one"


def splits_are_apart(dataset: Candidate) -> None:
    """What is held out is not trained on, neither as a document nor within one."""
    made = dataset.bare()()
    train, held_out = (_documents(made, split) for split in ("train", "validation"))
    _apart(held_out, set(train))
    longest = sorted(held_out, key=len)[-SOUGHT:]  # short ones happen to be within others
    _apart(longest, "\0".join(train))


def _apart(held_out: list[str], train: Container[str]) -> None:
    both = sum(len(document) for document in held_out if document in train)
    share = both / max(sum(map(len, held_out)), 1)
    assert share <= SHARED, f"{share:.0%} of the held-out text is trained on"
