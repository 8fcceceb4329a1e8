"""A section of config that is validated, and each mistake in it told with the commands that mend it. Pure.

A remedy keeps what the operator meant where that is plain, and is tried first: what it would set is valid there, and
nothing that is set already is overwritten.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stacks.commands import Place, place_of, remove_command, set_command, set_commands, typed
from stacks.forms import outlined, quotable, quoted
from stacks.problems import Problem, config_path, did_you_mean, near, nearest, shown_name
from stacks.secrets import KEY_VALUES, SECRETS
from stacks.sections import Access, Key, Section, WrongValueError

S = TypeVar("S", bound=Section)
Trail = tuple[int | str, ...]


@dataclass(frozen=True)
class Source:
    """A section as config has it, and the groups and models that it may name."""

    cls: type[Section]
    namespace: str
    values: Mapping[str, Any]  # JSON is decoded
    groups: Collection[str] = ()
    models: Collection[str] = ()

    def free(self, place: Place) -> bool:
        """Whether nothing is there yet."""
        inner: Any = self.values
        for part in place:
            if isinstance(inner, list) and isinstance(part, int) and part < len(cast("list[Any]", inner)):
                inner = cast("list[Any]", inner)[part]
            elif isinstance(inner, dict) and part in inner:
                inner = cast("dict[Any, Any]", inner)[part]
            else:
                return True
        return False

    def takes(self, place: Place, value: object) -> bool:
        """Whether a value would be valid at a place, whatever else is wrong."""
        try:
            self.cls.model_validate(_put_alone(self.values, place, value))
        except ValidationError as failure:
            return not any(error["loc"][: len(place)] == tuple(place) for error in failure.errors())
        except (TypeError, ValueError):
            return False
        return True


def _put_alone(holder: Any, place: Place, value: object) -> Any:
    """What holds a value at a place, and nothing beside it but the rest of a list.

    Raises TypeError or ValueError where the CLI could not set it.
    """
    if not place:
        return value
    part, *rest = place
    if isinstance(part, int):
        items: list[Any] = [*(holder or [])]
        if isinstance(holder, str | dict) or part > len(items):
            raise TypeError
        there = items[part] if part < len(items) else None
        return [*items[:part], _put_alone(there, rest, value), *items[part + 1 :]]
    if holder and not isinstance(holder, Mapping):
        raise TypeError
    names = cast("Mapping[str, Any]", holder) if holder else dict[str, Any]()
    return {part: _put_alone(names.get(part), rest, value)}


def section(cls: type[S], source: Source) -> tuple[S, list[Problem], frozenset[Trail]]:
    """The section with what is invalid left out, a problem for each of those, and where they were."""
    found: list[Problem] = []
    left: dict[str, Any] = copy.deepcopy(dict(source.values))
    reported: set[Trail] = set()
    around: set[Trail] = set()  # all that what was reported is in
    while True:
        try:
            return cls.model_validate(left), found, frozenset(reported)
        except ValidationError as failure:
            for error in _in_order(cls, failure):
                loc = error["loc"]
                # A value that was dropped is not missing as well.
                if error["type"] != "missing" or loc not in around:
                    found.append(_problem(source, error))
                reported.add(loc)
                around.update(_around(loc))
                _drop(left, loc)


def whole_section(cls: type[S], source: Source) -> tuple[S | None, list[Problem]]:
    """The same of a section that has no defaults to fall back on: None where it cannot be used."""
    try:
        return cls.model_validate(dict(source.values)), []
    except ValidationError as failure:
        return None, [_problem(source, error) for error in _in_order(cls, failure)]


def _in_order(cls: type[Section], failure: ValidationError) -> list[ErrorDetails]:
    """Errors so that their remedies can be typed one after the other, and none undoes another.

    The last of a list comes first, since to remove one moves what follows it. What is in an entry is left out where
    the entry's name is refused: it moves, or goes, with all that is in it. What is there under another name is not
    missing as well.
    """
    unknown = [error["loc"] for error in failure.errors() if error["type"] == "extra_forbidden"]
    meant = {(*loc[:-1], nearest(str(loc[-1]), _keys_beside(cls, loc))) for loc in unknown}
    errors = [error for error in failure.errors() if error["type"] != "missing" or error["loc"] not in meant]
    refused = {error["loc"][:-1] for error in errors if error["loc"][-1] == "[key]"}
    apart = [e for e in errors if e["loc"][-1] == "[key]" or refused.isdisjoint(_around(e["loc"]))]
    return sorted(apart, key=lambda error: -last if isinstance(last := error["loc"][-1], int) else 0)


def _around(loc: Trail) -> list[Trail]:
    """A place and all that it is in."""
    return [loc[:depth] for depth in range(1, len(loc) + 1)]


def _drop(values: dict[str, Any], loc: Trail) -> None:
    """Remove what an error points at: the value, or what lacks it, or the object that it is part of."""
    trail: list[tuple[dict[Any, Any], int | str]] = []
    inner: Any = values
    for depth, part in enumerate(loc):
        if not isinstance(inner, dict):
            break
        mapping = cast("dict[Any, Any]", inner)
        if part not in mapping:
            if depth < len(loc) - 1:
                return  # dropped already, with what it was part of
            break
        trail.append((mapping, part))
        inner = mapping[part]
    if trail:
        container, key = trail[-1]
        del container[key]


# --- one mistake ---------------------------------------------------------------------------------------------


def _problem(source: Source, error: ErrorDetails) -> Problem:
    """One validation error in the words of the config."""
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        return _unknown(source, loc, error["input"])
    if loc[0] == "groups" and len(loc) > 1 and loc[1] not in source.groups:
        return Problem(
            no_group(source.namespace, str(loc[1]), source.groups), remove_command(source.namespace, loc[:2])
        )
    last = loc[len(loc) - 1]
    if last == "[key]":  # so pydantic says that a name is refused
        return _bad_name(source, loc[:-1], error)
    if last == "models" and kind in _NO_MODELS:
        key = config_path(source.namespace, *loc)
        return Problem(f"{key} is {_NO_MODELS[kind]}, so nothing may be used", _models(source, loc, None))
    if kind == "missing":
        key = config_path(source.namespace, *loc)
        return Problem(f"{key} is not set, and there is no default", set_command(source.namespace, loc, "<value>"))
    key = config_path(source.namespace, *loc)
    return Problem(f"{key} is {shown(source, loc, error['input'])}: {_reason(error)}", _remedy(source, loc, error))


_NO_MODELS = {"missing": "not set", "too_short": "empty"}
_WORDS = {
    "dict_type": "must be an object of names and their settings",
    "model_type": "must be an object of settings",
    "list_type": "must be a list",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a number of fewer digits",
    "float_type": "must be a number",
    "string_pattern_mismatch": "must be 6 to 30 lower-case letters, digits and dashes, and begin with a letter",
}


def _reason(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    return _WORDS.get(error["type"]) or re.sub(r"^\w+ should", "must", error["msg"])


def _remedy(source: Source, place: Trail, error: ErrorDetails) -> str:
    """Set what was meant; else one of the few values that there are, or the default; else remove it."""
    wrong = error["input"]
    if place[-1] == "models" and error["type"] == "list_type":
        return f"{remove_command(source.namespace, place)} && {_models(source, place, wrong)}"
    if error["type"] in ("dict_type", "model_type"):
        return _object(source, place, wrong, remove_command(source.namespace, place))
    if meant := [value for value in _meant(error) if source.takes(place, typed(value))]:
        return "   # or: ".join(set_command(source.namespace, place, value) for value in meant[:_CHOICES])
    field = _field(source.cls, place)
    money = str(place[-1]).endswith("Usd")  # never without its limit
    if money or (field is not None and field.is_required()):
        return set_command(source.namespace, place, "<US dollars>" if money else "<value>")
    default: object = field.default if field is not None else None
    if isinstance(default, str | int | float):
        return set_command(source.namespace, place, default)
    return remove_command(source.namespace, place)


_CHOICES = 3


def _meant(error: ErrorDetails) -> Sequence[str]:
    context = error.get("ctx", {})
    if isinstance(context.get("error"), WrongValueError):
        return context["error"].meant
    if error["type"] != "literal_error":
        return ()
    names = re.findall(r"'([^']+)'", str(context["expected"]))
    return near(str(error["input"]), names) or names


# --- names ---------------------------------------------------------------------------------------------------


def _unknown(source: Source, place: Trail, value: object) -> Problem:
    """A key that is no setting: misspelt, set without --path, or of nothing that is here."""
    last, key = str(place[-1]), config_path(source.namespace, *place)
    known = _keys_beside(source.cls, place)
    remove = remove_command(source.namespace, place)
    if not known:
        return Problem(f"{key} is set, but nothing of this model runs here, so there is nothing to set", remove)
    inside = place_of(last) if len(place) == 1 else []
    if len(inside) > 1 and str(inside[0]) in known:
        there = typed(value) if isinstance(value, str) else value
        access = _access(source.cls, inside) is not None and source.free(inside)
        return Problem(
            f"{key} is a key of its own, so nothing reads it: only with --path does it lead into {inside[0]}",
            _object(source, inside, value, remove) if access else _moved(source, place, inside, there),
        )
    secret = nearest(last, (*SECRETS, KEY_VALUES)) if len(place) == 1 and "groups" in known else None
    if secret:
        new = f" && {SECRETS[secret].command}" if secret in SECRETS else ""
        return Problem(
            f"{key} is not a setting, and stands in clear text; did you mean the secret '{secret}'?",
            f"{remove}{new}   # a new value: the old one is known",
        )
    meant = nearest(last, known)
    return Problem(
        f"{key} is not a setting, so nothing reads it; {did_you_mean(last, known)}",
        _moved(source, place, (*place[:-1], meant), value) if meant else remove,
    )


def no_group(namespace: str, name: str, groups: Collection[str]) -> str:
    """That there is no such group."""
    return (
        f"{config_path(namespace, 'groups', name)}: there is no group '{shown_name(name)}' in models/catalog/parts.py, "
        f"so nothing is enabled; {did_you_mean(name, groups)}"
    )


def _bad_name(source: Source, place: Trail, error: ErrorDetails) -> Problem:
    """A name that an operator chose, or that has to be one of a list, and cannot be one."""
    meant = _meant(error)
    value = _at(source.values, place)
    remedy = remove_command(source.namespace, place)
    if len(meant) == 1:
        remedy = _moved(source, place, (*place[:-1], meant[0]), value)
    return Problem(f"{config_path(source.namespace, *place)}: the name {_reason(error)}", remedy)


def _moved(source: Source, place: Place, to: Place, value: object) -> str:
    """Remove what is in the wrong place, and set it in the right one if it is valid there and nothing else is."""
    remove, meant = remove_command(source.namespace, place), config_path(source.namespace, *to)
    if not source.free(to):
        return f"{remove}   # {meant} is set already"
    commands = set_commands(source.namespace, to, value)
    if commands is None or not source.takes(to, value):
        return remove
    if not shows(source, to, value):
        return f"{remove}   # and write what it held under {meant}"
    return f"{remove} && {commands}"


# --- objects and lists ---------------------------------------------------------------------------------------


def _object(source: Source, place: Place, wrong: object, remove: str) -> str:
    """Remove what is no object, and set the object that it spells, or that it names the models of."""
    spelt = _json(wrong)
    meant = cast("dict[str, object]", spelt)
    if isinstance(spelt, dict) and source.takes(place, meant):
        commands = set_commands(source.namespace, place, meant)
        return f"{remove} && {commands}" if commands and shows(source, place, meant) else remove
    if tuple(place) == ("groups",):
        return " && ".join(
            [remove, *(set_command(source.namespace, (*place, n), value=True) for n in _named(source, wrong))]
        )
    if access := _access(source.cls, place):
        budget = set_command(source.namespace, (*place, "maxBudgetUsd"), 10) + " && " if access is Key else ""
        return f"{remove} && {budget}{_models(source, (*place, 'models'), wrong)}"
    return remove


def _models(source: Source, place: Place, wrong: object) -> str:
    """List the models and groups that were named, or the first group as an example."""
    if named := _named(source, wrong):
        return set_commands(source.namespace, place, named) or ""
    example = set_command(source.namespace, (*place, 0), next(iter(source.groups), "<model>"))
    return f"{example}   # or another group, or a model"


def _named(source: Source, wrong: object) -> list[str]:
    """The groups and models that a text or a list names."""
    spelt = _json(wrong)
    words = re.findall(r"[\w.-]+", json.dumps(spelt if isinstance(spelt, list | str) else None))
    known = [*source.groups, *source.models]
    return list(dict.fromkeys(name for word in words if (name := nearest(word, known))))


def _access(cls: type[Section], place: Place) -> type[Access] | None:
    holder: Any = cls
    for part in place:
        holder = _annotation_of(holder, part)
    return holder if isinstance(holder, type) and issubclass(holder, Access) else None


def _json(value: object) -> object:
    """What a text spells: the CLI takes no objects at a path, and keeps their text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _at(values: Any, place: Place) -> Any:
    for part in place:
        values = values[part]
    return values


