"""Runs the Pulumi program on the SDK's mock monitor and records what it registers.

Three corrections make the mock give what the engine gives: a URN carries the types of all parents but the
stack, the run is a preview (an output that nobody set is unknown, not the text "None"), and two resources of one
URN are an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import mocks, rpc
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import (
    SETTINGS,
    _get_callbacks,  # pyright: ignore[reportPrivateUsage]
    set_root_resource,
)
from pulumi.runtime.stack import run_in_stack

from ops.errors import OpsError
from stacks.secrets import KEY_VALUES, SECRETS, key_value
from stacks.settings import REHEARSAL, RawConfig

SECRET_TEXT = "[secret]"  # noqa: S105  what is shown in place of one; the CLI shows the same
UNKNOWN_TEXT = "[unknown]"  # known only after `pulumi up`
_STACK_TYPE = "pulumi:pulumi:Stack"


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A resource as the program registered it. Secrets in `inputs` are masked."""

    urn: str
    type: str
    name: str
    parent: str  # URN; empty for the stack itself
    inputs: Mapping[str, Any]
    dependencies: tuple[str, ...]  # URNs
    provider: str
    custom: bool
    protect: bool
    retain_on_delete: bool
    ignore_changes: tuple[str, ...]
    timeout: str  # of create, "1200s"; empty for the provider's default

    @property
    def short_type(self) -> str:
        """`Deployment` of `kubernetes:apps/v1:Deployment`."""
        return self.type.rsplit(":", 1)[-1]


@dataclass
class Recording:
    """What a run registered, in order, and the stack's outputs."""

    resources: list[Registered] = field(default_factory=list[Registered])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])


class DuplicateUrnError(OpsError):
    """Two resources of one type, name and parent: the engine refuses that, the mock does not."""


class _NoMocks(mocks.Mocks):
    """Never asked: `RecordingMonitor` answers registrations itself, and the program makes no calls."""

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise NotImplementedError(f"{args.token}: a plan cannot answer calls to a provider")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError(args.typ)


class RecordingMonitor(mocks.MockMonitor):
    """Answers each registration with its own inputs, as a preview does, and keeps a record of it."""

    def __init__(self, project: str, stack: str) -> None:
        super().__init__(_NoMocks())
        self.recording = Recording()
        self._project, self._stack = project, stack
        self._urns: set[str] = set()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """The engine's URN."""
        qualified = parent.split("::")[2] if parent else _STACK_TYPE
        chain = type_ if qualified == _STACK_TYPE else f"{qualified}${type_}"
        return f"urn:pulumi:{self._stack}::{self._project}::{chain}::{name}"

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  the protocol's name
        urn = self.make_urn(request.parent, request.type, request.name)
        resource = Registered(
            urn=urn,
            type=request.type,
            name=request.name,
            parent=request.parent,
            inputs=_plain(json_format.MessageToDict(request.object)),
            # Sorted, as are all keys of `inputs`: the SDK has both as sets, and a plan has to compare with another.
            dependencies=tuple(sorted(request.dependencies)),
            provider=request.provider,
            custom=request.custom,
            protect=request.protect,
            retain_on_delete=request.retainOnDelete,
            ignore_changes=tuple(request.ignoreChanges),
            timeout=request.customTimeouts.create,
        )
        if request.type == _STACK_TYPE and urn in self._urns:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        if urn in self._urns:
            raise DuplicateUrnError(f"two resources are registered as {urn}", "give one of them another name")
        self._urns.add(urn)
        self.recording.resources.append(resource)
        return resource_pb2.RegisterResourceResponse(urn=urn, object=_answer(request))

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802  the protocol's name
        if request.urn.split("::")[2] == _STACK_TYPE:
            self.recording.outputs.update(_plain(json_format.MessageToDict(request.outputs)))
        return empty_pb2.Empty()


