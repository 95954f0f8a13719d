"""Rows as people and programs read them."""

import sys
from collections.abc import Sequence

import click


def show(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, aligned columns elsewhere; columns that are empty throughout are left out."""
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    chosen = [[row[i] for i in kept] for row in (headers, *rows)]
    if sys.stdout.isatty():
        _drawn(chosen)
        return
    widths = [max(len(row[i]) for row in chosen) for i in range(len(kept))]
    for row in chosen:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _drawn(rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for header in rows[0]:
        table.add_column(header, overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    Console().print(table)
