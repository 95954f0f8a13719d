"""A config as a TOML document for people: every key with its value, options of components included, and what it is for."""

import textwrap
from collections.abc import Mapping
from typing import Any

import attrs
import tomlkit
from tomlkit.items import AoT, Item, Table

from lmx_core.config import ComponentSpec, Field
from lmx_core.construct import filled
from lmx_core.describe import describe, field_docs
from lmx_core.exactly import NONE
from lmx_core.registry import registry
from lmx_core.serialize import plain

WIDTH = 110


def commented(config: Any, left_out: Mapping[str, str] | None = None) -> str:
    """The config, which is read back equal. Above each key stands what its class, or the chosen component, says of it.

    A key whose path is in `left_out` is not written, but explained.
    """
    document = tomlkit.document()
    _Writer(left_out or {}).fields(document, config, "")
    return f"{tomlkit.dumps(document).strip()}\n"


@attrs.frozen
class _Writer:
    left_out: Mapping[str, str]
    explain: bool = True

    def fields(self, table: tomlkit.TOMLDocument | Table, config: Any, path: str) -> None:
        """Write an attrs class; what becomes a table of its own comes last, as TOML asks."""
        docs = field_docs(type(config))
        tables: list[tuple[str, Item]] = []
        for field in attrs.fields(type(config)):
            key = field.alias or field.name
            below = f"{path}.{key}" if path else key
            if below in self.left_out:
                self.comment(table, f"{key}: {self.left_out[below]}")
                continue
            value = getattr(config, field.name)
            if value is None and "kind" in field.metadata:  # `"none"` would be the component of that name
                self.comment(table, f"{key}: {docs.get(key, '')}")
                continue
            doc, item = self.value(field, value, below, docs.get(key, ""))
            if isinstance(item, Table | AoT):
                tables.append((key, item))
            else:
                self.comment(table, doc)
                table.add(key, item)
        for key, item in tables:
            table.add(key, item)

    def value(self, field: Field, value: Any, path: str, doc: str) -> tuple[str, Item]:
        """What a field holds, and what to say of it where the item does not begin with that itself."""
        if "kind" in field.metadata and isinstance(value, ComponentSpec):
            component = registry(field.metadata["kind"]).get(value.name)
            doc = doc or describe(component).summary
            options = filled(field.metadata["kind"], component, value)
            return doc, self.table(options[0], path, doc, value.name) if options else tomlkit.item(value.name)
        if attrs.has(type(value)) and not isinstance(value, ComponentSpec):
            return "", self.table(value, path, doc or describe(type(value)).summary)
        if isinstance(value, tuple) and value and attrs.has(type(value[0])) and "kind" not in field.metadata:
            return "", self.array(value, path, doc)
        if isinstance(value, Mapping) and any(attrs.has(type(item)) for item in value.values()):
            return "", self.named(value, path, doc)
        return doc, _inline(NONE if value is None else plain(value))

    def table(self, config: Any, path: str, doc: str, name: str | None = None) -> Table:
        table = tomlkit.table()
        self.comment(table, doc)
        if name is not None:
            table.add("name", name)
        elif doc and self.explain:
            table.add(tomlkit.nl())
        self.fields(table, config, path)
        return table

    def named(self, configs: Mapping[str, Any], path: str, doc: str) -> Table:
        """Records by their names; their keys are explained elsewhere."""
        table, briefly = tomlkit.table(), attrs.evolve(self, explain=False)
        self.comment(table, doc)
        for name, config in configs.items():
            table.add(name, briefly.table(config, f"{path}.{name}", ""))
        return table

    def array(self, configs: Any, path: str, doc: str) -> AoT:
        """Records in a row; the first explains them all."""
        array, briefly = tomlkit.aot(), attrs.evolve(self, explain=False)
        for i, config in enumerate(configs):
            array.append((briefly if i else self).table(config, path, doc))
        return array

    def comment(self, table: tomlkit.TOMLDocument | Table, text: str) -> None:
        for line in textwrap.wrap(text, WIDTH) if self.explain else ():
            table.add(tomlkit.comment(line))


def _inline(value: Any) -> Item:
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, item in value.items():
            table.add(key, _inline(item))
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for item in value:
            array.append(_inline(item))
        return array
    return tomlkit.item(value)
