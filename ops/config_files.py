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

from models.go_yaml import YamlError, decode, scalar_text
from ops.checkout import PROJECT_FILE
from ops.config_paths import PathError, is_encrypted, parse_path, put, split_assignment
from ops.errors import OpsError
from stacks.commands import typed
from stacks.forms import outlined, says_number, says_truth
from stacks.problems import nearest, shown_name, written_path
from stacks.settings import RawConfig


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
    for key, entry in _config(project, PROJECT_FILE, name).items():
        declared = cast("Mapping[str, Any]", entry) if isinstance(entry, dict) else {"value": entry}
        value = declared.get("value", declared.get("default"))
        if value is not None:
            of_project[key] = value
    of_stack = _config(_read(path), path.name, name)
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
        content = decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}", f"ls -l {path}") from error
    except UnicodeDecodeError as error:
        raise OpsError(f"{path.name} is no text in UTF-8, from byte {error.start:,} on", f"correct {path}") from error
    except YamlError as error:
        raise OpsError(f"{path.name} is not valid YAML: {error}", f"correct {path}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise OpsError(f"{path.name} is not a mapping", f"correct {path}: it has to begin with `config:`")
    return cast("dict[str, Any]", content)


def _config(content: Mapping[str, Any], name: str, project: str) -> dict[str, Any]:
    """`config` of a file, by full keys."""
    config: object = content.get("config")
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise OpsError(f"`config` in {name} is not a mapping of keys to values", f"correct {name}")
    by_key: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", config).items():
        if not re.fullmatch(r"(?:[^:]+:(?:config:)?)?[^:]+", key):
            raise OpsError(
                f"a key of `config` in {name} ({shown_name(key)}) is not of the form namespace:name, so the CLI reads "
                "nothing",
                f"correct {name}",
            )
        full = _full_key(key, project)
        if full in by_key:
            raise OpsError(f"{shown_name(full)} is set twice in {name}, and the CLI takes either", f"correct {name}")
        by_key[full] = value
    return by_key


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
    nested: object = value  # not narrowed to a dict of anything
    if isinstance(value, dict | list):
        return json.dumps(_plain(nested), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return scalar_text(value)


def _plain(value: object) -> object:
    """A whole number is one in Go's JSON, however it was written."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[object]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE else value


_WHOLE = 1e21  # from here on Go writes an exponent


def _assign(values: dict[str, Any], assignment: str, project: str, stack: str) -> None:
    """Apply one `key=value` as `pulumi config set --path KEY VALUE` does: dots and brackets lead into objects."""
    given = split_assignment(assignment)
    namespace, path = _split_key(given[0], project) if given else ("", "")
    if given is None or not namespace or path in ("", '[""]'):
        raise OpsError(
            f"--set {_outlined(assignment)} is not of the form namespace:key=value, so it sets nothing",
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
        value = text if says_number(text) or says_truth(text) else "<value>"
        meant = shlex.quote(f"{'' if namespace == project else f'{namespace}:'}{_named(error.meant)}={value}")
        raise OpsError(
            f"--set {_outlined(assignment)} sets nothing, since {_named(str(error))}",
            f"ops plan --stack {stack} --set {meant}",
        ) from None


def _outlined(assignment: str) -> str:
    """An assignment to nothing: nobody reads its value, which may be a secret, as may be what has no `=`."""
    key, *value = split_assignment(assignment) or ("", assignment)
    shown = "".join(value) if len(value[0]) < _SHORT else f"<{outlined(value[0])}>"
    return repr(f"{_named(key)}={shown}" if split_assignment(assignment) else shown)


_SHORT = 4  # characters that are no secret


def _named(text: str) -> str:
    """A path, or what is said of one, without names that look like a secret."""
    return re.sub(r"[\w+/-]{16,}", lambda name: shown_name(name[0]), text)


def shown(assignment: str, raw: RawConfig) -> str:
    """An assignment that was applied, to be printed: without its value where its key holds a secret, or nobody reads
    it."""
    key, value = split_assignment(assignment) or (assignment, "")
    namespace, path = _split_key(key, raw.project)
    hidden = namespace == "pulumi" or f"{namespace}:{parse_path(path)[0]}" in raw.secrets
    return f"{_named(key)}={'...' if hidden else value}"


def _split_key(key: str, project: str) -> tuple[str, str]:
    """Namespace and path. Only the path's first part may name a namespace: those inside an object are free."""
    head = re.split(r"[.\[]", key, maxsplit=1)[0]
    full = _full_key(head, project)
    if full.count(":") != 1:
        return "", ""
    namespace, _, name = full.partition(":")
    return namespace, name + key[len(head) :]
