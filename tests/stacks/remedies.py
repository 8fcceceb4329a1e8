"""Judges a config, and follows a remedy as its reader would: types the command it prints."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stacks.admission import Admission, admit
from stacks.secrets import SECRETS
from stacks.settings import RawConfig

GROUPS = {"baseline": True, "coding-assistant": True, "retrieval": True}
BASE = {"gcp:project": "my-project", "gcp:zone": "us-central1-a", "ai-platform:groups": json.dumps(GROUPS)}


def raw() -> RawConfig:
    """A config that is admitted, ready for `pulumi up`."""
    secrets = {f"ai-platform:{key}": secret.placeholder for key, secret in SECRETS.items()}
    return RawConfig("ai-platform", "test", BASE, secrets)


def with_values(values: Mapping[str, str]) -> RawConfig:
    """That config with values on top."""
    base = raw()
    return replace(base, values={**base.values, **values})


def judge(values: Mapping[str, str]) -> Admission:
    """The verdict on that config with values on top."""
    return admit(with_values(values))


# What an operator fills in.
_BLANKS = {
    "<value>": "us-central1-a",
    "<the id of your project>": "a-real-project",
    "<US dollars>": "1",
}


def alternatives(remedy: str) -> list[str]:
    """The ways out that a remedy offers, each a shell line: `to keep a: ...; to keep b: ...`, `...   # or: ...`."""
    found: list[str] = []
    for part in remedy.split("; to keep "):
        line = re.sub(r"^(?:to keep )?[a-z0-9-]+: ", "", part)
        first, *comments = line.split("   # ")
        found.append(first.strip())
        found += [c.partition(": ")[2].strip() for c in comments if c.startswith("or")]
    return [line for line in found if "pulumi " in line]


def follow(config: RawConfig, line: str) -> RawConfig:
    """The config after a shell line of `pulumi config` commands."""
    for blank, value in _BLANKS.items():
        line = line.replace(blank, value)
    for command in line.split(" && "):
        config = _apply(config, command)
    return config


def _apply(config: RawConfig, command: str) -> RawConfig:
    random, _, last = command.rpartition(" | ")
    words = shlex.split(last)
    assert words[:2] == ["pulumi", "config"], command
    action, *rest = words[2:]
    arguments = [w for w in rest if not w.startswith("--")]
    full_key = arguments[0] if ":" in arguments[0] else f"{config.project}:{arguments[0]}"
    if "--secret" in rest:
        prefix = next(iter(re.findall(r"printf '([^']*)'", random)), "hf_" if "huggingFace" in full_key else "")
        return replace(config, secrets={**config.secrets, full_key: prefix + "0123456789abcdef" * 3})
    if action == "rm" and full_key in config.secrets:
        return replace(config, secrets={k: v for k, v in config.secrets.items() if k != full_key})
    path = _parts(full_key) if "--path" in rest else [full_key]
    if action == "rm" and path[0] in config.secrets:
        return replace(config, secrets={**config.secrets, **_changed(config.secrets, path, None)})
    value = arguments[1] if action == "set" else None
    assert action == "rm" or len(arguments) == 2, command
    return replace(config, values=_changed(config.values, path, value))


def _parts(full_key: str) -> list[str]:
    namespace, _, path = full_key.partition(":")
    found = re.findall(r"""\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)""", path)
    first, *rest = [re.sub(r"\\(.)", r"\1", quoted) or index or plain for quoted, index, plain in found]
    return [f"{namespace}:{first}", *rest]


def _changed(values: Mapping[str, Any], path: list[str], value: str | None) -> dict[str, Any]:
    """The values with one set, or removed where it is None, along a path into JSON."""
    top, *rest = path
    changed = dict(values)
    if not rest:
        if value is None:
            assert top in changed, f"{top} is not set: {sorted(changed)}"
            del changed[top]
        else:
            changed[top] = value
        return changed
    whole: Any = json.loads(changed.get(top, "{}"))
    inner = whole
    for part, after in itertools.pairwise(rest):
        # Where nothing is yet, an index makes a list of it.
        inner = inner[int(part)] if _is_list(inner) else inner.setdefault(part, [] if after.isdigit() else {})
    last: Any = int(rest[-1]) if _is_list(inner) else rest[-1]
    if value is None:
        del inner[last]
    elif _is_list(inner) and last == len(inner):
        inner.append(_typed(value))
    else:
        inner[last] = _typed(value)
    changed[top] = json.dumps(whole)
    return changed


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _typed(text: str) -> Any:
    """How the CLI reads a value at a path."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"0|-?[1-9]\d*", text) else text
