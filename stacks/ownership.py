"""Whose an object in a cluster is: all of a stack carry its mark, and what is there without it is left alone.

A cluster has other tenants, and other stacks of this program. The provider's upsert, and kubectl's apply, take over
whatever has the name of what they make; so each create is judged first, by what is there, and refused where that is
not the stack's own. What the mark cannot say of objects that a stack has in its state already, the state says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pulumi

from components.kubernetes.judging import judging, refuse
from components.kubernetes.never_shrink import refused_adoption
from stacks.cluster_look import ClusterLook
from stacks.commands import set_command
from stacks.problems import Problem
from stacks.sections import GATEWAY, SERVING, Namespaces
from stacks.settings import Settings

if TYPE_CHECKING:
    from components.kubernetes.api_reader import ApiReader

MARK = "ai-platform/stack"  # annotation of every object: project and stack
Set = Callable[[Sequence[str], str], str]  # a place in config and its value, as the command that deploys so


def mark_of(project: str, stack: str) -> str:
    """What stands in the annotation."""
    return f"{project}/{stack}"


@dataclass(frozen=True, order=True)
class There:
    """An object that exists. `namespace` is empty for one of the whole cluster."""

    namespace: str
    kind: str
    name: str
    labels: Mapping[str, str]
    mark: str | None

    @classmethod
    def of(cls, kind: str, metadata: Mapping[str, Any]) -> There:
        """From what the API server says of it."""
        annotations: dict[str, str] = metadata.get("annotations") or {}
        labels: dict[str, str] = metadata.get("labels") or {}
        own = {key: value for key, value in labels.items() if key != "kubernetes.io/metadata.name"}
        return cls(metadata.get("namespace") or "", kind, metadata["name"], own, annotations.get(MARK))

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"

    @property
    def owner(self) -> str:
        """Who has it, as far as it says."""
        if self.mark is not None:
            return f"of the stack {self.mark}"
        shown = ", ".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        return f"labels: {shown}" if shown else "without labels"


@dataclass(frozen=True)
class Ownership:
    """What a stack may call its own, and the ways out where something is not."""

    mark: str
    project: str
    namespaces: Namespaces
    set: Set

    @classmethod
    def of(cls, settings: Settings, set_: Set | None = None) -> Ownership:
        """Of a stack; `set_` speaks for another command than `pulumi`."""

        def by_pulumi(place: Sequence[str], value: str) -> str:
            return f"{set_command(settings.project, place, value)} && pulumi up"

        mark = mark_of(settings.project, settings.stack)
        return cls(mark, settings.project, settings.platform.namespaces, set_ or by_pulumi)

    def problems(self, there: Sequence[There], namespaces: Sequence[There]) -> Iterator[Problem]:
        """What stands against a plan: those of its objects that exist, and every namespace of the cluster.

        What is in a namespace that is somebody else's is told with that.
        """
        yield from self._moved(namespaces)
        strangers = sorted((t for t in there if t.mark != self.mark), key=lambda t: (t.namespace, t.kind, t.name))
        theirs = {t.name for t in strangers if t.kind == "Namespace"}
        for stranger in strangers:
            if stranger.namespace in theirs:
                continue
            inside = [t for t in strangers if stranger.kind == "Namespace" and t.namespace == stranger.name]
            yield Problem(self._said(stranger, inside), self._ways_out(stranger))

    def own_namespaces(self, namespaces: Sequence[There]) -> list[There]:
        """Those that config names."""
        return [found for found in namespaces if self._role(found.name) is not None]

    def _said(self, stranger: There, inside: Sequence[There]) -> str:
        shown = ", ".join(f"{t.kind} {t.name} ({t.owner})" for t in inside[:_SHOWN])
        more = f"; in it are so {shown}" if inside else ""
        more += f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
        what = (
            "every pod in it would be cut off by default and held to Pod Security 'restricted'"
            if stranger.kind == "Namespace"
            else "it would be overwritten"
        )
        return f"{stranger} is there already and not of this stack, {self.mark} ({stranger.owner}){more}: {what}"

    def _ways_out(self, stranger: There) -> str:
        adopt = f"{self.set(['adopt'], 'true')}   # takes it over, and `pulumi destroy` then deletes it"
        role = self._role(stranger.name if stranger.kind == "Namespace" else stranger.namespace)
        if role is None:
            return adopt
        return f"{self.set(['namespaces', role], self._free_name(role))}   # another namespace; or: {adopt}"

    def _role(self, namespace: str) -> str | None:
        roles = {self.namespaces.gateway: "gateway", self.namespaces.models: "models"}
        return roles.get(namespace)

    def _free_name(self, role: str) -> str:
        own = re.sub(r"[^a-z0-9]+", "-", self.mark.lower()).strip("-")[:40].strip("-")
        return f"{own}-{GATEWAY if role == 'gateway' else SERVING}"

    def _moved(self, namespaces: Sequence[There]) -> Iterator[Problem]:
        """The stack is elsewhere: its data would stay behind, and what runs there would go on running."""
        names = (self.namespaces.gateway, self.namespaces.models)
        ours = sorted(t.name for t in namespaces if t.mark == self.mark)
        if any(name not in names for name in ours):
            left = [name for name in ours if name not in names]
            yield Problem(
                f"this stack, {self.mark}, is in namespace {' and '.join(left)} already, and config names "
                f"{' and '.join(name for name in names if name not in ours) or 'others'}: its data would stay behind, "
                "and the gateway would start with an empty database",
                f"kubectl annotate namespace {' '.join(left)} {MARK}-   # leaves it there, as nobody's; "
                "or set `namespaces` back",
            )


_SHOWN = 6
_CLAIM = "PersistentVolumeClaim"


def claim_all(settings: Settings, look: ClusterLook) -> None:
    """From now on every Kubernetes object that is registered carries the mark, and its create is judged first.

    To be called once, in the stack's program, before there is an object.
    """
    ownership = Ownership.of(settings)
    hook = judging("whose it is", _Judge(ownership, look, adopt=settings.platform.adopt).judge)
    judged = pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_create=[hook]))

    def claim(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("kubernetes:"):
            return None
        metadata: Any = args.props["metadata"]
        metadata.annotations = {**(metadata.annotations or {}), MARK: ownership.mark}
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, judged))

    pulumi.runtime.register_stack_transformation(claim)


class NotOursError(Exception):
    """An object that cannot be had: somebody else's, or of another size; the text says so, and the ways out."""


