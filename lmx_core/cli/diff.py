"""`lmx diff`"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from lmx_core.cli.options import as_json, model_config, run_of, size_options
from lmx_core.cli.table import show
from lmx_core.registry import registry

OF_LAYERS = re.compile(r"model\.(?:blocks\.[^.]+|block_configs\[\d+\])\.")
WIDE = 60
"""Letters of a list that are shown."""


@click.command()
@click.argument("a")
@click.argument("b")
@size_options
@as_json
def diff(a: str, b: str, size: str | None, as_json: bool) -> None:
    """Exactly the fields in which two configs differ; each an architecture, a config file, a run or a saved model.

    Two files or runs are compared with their data and training, other things by their models.
    """
    one, other = _side(a, size), _side(b, size)
    both = [section for section in one if section in other]
    left, right = (dict(_flat({section: side[section] for section in both})) for side in (one, other))
    keys = [key for key in _order(left, right) if _told(left, right, key)]
    if as_json:
        import json

        click.echo(json.dumps({key: [left.get(key), right.get(key)] for key in keys}, indent=2))
        return
    if keys:
        show(("", a, b), [(key, _shown(left, key), _shown(right, key)) for key in keys])
    else:
        click.echo(f"{a} and {b} are the same")


def _side(name: str, size: str | None) -> dict[str, Any]:
    """What a name stands for, by sections, with every option written out."""
    from lmx_core.construct import completed
    from lmx_core.serialize import plain
    from lmx_core.train import run as runs

    path = Path(name)
    is_run = path.is_file() or (path / runs.CONFIG).is_file()
    if not is_run or size is not None or name in registry("config").names():
        return {"model": plain(completed(model_config(name, size)))}
    run, known = run_of(path) if path.is_file() else (runs.read_run(path), True)
    sections = {key: plain(completed(getattr(run, key))) for key in ("model", "data", "train")}
    if not known:
        del sections["model"]["vocab_size"]  # the tokenizer's, whichever that will be
    return sections


def _order(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """The keys of both, each beside those that it stands by."""
    order, place = [*left], 0
    known = {*order}
    for key in right:
        if key not in known:
            order.insert(place, key)
        place = order.index(key) + 1
    return order


def _told(left: Mapping[str, Any], right: Mapping[str, Any], key: str) -> bool:
    """Whether a field differs, and not because a block of some layers has on both sides what `block` has: told there."""
    if left.get(key) == right.get(key):
        return False
    return not (_inherited(left, key) and _inherited(right, key))


def _inherited(fields: Mapping[str, Any], key: str) -> bool:
    """Whether a block of some layers is as `block` in this field, or is not there at all."""
    block = OF_LAYERS.match(key)
    if block is None:
        return False
    common = f"model.block.{key[block.end() :]}"
    there = any(each.startswith(block.group()) for each in fields)
    return not there or (key in fields, fields.get(key)) == (common in fields, fields.get(common))


def _shown(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key, "-")
    if not isinstance(value, list):
        return str(value)
    runs = [(each, len([*run])) for each, run in groupby(value)]
    text = ", ".join(f"{each} x {n}" if n > 1 else str(each) for each, n in runs)
    return text if len(text) <= WIDE else f"{text[:WIDE]}..."


def _flat(table: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their paths; a component's name stands at the component's own, a list of leaves is one."""
    if isinstance(table, dict):
        for key, value in table.items():
            yield from _flat(value, path if key == "name" else f"{path}.{key}" if path else str(key))
    elif isinstance(table, list) and any(isinstance(value, dict) for value in table):
        for i, value in enumerate(table):
            yield from _flat(value, f"{path}[{i}]")
    else:
        yield path, table
