"""Stack config, typed: the one place that reads Pulumi config.

`read()` takes everything the engine hands over, in every namespace. `parse()` turns it into `Settings` and a
list of problems, and is pure. The CLI validates nothing in foreign namespaces (`coder-chat:replicas`), so every
namespace, key and value is checked here, and all that is wrong is reported at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import pulumi

from components.gke.names import CloudNames
from models.catalog import Group
from models.spec import ModelSpec
from stacks.commands import place_of, remove_command, set_command, set_commands
from stacks.mistakes import Source, no_group, shows, whole_section
from stacks.mistakes import section as validated
from stacks.problems import Problem, config_path, did_you_mean, nearest, shown_name
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
    # Places in `platform` that were left out. What follows from that alone is no problem of its own.
    left_out: frozenset[tuple[int | str, ...]] = frozenset()

    @property
    def cloud_names(self) -> CloudNames:
        """What the stack's objects are called on Google Cloud."""
        return CloudNames(f"{self.project}-{self.stack}")

    def doubtful(self, section: str, *names: str) -> bool:
        """Whether one of a section's entries (a team, a key), or anything in it, was left out."""
        return not self._doubtful.isdisjoint(((section,), *((section, name) for name in names)))

    @cached_property
    def _doubtful(self) -> frozenset[tuple[int | str, ...]]:
        return frozenset(place[:2] for place in self.left_out)


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


def key_value_outputs(aliases: Iterable[str]) -> dict[str, pulumi.Output[str]]:
    """The values of virtual keys of the running stack, each marked secret.

    Read once for all: as an object the engine's library would wrap every value of it anew for every key.
    """
    text = pulumi.Config().require_secret(KEY_VALUES)
    values = text.apply(cast("Callable[[str], dict[str, object]]", json.loads))
    return {alias: values.apply(lambda by_alias, alias=alias: str(by_alias[alias])) for alias in aliases}


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

    own = {key: value for key, value in own.items() if key not in {*SECRETS, KEY_VALUES}}
    platform, found, left_out = _section(Platform, raw.project, own, groups, catalog)
    problems += found
    problems += _group_problems(raw.project, platform, groups)

    gcp: Gcp | None = None
    if ("target",) in left_out:
        gcp, _ = whole_section(Gcp, Source(Gcp, "gcp", gcp_values))
    elif platform.target == "gke":
        gcp, found = whole_section(Gcp, Source(Gcp, "gcp", gcp_values))
        problems += found
    else:
        problems += [
            Problem(
                f"{config_path('gcp', key)} is set, but this stack's target is {platform.target!r}, so nothing reads "
                "it",
                remove_command("gcp", [key]),
            )
            for key in gcp_values
        ]

    models: dict[str, Overrides] = {}
    known = {raw.project: Source(Platform, raw.project, own, groups, catalog), "gcp": Source(Gcp, "gcp", gcp_values)}
    known |= {a: Source(overrides_of(type(spec.engine)), a, sections.get(a, {})) for a, spec in catalog.items()}
    for namespace, values in sections.items():
        if namespace in catalog:
            cls = overrides_of(type(catalog[namespace].engine))
            models[namespace], found, _ = _section(cls, namespace, values)
            problems += found
        else:
            problems += _unknown_namespace(namespace, values, known)
    named = (key.partition(":") for key in raw.secrets)
    set_secrets = frozenset(key for namespace, _, key in named if namespace == raw.project)
    key_values, found = _key_values(raw)
    problems += found
    # Nor can what is encrypted be read, or what was set without --path.
    left_out |= {(key.partition(":")[2],) for key in raw.secrets}
    left_out |= {tuple(place_of(str(place[0]))) for place in left_out if len(place) == 1}
    settings = Settings(raw.project, raw.stack, platform, gcp, models, set_secrets, key_values, left_out)
    return settings, problems


# --- sections ------------------------------------------------------------------------------------------------


