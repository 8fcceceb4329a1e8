"""All of a plan for people: the tree of what would exist, every model, the bill, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.text import Text
from rich.tree import Tree

from models.facts import PerToken
from models.gateway_database import CALLS_PER_SECOND, calls_that_fit
from models.gateway_streams import carried
from models.prices import HOURS_PER_MONTH
from ops.console import Column, Row, print_table
from ops.engine import Registered, custom_resources
from ops.wrapping import wrapped
from stacks.admission import Admission
from stacks.costs import CENTS, HOURLY_DIGITS, Costs, Line, costs
from stacks.plan import Plan, PlannedModel, State, gateway_needs
from stacks.problems import Notice, Problem

STATE_STYLE = {State.UP: "bold green", State.OFF: "", State.DISABLED: "dim", State.EXTERNAL: "cyan"}
_COMPONENT_PREFIX = "ai-platform:"


def render(console: Console, admission: Admission, resources: Sequence[Registered]) -> None:
    """Print everything of an admitted plan."""
    plan = admission.plan
    console.print(resource_tree(plan, resources))
    console.print()
    print_models(console, plan.models)
    console.print()
    for line in totals(plan, resources):
        console.print(wrapped(line, console.width, rest="  "), soft_wrap=True)
    console.print()
    print_costs(console, costs(plan))
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


def print_models(console: Console, models: Sequence[PlannedModel]) -> None:
    """The catalog as this stack runs it."""
    columns = [
        *(Column("ALIAS"), Column("GROUP", spare=1), Column("ENGINE", spare=2)),
        *(Column("REPLICAS", figure=True), Column("GPU", figure=True), Column("CONTEXT", figure=True)),
        *(Column("CLAIM", figure=True, spare=3), Column("STATE")),
    ]
    rows: list[Row] = []
    for model in models:
        spec, load = model.spec, model.workload
        cells = (
            spec.alias,
            spec.group,
            spec.engine.kind,
            str(model.replicas) if load else "-",
            str(spec.gpus) if spec.gpus else "-",
            f"{spec.context:,}" if spec.context else "-",
            f"{load.claim_gib} GiB" if load else "-",
            model.state.value,
        )
        rows.append(Row(cells, STATE_STYLE[model.state]))
    print_table(console, columns, rows)


def created(resources: Sequence[Registered]) -> str:
    """How many resources there would be, and whose."""
    kinds = Counter("Kubernetes" if r.type.startswith("kubernetes:") else "GCP" for r in custom_resources(resources))
    return f"{sum(kinds.values())} resources to create: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}"


def slots(plan: Plan) -> str:
    """How much of the quota is taken."""
    held = sum(model.gpus for model in plan.models if model.state is State.UP)
    return f"GPU slots: {held} of {plan.gpu_slots} held"


def gpu_pool(plan: Plan) -> str:
    """Machines with GPUs."""
    if plan.gpu is None:
        return "GPU pool: none, since gpuQuota is 0"
    return f"GPU pool: {plan.gpu.machine.name}, 0 to {plan.max_gpu_nodes} nodes"


def totals(plan: Plan, resources: Sequence[Registered]) -> Iterable[str]:
    """Resources, machines and GPUs in a line each."""
    platform = plan.settings.platform
    yield created(resources)
    yield slots(plan)
    yield spend_log(plan)
    yield from gateway(plan)
    if plan.local:
        yield f"of this checkout alone, in {plan.local}"
    if platform.target == "gke":
        yield gpu_pool(plan) + (f" ({plan.gpu.reason})" if plan.gpu else "")
        yield f"system pool: {platform.system_nodes} x {plan.system.machine.name} ({plan.system.reason})"


def print_costs(console: Console, bill: Costs | None) -> None:
    """What is billed, line by line, what each model costs, and the totals with the date of their prices."""
    if bill:
        _print_bill(console, bill)
        console.print()
        _print_model_costs(console, bill)
        console.print()
    for line in money(bill):
        console.print(wrapped(line, console.width, rest="  "), soft_wrap=True)
    if bill:
        text = f"{HOURS_PER_MONTH} hours a month; traffic, logs and images not counted"
        console.print(wrapped(text, console.width), soft_wrap=True)


def spend_log(plan: Plan) -> str:
    """What of the log of calls the database holds, and how long it lasts at most."""
    gateway = plan.settings.platform.gateway
    calls = calls_that_fit(gateway.database_gib)
    rate, hours = calls / (gateway.spend_log_days * 86_400), calls / (gateway.replicas * CALLS_PER_SECOND * 3600)
    most = f"{hours:,.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"
    full = "the disk grows" if gateway.database == "cloud-sql" else f"{most} at full load"
    held = f"calls logged {gateway.spend_log_days} days: {gateway.database_gib} GiB hold {rate:.2g} a second"
    return f"{held}, {full}"


def gateway(plan: Plan) -> Iterable[str]:
    """What a replica of the gateway asks for, and what all of them carry of the streams that take most of them."""
    replicas, needs = plan.settings.platform.gateway.replicas, gateway_needs(plan.settings, plan.models)
    asks = f"gateway: {replicas} x {needs.cpu:g} CPU"
    written = [(m.spec.alias, m.streams) for m in plan.deployed if m.streams]
    if not written:
        yield asks
        return
    alias, most = max(written, key=lambda pair: pair[1].cores)
    yield (
        f"{asks}; carries {carried(most, replicas):,.0f} tokens a second of {alias}, {most.told} "
        f"(one replica of it writes {most.tokens_per_s:,.0f})"
    )


def money(bill: Costs | None) -> Iterable[str]:
    """The totals with the date of their prices."""
    if bill is None:
        yield "no cloud is billed for this target"
        return
    at_worst = f"{bill.nodes_at_worst} GPU node{'' if bill.nodes_at_worst == 1 else 's'}"
    figures = (
        (f"${bill.idle_usd_per_month:,.{CENTS}f}", "a month idle, every model at zero"),
        (f"${bill.usd_per_hour_now:,.{HOURLY_DIGITS}f}", "an hour now, with what is up"),
        (f"${bill.worst_case_usd_per_month:,.{CENTS}f}", f"a month at worst, all up all month ({at_worst})"),
    )
    width = max(len(usd) for usd, _ in figures)
    yield from (f"{usd:>{width}} {what}" for usd, what in figures)
    yield f"prices: {bill.region}, {bill.dated}"
    if bill.unpriced:
        yield f"no price known, so missing from these totals: {', '.join(bill.unpriced)}"


def _print_bill(console: Console, bill: Costs) -> None:
    columns = [
        *(Column("BILLED WHILE IDLE"), Column("QUANTITY", figure=True), Column("UNIT $", figure=True, spare=1)),
        *(Column("$/MONTH", figure=True), Column("PRICE IS")),
    ]
    rows = [_bill_row(line) for line in bill.idle]
    if bill.at_worst:
        rows += [Row(("AND WHILE ALL IS UP",), "bold"), *map(_bill_row, bill.at_worst)]
    print_table(console, columns, rows)


def _bill_row(line: Line) -> Row:
    price, total = ("?", "?") if line.unit_usd is None else (f"{line.unit_usd:.6g}", f"{line.usd:,.2f}")
    return Row((line.what, f"{line.quantity:,g} {line.unit}", price, total, line.basis))


def _print_model_costs(console: Console, bill: Costs) -> None:
    """Cost and price of a million tokens side by side, for one mix of read and written ones; the registered prices."""
    headers = ("$/H", "TOKENS/S", "COST $/MTOK", "PRICE $/MTOK", "IN", "OUT")
    columns = [Column("WHILE UP"), *(Column(header, figure=True) for header in headers), Column("THROUGHPUT IS")]
    rows: list[Row] = []
    for model in bill.models:
        rate, sold = model.throughput, model.price if isinstance(model.price, PerToken) else None
        cells = (
            model.alias,
            _figure(model.usd_per_hour, ".4f"),
            _figure(rate.tokens_per_second if rate else None, ",.0f"),
            _figure(model.usd_per_mtok, ".3f"),
            _figure(model.price_usd_per_mtok, ".3f"),
            _figure(sold.input_usd_per_mtok if sold else None, "g"),
            _figure(sold.output_usd_per_mtok if sold else None, "g"),
            rate.told if rate else "-",
        )
        rows.append(Row(cells, "yellow" if model.at_a_loss else ""))
    print_table(console, columns, rows)


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def print_notices(console: Console, notices: Sequence[Notice | Problem]) -> None:
    """Each with its remedy below it, as a command that can be copied."""
    for notice in notices:
        console.print(Text(wrapped(notice.message, console.width, "- ")), soft_wrap=True)
        if notice.remedy:
            console.print(Text(f"    {notice.remedy}", style="bold"), soft_wrap=True)
