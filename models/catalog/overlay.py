"""`models.local.yaml`: entries of one checkout, laid over the catalog.

    models:
      - alias: coder-chat           # a known alias, or a known model_id alone: its fields change, one by one
        context: 8192
        engine: {max_num_seqs: 32}
      - alias: my-model             # any other alias: a new entry, with all that one needs
        model_id: ...

Fields are those of `ModelSpec`. Objects are merged; a list or a value replaces what was there, and so does an engine,
a price or an architecture of another `kind`. What is wrong is a flaw with its line, all at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models.catalog.gather import Flaw, clash
from models.catalog.parts import Group
from models.facts import Evaluation, Slo
from models.go_yaml import Lines, YamlError, decode_with_lines
from models.spec import ModelSpec

LOCAL_GROUP = "local"  # of new entries that name none
_LIST = "models"
_MOST = 10**15  # of any number: far above what is counted here, far below what a float holds
_LONGEST = 4000  # characters of a text
# What tells about one model and no other.
_OF_THE_MODEL = {
    "throughput": None,
    "slo": Slo(note="none is set").model_dump(mode="json"),
    "evaluation": Evaluation(status="none", result="nobody has evaluated it here").model_dump(mode="json"),
}
_NEEDED_WITH_ANOTHER_MODEL = ("weights", "licence", "sources")

Json = dict[str, Any]


@dataclass(frozen=True)
class Overlaid:
    """What of an entry comes from the overlay."""

    file: str  # "models.local.yaml"
    line: int
    fields: tuple[str, ...]  # that differ, "context", "engine.max_num_seqs"; empty: the entry is new

    @property
    def what(self) -> str:
        """ "context, engine.max_num_seqs", or "new"."""
        return ", ".join(self.fields) or "new"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass
class Laid:
    """A catalog with an overlay on it."""

    catalog: dict[str, ModelSpec]
    overlaid: dict[str, Overlaid] = field(default_factory=dict[str, Overlaid])
    flaws: list[Flaw] = field(default_factory=list[Flaw])


def lay_over(shipped: Mapping[str, ModelSpec], groups: Mapping[str, Group], file: Path, name: str = "") -> Laid:
    """The catalog with the entries of a file on it; without those that are flawed. `name` is how commands name it."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        return Laid(dict(shipped), flaws=[Flaw(f"{file} cannot be read: {why}", f"ls -ld {file}")])
    return lay_text(shipped, groups, text, name or file.name)


def lay_text(shipped: Mapping[str, ModelSpec], groups: Mapping[str, Group], text: str, name: str) -> Laid:
    """The same of the text of a file of that name."""
    laid = Laid(dict(shipped))
    try:
        document, lines = decode_with_lines(text)
    except YamlError as error:
        line = str(error).rpartition(", line ")[2].partition(",")[0]
        laid.flaws.append(_flaw(name, int(line) if line.isdecimal() else 1, f"it is no valid YAML: {error}"))
        return laid
    reader = _Reader(name, lines, groups, shipped, laid)
    for item, line in reader.entries(document):
        reader.lay(item, line)
    return laid


