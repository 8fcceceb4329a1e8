"""`models.local.yaml`, with an entry put into it: what else stands there stays as it is, comments too.

Read back before it is written: a file in a form that this does not edit well is left to its author.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from models.catalog import GROUPS, OVERLAYS, SHIPPED, overlay_file
from models.catalog import __file__ as catalog_file
from models.catalog.overlay import lay_text
from models.spec import ModelSpec
from ops.errors import OpsError
from stacks.problems import Problem

Json = dict[str, Any]

_HEAD = """# Entries of this checkout alone, laid over models/catalog: docs/entries.md. Ignored by git.
# yaml-language-server: $schema=docs/schemas/models-local.json
models:
"""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./ ()-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class Edit:
    """A file before and after."""

    path: Path
    before: str
    after: str

    @property
    def diff(self) -> str:
        """As `diff -u` shows it."""
        lines = (self.before.splitlines(keepends=True), self.after.splitlines(keepends=True))
        name = self.path.name
        return "".join(difflib.unified_diff(*lines, f"{name} (now)" if self.before else "/dev/null", name))

    def write(self) -> None:
        """Whole or not at all; a link stays one."""
        target = self.path.resolve()
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            unfinished.write_text(self.after, encoding="utf-8")
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def place() -> Path:
    """The file of this checkout, be it there or not. Raises OpsError where nothing would read it."""
    files = overlay_file()
    if len(files) > 1:
        first, second = OVERLAYS
        raise OpsError(f"{first} and {second} are both there, and one is read", f"mv {second} {second}.old")
    if files:
        return files[0]
    if "MODELS_LOCAL" in os.environ:
        raise OpsError("MODELS_LOCAL is empty, so nothing would read what is written", "unset MODELS_LOCAL")
    return Path(catalog_file).parents[2] / OVERLAYS[0]


def with_entry(path: Path, entry: Json, expected: ModelSpec) -> Edit:
    """The file with an entry, in place of one of the same alias; proven to be read as expected. Raises OpsError."""
    before = path.read_text(encoding="utf-8") if os.path.lexists(path) else ""
    written = as_yaml(entry)
    after = _put(before, entry["alias"], written)
    laid = lay_text(SHIPPED, GROUPS, after, path.name) if after is not None else None
    if after is None or laid is None or laid.catalog.get(expected.alias) != expected:
        found = lay_text(SHIPPED, GROUPS, before, path.name)
        if found.flaws:
            raise OpsError(
                found.flaws[0].message, found.flaws[0].remedy, *(Problem(f.message, f.remedy) for f in found.flaws[1:])
            )
        raise OpsError(
            f"{path.name} is not written in a form that an entry can be put into; this is the entry:\n{written}",
            f"${{EDITOR:-vi}} {path.name}",
        )
    if laid.flaws:
        raise OpsError(laid.flaws[0].message, laid.flaws[0].remedy)
    return Edit(path, before, after)


def as_yaml(entry: Mapping[str, Any]) -> str:
    """An entry of the list, indented as one."""
    text = yaml.dump(dict(entry), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    first, *rest = text.splitlines()
    return "\n".join([f"  - {first}", *(f"    {line}" if line else "" for line in rest)]) + "\n"


class _Dumper(yaml.SafeDumper):
    """Quotes whatever another reader of YAML could take for a number, a day or a bool."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not value.endswith(" ")
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _put(before: str, alias: str, written: str) -> str | None:
    """The text with an entry in its list; None for a form that is not edited here."""
    try:
        root = yaml.compose(before, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if root is None:  # nothing, or comments
        return (before.rstrip("\n") + "\nmodels:\n" if before.strip() else _HEAD) + written
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", root.value) if isinstance(root, yaml.MappingNode) else []
    key, items = next(((key, value) for key, value in pairs if key.value == "models"), (None, None))
    if key is None or items is None:
        return None
    lines = [*before.rstrip("\n").splitlines(keepends=True)[:-1], before.rstrip("\n").splitlines()[-1] + "\n"]
    later = [other.start_mark.line for other, _ in pairs if other.start_mark.line > key.start_mark.line]
    end = min(later, default=len(lines))
    if not items.value or isinstance(items, yaml.ScalarNode):  # `models:` or `models: []`
        head = lines[key.start_mark.line]
        lines[key.start_mark.line] = f"{head[: head.index(':') + 1]}\n"
        return "".join([*lines[:end], written, *lines[end:]])
    if not isinstance(items, yaml.SequenceNode) or items.flow_style:
        return None
    return _beside(lines, items, end, alias, written)


def _beside(lines: list[str], items: yaml.SequenceNode, end: int, alias: str, written: str) -> str:
    """In place of the entry of that alias, or behind the last one, as far in as they are."""
    shift = items.start_mark.column - 2
    moved = "".join(" " * shift + line if shift > 0 else line[-shift:] for line in written.splitlines(keepends=True))
    starts = [cast("yaml.Node", item).start_mark.line for item in items.value]
    for item, start, following in zip(items.value, starts, [*starts[1:], end], strict=True):
        if _alias_of(item) == alias:
            return "".join([*lines[:start], moved, *lines[following:]])
    return "".join([*lines[:end], moved, *lines[end:]])


def _alias_of(item: yaml.Node) -> str | None:
    if not isinstance(item, yaml.MappingNode):
        return None
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", item.value)
    return next((str(value.value) for key, value in pairs if key.value == "alias"), None)
