"""A plan for people: the tree of what would exist, the models, the machines, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ops.plan.engine import Registered, custom_resources
from stacks.admission import Admission
from stacks.plan import Plan, PlannedModel, State
from stacks.problems import Notice, Problem

_STATE_STYLE = {State.UP: "bold green", State.OFF: "", State.DISABLED: "dim", State.EXTERNAL: "cyan"}
_COMPONENT_PREFIX = "ai-platform:"


def render(console: Console, admission: Admission, resources: Sequence[Registered]) -> None:
    """Print an admitted plan."""
    plan = admission.plan
    console.print(resource_tree(plan, resources))
    console.print()
    console.print(model_table(plan.models))
    console.print()
    for line in totals(plan, resources):
        console.print(line, soft_wrap=True)
    if admission.notices:
        console.print()
        print_notices(console, admission.notices)


def resource_tree(plan: Plan, resources: Sequence[Registered]) -> Tree:
    """Components with what they consist of; resources of one type share a line."""
    settings = plan.settings
    stack = next(r.urn for r in resources if r.type == "pulumi:pulumi:Stack")
    tree = Tree(Text(f"{settings.project} / {settings.stack}", style="bold"), guide_style="dim")
    children: dict[str, list[Registered]] = {}
    for resource in resources:
        children.setdefault(resource.parent, []).append(resource)
    loose: list[Registered] = []
    for resource in children.get(stack, []):
        if resource.type.startswith(_COMPONENT_PREFIX):
            branch = tree.add(Text.assemble((resource.name, "bold"), f"  {resource.short_type}"))
            for line in _grouped(children.get(resource.urn, [])):
                branch.add(line)
        else:
            loose.append(resource)
    for line in _grouped(loose):
        tree.add(line)
    return tree


def _grouped(resources: Iterable[Registered]) -> Iterable[RenderableType]:
    """One line a type: `Service  coder-chat`, with what matters of some types."""
    by_type: dict[str, list[Registered]] = {}
    for resource in resources:
        by_type.setdefault(_kind(resource), []).append(resource)
    for kind, members in by_type.items():
        names = ", ".join(f"{r.name}{_detail(r)}" for r in members)
        yield Text.assemble((kind, "dim"), f"  {names}")


def _kind(resource: Registered) -> str:
    if resource.type.startswith("pulumi:providers:"):
        return f"Provider {resource.short_type}"
    return resource.short_type


def _detail(resource: Registered) -> str:
    """The one figure of a resource that its reader wants."""
    spec = resource.inputs.get("spec", {})
    marks: list[str] = []
    match resource.short_type:
        case "Deployment" | "StatefulSet":
            marks.append(f"x{spec['replicas']}")
        case "PersistentVolumeClaim":
            marks.append(spec["resources"]["requests"]["storage"])
        case "NodePool":
            scaling = resource.inputs.get("autoscaling")
            marks.append(
                f"0 to {scaling['totalMaxNodeCount']} nodes" if scaling else f"{resource.inputs['nodeCount']} nodes"
            )
        case "Disk":
            marks.append(f"{resource.inputs['size']}Gi")
        case _:
            pass
    if resource.protect:
        marks.append("protected")
    elif resource.retain_on_delete:
        marks.append("kept on destroy")
    return f" ({', '.join(marks)})" if marks else ""


def model_table(models: Sequence[PlannedModel]) -> Table:
    """The catalog as this stack runs it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("ALIAS", "GROUP", "ENGINE"):
        table.add_column(column, no_wrap=True)
    for column in ("REPLICAS", "GPU", "CONTEXT", "CLAIM"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for model in models:
        spec, load = model.spec, model.workload
        table.add_row(
            spec.alias,
            spec.group,
            spec.engine.kind,
            str(model.replicas) if load else "-",
            str(spec.gpus) if spec.gpus else "-",
            f"{spec.context:,}" if spec.context else "-",
            f"{load.claim_gib} GiB" if load else "-",
            model.state.value,
            style=_STATE_STYLE[model.state],
        )
    return table


def totals(plan: Plan, resources: Sequence[Registered]) -> Iterable[str]:
    """Resources, machines and GPUs in a line each."""
    kinds = Counter("Kubernetes" if r.type.startswith("kubernetes:") else "GCP" for r in custom_resources(resources))
    yield f"{sum(kinds.values())} resources to create: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}"
    platform = plan.settings.platform
    slots = platform.gpu_quota * platform.gpu_sharing_clients
    used = sum(model.gpus for model in plan.models if model.state is State.UP)
    yield f"GPU slots: {used} of {slots} held"
    if platform.target == "gke":
        if plan.gpu:
            yield f"GPU pool: {plan.gpu.machine.name}, 0 to {plan.max_gpu_nodes} nodes ({plan.gpu.reason})"
        else:
            yield "GPU pool: none, since gpuQuota is 0"
        yield f"system pool: {platform.system_nodes} x {plan.system.machine.name} ({plan.system.reason})"


def print_notices(console: Console, notices: Sequence[Notice | Problem]) -> None:
    """Each with its remedy below it, as a command that can be copied."""
    for notice in notices:
        console.print(Text(f"- {notice.message}"), soft_wrap=True)
        if notice.remedy:
            console.print(Text(f"    {notice.remedy}", style="bold"), soft_wrap=True)


def refusal(problems: Sequence[Problem]) -> Group:
    """All problems, for standard error."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines: list[RenderableType] = [Text(f"refused: {count}, nothing would be deployed", style="bold red")]
    for problem in problems:
        lines += [Text(f"- {problem.message}"), Text(f"    {problem.remedy}", style="bold")]
    return Group(*lines)
