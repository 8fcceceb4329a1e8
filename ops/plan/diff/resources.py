"""What happens to each resource between two plans, and to the data in it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

import yaml

from ops.engine import UNKNOWN_TEXT
from ops.plan.replacements import PROVIDER, PROVIDER_INPUTS, holds_data, replacing

PlanData = Mapping[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one where libyaml is there


class Operation(StrEnum):
    """What happens to a resource, the gravest first."""

    REPLACED = "replaced"
    DELETED = "deleted"
    CHANGED = "changed"
    RUN_AGAIN = "run again"  # a Job: what it has done stays done
    CREATED = "created"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One property. None on a side where it is not there."""

    path: str  # "spec.template.spec.containers[vllm].image"
    old: Any
    new: Any
    replaces: bool


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One resource, and where its data goes if it is replaced or deleted and holds any."""

    operation: Operation
    urn: str
    kind: str  # "PersistentVolumeClaim"
    where: str  # "serving/coder-chat-model-cache"
    changes: tuple[Change, ...] = ()
    fate: str | None = None

    @property
    def shown(self) -> str:
        """`Deployment serving/coder-chat`."""
        return f"{self.kind} {self.where}"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of a plan, with what of its provider matters to it."""

    urn: str
    type: str
    inputs: Mapping[str, Any]
    provider: Mapping[str, Any]  # inputs of it
    parent: str
    dependencies: frozenset[str]
    ignored: tuple[str, ...]
    protect: bool
    kept: bool  # when it is deleted from the stack
    leaves: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def kind(self) -> str:
        return self.type.rpartition(":")[2]

    @property
    def where(self) -> str:
        """Its name outside of the program, with its namespace."""
        metadata = mapping(self.inputs, "metadata")
        name = str(metadata.get("name") or self.inputs.get("name") or self.urn.rpartition("::")[2])
        return f"{metadata['namespace']}/{name}" if metadata.get("namespace") else name

    @property
    def has_data(self) -> bool:
        return self.protect or self.kept or holds_data(self.type, self.inputs)


def resources(plan: PlanData) -> dict[str, Resource]:
    """By URN, without the stack and the components, which are nothing by themselves."""
    component = f"{plan['project']}:"
    inputs = {r["urn"]: r["inputs"] for r in plan["resources"]}
    return {
        r["urn"]: _resource(r, inputs.get(r.get("provider", ""), {}))
        for r in plan["resources"]
        if not r["type"].startswith((component, "pulumi:pulumi:"))
    }


def _resource(data: Mapping[str, Any], provider: Mapping[str, Any]) -> Resource:
    package = data["type"].partition(":")[0]
    inputs: dict[str, Any] = dict(data["inputs"])
    inherited = PROVIDER_INPUTS.get(package, "")
    if inherited in provider and inherited not in inputs:
        inputs[PROVIDER] = {inherited: provider[inherited]}
    return Resource(
        urn=data["urn"],
        type=data["type"],
        inputs=data["inputs"],
        provider=provider,
        parent=data["parent"],
        dependencies=frozenset(data["dependencies"]),
        ignored=tuple(data.get("ignoreChanges", ())),
        protect=data["protect"],
        kept=data["retainOnDelete"],
        leaves=dict(_leaves(inputs, "")),
    )


