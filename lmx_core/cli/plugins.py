"""`lmx plugins`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.doctor import plugins_doctor
from lmx_core.cli.list import list_components
from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError, LmxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmx_core.describe import Option
    from lmx_core.ref import Ref
    from lmx_core.testing.suites import Case

NAME = click.argument("name", metavar="NAME")


@click.group()
def plugins() -> None:
    """What is installed: list it, look at one component, check it, or begin one of your own."""


plugins.add_command(list_components)
plugins.add_command(plugins_doctor)


@plugins.command()
@NAME
@as_json
def show(name: str, as_json: bool) -> None:
    """A component, such as attention.mla: what it is, whose idea, where it comes from, its options."""
    from lmx_core.describe import describe
    from lmx_core.inventory import find, module_file
    from lmx_core.registry import registry

    ref = find(name)
    about = describe(registry(ref.kind).get(ref.qualified))
    facts = {
        "distribution": f"{ref.dist} {ref.version}",
        "entry point": ref.target,
        "file": module_file(ref.module) or "",
        "paper": ", ".join(about.papers),
        "sizes": ", ".join(about.sizes),
    }
    if as_json:
        import json

        options = [_option(each) for each in about.options]
        text = {"kind": ref.kind, "name": ref.name, "summary": about.summary, **facts, "options": options}
        click.echo(json.dumps({**text, "papers": about.papers, "sizes": about.sizes}, indent=2, default=str))
        return
    from lmx_core.cli import table

    click.echo(f"{ref.kind}.{ref.name}")
    if about.summary:
        click.echo(about.summary)
    for key, value in facts.items():
        if value:
            click.echo(f"{key:12}  {value}")
    rows = [(each.name, each.type, _default(each), each.rule, each.doc) for each in about.options]
    click.echo("" if rows else "no options")
    if rows:
        table.show(["OPTION", "TYPE", "DEFAULT", "RULE", ""], rows)


@plugins.command()
@NAME
def schema(name: str) -> None:
    """The JSON Schema of a component's options, or of an architecture's arguments."""
    import json

    from lmx_core.inventory import find
    from lmx_core.registry import registry
    from lmx_core.schema import options_schema

    ref = find(name)
    component = registry(ref.kind).get(ref.qualified)
    click.echo(json.dumps(options_schema(f"{ref.kind}.{ref.name}", component), indent=2, default=str))


@plugins.command()
@NAME
@click.option("--set", "options", multiple=True, metavar="KEY=VALUE", help="An option: --set kv_lora_rank=16")
@click.option(
    "--config", "numbers", multiple=True, metavar="KEY=VALUE", help="Build it with this: --config n_kv_heads=4"
)
@as_json
def check(name: str, options: tuple[str, ...], numbers: tuple[str, ...], as_json: bool) -> None:
    """Hold a component to what every component of its kind promises.

    It is built small, with random parameters. Exit code 1 if it breaks a promise, 2 if it cannot be tried.
    """
    from lmx_core.inventory import find
    from lmx_core.overrides import overridden

    given, config = (overridden({}, assignments, environ={})[0] for assignments in (options, numbers))
    suite = _suite(find(name), given, config)
    width = max(len(case.name) for case in suite)
    rows: list[dict[str, Any]] = []
    for case in suite:
        if not as_json:
            click.echo(f"{case.name:{width}}  ", nl=False)
        problem = _broken(case)
        rows.append({"name": case.name, "doc": case.doc, "ok": not problem, "message": problem})
        if not as_json:
            click.echo(f"FAILED  {problem}" if problem else "ok")
    kept = sum(row["ok"] for row in rows)
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(f"{kept} of {len(rows)} promises kept")
    raise SystemExit(0 if kept == len(rows) else 1)


@plugins.command()
@NAME
@click.option("--kind", required=True, help="attention, ffn, norm, ...: what it is a component of.")
@click.option("--component", help="Its name in a config; the part after the first hyphen, unless given.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the folder goes; here, unless given.")
def new(name: str, kind: str, component: str | None, directory: Path | None) -> None:
    """A new plugin, such as acme-relu2: a folder with a component that works, its test, and what publishes it."""
    from lmx_core.scaffold import scaffold

    path = scaffold(name, kind, component, directory or Path())
    click.echo(f"{path}\n\nNext:\n  cd {path}\n  python3 -m pip install -e '.[test]'\n  python3 -m pytest")


def _option(option: "Option") -> dict[str, Any]:
    import attrs

    from lmx_core.describe import REQUIRED

    plain = attrs.asdict(option)
    if option.default is REQUIRED:
        del plain["default"]
    return plain


def _default(option: "Option") -> str:
    from lmx_core.describe import REQUIRED

    if option.default is REQUIRED:
        return "(required)"
    return "none" if option.default is None else repr(option.default)


def _suite(ref: "Ref", options: dict[str, Any], config: dict[str, Any]) -> "list[Case]":
    """The component's promises; its options, the config and whatever else it needs are known to do."""
    from lmx_core.config import ComponentSpec
    from lmx_core.construct import filled
    from lmx_core.registry import registry
    from lmx_core.testing import cases

    component = registry(ref.kind).get(ref.qualified)
    try:
        filled(ref.kind, component, ComponentSpec(ref.qualified, options))
    except ConfigError as error:
        raise ConfigError(f"{error}{_ungiven(component, options)}") from None
    try:
        suite = cases(f"{ref.kind}.{ref.qualified}", options=options, config=config)
    except ConfigError as error:
        way_out = "" if config else "\nBuild it with another config: --config KEY=VALUE, such as --config n_kv_heads=4"
        raise ConfigError(f"{error}{way_out}") from None
    if problem := _obstacle(suite):
        raise problem
    return suite


def _ungiven(component: Any, options: dict[str, Any]) -> str:
    """How to give the options that have no default."""
    from lmx_core.describe import REQUIRED, describe

    missing = [each.name for each in describe(component).options if each.default is REQUIRED]
    written = " ".join(f"--set {name}=VALUE" for name in missing if name not in options)
    return f"\nGive it what has no default: {written}" if written else ""


def _obstacle(suite: "Sequence[Case]") -> LmxError | None:
    """What keeps a component from being tried at all, a file or a package that is not there: two promises stop at it."""
    found: list[LmxError] = []
    for case in suite[:2]:
        try:
            case.run()
        except LmxError as error:
            found.append(error)
        except Exception:
            return None  # a promise that is broken
        else:
            return None
    return found[0] if len({str(error) for error in found}) == 1 else None


def _broken(case: "Case") -> str:
    """What a check says of the promise that it finds broken."""
    try:
        case.run()
    except AssertionError as error:
        return " ".join(str(error).split()) or "its assertion does not hold"
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""