def _section(
    cls: type[S],
    namespace: str,
    values: Mapping[str, str],
    groups: Collection[str] = (),
    models: Collection[str] = (),
) -> tuple[S, list[Problem], frozenset[tuple[int | str, ...]]]:
    """The section with what is invalid left out, a problem for each of those, and where they were."""
    problems: list[Problem] = []
    decoded: dict[str, Any] = {}
    for key, value in values.items():
        decoded[key] = value
        if value.lstrip().startswith(("{", "[")):
            try:
                decoded[key] = json.loads(value)
            except (ValueError, RecursionError) as error:  # too long a number, too deep a nesting, no JSON
                remove = remove_command(namespace, [key])
                problems.append(Problem(f"{config_path(namespace, key)} is not valid JSON: {error}", remove))
                del decoded[key]
    section, found, left_out = validated(cls, Source(cls, namespace, decoded, groups, models))
    return section, problems + found, left_out | {(key,) for key in values.keys() - decoded.keys()}


def _group_problems(project: str, platform: Platform, groups: Mapping[str, Group]) -> Iterator[Problem]:
    for name, enabled in platform.groups.items():
        key, place = config_path(project, "groups", name), ("groups", name)
        if name not in groups:
            meant = nearest(name, groups)
            remedy = remove_command(project, place)
            if meant and meant not in platform.groups and not (enabled and groups[meant].unavailable):
                remedy += f" && {set_command(project, ('groups', meant), enabled)}"
            yield Problem(no_group(project, name, groups), remedy)
        elif enabled and (reason := groups[name].unavailable):
            remedy = set_command(project, place, value=False)
            yield Problem(f"{key} is true, but the group cannot be enabled: {reason}", remedy)


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
            f"pulumi config rm {KEY_VALUES}   # and each key is told how to get a new value",
        )
    settings = {field.alias or name for name, field in Platform.model_fields.items()}
    for full_key, value in raw.secrets.items():
        namespace, _, key = full_key.partition(":")
        if full_key == f"{raw.project}:{KEY_VALUES}":
            continue
        if namespace != raw.project or key in settings:
            yield _encrypted_setting(namespace, key, value)
        elif key not in SECRETS:
            yield Problem(
                f"{config_path(namespace, key)} is set as a secret, but there is no such secret; "
                f"{did_you_mean(key, (*SECRETS, KEY_VALUES))}",
                remove_command(namespace, [key]),
            )
        elif value is not None and not re.fullmatch(SECRETS[key].pattern, value):
            yield Problem(f"{full_key} (value not shown) must {SECRETS[key].must}", SECRETS[key].command)


def _encrypted_setting(namespace: str, key: str, value: str | None) -> Problem:
    if (value or "").startswith("{"):
        return Problem(
            f"a part of {config_path(namespace, key)} is encrypted, so nothing in it can be read; only {KEY_VALUES} "
            "holds secrets",
            remove_command(namespace, (key, "WHAT")).replace("WHAT", "<what is encrypted in it>"),
        )
    remedy = f"{remove_command(namespace, [key])}   # and set it again without --secret"
    return Problem(f"{config_path(namespace, key)} is encrypted, and a setting is read in clear", remedy)


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
                f"pulumi config rm {KEY_VALUES}   # and each key is told how to get its value",
            )
        ]
    by_alias = cast("dict[str, object]", values)
    return frozenset(by_alias), [
        Problem(f"{key}.{alias} (value not shown) must {key_value(alias).must}", key_value(alias).command)
        for alias, value in by_alias.items()
        # A name that no key can have is refused as the value of no key.
        if re.fullmatch(r"[\w-]+", alias)
        and shown_name(alias) == alias
        and value is not None
        and not re.fullmatch(key_value(alias).pattern, str(value))
    ]


def _unknown_namespace(namespace: str, values: Mapping[str, str], known: Mapping[str, Source]) -> Iterator[Problem]:
    meant = nearest(namespace, known)
    for key, value in values.items():
        remedy = remove_command(namespace, [key])
        if meant and (commands := set_commands(meant, [key], value)):
            there = known[meant]
            if there.free([key]) and there.takes([key], value) and shows(there, [key], value):
                remedy += f" && {commands}"
        yield Problem(
            f"{config_path(namespace, key)} is set, but '{shown_name(namespace)}' is no model and no other namespace "
            f"of this program, so nothing reads it; {did_you_mean(namespace, known)}",
            remedy,
        )
