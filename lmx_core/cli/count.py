"""`lmx count`"""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json, context_option, model_config, size_options
from lmx_core.quantities import in_bytes, ranges

if TYPE_CHECKING:
    from lmx_core.census import Census, Layers

Row = tuple[str, str, str]


@click.command()
@click.argument("name")
@size_options
@context_option
@click.option("--detail", is_flag=True, help="Every parameter with its shape.")
@as_json
def count(name: str, size: str | None, context: int | None, detail: bool, as_json: bool) -> None:
    """What an architecture, a config file or a saved model has and costs: parameters, FLOPs, cache, memory of its weights.

    Shapes only: needs no memory for them. FLOPs are those of the last token of the context: 2 for each number of a matrix
    that it goes through, the head's included and rows that are looked up not, and 4 x heads x head_dim for each token that
    it looks at (arXiv:2001.08361, appendix B of arXiv:2204.02311); backward takes twice as many. In 4 bits, 64 numbers
    share a scale and a bias in bf16, and what cannot be quantised stays in bf16.
    """
    from lmx_core.census import census

    counted = census(model_config(name, size), context)
    if as_json:
        import json

        parameters = {"parameters": {path: list(shape) for path, shape in counted.shapes.items()}} if detail else {}
        click.echo(json.dumps(_plain(counted) | parameters, indent=2))
        return
    if detail:
        width = max(map(len, counted.shapes))
        for path, shape in counted.shapes.items():
            click.echo(f"{path:{width}}  {' x '.join(map(str, shape)):>16}  {prod(shape):>16,}")
    click.echo(f"{counted.total:,} parameters")
    for title, rows in _sections(counted).items():
        click.echo(f"\n{title}")
        for label, number, remark in rows:
            click.echo(f"  {label:24}{number:>24}  {remark}".rstrip())


def _plain(counted: "Census") -> dict[str, Any]:
    """All but what `--detail` adds, and the blocks, which `lmx info` shows."""
    import attrs

    return attrs.asdict(counted, filter=lambda field, _: field.name not in ("block", "shapes"))


def _sections(counted: "Census") -> "dict[str, list[Row]]":
    tokens = f"{counted.context:,} tokens"
    return {
        "parameters": [*_parameters(counted)],
        f"FLOPs of a token, the last of {counted.context:,}": [*_flops(counted)],
        "cache in bf16": [
            _bytes("a token", counted.cache_bytes_per_token),
            *([_bytes("states, of any length", counted.cache_bytes_fixed)] if counted.cache_bytes_fixed else []),
            _bytes(tokens, counted.cache_bytes),
            *(_cache(each) for each in counted.layers if len(counted.layers) > 1),
        ],
        "weights": [
            _bytes("fp32", counted.memory_bytes_fp32),
            _bytes("bf16", counted.memory_bytes_bf16),
            _bytes("4-bit", counted.memory_bytes_4bit),
        ],
    }


def _parameters(counted: "Census") -> Iterator[Row]:
    for part, number in counted.parts.items():
        if part == "layers":
            yield from (_layers(each, counted) for each in counted.layers)
        else:
            yield part, f"{number:,}", ""
    yield "active for a token", f"{counted.active:,}", "all" if counted.active == counted.total else ""


def _layers(each: "Layers", counted: "Census") -> Row:
    remark = f"{each.parameters:,} each" if len(each.layers) > 1 else ""
    if each.active < each.parameters:
        remark += f", of which a token uses {each.active:,}"
    if len(counted.layers) > 1:
        remark = f"{each.name}: {remark.lstrip(', ')}"
    return _these(each), f"{len(each.layers) * each.parameters:,}", remark


def _these(each: "Layers") -> str:
    return f"layer{'s' * (len(each.layers) > 1)} {ranges(each.layers)}"


def _flops(counted: "Census") -> Iterator[Row]:
    attention = f"{counted.flops_attention:,} of them for looking at tokens" if counted.flops_attention else ""
    yield "forward", f"{counted.flops_forward:,}", attention
    yield "backward", f"{counted.flops_backward:,}", ""
    for name in counted.flops_unknown:
        yield "", "", f"without what {name} takes for looking at tokens, which it does not say"


def _cache(each: "Layers") -> Row:
    label, number, remark = _bytes(f"  {_these(each)}", len(each.layers) * each.cache_bytes)
    return label, number, remark


def _bytes(label: str, number: int) -> Row:
    return label, f"{number:,} bytes", in_bytes(number) if number >= 1024 else ""