# --- types ---------------------------------------------------------------------------------------------------


def _holder(cls: type[Section], place: Place) -> type[Section] | None:
    """The section that the last part of a place is a field of; None where an operator chose its name."""
    holder: Any = cls
    for part in place[:-1]:
        holder = _annotation_of(holder, part)
    return holder if isinstance(holder, type) and issubclass(holder, Section) else None


def _annotation_of(holder: Any, part: int | str) -> Any:
    if get_origin(holder) in (dict, list):
        return get_args(holder)[-1]
    if isinstance(holder, type) and issubclass(holder, Section):
        fields: Mapping[str, FieldInfo] = holder.model_fields
        found = next((f for name, f in fields.items() if (f.alias or name) == part), None)
        # With what it is checked by, which pydantic keeps apart.
        if found is None:
            return None
        parts = (found.annotation, *found.metadata)
        return Annotated[parts] if found.metadata else found.annotation
    return None


def _field(cls: type[Section], place: Place) -> FieldInfo | None:
    holder = _holder(cls, place)
    fields = holder.model_fields.items() if holder else ()
    return next((field for name, field in fields if (field.alias or name) == place[-1]), None)


def _keys_beside(cls: type[Section], place: Place) -> list[str]:
    """Keys that there are where the last part of a place is none."""
    holder = _holder(cls, place)
    return [field.alias or name for name, field in holder.model_fields.items()] if holder else []


# --- what may be quoted --------------------------------------------------------------------------------------


def shown(source: Source, place: Place, value: object) -> str:
    """A value as a message has it: quoted where it has the form of what is set there, else its kind and length."""
    return quoted(value) if shows(source, place, value) else outlined(value)


def shows(source: Source, place: Place, value: object) -> bool:
    """Whether a value, and all that is in it, may be quoted as what is set at a place."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        return bool(mapping) and all(shows(source, (*place, key), inner) for key, inner in mapping.items())
    if isinstance(value, list):
        items = cast("list[object]", value)
        return bool(items) and all(shows(source, (*place, index), inner) for index, inner in enumerate(items))
    if str(value) in (*source.groups, *source.models):
        return True
    annotation: Any = source.cls
    for part in place:
        annotation = _annotation_of(annotation, part)
    return quotable(annotation, value)