def _answer(request: Any) -> Any:
    """The outputs of a resource as a preview knows them: its inputs, and of the cloud's only plain ones.

    A cloud fills objects up (a cluster's endpoint settings get the endpoint), so what a program reads inside one is
    unknown, where the mock would say None.
    """
    if not request.custom or request.type.startswith("kubernetes:"):
        return request.object
    answer = struct_pb2.Struct()
    answer.CopyFrom(request.object)
    for value in answer.fields.values():
        if value.WhichOneof("kind") in ("struct_value", "list_value"):
            value.string_value = rpc.UNKNOWN
    return answer


def _plain(value: Any) -> Any:
    """A value of the wire without its wrappers: secrets masked, unknowns named, whole numbers whole."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        signature = mapping.get(rpc._special_sig_key)  # pyright: ignore[reportPrivateUsage]
        if signature == rpc._special_secret_sig:  # pyright: ignore[reportPrivateUsage]
            return SECRET_TEXT
        if signature == rpc._special_resource_sig:  # pyright: ignore[reportPrivateUsage]
            return mapping.get("urn", UNKNOWN_TEXT)
        return {key: _plain(mapping[key]) for key in sorted(mapping)}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[Any]", value)]
    if value == rpc.UNKNOWN:
        return UNKNOWN_TEXT
    return int(value) if isinstance(value, float) and value.is_integer() else value


def engine_config(raw: RawConfig) -> tuple[dict[str, str], list[str]]:
    """Config as the engine would hand it over, and the keys of secrets.

    A plan cannot decrypt, and need not: every secret is a worthless placeholder of the right shape.
    """
    secrets = {f"{raw.project}:{key}": secret.placeholder for key, secret in SECRETS.items()}
    keys = json.loads(raw.values.get(f"{raw.project}:keys", "{}"))
    secrets[f"{raw.project}:{KEY_VALUES}"] = json.dumps({alias: key_value(alias).placeholder for alias in keys})
    return {**raw.values, **secrets}, list(secrets)


class _OnThisThread(ThreadPoolExecutor):
    """Answers at once: the SDK hands registrations to a thread, since an engine far away keeps it waiting."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def run(raw: RawConfig, program: Callable[[], Any]) -> Recording:
    """Run a program in this process as a preview of a stack.

    Raises whatever the program raises; SystemExit if it refuses the config.
    """
    monitor = RecordingMonitor(raw.project, raw.stack)
    config, secret_keys = engine_config(raw)

    async def preview() -> None:
        asyncio.get_running_loop().set_default_executor(_OnThisThread())
        # Inside the loop's own context, so that one run leaves nothing behind for the next.
        REHEARSAL.set(True)
        # A run that failed has left tasks of its own loop.
        cast("Any", SETTINGS).outputs.clear()
        pulumi.runtime.config.set_all_config(config, secret_keys)
        mocks.set_mocks(
            _NoMocks(), project=raw.project, stack=raw.stack, preview=True, monitor=monitor, logger=_silent()
        )
        # The mocks have made a stack and closed its outputs; the program gets its own, as from the engine.
        set_root_resource(cast("pulumi.Resource", None))
        # Hooks ask for a callback server, and each of those that ask before there is one would start its own.
        await _get_callbacks()
        await run_in_stack(program)

    asyncio.run(preview())
    return monitor.recording


def run_main(raw: RawConfig, project_dir: Path) -> Recording:
    """Run the project's `__main__.py`, the file that `pulumi up` runs."""
    path = project_dir / "__main__.py"
    code = compile(path.read_bytes(), str(path), "exec")
    return run(raw, lambda: exec(code, {"__name__": "__main__", "__file__": str(path)}))  # noqa: S102  our own file


def _silent() -> logging.Logger:
    logger = logging.getLogger("ops.plan")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def custom_resources(resources: Sequence[Registered]) -> list[Registered]:
    """Resources that exist somewhere: neither components, nor providers, nor the stack."""
    return [r for r in resources if r.custom and not r.type.startswith("pulumi:")]