def merged(base: object, patch: object) -> Any:
    """A value with another on it: objects part by part, unless they are of different kinds."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    old, new = cast("Json", base), cast("Json", patch)
    if "kind" in new and new["kind"] != old.get("kind"):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def _flaw(name: str, line: int, wrong: str) -> Flaw:
    return Flaw(f"{name}:{line}: {wrong}", f"${{EDITOR:-vi}} +{line} {name}")


@dataclass
class _Reader:
    name: str
    lines: Lines
    groups: Mapping[str, Group]
    shipped: Mapping[str, ModelSpec]
    laid: Laid

    def wrong(self, line: int, what: str) -> None:
        self.laid.flaws.append(_flaw(self.name, line, what))

    def entries(self, document: object) -> Iterator[tuple[Json, int]]:
        """The entries of a document, each with its line; what is no entry is told."""
        if document is None:
            return
        if not isinstance(document, dict):
            self.wrong(1, f"it has to begin with `{_LIST}:`, a list of entries below it")
            return
        top = cast("Json", document)
        for key in top:
            if key != _LIST:
                self.wrong(
                    self.lines[id(top)][key], f"'{key:.60}' means nothing here; entries are in a list, `{_LIST}:`"
                )
        items = top.get(_LIST)
        if items is None:
            return
        if not isinstance(items, list):
            form = f"`{_LIST}:` is a list: an entry begins with `- alias: `"
            self.wrong(self.lines[id(top)][_LIST], form)
            return
        found = cast("list[object]", items)
        for index, item in enumerate(found):
            line = self.lines[id(found)][index]
            if isinstance(item, dict):
                yield cast("Json", item), line
            else:
                self.wrong(line, f"{item!r:.60} is no entry: write its fields, as in `- alias: coder-chat`")

    def lay(self, item: Json, line: int) -> None:
        """One entry on the catalog."""
        bad = list(_unusable(item, self.lines, line))
        for at, what in bad:
            self.wrong(at, what)
        if bad:
            return
        base = self._base(item, line)
        if base is None:
            return
        alias = base.alias if isinstance(base, ModelSpec) else cast("str", item["alias"])
        if before := self.laid.overlaid.get(alias):
            self.wrong(line, f"{alias} is in this file already, in line {before.line}: make one entry of both")
            return
        spec = self._made(alias, base, item, line)
        if spec is None:
            return
        others = {a: s for a, s in self.laid.catalog.items() if a != alias}
        places = {a: self.laid.overlaid.get(a, "models/catalog") for a in others}
        if what := clash(spec, others, places, self.groups):
            self.wrong(line, what)
            return
        self.laid.catalog[alias] = spec
        fields = tuple(_changed(self.shipped[alias], spec)) if isinstance(base, ModelSpec) else ()
        self.laid.overlaid[alias] = Overlaid(self.name, line, fields)

    def _base(self, item: Json, line: int) -> ModelSpec | Json | None:
        """What an entry changes: one of the catalog, or nothing but what a new one has without saying so."""
        alias, model_id = item.get("alias"), item.get("model_id")
        if isinstance(alias, str) and alias in self.shipped:
            return self.shipped[alias]
        same = [spec for spec in self.shipped.values() if spec.model_id == model_id]
        if alias is not None:
            return {"group": LOCAL_GROUP} if isinstance(alias, str) else self._no_alias(line, "an alias is text")
        if len(same) == 1:
            return same[0]
        if same:
            return self._no_alias(line, f"{model_id} is served as {' and as '.join(s.alias for s in same)}: say which")
        return self._no_alias(line, "it has no alias, and a model_id of the catalog neither")

    def _no_alias(self, line: int, why: str) -> None:
        self.wrong(line, f"{why}, so it is not known which entry it is: add `alias: `")

    def _made(self, alias: str, base: ModelSpec | Json, item: Json, line: int) -> ModelSpec | None:
        """The entry that comes of it; None where it is none, which is told."""
        whole: Json = base.model_dump(mode="json") if isinstance(base, ModelSpec) else dict(base)
        if isinstance(base, ModelSpec) and item.get("model_id", base.model_id) != base.model_id:
            lacking = [name for name in _NEEDED_WITH_ANOTHER_MODEL if name not in item]
            if lacking:
                at = self.lines[id(item)]["model_id"]
                self.wrong(at, f"{alias}: another model_id is another model, so {_listed(lacking)} must be said too")
                return None
            whole |= _OF_THE_MODEL
        whole = merged(whole, item)
        try:
            # Strict: true is no number, and "8192" none either.
            spec = ModelSpec.model_validate_json(json.dumps(whole), strict=True)
            if isinstance(base, ModelSpec) and type(spec.engine) is type(base.engine) and "weights" not in item:
                spec = spec.engine.adapted(spec.model_copy(update={"engine": base.engine}))
        except ValidationError as error:
            self._tell(alias, item, line, error, whole)
        except Exception as error:
            self.wrong(line, f"{alias}: {type(error).__name__}: {error}")
        else:
            return spec
        return None

    def _tell(self, alias: str, item: Json, line: int, error: ValidationError, whole: Json) -> None:
        """Each thing that is wrong, where it stands; of a new entry what it lacks, in one line."""
        errors = error.errors()
        if alias not in self.shipped:
            lacking = [str(e["loc"][0]) for e in errors if e["type"] == "missing" and len(e["loc"]) == 1]
            if lacking:
                self.wrong(line, f"{alias}: {self._as_new(alias, item)}, and lacks {_listed(lacking)}")
            errors = [e for e in errors if e["type"] != "missing" or len(e["loc"]) > 1]
        for one in errors:
            at, path = _place(one["loc"], item, whole, self.lines, line)
            self.wrong(at, f"{alias}: {_said(one, path).removeprefix(f'{alias}: ')}")

    def _as_new(self, alias: str, item: Json) -> str:
        same = next((s.alias for s in self.shipped.values() if s.model_id == item.get("model_id")), None)
        near = next(iter(difflib.get_close_matches(alias, self.shipped, 1, 0.75)), None) or same
        meant = f" (or did you mean '{near}'?)" if near else ""
        return f"no entry of the catalog has that alias{meant}, so it is a new one"


def _unusable(value: object, lines: Lines, line: int) -> Iterator[tuple[int, str]]:
    """Values that are of no use to any field: those that cannot be shown or computed with."""
    if isinstance(value, dict | list):
        inner = cast("Json", value).items() if isinstance(value, dict) else enumerate(cast("list[Any]", value))
        for key, part in inner:
            yield from _unusable(part, lines, lines[id(cast("object", value))].get(key, line))
            if isinstance(key, str) and not key.isprintable():
                yield line, f"{key!r:.60} is no name of a field"
    elif isinstance(value, str) and (len(value) > _LONGEST or not value.replace("\n", "").isprintable()):
        yield line, f"{value!r:.60} is no text that can be shown: at most {_LONGEST:,} printable characters"
    elif isinstance(value, int | float) and abs(value) > _MOST:
        yield line, f"{value!r:.60} is more than anything here may be ({_MOST:,})"


def _place(
    loc: tuple[int | str, ...], item: Json, whole: object, lines: Lines, line: int
) -> tuple[int, tuple[str, ...]]:
    """The line of what an error is about, or of what is around it, and its path in the entry.

    pydantic puts the kind of a value into the path as well, which is no field.
    """
    here: object = item
    path: list[str] = []
    for step in loc:
        inside = cast("Json", whole) if isinstance(whole, dict) else {}
        if step not in inside and inside.get("kind") == step:
            continue
        path.append(str(step))
        line = lines.get(id(here), {}).get(step, line)
        here, whole = _part(here, step), _part(cast("object", whole), step)
    return line, tuple(path)


def _part(holder: object, step: int | str) -> object:
    if isinstance(holder, dict):
        return cast("Json", holder).get(str(step))
    if isinstance(holder, list) and isinstance(step, int) and step < len(cast("list[object]", holder)):
        return cast("list[object]", holder)[step]
    return None


def _said(error: ErrorDetails, path: tuple[str, ...]) -> str:
    name = ".".join(path)
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "extra_forbidden":
        known = _fields_beside(error["loc"])
        near = difflib.get_close_matches(path[-1], known, 1)
        meant = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{name:.80} is no field here; {meant}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not path:
        return message
    return f"{name}: {message}: {error['input']!r:.60}"


def _fields_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Names that a field may have there."""
    found: list[type[BaseModel]] = [ModelSpec]
    for step in loc[:-1]:
        inner = [c for cls in found if step in cls.model_fields for c in _types(cls.model_fields[str(step)].annotation)]
        of_kind = [cls for cls in found if "kind" in cls.model_fields and cls.model_fields["kind"].default == step]
        found = inner or of_kind or found
    return list(dict.fromkeys(name for cls in found for name in cls.model_fields))


def _types(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _changed(before: ModelSpec, after: ModelSpec) -> Iterator[str]:
    yield from _differing(before.model_dump(mode="json"), after.model_dump(mode="json"), "")


def _differing(before: object, after: object, path: str) -> Iterator[str]:
    """Fields that differ; an object of another kind is one."""
    if before == after:
        return
    old = cast("Json", before) if isinstance(before, dict) else None
    new = cast("Json", after) if isinstance(after, dict) else None
    if old is None or new is None or old.get("kind") != new.get("kind"):
        yield path
        return
    for key, value in new.items():
        yield from _differing(old.get(key), value, f"{path}.{key}".lstrip("."))


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
