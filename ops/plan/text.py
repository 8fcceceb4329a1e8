"""A plan for people: the tree of what would exist, the models, the machines, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from models.facts import PerToken
from models.prices import HOURS_PER_MONTH
from ops.engine import Registered, custom_resources
from stacks.admission import Admission
from stacks.costs import Costs, Line, costs
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
    console.print()
    for part in cost_section(costs(plan)):
        console.print(part, soft_wrap=True)
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


def cost_section(bill: Costs | None) -> Iterable[RenderableType]:
    """What is billed, line by line, what each model costs, and the totals with the date of their prices."""
    if bill is None:
        yield "cost: no cloud is billed for this target"
        return
    yield _bill_table(bill)
    yield ""
    yield _model_cost_table(bill)
    yield ""
    at_worst = f"{bill.nodes_at_worst} GPU node{'' if bill.nodes_at_worst == 1 else 's'}"
    yield Text(f"idle, every model at zero       ${bill.idle_usd_per_month:,.2f} a month", style="bold")
    yield Text(f"now, with what is up            ${bill.usd_per_hour_now:,.4f} an hour", style="bold")
    yield Text(
        f"worst case, all up all month    ${bill.worst_case_usd_per_month:,.2f} a month ({at_worst})", style="bold"
    )
    yield f"prices: {bill.region}, {bill.dated}; {HOURS_PER_MONTH} hours a month; traffic, logs and images not counted"
    if bill.unpriced:
        yield Text(f"no price known, so missing from these totals: {', '.join(bill.unpriced)}", style="bold red")


def _bill_table(bill: Costs) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("BILLED WHILE IDLE", no_wrap=True)
    for column in ("QUANTITY", "UNIT $", "$/MONTH"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("PRICE IS", no_wrap=True)
    for line in bill.idle:
        table.add_row(*_bill_row(line))
    if bill.at_worst:
        table.add_row(Text("AND WHILE ALL IS UP", style="bold"))
        for line in bill.at_worst:
            table.add_row(*_bill_row(line))
    return table


def _bill_row(line: Line) -> tuple[str, ...]:
    price, total = ("?", "?") if line.unit_usd is None else (f"{line.unit_usd:.6g}", f"{line.usd:,.2f}")
    return line.what, f"{line.quantity:,g} {line.unit}", price, total, line.basis


def _model_cost_table(bill: Costs) -> Table:
    """Cost and price of a million tokens side by side, for one mix of read and written ones; the registered prices."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("WHILE UP", no_wrap=True)
    for column in ("$/H", "TOKENS/S", "COST $/MTOK", "PRICE $/MTOK", "IN", "OUT"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("THROUGHPUT IS", no_wrap=True)
    for model in bill.models:
        rate, sold = model.throughput, model.price if isinstance(model.price, PerToken) else None
        table.add_row(
            model.alias,
            _figure(model.usd_per_hour, ".4f"),
            _figure(rate.tokens_per_second if rate else None, ",.0f"),
            _figure(model.usd_per_mtok, ".3f"),
            _figure(model.price_usd_per_mtok, ".3f"),
            _figure(sold.input_usd_per_mtok if sold else None, "g"),
            _figure(sold.output_usd_per_mtok if sold else None, "g"),
            rate.source.evidence.value if rate else "-",
            style="yellow" if model.at_a_loss else "",
        )
    return table


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


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
