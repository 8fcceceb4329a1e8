"""Stack config, typed: the one place that reads Pulumi config.

`read()` takes everything the engine hands over, in every namespace. `parse()` turns it into `Settings` and a
list of problems, and is pure. The CLI validates nothing in foreign namespaces (`coder-chat:replicas`), so every
namespace, key and value is checked here, and all that is wrong is reported at once.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_args, get_origin

import pulumi
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from models.catalog import GROUPS, Group
from models.spec import ModelSpec
from stacks.problems import Problem, config_path, did_you_mean, masked, nearest
from stacks.secrets import KEY_VALUES, SECRETS, SecretKey, key_value
from stacks.sections import Gcp, Overrides, Platform, Section, overrides_of

S = TypeVar("S", bound=Section)

# True in the context of `ops plan`, which deploys nothing: the program then shows what is not prepared yet.
REHEARSAL: ContextVar[bool] = ContextVar("rehearsal", default=False)


@dataclass(frozen=True)
class RawConfig:
    """All config of a stack, unparsed: `namespace:key` to the string that the CLI hands to the program."""

    project: str
    stack: str
    values: Mapping[str, str]
    # What config encrypts, with the clear value where the engine has decrypted it. Of an object that is not
    # decrypted, JSON that has its keys and null for each value.
    secrets: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"], repr=False)


@dataclass(frozen=True)
class Settings:
    """What the operator asked for, typed. An invalid value is left at its default and listed as a problem."""

    project: str
    stack: str
    platform: Platform
    gcp: Gcp | None
    models: Mapping[str, Overrides]  # by alias, of those that config mentions
    secrets: frozenset[str]  # keys of the secrets that are set
    key_values: frozenset[str] = frozenset()  # aliases of the virtual keys whose value is set


def read() -> RawConfig:
    """Everything that the running engine handed to this program."""
    runtime = pulumi.runtime.config
    config = cast("dict[str, str]", runtime.CONFIG.get() or runtime.get_config_env())
    secret = {key for key in config if runtime.is_config_secret(key)}
    return RawConfig(
        project=pulumi.get_project(),
        stack=pulumi.get_stack(),
        values={key: value for key, value in config.items() if key not in secret},
        secrets={key: config[key] for key in secret},
    )


def secret_output(secret: SecretKey) -> pulumi.Output[str]:
    """The value of a secret of the running stack, marked secret."""
    return pulumi.Config().require_secret(secret.key)


def key_value_output(alias: str) -> pulumi.Output[str]:
    """The value of a virtual key of the running stack, marked secret."""
    values = pulumi.Config().require_secret_object(KEY_VALUES)
    return values.apply(lambda by_alias: str(by_alias[alias]))


def parse(
    raw: RawConfig, catalog: Mapping[str, ModelSpec], groups: Mapping[str, Group]
) -> tuple[Settings, list[Problem]]:
    """Settings, and everything that is wrong with the config."""
    sections: dict[str, dict[str, str]] = {}
    for full_key, value in raw.values.items():
        namespace, _, key = full_key.partition(":")
        sections.setdefault(namespace, {})[key] = value
    own = sections.pop(raw.project, {})
    gcp_values = sections.pop("gcp", {})
    sections.pop("pulumi", None)  # the engine's own
    problems = list(_secret_problems(raw, own))

    platform, found = _section(Platform, raw.project, {k: v for k, v in own.items() if k not in {*SECRETS, KEY_VALUES}})
    problems += found
    problems += _group_problems(raw.project, platform, groups)

    gcp: Gcp | None = None
    if platform.target == "gke":
        gcp, found = _gcp(gcp_values)
        problems += found
    else:
        problems += [
            Problem(
                f"gcp:{key} is set, but this stack's target is {platform.target!r}, so nothing reads it",
                f"pulumi config rm gcp:{key}",
            )
            for key in gcp_values
        ]

    models: dict[str, Overrides] = {}
    for namespace, values in sections.items():
        if namespace in catalog:
            cls = overrides_of(type(catalog[namespace].engine))
            models[namespace], found = _section(cls, namespace, values)
            problems += found
        else:
            problems += _unknown_namespace(namespace, values, [*catalog, raw.project, "gcp"])
    named = (key.partition(":") for key in raw.secrets)
    set_secrets = frozenset(key for namespace, _, key in named if namespace == raw.project)
    key_values, found = _key_values(raw)
    problems += found
    settings = Settings(raw.project, raw.stack, platform, gcp, models, set_secrets, key_values)
    return settings, problems


# --- sections ------------------------------------------------------------------------------------------------


def _section(cls: type[S], namespace: str, values: Mapping[str, str]) -> tuple[S, list[Problem]]:
    """The section with what is invalid left out, and a problem for each of those."""
    problems: list[Problem] = []
    decoded: dict[str, Any] = {}
    for key, value in values.items():
        decoded[key] = value
        if value.lstrip().startswith(("{", "[")):
            try:
                decoded[key] = json.loads(value)
            except (ValueError, RecursionError) as error:  # too long a number, too deep a nesting, no JSON
                problems.append(
                    Problem(f"{namespace}:{key} is not valid JSON: {error}", f"pulumi config rm {namespace}:{key}")
                )
                del decoded[key]
    reported: set[tuple[int | str, ...]] = set()
    while True:
        try:
            return cls.model_validate(decoded), problems
        except ValidationError as failure:
            for error in failure.errors():
                loc = error["loc"]
                # A value that was dropped is not missing as well.
                if error["type"] != "missing" or not any(known[: len(loc)] == loc for known in reported):
                    problems.append(_problem(cls, namespace, decoded, error))
                reported.add(loc)
                _drop(decoded, loc)


def _drop(values: dict[str, Any], loc: tuple[int | str, ...]) -> None:
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


def _problem(cls: type[Section], namespace: str, values: Mapping[str, Any], error: ErrorDetails) -> Problem:
    """One validation error in the words of the config."""
    # Of a name that is refused itself, pydantic says `[key]`.
    loc = tuple(part for part in error["loc"] if part != "[key]")
    path = tuple(map(str, loc))
    key = config_path(namespace, path[0], *loc[1:])
    known, default = _fields_at(cls, path)
    if error["type"] == "extra_forbidden":
        if not known:
            return Problem(
                f"{key} is set, but nothing of this model runs here, so there is nothing to set", _remove(key)
            )
        return Problem(
            f"{key} is not a setting, so nothing reads it; {did_you_mean(path[-1], known)}",
            _rename(namespace, path, nearest(path[-1], known), error["input"]),
        )
    if path[-1] == "models" and error["type"] in _NO_MODELS:
        return Problem(f"{key} is {_NO_MODELS[error['type']]}, so nothing may be used", _list_a_model(key))
    if path[-1] == "models" and error["type"] == "list_type":
        return Problem(f"{key} is {_show(error['input'])}: must be a list", f"{_remove(key)} && {_list_a_model(key)}")
    if error["type"] == "missing":
        return Problem(f"{key} is not set, and there is no default", _set(key, "<value>"))
    context = error.get("ctx", {})
    reason = str(context["error"]) if "error" in context else re.sub(r"^\w+ should", "must", error["msg"])
    if match := re.search(r"did you mean '(.+)'", reason):
        default = match.group(1)
    return Problem(
        f"{key} is {_show(error['input'])}: {reason}",
        _set(key, default) if default is not None else _remove(key),
    )


_NO_MODELS = {"missing": "not set", "too_short": "empty"}


def _fields_at(cls: type[Section], path: tuple[str, ...]) -> tuple[list[str], object]:
    """Keys that exist beside the last part of a path, and the default of that part if it is a plain value."""
    parts = list(path[:-1])
    while parts:
        part = parts.pop(0)
        annotation: Any = next((f.annotation for f in cls.model_fields.values() if f.alias == part), None)
        if get_origin(annotation) is dict and parts:
            parts.pop(0)  # a name that the operator chose
            annotation = get_args(annotation)[1]
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return [], None
        cls = annotation
    known = {f.alias or name: f for name, f in cls.model_fields.items()}
    default = known[path[-1]].default if path[-1] in known else None
    return list(known), default if isinstance(default, str | int | float) else None


def _gcp(values: Mapping[str, str]) -> tuple[Gcp | None, list[Problem]]:
    """The GCP section, None where it cannot be used: it has no defaults to fall back on."""
    try:
        return Gcp.model_validate(values), []
    except ValidationError as failure:
        return None, [_problem(Gcp, "gcp", values, error) for error in failure.errors()]


def _group_problems(project: str, platform: Platform, groups: Mapping[str, Group]) -> Iterator[Problem]:
    for name, enabled in platform.groups.items():
        key = config_path(project, "groups", name)
        if name not in groups:
            yield Problem(
                f"{key}: there is no group '{name}', so nothing is enabled; {did_you_mean(name, groups)}",
                _rename(project, ("groups", name), nearest(name, groups), enabled),
            )
        elif enabled and (reason := groups[name].unavailable):
            yield Problem(f"{key} is true, but the group cannot be enabled: {reason}", _set(key, "false"))


def _secret_problems(raw: RawConfig, own: Mapping[str, str]) -> Iterator[Problem]:
    """Secrets in clear text, of the wrong shape, or misspelt. No value is ever shown."""
    for key in own.keys() & SECRETS.keys():
        yield Problem(
            f"{raw.project}:{key} stands in the stack file in clear text, for everyone who can read it",
            f"pulumi config rm {key} && {SECRETS[key].command}   # a new value: the old one is known",
        )
    if KEY_VALUES in own:
        yield Problem(
            f"{raw.project}:{KEY_VALUES} stands in the stack file in clear text, for everyone who can read it",
            f"pulumi config rm {KEY_VALUES} && {key_value('ALIAS').command}   # for each key, a new value",
        )
    for full_key, value in raw.secrets.items():
        namespace, _, key = full_key.partition(":")
        if full_key == f"{raw.project}:{KEY_VALUES}":
            continue
        if namespace != raw.project or key not in SECRETS:
            yield Problem(
                f"{full_key} is set as a secret, but there is no such secret; {did_you_mean(key, SECRETS)}",
                f"pulumi config rm {full_key}",
            )
        elif value is not None and not re.fullmatch(SECRETS[key].pattern, value):
            yield Problem(f"{full_key} (value not shown) must {SECRETS[key].must}", SECRETS[key].command)


def _key_values(raw: RawConfig) -> tuple[frozenset[str], list[Problem]]:
    """Virtual keys that have a value, and values of the wrong shape. No value is ever shown."""
    key = f"{raw.project}:{KEY_VALUES}"
    if key not in raw.secrets:
        return frozenset(), []
    try:
        values: object = json.loads(raw.secrets[key] or "")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return frozenset(), [
            Problem(
                f"{key} (value not shown) must be an object of one secret a key",
                f"pulumi config rm {KEY_VALUES} && {key_value('ALIAS').command}",
            )
        ]
    by_alias = cast("dict[str, object]", values)
    return frozenset(by_alias), [
        Problem(f"{key}.{alias} (value not shown) must {key_value(alias).must}", key_value(alias).command)
        for alias, value in by_alias.items()
        # A name that no key can have is refused as the value of no key.
        if re.fullmatch(r"[\w-]+", alias)
        and value is not None
        and not re.fullmatch(key_value(alias).pattern, str(value))
    ]


def _unknown_namespace(namespace: str, values: Mapping[str, str], known: list[str]) -> Iterator[Problem]:
    match = nearest(namespace, known)
    for key, value in values.items():
        full = f"{namespace}:{key}"
        remedy = _remove(full)
        if match and masked(value) == value:
            remedy += f" && {_set(f'{match}:{key}', value)}"
        yield Problem(
            f"{full} is {_show(value)}, but '{namespace}' is no model and no other namespace of this program, "
            f"so nothing reads it; {did_you_mean(namespace, known)}",
            remedy,
        )


# --- commands ------------------------------------------------------------------------------------------------


def _key_argument(key: str) -> str:
    if re.fullmatch(r"[\w-]*:[\w-]+", key):
        return key
    return f"--path '{key}'" if "'" not in key else f"--path {shlex.quote(key)}"


def _set(key: str, value: object) -> str:
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"pulumi config set {_key_argument(key)} {shown if shown.startswith('<') else shlex.quote(shown)}"


def _remove(key: str) -> str:
    return f"pulumi config rm {_key_argument(key)}"


def _list_a_model(key: str) -> str:
    return f"pulumi config set --path '{key}[0]' {next(iter(GROUPS))}   # or another group, or a model"


def _rename(namespace: str, path: Sequence[str], to: str | None, value: object) -> str:
    """Remove a misspelt key, and set the one that was meant if there is one."""
    remove = _remove(config_path(namespace, *path))
    if to is None:
        return remove
    meant = config_path(namespace, *path[:-1], to)
    if isinstance(value, dict | list) or masked(str(value)) != str(value):
        return f"{remove}   # and write what it held under {meant}"
    return f"{remove} && {_set(meant, value)}"


def _show(value: object) -> str:
    text = (
        json.dumps(value) if isinstance(value, dict | list) else repr(value) if isinstance(value, str) else str(value)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."
