"""Diagrams in Mermaid, which GitHub draws: the ways that are open to data, and the states of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from components.kubernetes.pods import NAME_LABEL
from docs.generate.shown import Shown
from models.cold_start import ColdStart
from ops.engine import Registered, run
from stacks.admission import admit
from stacks.plan import State
from stacks.program import deploy
from stacks.settings import RawConfig

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_CLIENTS, _INTERNET = "clients", "internet"
_PHASES = {  # of a start, in the words of a reader; a field of ColdStart that has none is a KeyError
    "node": "a node comes",
    "image": "the image is pulled",
    "stage": "weights are staged, once",
    "retry": "",  # part of staging
    "load": "the engine loads",
}


# --- the ways that are open to data ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _App:
    """What a network policy is for. Models of one engine are one."""

    namespace: str
    name: str
    says: str

    @property
    def node(self) -> str:
        return f"{self.namespace}_{self.name}".replace("-", "_")


def data_path(shown: Shown) -> str:
    """Who may open a connection to whom, by the network policies that the program registers.

    A way is drawn where the policies of both its ends open it.
    """
    groups = {name: group.unavailable is None for name, group in shown.groups.items()}
    raw = RawConfig(
        "ai-platform",
        "drawn",
        {"gcp:project": "a-project", "gcp:zone": "us-central1-a", "ai-platform:groups": json.dumps(groups)},
    )
    plan = admit(raw, shown.catalog, shown.groups, rehearsal=True).plan
    policies = [r for r in run(raw, lambda: deploy(plan)).resources if r.short_type == "NetworkPolicy"]
    engines = {model.spec.alias: model.spec.engine.name() for model in plan.deployed}
    apps = {_place(p): app for p in policies if (app := _app(p, engines))}
    edges: dict[tuple[str, str], set[str]] = {}
    for policy in policies:
        source = apps.get(_place(policy))
        if source is None:
            continue
        for name, port in _incoming_from_anywhere(policy):
            edges.setdefault((name, source.node), set()).add(port)
        for peer, port in _rules(policy, "egress", "to"):
            if "ipBlock" in peer:
                if peer["ipBlock"]["cidr"] == "0.0.0.0/0":
                    edges.setdefault((source.node, _INTERNET), set()).add(port)
                continue
            for target_policy in policies:
                target = apps.get(_place(target_policy))
                if target and _selects(peer, source, target_policy) and _admits(target_policy, source, policy, port):
                    edges.setdefault((source.node, target.node), set()).add(port)
    return "\n".join(_drawn(apps.values(), edges))


def _drawn(apps: Any, edges: Mapping[tuple[str, str], set[str]]) -> Iterator[str]:
    yield "flowchart LR"
    yield f'    {_CLIENTS}(["clients in the cluster,<br/>or a forwarded port"])'
    namespaces: dict[str, dict[str, _App]] = {}
    for app in apps:
        namespaces.setdefault(app.namespace, {})[app.node] = app
    for namespace, inside in sorted(namespaces.items()):
        yield f'    subgraph {namespace}["namespace {namespace}"]'
        yield from (f'        {node}["{app.says}"]' for node, app in sorted(inside.items()))
        yield "    end"
    yield f'    {_INTERNET}(["Hugging Face hub"])'
    for (source, target), ports in sorted(edges.items()):
        yield f'    {source} -->|"{", ".join(sorted(ports))}"| {target}'


def _place(policy: Registered) -> tuple[str, str]:
    metadata = policy.inputs["metadata"]
    return metadata["namespace"], metadata["name"]


def _app(policy: Registered, engines: Mapping[str, str]) -> _App | None:
    """Whom a policy is for; None for those of a whole namespace."""
    namespace, name = _place(policy)
    if not policy.inputs["spec"]["podSelector"].get("matchLabels"):
        return None
    engine = engines.get(name)
    return _App(namespace, engine, f"models on {engine}") if engine else _App(namespace, name, name)


def _rules(policy: Registered, direction: str, end: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Peer and port of each rule of a direction."""
    for rule in policy.inputs["spec"].get(direction, []):
        for peer in rule.get(end, []):
            yield from ((peer, str(port["port"])) for port in rule.get("ports", []))


