"""`lmx list`, and `lmx plugins list`"""

from typing import TYPE_CHECKING

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.command("list")
@click.argument("kind", required=False)
@as_json
def list_components(kind: str | None, as_json: bool) -> None:
    """What can be named in a config, by kind: from which distribution, in which file, and whether it can be used.

    Of one kind also the papers that each component names as its source.
    """
    import attrs

    from lmx_core.cli.table import show
    from lmx_core.inventory import entries, sources

    found = entries()
    known = sorted({entry.kind for entry in found if entry.kind})
    if kind is not None and kind not in known:
        raise ConfigError(f"no kind of component named {kind!r}. {did_you_mean(kind, known)}Kinds: {', '.join(known)}.")
    rows = [attrs.asdict(entry) for entry in found if kind in (None, entry.kind)]
    if kind is not None:
        papers = sources(kind)
        rows = [{**row, "papers": papers.get((row["name"], row["distribution"]), [])} for row in rows]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
    else:
        show([key.upper() for key in rows[0]], [_cells(row) for row in rows])


def _cells(row: "Mapping[str, str | Sequence[str]]") -> list[str]:
    return [value if isinstance(value, str) else ", ".join(value) for value in row.values()]
