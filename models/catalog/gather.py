"""Gathers the entries of all families, and says of each bad one in which file and line it is and what is wrong.

A bad entry is left out and told as a flaw, so that every command can refuse in its own words; nothing is deployed while
there is one.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from models.spec import ModelSpec

_ENTRIES = "ENTRIES"
_HERE = Path(__file__).parent
_NO_FAMILY = ("__init__", "gather", "overlay", "parts")
_ANY = (Exception, SystemExit)  # a family that leaves would take every command with it


@dataclass(frozen=True)
class Flaw:
    """A bad entry."""

    message: str  # "models/catalog/coding.py:18: alias 'coder-chat' is taken by models/catalog/chat.py:13"
    remedy: str  # "${EDITOR:-vi} +18 models/catalog/coding.py"


@dataclass(frozen=True)
class Place:
    """Where an entry stands."""

    path: Path
    index: int  # among the entries of its file

    @property
    def line(self) -> int:
        """Read from the source when it is asked for: a good catalog never asks. The first line if nothing is found."""
        entries = _elements(ast.parse(self.path.read_text()))
        return entries[self.index].lineno if self.index < len(entries) else 1

    def __str__(self) -> str:
        return f"{shown_path(self.path)}:{self.line}"


@dataclass(frozen=True)
class Gathered:
    """Every good entry by its alias, in the order of the families; where each stands; and the flaws of all others."""

    catalog: Mapping[str, ModelSpec]
    places: Mapping[str, Place]
    flaws: tuple[Flaw, ...]


def gather(families: Sequence[str], groups: Container[str]) -> Gathered:
    """The entries of all families."""
    catalog: dict[str, ModelSpec] = {}
    places: dict[str, Place] = {}
    flaws: list[Flaw] = []
    for family in families:
        for found in _load(_HERE / f"{family}.py"):
            if isinstance(found, Flaw):
                flaws.append(found)
                continue
            spec, place = found
            if wrong := clash(spec, catalog, places, groups):
                flaws.append(flaw(place.path, place.line, wrong))
            else:
                catalog[spec.alias], places[spec.alias] = spec, place
    known = {*families, *_NO_FAMILY}
    flaws += [
        flaw(path, 1, "it is in no FAMILIES of models/catalog/__init__.py, so nothing of it is read")
        for path in sorted(_HERE.glob("*.py"))
        if path.stem not in known
    ]
    return Gathered(catalog, places, tuple(flaws))


def clash(
    spec: ModelSpec, catalog: Mapping[str, ModelSpec], places: Mapping[str, object], groups: Container[str]
) -> str | None:
    """What an entry would share with those that are there, whose places are told; None for nothing."""
    same_name = next((s.alias for s in catalog.values() if s.served_name == spec.served_name), None)
    if spec.alias in catalog:
        return f"alias '{spec.alias}' is taken by {places[spec.alias]}, and one would replace the other"
    if same_name:
        return f"{spec.alias}: served_name '{spec.served_name}' is taken by {places[same_name]}"
    if spec.served_name in catalog:
        return f"{spec.alias}: served_name '{spec.served_name}' is the alias of {places[spec.served_name]}"
    if spec.group not in groups:
        return f"{spec.alias}: there is no group '{spec.group}' in models/catalog/parts.py to enable it with"
    if spec.alias in groups:
        return f"alias '{spec.alias}' is the name of a group too, and a key that lists it would mean both"
    return None


def _load(path: Path) -> Iterator[tuple[ModelSpec, Place] | Flaw]:
    """Entries of a family; where it cannot be imported, each of its entries by itself."""
    try:
        entries: object = getattr(importlib.import_module(f"{__package__}.{path.stem}"), _ENTRIES)
        if not isinstance(entries, tuple | list):
            raise TypeError(f"{_ENTRIES} is a {type(entries).__name__}: write a tuple, with a comma behind each entry")
        found = list(cast("tuple[object, ...]", entries))
        if not found:
            raise ValueError(f"{_ENTRIES} is empty; take the file out of FAMILIES in models/catalog/__init__.py")
    except _ANY as error:
        yield from _one_by_one(path, error)
        return
    for index, spec in enumerate(found):
        yield _checked(spec, Place(path, index))


def _checked(spec: object, place: Place) -> tuple[ModelSpec, Place] | Flaw:
    if isinstance(spec, ModelSpec):
        return spec, place
    return flaw(place.path, place.line, f"{spec!r:.60} among {_ENTRIES} is no ModelSpec: is a comma lacking?")


def _one_by_one(path: Path, error: BaseException) -> Iterator[tuple[ModelSpec, Place] | Flaw]:
    """What of a family can be used, and what is wrong with the rest."""
    try:
        tree = ast.parse(path.read_text(), str(path))
        entries = _elements(tree)
        tree.body = [node for node in tree.body if not _assigns_entries(node)]
        names: dict[str, object] = {"__name__": f"{__package__}.{path.stem}", "__file__": str(path)}
        exec(compile(tree, str(path), "exec"), names)  # noqa: S102  our own file
    except _ANY as failed:
        yield flaw(path, _line_in(path, failed), _told(failed))
        return
    flawless = True
    for index, node in enumerate(entries):
        try:
            spec: object = eval(compile(ast.Expression(node), str(path), "eval"), names)  # noqa: S307
        except _ANY as failed:
            flawless = False
            yield flaw(path, node.lineno, _told(failed))
        else:
            checked = _checked(spec, Place(path, index))
            flawless = flawless and not isinstance(checked, Flaw)
            yield checked
    if flawless:  # what failed is none of the entries
        yield flaw(path, _line_in(path, error), _told(error))


def _assigns_entries(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == _ENTRIES for t in node.targets)


def _elements(tree: ast.Module) -> list[ast.expr]:
    """The entries of a family as its source has them; none where it has no plain tuple of them."""
    found = next((node for node in tree.body if _assigns_entries(node)), None)
    value = found.value if isinstance(found, ast.Assign) else None
    return list(value.elts) if isinstance(value, ast.Tuple | ast.List) else []


def _told(error: BaseException) -> str:
    """An error in a line: of a bad value, which field, what is wrong, and what was given."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
    return "; ".join(
        ": ".join(
            filter(
                None,
                (
                    f"{error.title} {'.'.join(map(str, found['loc']))}".strip(),
                    found["msg"].removeprefix("Value error, "),
                    f"{found['input']!r}"[:60] if found["loc"] and found["type"] != "missing" else "",
                ),
            )
        )
        for found in error.errors()
    )


def _line_in(path: Path, error: BaseException) -> int:
    """The last line of a file that an error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def flaw(path: Path, line: int, wrong: str) -> Flaw:
    return Flaw(f"{shown_path(path)}:{line}: {wrong}", f"${{EDITOR:-vi}} +{line} {shown_path(path)}")


def shown_path(path: Path) -> str:
    """From the checkout, as one types it there."""
    return "/".join(path.parts[-3:])
