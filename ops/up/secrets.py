"""The secrets of a stack that `ops up` deploys: found, or made once, and kept in one private file.

The file is the truth. Where it lacks a value and the cluster has one, that one is taken over: a password or a salt
that data depends on is never made anew.
"""

from __future__ import annotations

import base64
import json
import re
import runpy
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pulumi

from ops.engine import Recording, RecordingMonitor, run
from ops.errors import FailedError
from ops.up.site import Kubectl, Object
from stacks.plan import Plan
from stacks.problems import did_you_mean
from stacks.secrets import KEY_VALUES, SECRETS, SecretKey, key_value
from stacks.settings import RawConfig

FILE = "secrets.json"


def needed(plan: Plan) -> dict[str, SecretKey]:
    """The secrets that a plan needs, by their key in config."""
    keys = (*plan.secrets, *map(key_value, plan.settings.platform.keys))
    return {secret.key: secret for secret in keys}


@dataclass(frozen=True)
class SecretObject:
    """A Secret of the plan; each of its values is known by the config key that it comes from."""

    manifest: Object  # without data
    sources: Mapping[str, str]  # key in the Secret -> key in config

    @property
    def namespace(self) -> str:
        return self.manifest["metadata"]["namespace"]

    @property
    def name(self) -> str:
        return self.manifest["metadata"]["name"]

    @property
    def immutable(self) -> bool:
        return bool(self.manifest.get("immutable"))

    def data(self, values: Mapping[str, str]) -> dict[str, str]:
        """What the Secret holds, given the values of config."""
        return {name: base64.b64encode(values[key].encode()).decode() for name, key in self.sources.items()}

    def values(self, found: Object) -> dict[str, str]:
        """The other way round: values of config, from the Secret as the cluster has it."""
        data: dict[str, str] = found.get("data", {})
        return {key: base64.b64decode(data[name]).decode() for name, key in self.sources.items() if name in data}


def rehearse(raw: RawConfig, plan: Plan, project_dir: Path) -> tuple[Recording, list[SecretObject]]:
    """The plan of a stack, and its Secrets.

    The program runs with a marker in place of each secret, so where a value ends up needs to be written nowhere else.
    """
    markers = {f"{secret.prefix}{f'marker{n:04}' * 2}": key for n, (key, secret) in enumerate(needed(plan).items())}
    requests: list[Any] = []

    def program() -> None:
        config = dict(pulumi.runtime.config.CONFIG.get())
        config |= _config(raw.project, {key: marker for marker, key in markers.items()})
        pulumi.runtime.config.set_all_config(config, [key for key in config if key not in raw.values])
        monitor = cast("RecordingMonitor", pulumi.runtime.settings.get_monitor())
        register = monitor.RegisterResource

        def listen(request: Any) -> Any:
            if request.type == "kubernetes:core/v1:Secret":
                requests.append(request.object)
            return register(request)

        monitor.RegisterResource = listen
        runpy.run_path(str(project_dir / "__main__.py"), run_name="__main__")

    recording = run(raw, program)
    return recording, [_secret_object(request, markers) for request in requests]


def _config(project: str, values: Mapping[str, str]) -> dict[str, str]:
    """Secrets as the engine hands them over: the virtual keys' values are one object."""
    config = {f"{project}:{key}": value for key, value in values.items() if key in SECRETS}
    aliases = {key.removeprefix(f"{KEY_VALUES}."): value for key, value in values.items() if key not in SECRETS}
    return {**config, f"{project}:{KEY_VALUES}": json.dumps(aliases)}


def _secret_object(request: Any, markers: Mapping[str, str]) -> SecretObject:
    manifest = cast("Object", pulumi.runtime.rpc.deserialize_properties_unwrap_secrets(request)[0])
    data: dict[str, str] = pulumi.runtime.rpc.unwrap_rpc_secret(manifest.pop("data"))
    sources = {
        name: markers[base64.b64decode(pulumi.runtime.rpc.unwrap_rpc_secret(value)).decode()]
        for name, value in data.items()
    }
    return SecretObject(manifest, sources)


def settle(plan: Plan, objects: Sequence[SecretObject], kubectl: Kubectl, folder: Path) -> dict[str, str]:
    """The value of every secret that the plan needs, by its key in config.

    Values come from the private file, else from the cluster, else they are made; then all of them are in the file.
    Raises FailedError for a file that is not usable, for a value that only the user can have, and for one that would
    lock somebody out of the data in the cluster.
    """
    file = folder / FILE
    values = _read(file)
    wanted, there = needed(plan), list(existing(objects, kubectl))
    for secret, found in there:
        values = {**secret.values(found), **values}
    for key, secret in wanted.items():
        if key not in values and not secret.generated:
            raise FailedError(
                f"the secret {key} ({secret.purpose}) is not set, and nobody but you can have it",
                f'{_edit(file)}   # add "{key}" to this object of strings: it must {secret.must}',
            )
        values.setdefault(key, secret.prefix + secrets.token_hex(24))
        if not re.fullmatch(secret.pattern, values[key]):
            raise FailedError(f"{key} in {file} (value not shown) must {secret.must}", f"{_edit(file)}   # correct it")
    for secret, found in there:
        if secret.immutable and secret.data(values) != found.get("data"):
            keys = " and ".join(sorted(set(secret.sources.values())))
            raise FailedError(
                f"{keys} in {file} is not what {secret.namespace}/{secret.name} in the cluster holds, and the data "
                "there can be read with that one only",
                f"{_edit(file)}   # remove {keys}: `ops up` then takes over the value of the cluster",
            )
    if values != _read(file):
        write_private(file, json.dumps(values, indent=1) + "\n")
    return {key: values[key] for key in wanted}


def _edit(file: Path) -> str:
    """The command that opens it."""
    return f'"${{EDITOR:-vi}}" {shlex.quote(str(file))}'


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        content: object = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise FailedError(f"{file} is not valid JSON ({error}), so the secrets are unknown", _edit(file)) from error
    values = cast("dict[str, object]", content) if isinstance(content, dict) else None
    if values is None or not all(isinstance(value, str) for value in values.values()):
        raise FailedError(f"{file} is not an object of strings, so the secrets are unknown", _edit(file))
    for key in values:
        if key not in SECRETS and not key.startswith(f"{KEY_VALUES}."):
            raise FailedError(f"{file}: there is no secret '{key}'; {did_you_mean(key, SECRETS)}", _edit(file))
    return cast("dict[str, str]", values)


def existing(objects: Sequence[SecretObject], kubectl: Kubectl) -> Iterator[tuple[SecretObject, Object]]:
    """Those Secrets of the plan that the cluster has, each with what it has."""
    for namespace in sorted({wanted.namespace for wanted in objects}):
        here = {wanted.name: wanted for wanted in objects if wanted.namespace == namespace}
        for found in kubectl.get("--namespace", namespace, "secrets", *here):
            yield here[found["metadata"]["name"]], found


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)
