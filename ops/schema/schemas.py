"""JSON Schemas of what people write by hand, made from the types that read it.

A schema says what holds for a key alone: names, types, bounds. What holds between keys (a quota, a sum, a key of a
team that is not there) is said by `ops plan`. It refuses nothing that the program takes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import TypeAdapter

from models.catalog import CATALOG, GROUPS
from models.spec import ModelSpec
from stacks.secrets import KEY_VALUES, SECRETS
from stacks.sections import Gcp, Platform, Section, overrides_of

Schema = dict[str, Any]

# What editors know best; it has all that is used here.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_SECURE: Schema = {
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}
_JSON_OBJECT: Schema = {"type": "string", "pattern": r"^\s*\{"}  # as the CLI writes one that came by `config set`
_DECIMAL = r"^\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def catalog_entry() -> Schema:
    """Of a model as an entry of the catalog describes it."""
    return {"title": "A model of the catalog", **TypeAdapter(ModelSpec).json_schema()}


def overlay() -> Schema:
    """Of `models.local.yaml`: entries of which any part may be left out, as the catalog has it."""
    entry = cast("Schema", _partial(TypeAdapter(ModelSpec).json_schema()))
    definitions = cast("dict[str, Schema]", entry.pop("$defs"))
    entry["properties"]["group"] = {"enum": list(GROUPS)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Entries of this checkout alone",
        "type": ["object", "null"],
        "properties": {"models": {"type": ["array", "null"], "items": {"$ref": "#/$defs/ModelSpec"}}},
        "additionalProperties": False,
        "$defs": {**definitions, "ModelSpec": entry},
    }


def _partial(schema: object) -> object:
    """Without what has to be there, so that a part may stand alone."""
    if isinstance(schema, list):
        return [_partial(inner) for inner in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    made = {key: _partial(inner) for key, inner in cast("Schema", schema).items()}
    if isinstance(made.get("required"), list):
        del made["required"]
    if "oneOf" in made:  # without their kinds several may match
        made["anyOf"] = made.pop("oneOf")
        made.pop("discriminator", None)
    return made


def stack_config(project: str, catalog: Mapping[str, ModelSpec] = CATALOG) -> Schema:
    """Of a `Pulumi.<stack>.yaml` of this project."""
    definitions: dict[str, Schema] = {}
    keys: dict[str, Schema] = {}
    for namespace, section in _namespaces(project, catalog):
        made = section.model_json_schema()
        definitions |= {name: _written(schema) for name, schema in _told(made.pop("$defs", {})).items()}
        fields: dict[str, Schema] = _told({section.__name__: made})[section.__name__].get("properties", {})
        keys |= {f"{namespace}:{key}": _top(schema) for key, schema in fields.items()}
    _name_models(project, catalog, keys, definitions)
    keys |= {
        f"{project}:{key}": {**_SECURE, "description": f"{secret.purpose}; to set it: {secret.command}"}
        for key, secret in SECRETS.items()
    }
    keys[f"{project}:{KEY_VALUES}"] = {
        "description": "the value of each virtual key",
        "type": "object",
        "additionalProperties": _SECURE,
    }
    definitions["config"] = {
        "type": "object",
        "properties": keys,
        # The engine's own keys, and the other spellings of ours: without the project, and the older one.
        "patternProperties": {"^pulumi:": {}} | dict(_spellings(project, keys)),
        "additionalProperties": False,
    }
    return {
        "$schema": _DRAFT,
        "title": f"Stack config of {project}",
        "type": "object",
        "properties": {
            "config": {"anyOf": [{"$ref": "#/$defs/config"}, {"type": "null"}]},
            "environment": {},
            **{key: {"type": "string"} for key in ("secretsprovider", "encryptedkey", "encryptionsalt")},
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _namespaces(project: str, catalog: Mapping[str, ModelSpec]) -> Iterator[tuple[str, type[Section]]]:
    yield project, Platform
    yield "gcp", Gcp
    for alias, spec in catalog.items():
        yield alias, overrides_of(type(spec.engine))


def _name_models(
    project: str, catalog: Mapping[str, ModelSpec], keys: dict[str, Schema], definitions: dict[str, Schema]
) -> None:
    """Groups and aliases, which the types leave to the catalog."""
    for definition in definitions.values():
        if models := definition.get("properties", {}).get("models"):
            models["items"] = {"enum": [*GROUPS, *catalog]}
    for alias in catalog:
        if fallback := keys.get(f"{alias}:fallback"):
            keys[f"{alias}:fallback"] = {**fallback, "type": "string", "enum": list(catalog)}
    groups = f"{project}:groups"
    told = {
        name: {"description": group.unavailable, "enum": [False, "false"]}
        if group.unavailable
        else {"enum": [True, False, "true", "false"]}
        for name, group in GROUPS.items()
    }
    keys[groups] = {"anyOf": [{"type": "object", "properties": told, "additionalProperties": False}, _JSON_OBJECT]}


def _spellings(project: str, keys: dict[str, Schema]) -> Iterator[tuple[str, Schema]]:
    for full in keys:
        namespace, _, key = full.partition(":")
        other = f"^({namespace}:config:)?{key}$" if namespace == project else f"^{namespace}:config:{key}$"
        yield other, {"$ref": f"#/$defs/config/properties/{full}"}


# --- a type's schema, as YAML and the CLI write its values ------------------------------------------------------


def _told(definitions: dict[str, Schema]) -> dict[str, Schema]:
    """With what the comments beside the fields say, for an editor to show."""
    sections = {section.__name__: section for section in _sections(Section)}
    for name, schema in definitions.items():
        for section in reversed(sections[name].__mro__) if name in sections else ():
            if not issubclass(section, Section) or section.__module__ != Section.__module__:
                continue
            if section.__name__ not in vars(sys.modules[section.__module__]):
                continue  # made of an engine's fields, so it has no source
            for field, comment in re.findall(r"(?m)^    (\w+): .*  # (.+)$", inspect.getsource(section)):
                if field in section.model_fields:
                    schema["properties"][section.model_fields[field].alias or field]["description"] = comment
    return definitions


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    for found in section.__subclasses__():
        yield found
        yield from _sections(found)


def _top(schema: Schema) -> Schema:
    """Of a key of config: the program gets text, so numbers pass for text, and an object may stand as JSON."""
    options = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
    made = _written({**{k: v for k, v in schema.items() if k != "anyOf"}, **options[0]})
    if "$ref" in made or made.get("type") == "object":
        about = {key: made.pop(key) for key in ("description", "default") if key in made}
        return {**about, "anyOf": [made, _JSON_OBJECT]}
    if made.get("type") == "string" and not made.keys() & {"enum", "pattern", "format"}:
        made["type"] = ["string", "number", "boolean", "null"]
    return made


def _written(schema: Schema) -> Schema:
    made = {
        k: v for k, v in schema.items() if k not in ("title", *_BOUNDS, *(("default",) if _is_no_value(schema) else ()))
    }
    bounds = {name: schema[key] for key, name in _BOUNDS.items() if key in schema}
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: _written(inner) for name, inner in made[key].items()}
    if "patternProperties" in made:
        made["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _written(made[key])
    if "anyOf" in made:
        made["anyOf"] = [_written(option) for option in cast("list[Schema]", made["anyOf"])]
    match made.pop("type", None):
        case "integer":
            return {**made, "anyOf": [{"type": "integer", **bounds}, {"type": "string", "pattern": _digits(bounds)}]}
        case "number":
            return {**made, "anyOf": [{"type": "number", **bounds}, {"type": "string", "pattern": _DECIMAL}]}
        case "boolean":
            return {**made, "enum": [True, False, "true", "false"]}
        case None:
            return made
        case kind:
            return {"type": kind, **made}


def _is_no_value(schema: Schema) -> bool:
    """Whether the default says nothing to a reader: none, or an object of defaults."""
    return schema.get("default") is None or isinstance(schema["default"], dict)


def _digits(bounds: dict[str, float]) -> str:
    """Whole numbers as text. Of bounds only the lower one shows in the digits."""
    return r"^0*[1-9][0-9]*$" if bounds.get("minimum", 0) >= 1 else r"^(-?0+|[0-9]+)$"
