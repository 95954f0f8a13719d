"""`lmx plugins`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.doctor import plugins_doctor
from lmx_core.cli.list import list_components
from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError

if TYPE_CHECKING:
    from lmx_core.describe import Option
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
        click.echo(json.dumps({**text, "papers": about.papers, "sizes": about.sizes}, indent=2))
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
    """The JSON Schema of a component's options."""
    import json

    from lmx_core.inventory import find
    from lmx_core.registry import registry
    from lmx_core.schema import options_schema

    ref = find(name)
    component = registry(ref.kind).get(ref.qualified)
    click.echo(json.dumps(options_schema(f"{ref.kind}.{ref.name}", component), indent=2))


@plugins.command()
@NAME
@click.option("--set", "options", multiple=True, metavar="KEY=VALUE", help="An option: --set kv_lora_rank=16")
@click.option(
    "--config", "numbers", multiple=True, metavar="KEY=VALUE", help="Build it with this: --config n_kv_heads=4"
)
@as_json
def check(name: str, options: tuple[str, ...], numbers: tuple[str, ...], as_json: bool) -> None:
    """Hold a component to what every component of its kind promises; exit code 1 if it breaks a promise.

    It is built small, with random parameters.
    """
    from lmx_core.inventory import find
    from lmx_core.overrides import overridden
    from lmx_core.testing import cases

    ref = find(name)
    given, config = (overridden({}, assignments, environ={})[0] for assignments in (options, numbers))
    try:
        suite = cases(f"{ref.kind}.{ref.qualified}", options=given, config=config)
    except ConfigError as error:
        raise ConfigError(f"{error}\n--set gives it options, --config another config to be built with.") from None
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


def _broken(case: "Case") -> str:
    """What a check says of the promise that it finds broken."""
    try:
        case.run()
    except AssertionError as error:
        return " ".join(str(error).split()) or "its assertion does not hold"
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""