_NAMES = ("name", "alias", "model_name")  # what elements of a list are called by


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths to plain values. Elements of a list go by their name where each has one; a list of plain values is one."""
    if isinstance(value, Mapping) and value:
        for key, inner in cast("Mapping[str, Any]", value).items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in cast("list[object]", value)):
        items = cast("list[Mapping[str, Any]]", value)
        called = next((key for key in _NAMES if _is_unique(items, key)), None)
        for index, item in enumerate(items):
            # The name is in the path; alone it is all there is.
            rest = {key: inner for key, inner in item.items() if key != called} if called else item
            yield from _leaves(rest or item, f"{path}[{item[called] if called else index}]")
    else:
        yield path, value


def _is_unique(items: Sequence[object], key: str) -> bool:
    names = [cast("Mapping[str, Any]", item).get(key) if isinstance(item, Mapping) else None for item in items]
    return all(names) and len(set(map(str, names))) == len(names)


def _inside(path: str, before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    """What differs in a file of a ConfigMap, by its own paths; the whole value where it is no JSON and no YAML."""
    sides = [_parsed(path, side) for side in (before, after)]
    if any(side is None for side in sides):
        return [(path, before, after)]
    old, new = (dict(_leaves(side, path)) for side in sides)
    found = [(inner, old.get(inner), new.get(inner)) for inner in dict.fromkeys([*old, *new])]
    # Another spelling of the same content is a change as well.
    return [change for change in found if change[1] != change[2]] or [(path, before, after)]


def _parsed(path: str, text: Any) -> Any:
    """None for anything that is not a JSON or YAML file with a mapping or a list in it."""
    if not isinstance(text, str) or not path.endswith((".json", ".yaml")):
        return None
    try:
        content = json.loads(text) if path.endswith(".json") else yaml.load(text, Loader=_LOADER)  # noqa: S506  safe
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    return cast("object", content) if isinstance(content, dict | list) else None


def differences(olds: Mapping[str, Resource], news: Mapping[str, Resource]) -> list[Difference]:
    """Every resource that differs, or that is replaced with another."""
    return _with_dependents([*_differences(olds, news)], olds, news)


def _differences(olds: Mapping[str, Resource], news: Mapping[str, Resource]) -> Iterator[Difference]:
    appearing = {(r.type, r.where) for urn, r in news.items() if urn not in olds}
    for urn, old in olds.items():
        if urn not in news:
            moved = (old.type, old.where) in appearing
            yield _told(Operation.DELETED, old, fate=_fate_of_deleted(old, moved=moved) if old.has_data else None)
    for urn, new in news.items():
        old = olds.get(urn)
        if old is None:
            yield _told(Operation.CREATED, new)
        elif changes := tuple(_changes(old, new)):
            yield _changed(old, new, changes)


def _told(operation: Operation, resource: Resource, **more: Any) -> Difference:
    return Difference(operation=operation, urn=resource.urn, kind=resource.kind, where=resource.where, **more)


def _changed(old: Resource, new: Resource, changes: tuple[Change, ...]) -> Difference:
    if not any(change.replaces for change in changes):
        return _told(Operation.CHANGED, new, changes=changes)
    if new.kind == "Job":
        # Nothing of a Job is changed in place, and its name carries a digest of what it does.
        return _told(Operation.RUN_AGAIN, new, changes=changes)
    fate = _fate_of_replaced(old, new, changes) if old.has_data else None
    return _told(Operation.REPLACED, new, changes=changes, fate=fate)


def _changes(old: Resource, new: Resource) -> Iterator[Change]:
    table = replacing(new.type, new.inputs, new.provider)
    # A plan of an older version may not tell the providers.
    told = bool(old.provider and new.provider)
    for path in sorted(old.leaves.keys() | new.leaves.keys()):
        before, after = old.leaves.get(path), new.leaves.get(path)
        plain = _plain(path)
        if before == after or (path.startswith(f"{PROVIDER}.") and not told):
            continue
        if any(plain == ignored or plain.startswith(f"{ignored}.") for ignored in new.ignored):
            continue
        replaces = table.by(plain, before, after)
        for inner, one, other in _inside(path, before, after):
            yield Change(path=inner, old=one, new=other, replaces=replaces)


def _plain(path: str) -> str:
    """A path without list indexes."""
    while "[" in path:
        before, _, rest = path.partition("[")
        path = before + rest.partition("]")[2]
    return path


def _with_dependents(
    found: list[Difference], olds: Mapping[str, Resource], news: Mapping[str, Resource]
) -> list[Difference]:
    """Add what is replaced because something it is made from is.

    An output of the replaced one is unknown to both plans; where such a value decides, the engine replaces.
    """
    by_urn = {d.urn: d for d in found}
    replaced = {d.urn for d in found if d.operation is Operation.REPLACED}
    waiting = True
    while waiting:
        waiting = False
        for urn, new in news.items():
            old, known = olds.get(urn), by_urn.get(urn)
            causes = new.dependencies & replaced
            if old is None or urn in replaced or not causes:
                continue
            table = replacing(new.type, new.inputs, new.provider)
            unknown = [
                path
                for path, value in new.leaves.items()
                if isinstance(value, str) and UNKNOWN_TEXT in value and table.by(_plain(path), value, value)
            ]
            if not unknown:
                continue
            others = [change for change in (known.changes if known else ()) if change.path not in unknown]
            added = [Change(path=path, old=UNKNOWN_TEXT, new=UNKNOWN_TEXT, replaces=True) for path in unknown]
            by_urn[urn] = _changed(old, new, (*others, *added))
            replaced.add(urn)
            waiting = True
    return list(by_urn.values())


# --- data ----------------------------------------------------------------------------------------------------


def _fate_of_deleted(old: Resource, *, moved: bool) -> str:
    if moved:
        then = "keeps" if old.kept else "deletes"
        return (
            "goes on under another URN: without an alias (ResourceOptions.aliases) the engine takes it for two things, "
            f"and {then} this one"
        )
    if old.protect:
        return (
            f"`pulumi up` refuses to delete it: it is protected. If it is to go: `pulumi state unprotect '{old.urn}'`"
        )
    if old.kept:
        return "leaves the stack and stays, data and all: nothing manages it any more, and it is billed on"
    return f"is deleted, {_with_it(old)}"


def _fate_of_replaced(old: Resource, new: Resource, changes: Sequence[Change]) -> str:
    paths = {change.path for change in changes}
    if f"{PROVIDER}.clusterIdentifier" in paths:
        return "stays in the cluster where it is, and an empty one is made in the other"
    if old.protect and new.protect:
        return (
            "`pulumi up` refuses to replace it: it is protected. To keep it, undo the change; its data would not come "
            "along"
        )
    if old.kept and paths & {"metadata.name", "metadata.namespace"}:
        return "stays under its old name, data and all, and nothing manages it any more; an empty one is made"
    if old.kept:
        # Tried on a real API server: the new one is applied onto the old, whose spec is immutable.
        return "is to be kept, and the new one has its name: `pulumi up` fails. To keep it, undo the change"
    return f"is deleted and made anew, {_with_it(old)}"


def _with_it(resource: Resource) -> str:
    match resource.kind:
        case "Cluster":
            return "and every pod and every claim in it goes with it"
        case "Namespace":
            return "and everything in it goes with it"
        case "Secret":
            return "and what was encrypted or initialised with its value needs that value"
        case _:
            return "with the data on it"


@dataclass(frozen=True, kw_only=True)
class Unguarded:
    """A resource that stays, and that something no longer keeps from being deleted."""

    urn: str
    kind: str
    where: str
    how: str  # "no longer protected: ..."


def unguarded(olds: Mapping[str, Resource], news: Mapping[str, Resource]) -> Iterator[Unguarded]:
    """What was safe from a mistake before. It is no property of the resource, so it is no change of it either."""
    for urn in sorted(olds.keys() & news.keys()):
        old, new = olds[urn], news[urn]
        if old.protect and not new.protect and not new.kept:
            how = "is no longer protected: the next `pulumi up` or `pulumi destroy` may delete it"
        elif old.kept and not new.kept:
            how = "is no longer kept: whatever removes it from the stack deletes its data"
        else:
            continue
        yield Unguarded(urn=urn, kind=new.kind, where=new.where, how=how)


def mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What is below a key, empty where there is nothing or something else."""
    value = data.get(key)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