def _incoming_from_anywhere(policy: Registered) -> Iterator[tuple[str, str]]:
    for peer, port in _rules(policy, "ingress", "from"):
        if peer.get("namespaceSelector") == {}:
            yield _CLIENTS, port


def _matched(selector: Mapping[str, Any], label: str) -> str | None:
    """What a selector wants of a label; None for anything."""
    labels: Mapping[str, str] = selector.get("matchLabels") or {}
    return labels.get(label)


def _selects(peer: dict[str, Any], source: _App, target: Registered) -> bool:
    """Whether a peer of a rule of `source` means the pods that a policy is for."""
    namespace, name = _place(target)
    wanted: str | None = source.namespace
    if "namespaceSelector" in peer:
        wanted = _matched(peer["namespaceSelector"], _NAMESPACE_LABEL)
    pods = _matched(peer.get("podSelector", {}), NAME_LABEL)
    return wanted in (None, namespace) and pods in (None, name)


def _admits(target: Registered, source: _App, source_policy: Registered, port: str) -> bool:
    end = _App(_place(target)[0], "", "")
    return any(
        open_port == port and _selects(peer, end, source_policy)
        for peer, open_port in _rules(target, "ingress", "from")
    )


# --- the states of a model -------------------------------------------------------------------------------------


def states(shown: Shown) -> str:
    """What each command makes of a model, judged by the program itself, on a model that needs a GPU if there is one."""
    here = [s for s in shown.catalog.values() if s.engine.runs_here and not shown.groups[s.group].unavailable]
    spec = next(iter(sorted(here, key=lambda s: not s.gpus)), None)
    if spec is None:
        return f"stateDiagram-v2\n    [*] --> {State.EXTERNAL.value}"

    def judged(enabled: bool, replicas: int) -> State | None:
        """None: refused."""
        values = {
            "gcp:project": "a-project",
            "gcp:zone": "us-central1-a",
            "ai-platform:groups": json.dumps({spec.group: enabled}),
            f"{spec.alias}:replicas": str(replicas),
        }
        raw = RawConfig("ai-platform", "drawn", values)
        admission = admit(raw, shown.catalog, shown.groups, rehearsal=True)
        if admission.problems:
            return None
        return next(m.state for m in admission.plan.models if m.spec.alias == spec.alias)

    commands = {
        (True, None): "groups.GROUP or ALIAS:enabled true",
        (False, None): "groups.GROUP or ALIAS:enabled false",
        (None, 1): "ALIAS:replicas 1",
        (None, 0): "ALIAS:replicas 0",
    }
    lines: list[str] = []
    for enabled in (False, True):
        for replicas in (0, 1):
            before = judged(enabled, replicas)
            if before is None:
                continue
            for (group, count), command in commands.items():
                to = (enabled if group is None else group, replicas if count is None else count)
                if to == (enabled, replicas):
                    continue
                after = judged(*to)
                refused = after is None
                lines.append(f"    {before.value} --> {'refused' if refused else after.value}: {command}")
    phases = [words for field in fields(ColdStart) if (words := _PHASES[field.name])]
    inside = [f'        state "{words}" as phase{number}' for number, words in enumerate(phases)]
    order = [f"phase{number}" for number in range(len(phases))] + ["serving"]
    inside += [f"        {one} --> {other}" for one, other in zip(["[*]", *order], order, strict=False)]
    return "\n".join(
        [
            "stateDiagram-v2",
            f"    [*] --> {State.DISABLED.value}",
            *dict.fromkeys(lines),
            f"    state {State.UP.value} {{",
            *inside,
            "    }",
        ]
    )