class _Judge:
    """The hook before each create, in a preview too."""

    def __init__(self, ownership: Ownership, look: ClusterLook, *, adopt: bool = False) -> None:
        self._ownership, self._look, self._adopt = ownership, look, adopt

    async def judge(self, args: pulumi.ResourceHookArgs) -> None:
        if self._adopt and (args.new_inputs or {}).get("kind") != _CLAIM:
            return
        if found := await self._look.ask(lambda reader: self._found(reader, args.new_inputs or {})):
            refuse(NotOursError("\n".join(map(str, found))))

    def _found(self, reader: ApiReader, inputs: Mapping[str, Any]) -> list[Problem | str]:
        from components.kubernetes.api_reader import CannotLookError, UnreachableError  # noqa: PLC0415

        kind, metadata = str(inputs["kind"]), cast("Mapping[str, str]", inputs["metadata"])
        try:
            if kind == "Namespace":  # the first that is made: both are judged before either is written
                namespaces = [There.of(kind, found) for found in self._namespaces(reader)]
                return list(self._ownership.problems(self._ownership.own_namespaces(namespaces), namespaces))
            if kind == _CLAIM:
                return list(self._of_claim(reader.claim(metadata["namespace"], metadata["name"]), inputs))
            found = reader.metadata(inputs["apiVersion"], kind, metadata.get("namespace"), metadata["name"])
        except UnreachableError:
            raise
        except CannotLookError as error:
            if self._adopt:
                return []  # the way out of this
            raise NotOursError(
                f"whether {kind} {metadata['name']} is somebody else's cannot be seen: {error}\n"
                f"  remedy: {self._ownership.set(['adopt'], 'true')}   # if nothing there is"
            ) from None
        there = [There.of(kind, found)] if found is not None else []
        return list(self._ownership.problems(there, []))

    def _of_claim(self, found: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> Iterator[Problem | str]:
        """A claim that a stack finds again is also to have a size that it can have."""
        if found is None:
            return
        if not self._adopt:
            yield from self._ownership.problems([There.of(_CLAIM, found["metadata"])], [])
        if message := refused_adoption(found, inputs):
            yield message

    def _namespaces(self, reader: ApiReader) -> list[dict[str, Any]]:
        """The metadata of all namespaces, or of the stack's two where a role lets no one list them."""
        from components.kubernetes.api_reader import ForbiddenError  # noqa: PLC0415

        try:
            return reader.namespaces()
        except ForbiddenError:
            names = self._ownership.namespaces
            asked = (reader.metadata("v1", "Namespace", None, name) for name in (names.gateway, names.models))
            return [found for found in asked if found is not None]
