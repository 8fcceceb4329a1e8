"""Project and stack files, read as the Pulumi CLI reads them.

What the CLI does, measured: bare keys get the project's prefix, objects become JSON, numbers become strings
(`1.0` becomes "1"), a stack's value replaces a project's whole, and YAML is go-yaml's, where `yes`, `on` and
`12:30` are strings. `--set` is `pulumi config set --path`: it changes the stack's part, an index or a name leads into a
list or an object, and a value at the top is text, which may be the JSON of one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from ops.checkout import PROJECT_FILE
from ops.config_paths import PathError, is_encrypted, parse_path, put, split_assignment
from ops.errors import OpsError
from stacks.commands import typed
from stacks.problems import masked, nearest, written_path
from stacks.settings import RawConfig


class _GoYamlLoader(yaml.SafeLoader):
    """YAML 1.2 scalars as go-yaml resolves them, instead of YAML 1.1's."""


_GoYamlLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    for _character in [*_first, *([""] if _tag == "null" else [])]:
        _GoYamlLoader.yaml_implicit_resolvers.setdefault(_character, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(_pattern))
        )


def project_name(project_dir: Path) -> str:
    """The name that keys without a namespace belong to. Raises OpsError as `load` does."""
    return str(_read(project_dir / "Pulumi.yaml").get("name", ""))


def load(
    project_dir: Path, stack: str, assignments: Iterable[str] = (), *, stack_file: Path | None = None
) -> RawConfig:
    """Config of a stack, with `namespace:key=value` assignments on top.

    Raises OpsError for a missing or unreadable file and for a malformed assignment.
    """
    if not (project_dir / PROJECT_FILE).is_file():
        raise OpsError(
            f"there is no {PROJECT_FILE} in {project_dir.absolute()} or above it, so there is no project",
            "cd <the checkout of ai-platform>",
        )
    project = _read(project_dir / PROJECT_FILE)
    name = str(project.get("name", ""))
    path = stack_file or project_dir / f"Pulumi.{stack}.yaml"
    if not path.exists():
        known = sorted(p.name.split(".")[1] for p in project_dir.glob("Pulumi.*.yaml"))
        raise OpsError(
            f"there is no stack '{stack}' ({path.name} is missing); known: {', '.join(known) or 'none'}",
            f"--stack {nearest(stack, known) or next(iter(known), 'NAME')}",
        )
    of_project: dict[str, Any] = {}
    for key, entry in _config(project, "Pulumi.yaml").items():
        declared = cast("Mapping[str, Any]", entry) if isinstance(entry, dict) else {"value": entry}
        value = declared.get("value", declared.get("default"))
        if value is not None:
            of_project[_full_key(key, name)] = value
    of_stack = {_full_key(key, name): value for key, value in _config(_read(path), path.name).items()}
    for assignment in assignments:
        _assign(of_stack, assignment, name, stack)
    values = {**of_project, **of_stack}
    secret = {key for key, value in values.items() if _is_secret(value)}
    return RawConfig(
        project=name,
        stack=stack,
        values={key: _text(value) for key, value in values.items() if key not in secret},
        secrets={key: _outline(values[key]) for key in secret},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=_GoYamlLoader)  # noqa: S506  derived from SafeLoader
        json.dumps(content, default=str, skipkeys=True)  # an anchor may contain itself
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}", f"ls -l {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise OpsError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}", f"correct {path}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise OpsError(f"{path.name} is not a mapping", f"correct {path}: it has to begin with `config:`")
    return cast("dict[str, Any]", content)


def _config(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    config: object = content.get("config") or {}
    if not isinstance(config, dict):
        raise OpsError(f"`config` in {name} is not a mapping of keys to values", f"correct {name}")
    return {str(key): value for key, value in cast("dict[object, Any]", config).items()}


def _full_key(key: str, project: str) -> str:
    # `namespace:config:key` is the CLI's older spelling.
    return key.replace(":config:", ":", 1) if ":" in key else f"{project}:{key}"


def _is_secret(value: object) -> bool:
    """Whether any part of a value is encrypted: the CLI then treats the whole as a secret."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        return is_encrypted(mapping) or any(_is_secret(inner) for inner in mapping.values())
    return isinstance(value, list) and any(_is_secret(inner) for inner in cast("list[object]", value))


def _outline(value: object) -> str | None:
    """The keys of an object of secrets, without their values; None for a secret that is no object."""
    mapping = cast("dict[str, object]", value)
    if isinstance(value, dict) and not is_encrypted(mapping):
        return json.dumps(dict.fromkeys(mapping))
    return None


def _text(value: object) -> str:
    """A value as the CLI hands it over."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return "" if value is None else str(value)


def _assign(values: dict[str, Any], assignment: str, project: str, stack: str) -> None:
    """Apply one `key=value` as `pulumi config set --path KEY VALUE` does: dots and brackets lead into objects."""
    given = split_assignment(assignment)
    namespace, path = _split_key(given[0], project) if given else ("", "")
    if given is None or not namespace or path in ("", '[""]'):
        raise OpsError(
            f"--set {masked(repr(assignment))} is not of the form namespace:key=value, so it sets nothing",
            f"ops plan --stack {stack} --set coder-chat:replicas=1",
        )
    text = given[1]
    try:
        parts = parse_path(path)
        first = parts[0]
        if not isinstance(first, str) or not first:
            raise PathError("a path begins with a name", written_path([str(first) or "key", *parts[1:]]))
        key = f"{namespace}:{first}"
        values[key] = put(values.get(key), parts, typed(text) if parts[1:] else text)
    except PathError as error:
        meant = shlex.quote(f"{'' if namespace == project else f'{namespace}:'}{error.meant}={masked(text)}")
        raise OpsError(
            f"--set {masked(repr(assignment))} sets nothing, since {error}", f"ops plan --stack {stack} --set {meant}"
        ) from None


def shown(assignment: str, raw: RawConfig) -> str:
    """An assignment that was applied, to be printed: without its value where its key holds a secret."""
    key, value = split_assignment(assignment) or (assignment, "")
    namespace, path = _split_key(key, raw.project)
    return f"{key}=..." if f"{namespace}:{parse_path(path)[0]}" in raw.secrets else masked(f"{key}={value}")


def _split_key(key: str, project: str) -> tuple[str, str]:
    """Namespace and path. Only the path's first part may name a namespace: those inside an object are free."""
    head = re.split(r"[.\[]", key, maxsplit=1)[0]
    full = _full_key(head, project)
    if full.count(":") != 1:
        return "", ""
    namespace, _, name = full.partition(":")
    return namespace, name + key[len(head) :]
