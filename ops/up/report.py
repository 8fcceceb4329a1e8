"""What runs after `ops up`, where, and what to type next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.kubernetes.pods import NAME_LABEL
from models.machines import ACCELERATOR_LABEL, GPU_TAINT, INSTANCE_TYPE_LABEL
from ops.engine import Recording
from ops.manifests import manifests
from ops.up.site import Object, Site
from ops.wrapping import folded, width
from stacks.plan import Plan, State

SIMULATED = (
    "The nodes are simulated: everything is scheduled and nothing computes, so no model answers and no token is served."
)


def report(plan: Plan, recording: Recording, site: Site, by_hand: Sequence[str]) -> Iterator[str]:
    """Lines for the operator, as wide as the terminal. `by_hand` are commands for the Pulumi stack, if there is one."""
    columns = width()
    yield from (folded(line, columns) for line in _what_runs(plan, recording, site))
    yield ""
    yield "next"
    for command, why in _next(plan, recording, site, by_hand):
        yield f"  {command}   # {why}"


def _what_runs(plan: Plan, recording: Recording, site: Site) -> Iterator[str]:
    kubectl = site.kubectl
    namespaces = [m["metadata"]["name"] for m in manifests(recording.resources) if m["kind"] == "Namespace"]
    pods = [pod for namespace in namespaces for pod in kubectl.get("--namespace", namespace, "pods")]
    running = [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
    yield ""
    yield f"stack '{plan.settings.stack}' is up"
    if site.embedded:
        yield SIMULATED
    yield ""
    yield "nodes"
    for node in kubectl.get("nodes"):
        yield f"  {_node(node, running)}"
    yield "models"
    width = max(len(model.spec.alias) for model in plan.models)
    for model in plan.models:
        mine = [_pod(pod) for pod in running if _app(pod) == model.spec.alias]
        state = "; ".join(mine) if model.state is State.UP else model.state.value
        yield f"  {model.spec.alias:{width}}  {state or 'no pod'}"
    yield "gateway"
    for pod in running:
        if _app(pod) not in {model.spec.alias for model in plan.models}:
            yield f"  {_pod(pod)}"
    yield f"  in the cluster: {recording.outputs['gatewayUrl']}"
    yield "where"
    yield f"  namespaces {', '.join(namespaces)} of context {kubectl.context}"
    yield f"  kubeconfig {kubectl.kubeconfig}"


def _app(pod: Object) -> str:
    return pod["metadata"]["labels"].get(NAME_LABEL, "")


def _pod(pod: Object) -> str:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    where = f" on {pod['spec']['nodeName']}" if "nodeName" in pod["spec"] else ""
    return f"{pod['metadata']['name']} {'ready' if ready else pod['status'].get('phase', 'Unknown')}{where}"


def _node(node: Object, pods: list[Object]) -> str:
    name, labels = node["metadata"]["name"], node["metadata"]["labels"]
    gpus = node["status"].get("allocatable", {}).get(GPU_TAINT)
    what = [labels.get(INSTANCE_TYPE_LABEL, "")]
    if gpus:
        what.append(f"{gpus} x {labels.get(ACCELERATOR_LABEL, 'GPU')}")
    here = sum(pod["spec"].get("nodeName") == name for pod in pods)
    return f"{name}: {', '.join(part for part in [*what, f'pods of the stack: {here}'] if part)}"


def _next(plan: Plan, recording: Recording, site: Site, by_hand: Sequence[str]) -> list[tuple[str, str]]:
    """Commands to type, and what for."""
    ops = str(_short(Path(sys.argv[0])))
    stack = "" if plan.settings.stack == "local" else f" --stack {plan.settings.stack}"
    up = next((model for model in plan.models if model.state is State.UP), None)
    other = next((m for m in plan.models if m.state is State.OFF and (up is None or m.spec.gpus == up.spec.gpus)), None)
    commands = [(f"export KUBECONFIG={shlex.quote(str(site.kubectl.kubeconfig))}", "for kubectl in this shell")]
    commands.append((f"{site.kubectl.binary} --context {site.kubectl.context} get pods -A", "what runs"))
    if other:
        commands.append((f"{ops} up{stack} --model {other.spec.alias}", "another model in its place"))
    if up:
        commands.append((f"{ops} up{stack} --set {up.spec.alias}:replicas=0", "no model"))
    if not site.embedded:
        commands.append((recording.outputs["gatewayForward"], "the gateway on this machine"))
    commands += [(command, "pulumi itself, in this shell") for command in by_hand]
    commands.append((f"{ops} plan --stack ai-dev", "the same on GKE, before you deploy it"))
    if site.embedded:
        commands.append(("make down", "the cluster, its data and every secret of it are gone"))
    return commands


def _short(path: Path) -> Path:
    """As one would type it here."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
