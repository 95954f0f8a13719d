"""`lmx quantize`"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError

if TYPE_CHECKING:
    from lmx_core.opening import Opened
    from lmx_core.quantised import Packing, Quantised

MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
DENSE = ("dense", "false", "no")


@click.command()
@click.argument("source", metavar="MODEL")
@click.argument("target", metavar="[DST]", required=False, type=click.Path(path_type=Path))
@click.option("--bits", type=int, help="Of a weight; 4 unless given, 8 in mxfp8.")
@click.option(
    "--group-size", type=int, help="Of weights with one scale; 64 unless given, 32 in mxfp4 and mxfp8, 16 in nvfp4."
)
@click.option("--mode", type=click.Choice(MODES), default=MODES[0], show_default=True, help="Of numbers in MLX.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="MODULES=HOW",
    help="For some modules: 'layers.0.*=8', 'head=dense', '*.down=bits:6,group_size:32'. The last one that matches counts.",
)
@click.option("--revision", help="Of a repository on the hub.")
@as_json
def quantize(
    source: str,
    target: Path | None,
    bits: int | None,
    group_size: int | None,
    mode: str,
    rules: tuple[str, ...],
    revision: str | None,
    as_json: bool,
) -> None:
    """Write a model with weights of few bits, by default into a folder named after it and its bits.

    MODEL is a run, a saved model, a folder of a Hugging Face checkpoint, or a repository of the hub. What comes from Hugging
    Face is written as mlx-lm reads it, and lmx's own models as lmx does; lmx runs both. Modules of rows that do not divide
    into groups stay dense, and so do routers.
    """
    from lmx_core.quantised import Packing

    how = Packing.of(bits, group_size, mode)
    options = {"bits": bits, "group_size": group_size, "mode": mode, "rules": dict(map(rule, rules))}
    target = target or Path(f"{Path(source).resolve().name}-{f'{how.bits}bit' if mode == MODES[0] else mode}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is there already. Give a folder that is empty or does not exist yet.")
    with _bar(as_json) as progress:
        found, done = _packed(source, revision, {**options, "progress": progress})
    if done.bytes_after == done.bytes_before:
        raise ConfigError(f"{source} has nothing left to quantise: {_listed(done.dense) or 'it is packed already'}")
    _write(found, target)
    if as_json:
        import json

        click.echo(json.dumps({"path": str(target), **_plain(done)}, indent=2))
    else:
        _tell(done, source, target)


def rule(text: str) -> tuple[str, Any]:
    """`MODULES=HOW` as `lmx_core.quantised.quantise` takes it."""
    pattern, _, how = text.rpartition("=")
    if not pattern or not how:
        raise ConfigError(f"--rule {text!r}: write MODULES=HOW, such as 'layers.0.*=8' or 'head=dense'")
    if how in DENSE:
        return pattern, False
    if how.isdigit():
        return pattern, int(how)
    stated: dict[str, Any] = {}
    for part in how.split(","):
        key, colon, value = part.partition(":")
        if not colon:
            raise ConfigError(f"--rule {text!r}: {part!r} is neither bits, nor 'dense', nor KEY:VALUE")
        stated[key.strip()] = int(value) if value.strip().isdigit() else value.strip()
    return pattern, stated


def _packed(source: str, revision: str | None, options: Mapping[str, Any]) -> "tuple[Opened, Quantised]":
    """Tensors of a checkpoint are packed as they are read, so that the dense model is never held as a whole."""
    from lmx_core.opening import is_ours, open_model
    from lmx_core.quantised import quantise
    from lmx_hf.load import opened

    if is_ours(source):
        if revision is not None:
            raise ConfigError(f"{source} is a model of lmx: --revision is for a repository on the hub")
        found = open_model(source)
        return found, quantise(found.model, **options)
    found = opened(source, revision=revision, quantize=options)
    done: Any = found.model.quantised
    return found, done


def _write(found: "Opened", target: Path) -> None:
    from lmx_core.checkpoint import TOKENIZER, save_model
    from lmx_core.data.tokenizers import save_tokenizer
    from lmx_core.files import atomically
    from lmx_hf.save import export

    if hasattr(found.model, "source"):
        export(found.model, target, "mlx-lm", tokenizer=found.tokenizer)
        return
    with atomically(target) as folder:
        folder.mkdir()
        save_model(found.model, folder)
        if found.named is not None:
            save_tokenizer(found.named.name, found.tokenizer, folder / TOKENIZER)


def _plain(done: "Quantised") -> dict[str, Any]:
    import attrs

    return {**attrs.asdict(done), "bits_per_weight": done.bits_per_weight}


def _tell(done: "Quantised", source: str, target: Path) -> None:
    from lmx_core.cli.table import show
    from lmx_core.quantities import in_bytes

    sizes = (done.bytes_before, done.bytes_after)
    show(
        ["", source, str(target)],
        [
            ["weights", *map(in_bytes, sizes)],
            ["bits a weight", *(f"{8 * size / done.parameters:.2f}" for size in sizes)],
        ],
    )
    click.echo()
    for how, paths in _by_value(done.packed).items():
        click.echo(f"{how}: {_these(paths)}")
    for why, paths in _by_value(done.dense).items():
        click.echo(f"dense, {why}: {_these(paths)}")


def _listed(dense: Mapping[str, str]) -> str:
    return "; ".join(f"{_these(paths)}: {why}" for why, paths in _by_value(dense).items())


def _by_value(modules: "Mapping[str, Packing] | Mapping[str, str]") -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for path, value in modules.items():
        found.setdefault(value, []).append(path)
    return found


def _these(paths: list[str]) -> str:
    """`embed`, or `layers.0.ffn.up and 223 more`."""
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


@contextmanager
def _bar(quiet: bool) -> Generator[Any, None, None]:
    """Modules done and in all, on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("quantising", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
