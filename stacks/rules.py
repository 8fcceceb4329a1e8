"""The rules of admission: each yields what stands against a plan, and none stops another. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from models.images import LITELLM, POSTGRES
from models.machines import CLUSTER_AGENTS, G2_MACHINES, SYSTEM_MACHINES, Machine, ephemeral_allocatable_gib
from models.memory import claim_gib, fit_model, model_remedies
from models.needs import Needs
from models.spec import Image, ModelSpec, TeiEngine, VllmEngine
from stacks.costs import HOURLY_DIGITS, Costs, costs
from stacks.plan import Plan, State, make_plan, on_gpu, pulled, system_fits, system_needs
from stacks.problems import Notice, Problem
from stacks.secrets import key_value
from stacks.sections import Platform

PLACEHOLDER_PROJECT = "your-gcp-project"  # in Pulumi.ai-dev.yaml

# --- problems -----------------------------------------------------------------------------------------------


def problems(plan: Plan) -> Iterator[Problem]:
    """Everything that stands against a plan, but for what is not prepared yet."""
    yield from _technical(plan)
    yield from _budgets(plan)


def _technical(plan: Plan) -> Iterator[Problem]:
    for rule in (
        _named_cluster,
        _idle_replicas,
        _quota,
        _shared_gpu,
        _claims,
        _gpu_fit,
        _whole_inputs,
        _gpu_node,
        _shared_node,
        _system_pool,
    ):
        yield from rule(plan)


def notices(plan: Plan) -> Iterator[Notice]:
    """What is worth knowing about a plan and does not stop it."""
    for remark in (_prices, _licences, _unpinned, _cramped):
        yield from remark(plan)


def _named_cluster(plan: Plan) -> Iterator[Problem]:
    """Never the context that happens to be current: a cluster of one's own is named in full."""
    platform, project = plan.settings.platform, plan.settings.project
    if platform.target != "kubernetes":
        return
    for key, value, example in (
        ("kubeconfig", platform.kubeconfig, "~/.kube/config"),
        ("kubeContext", platform.kube_context, "kind-ai"),
    ):
        if not value:
            yield Problem(
                f"{project}:{key} is not set, and target kubernetes deploys only to a cluster that is named: the "
                "current context may be anybody's",
                f"pulumi config set {key} {example}",
            )


def _idle_replicas(plan: Plan) -> Iterator[Problem]:
    for model in plan.models:
        if model.replicas and model.state is State.DISABLED:
            alias, group = model.spec.alias, model.spec.group
            yield Problem(
                f"{alias}:replicas is {model.replicas}, but its group '{group}' is off, so nothing would run",
                f"pulumi config set --path '{plan.settings.project}:groups.{group}' true"
                f"   # or: pulumi config set {alias}:replicas 0",
            )


def _quota(plan: Plan) -> Iterator[Problem]:
    """The sum over all models: each alone may be within the quota."""
    platform = plan.settings.platform
    up = [m for m in plan.models if m.state is State.UP and m.gpus]
    if not platform.gpu_quota:
        return  # there is no pool at all: told by another rule
    slots = plan.gpu_slots
    wanted = sum(model.gpus for model in up)
    if wanted <= slots:
        machine = plan.gpu.machine if plan.gpu else None
        if up and machine and machine.gpus > platform.gpu_quota:
            yield Problem(
                f"machine type {machine.name} has {machine.gpus} GPUs, and the quota is {platform.gpu_quota}, so no "
                "node could ever start",
                "pulumi config set machineType auto"
                f"   # or, with that quota granted: pulumi config set gpuQuota {machine.gpus}",
            )
        return
    shared = f", shared by {platform.gpu_sharing_clients} each" if platform.gpu_sharing_clients > 1 else ""
    listed = ", ".join(f"{m.spec.alias} ({m.gpus})" for m in up)
    message = (
        f"GPUs asked for: {wanted} by {listed}; the quota (GPUS_ALL_REGIONS) is {platform.gpu_quota}{shared}, so the "
        "rest would wait for ever on a node that cannot come"
    )
    if len(up) > 1:
        swaps = [
            f"to keep {keep.spec.alias}: "
            + " && ".join(f"pulumi config set {other.spec.alias}:replicas 0" for other in up if other is not keep)
            for keep in up
        ]
        yield Problem(message, "; ".join(swaps))
    else:
        alias = up[0].spec.alias
        yield Problem(
            message,
            f"pulumi config set {alias}:replicas {slots // up[0].spec.gpus}"
            f"   # or, with that quota granted: pulumi config set gpuQuota {wanted}",
        )


def _shared_gpu(plan: Plan) -> Iterator[Problem]:
    """Time-sharing isolates no memory: whatever may meet on one GPU has to fit it together."""
    clients = plan.settings.platform.gpu_sharing_clients
    if clients == 1:
        return
    shares = sorted(
        (
            (m.spec.engine.gpu_memory_utilization, m.spec.alias)
            for m in plan.models
            if m.state is State.UP and isinstance(m.spec.engine, VllmEngine)
            for _ in range(m.replicas)
        ),
        reverse=True,
    )[:clients]
    total = sum(share for share, _ in shares)
    if total > 1:
        names = " and ".join(f"{alias} ({share:g})" for share, alias in shares)
        each = int(95 / len(shares)) / 100
        yield Problem(
            f"gpuSharingClients is {clients}, and {names} may meet on one GPU: together they claim {total:.2f} of its "
            "memory, so the second one fails at start",
            " && ".join(
                f"pulumi config set {alias}:gpuMemoryUtilization {each:g}" for alias in {a: 0 for _, a in shares}
            ),
        )


def _claims(plan: Plan) -> Iterator[Problem]:
    for model in plan.models:
        if model.state is State.DISABLED or model.workload is None:
            continue
        alias = model.spec.alias
        needed = claim_gib(model.spec)
        if model.workload.claim_gib < needed:
            yield Problem(
                f"{alias}:claimGib is {model.workload.claim_gib}, below the {needed} GiB that its weights and a "
                "download in progress need; a claim also never shrinks",
                f"pulumi config rm {alias}:claimGib",
            )
        if model.replicas > 1:
            yield Problem(
                f"{alias}:replicas is {model.replicas}, but its weights are on a ReadWriteOnce claim, which one node "
                "mounts: the other replicas would wait for ever",
                f"pulumi config set {alias}:replicas 1",
            )


def _gpu_fit(plan: Plan) -> Iterator[Problem]:
    """GPU memory: what vLLM would find out after ten billed minutes."""
    for model, _ in on_gpu(plan.models):
        if model.state is not State.UP:
            continue
        yield from _fit_problems(model.spec)


def _fit_problems(spec: ModelSpec) -> Iterator[Problem]:
    arch = spec.weights.architecture if spec.weights else None
    if arch and spec.context and spec.context > arch.max_positions:
        yield Problem(
            f"{spec.alias}:maxModelLen is {spec.context}, and the model has {arch.max_positions} positions, so vLLM "
            "refuses to start",
            f"pulumi config set {spec.alias}:maxModelLen {arch.max_positions}",
        )
        return
    if isinstance(spec.engine, VllmEngine) and spec.engine.max_num_batched_tokens < spec.engine.max_num_seqs:
        seqs, tokens = spec.engine.max_num_seqs, spec.engine.max_num_batched_tokens
        yield Problem(
            f"{spec.alias}:maxNumBatchedTokens is {tokens}, below maxNumSeqs ({seqs}), so vLLM refuses to start",
            f"pulumi config set {spec.alias}:maxNumBatchedTokens {seqs}   # or: "
            f"pulumi config set {spec.alias}:maxNumSeqs {tokens}",
        )
        return
    try:
        fit = fit_model(spec)
    except ValueError as refused:
        # Only an entry of the catalog can be that wrong.
        yield Problem(
            f"{spec.alias}: {refused}",
            f"pulumi config set {spec.alias}:replicas 0   # until its entry in models/catalog.py is mended",
        )
        return
    if not fit.fits:
        yield Problem(
            f"{spec.alias} does not fit its GPU, so vLLM would refuse to start: {fit.reason}", _fit_remedy(spec)
        )


def _whole_inputs(plan: Plan) -> Iterator[Problem]:
    """An embedding server cuts what does not fit its batch, and says nothing (TEI, router/src/main.rs from 1.8.3)."""
    for spec in (model.spec for model in plan.deployed):
        if isinstance(spec.engine, TeiEngine) and spec.context and spec.engine.max_batch_tokens < spec.context:
            yield Problem(
                f"{spec.alias}:maxBatchTokens is {spec.engine.max_batch_tokens}, below the context of {spec.context} "
                "tokens: longer inputs would lose their end without a word, and their embeddings mean something else",
                f"pulumi config set {spec.alias}:maxBatchTokens {spec.context}",
            )


# Flags of `ops fit` that a stack can set.
_SETTINGS = {
    "--max-model-len": "maxModelLen",
    "--max-num-seqs": "maxNumSeqs",
    "--max-num-batched-tokens": "maxNumBatchedTokens",
    "--utilization": "gpuMemoryUtilization",
}


def _fit_remedy(spec: ModelSpec) -> str:
    """The least intrusive change that fits and that config can make."""
    for remedy in model_remedies(spec):
        if remedy.flags.keys() <= _SETTINGS.keys():
            return " && ".join(
                f"pulumi config set {spec.alias}:{_SETTINGS[flag]} {value}" for flag, value in remedy.flags.items()
            )
    return (
        f"pulumi config set {spec.alias}:replicas 0   # nothing that config can set makes it fit: ops fit {spec.alias}"
    )


def _gpu_node(plan: Plan) -> Iterator[Problem]:
    """Host memory, CPU, disk of the node that was chosen."""
    up = [(m, load) for m, load in on_gpu(plan.models) if m.state is State.UP]
    if plan.gpu is None:
        for model, _ in up:
            yield Problem(
                f"{model.spec.alias}:replicas is {model.replicas}, but gpuQuota is 0, so there is no GPU pool",
                "pulumi config set gpuQuota 1   # once Google has granted the quota GPUS_ALL_REGIONS",
            )
        return
    disk = ephemeral_allocatable_gib(plan.settings.platform.gpu_boot_disk_gib)
    for model, load in up:
        if lacking := load.needs.lacking(plan.gpu.machine):
            yield Problem(
                f"{model.spec.alias} needs {lacking} ({plan.gpu.reason}), so its pod would never be scheduled, or "
                "be killed while it loads",
                f"pulumi config set machineType {_smallest_for(load.needs) or 'auto'}",
            )
        image = pulled(model.spec)[0]
        # Unpacked, an image takes about twice its compressed size; both are on disk while it is unpacked.
        wanted = load.needs.ephemeral_gib + image.compressed_gib * 3
        if wanted > disk:
            yield Problem(
                f"gpuBootDiskGib is {plan.settings.platform.gpu_boot_disk_gib}, which leaves {disk:g} GiB, and the "
                f"image and scratch space of {model.spec.alias} need {wanted:g} GiB: the pod would be evicted",
                "pulumi config set gpuBootDiskGib 100",
            )


def _shared_node(plan: Plan) -> Iterator[Problem]:
    """Pods of one node have to fit it together: sharing divides the GPU's time, not the memory beside it."""
    platform, choice = plan.settings.platform, plan.gpu
    up = [(m.spec.alias, load.needs) for m, load in on_gpu(plan.models) for _ in range(m.replicas)]
    slots = platform.gpu_quota * platform.gpu_sharing_clients
    alone = choice is not None and not any(pod.lacking(choice.machine) for _, pod in up)
    if choice is None or not alone or sum(pod.gpus for _, pod in up) > slots:
        return  # told by another rule
    pods = [pod for _, pod in up]
    if _packs(choice.machine, platform, pods):
        return
    larger = next((m.name for m in G2_MACHINES.values() if _packs(m, platform, pods)), None)
    yield Problem(
        f"{' and '.join(alias for alias, _ in up)} need {sum(p.cpu for p in pods):g} CPU and "
        f"{sum(p.gib for p in pods):.1f} GiB together, and {plan.max_gpu_nodes} x {choice.machine.name} leaves "
        f"{choice.machine.pod_cpu:g} CPU and {choice.machine.pod_gib:g} GiB a node: one would wait for ever",
        f"pulumi config set machineType {larger}" if larger else f"pulumi config set {up[-1][0]}:replicas 0",
    )


def _packs(machine: Machine, platform: Platform, pods: list[Needs]) -> bool:
    """Whether the quota in such machines holds the pods, largest first, each on the first node with room."""
    nodes = min(platform.gpu_quota // machine.gpus, len(pods))
    free = [[machine.pod_cpu, machine.pod_gib, machine.gpus * platform.gpu_sharing_clients] for _ in range(nodes)]
    for pod in sorted(pods, key=lambda p: p.gib, reverse=True):
        wanted = (pod.cpu, pod.gib, pod.gpus)
        node = next((n for n in free if all(have >= want for have, want in zip(n, wanted, strict=True))), None)
        if node is None:
            return False
        node[:] = [have - want for have, want in zip(node, wanted, strict=True)]
    return True


def _smallest_for(wanted: Needs) -> str | None:
    return next((m.name for m in G2_MACHINES.values() if not wanted.lacking(m)), None)


def _system_pool(plan: Plan) -> Iterator[Problem]:
    if plan.settings.platform.target != "gke":
        return
    pods = system_needs(plan.settings, plan.models, all_on=False)
    nodes, machine = plan.settings.platform.system_nodes, plan.system.machine
    if system_fits(machine, nodes, pods):
        return
    wanted_cpu, wanted_gib = sum(n.cpu for _, n in pods), sum(n.gib for _, n in pods)
    larger = next((m.name for m in SYSTEM_MACHINES.values() if system_fits(m, nodes, pods)), None)
    yield Problem(
        f"the pods without a GPU ({', '.join(name for name, _ in pods)}) need {wanted_cpu:g} CPU and "
        f"{wanted_gib:.1f} GiB beside GKE's own {CLUSTER_AGENTS.cpu:g} CPU and {CLUSTER_AGENTS.gib:g} GiB, and "
        f"{nodes} x {machine.name} leaves {machine.pod_cpu:g} CPU and {machine.pod_gib:g} GiB a node: some would "
        "never be scheduled",
        f"pulumi config set systemMachineType {larger}" if larger else f"pulumi config set systemNodes {nodes + 1}",
    )


# --- budgets -------------------------------------------------------------------------------------------------


def _budgets(plan: Plan) -> Iterator[Problem]:
    """The hourly budget judges what the config brings up, the monthly one the worst that the quota allows."""
    platform = plan.settings.platform
    if not _has_budget(plan) or (bill := costs(plan)) is None:
        return
    if bill.unpriced:
        yield from (
            Problem(f"{_no_price(item, bill)}, so no budget can be judged", _price_remedy(plan, item))
            for item in bill.unpriced
        )
        return
    hourly, monthly = bill.usd_per_hour_now, bill.worst_case_usd_per_month
    if platform.max_hourly_usd is not None and hourly > platform.max_hourly_usd:
        up = [m.spec.alias for m in plan.models if m.state is State.UP]
        yield Problem(
            f"maxHourlyUsd is {platform.max_hourly_usd:.10g}, and with {', '.join(up) or 'every model at zero'}"
            f"{' up' if up else ''} this stack is billed ${hourly:.{HOURLY_DIGITS}f} an hour (prices of {bill.dated})",
            _cheaper(plan, "max_hourly_usd", hourly),
        )
    if platform.max_monthly_usd is not None and monthly > platform.max_monthly_usd:
        yield Problem(
            f"maxMonthlyUsd is {platform.max_monthly_usd:.10g}, and ${monthly:.2f} would be billed for a month of "
            f"{bill.nodes_at_worst} GPU node{'' if bill.nodes_at_worst == 1 else 's'} around the clock, "
            f"${bill.idle_usd_per_month:.2f} with every model at zero (prices of {bill.dated})",
            _cheaper(plan, "max_monthly_usd", monthly),
        )


def _has_budget(plan: Plan) -> bool:
    platform = plan.settings.platform
    return platform.max_hourly_usd is not None or platform.max_monthly_usd is not None


def _within(plan: Plan, budget: str) -> bool:
    """Whether a plan keeps one of its budgets."""
    bill, limit = costs(plan), getattr(plan.settings.platform, budget)
    if bill is None or bill.unpriced:
        return False
    return limit >= (bill.usd_per_hour_now if budget == "max_hourly_usd" else bill.worst_case_usd_per_month)


def _what_if(plan: Plan, platform: Mapping[str, Any], zero: tuple[str, ...] = ()) -> Plan:
    """The same plan with other settings of the platform, and some models at zero."""
    models = {
        alias: overrides.model_copy(update={"replicas": 0}) if alias in zero else overrides
        for alias, overrides in plan.settings.models.items()
    }
    changed = replace(plan.settings, platform=plan.settings.platform.model_copy(update=dict(platform)), models=models)
    # Overrides are applied already; applying them again changes nothing.
    return make_plan(changed, {model.spec.alias: model.spec for model in plan.models})


def _cheaper(plan: Plan, budget: str, cost: float) -> str:
    """Commands that each keep the budget alone and bring no new problem, the least drastic first."""
    present = set(_technical(plan))

    def mends(changed: Plan) -> bool:
        keeps_a_node = changed.max_gpu_nodes > 0 or plan.max_gpu_nodes == 0
        return keeps_a_node and _within(changed, budget) and set(_technical(changed)) <= present

    found: list[str] = []
    if budget == "max_hourly_usd":
        zero: tuple[str, ...] = ()
        for model in sorted(plan.models, key=lambda m: m.gpus):
            if model.state is State.UP and model.gpus:
                zero = (*zero, model.spec.alias)
                if mends(_what_if(plan, {}, zero)):
                    found.append(" && ".join(f"pulumi config set {alias}:replicas 0" for alias in zero))
                    break
    if plan.gpu and not plan.settings.platform.spot and mends(_what_if(plan, {"spot": True})):
        found.append("pulumi config set spot true")
    smaller = (m for m in _smaller(plan, budget) if mends(_what_if(plan, {"machine_type": m})))
    found += [f"pulumi config set machineType {machine}" for machine in islice(smaller, 1)]
    if budget == "max_monthly_usd":
        quotas = range(plan.settings.platform.gpu_quota - 1, 0, -1)
        if quota := next((q for q in quotas if mends(_what_if(plan, {"gpu_quota": q}))), None):
            found.append(f"pulumi config set gpuQuota {quota}")
    key = "maxHourlyUsd" if budget == "max_hourly_usd" else "maxMonthlyUsd"
    found.append(f"pulumi config set {key} {math.ceil(round(cost * 100, 2)) / 100:.2f}")
    return "   # or: ".join(found)


def _smaller(plan: Plan, budget: str) -> Iterator[str]:
    """Machines with as many GPUs and less beside them that hold what the budget is about, the largest first."""
    if plan.gpu is None:
        return
    states = (State.UP,) if budget == "max_hourly_usd" else (State.UP, State.OFF)
    loads = [load for m, load in on_gpu(plan.models) if m.state in states]
    for machine in sorted(G2_MACHINES.values(), key=lambda m: m.vcpus, reverse=True):
        less = machine.gpus == plan.gpu.machine.gpus and machine.vcpus < plan.gpu.machine.vcpus
        if less and not any(load.needs.lacking(machine) for load in loads):
            yield machine.name


def _no_price(item: str, bill: Costs) -> str:
    return f"no price is known for {item} in {bill.region}"


def _price_remedy(plan: Plan, item: str) -> str:
    kind = "spot" if plan.settings.platform.spot and item in G2_MACHINES else "onDemand"
    return f"pulumi config set --path '{plan.settings.project}:prices.{kind}.{item}' <US dollars>"


def unprepared(plan: Plan) -> Iterator[Problem]:
    """What has to be set once before the first `pulumi up`, and cannot be known to a plan without secrets."""
    gcp = plan.settings.gcp
    if gcp and gcp.project == PLACEHOLDER_PROJECT:
        yield Problem(
            f"gcp:project is the example's '{PLACEHOLDER_PROJECT}', which is nobody's",
            "pulumi config set gcp:project <the id of your project>",
        )
    for secret in plan.secrets:
        if secret.key not in plan.settings.secrets:
            yield Problem(
                f"the secret {plan.settings.project}:{secret.key} ({secret.purpose}) is not set", secret.command
            )
    for alias in plan.settings.platform.keys:
        if alias not in plan.settings.key_values:
            value = key_value(alias)
            yield Problem(f"the secret {plan.settings.project}:{value.key} ({value.purpose}) is not set", value.command)


# --- notices -------------------------------------------------------------------------------------------------


def _prices(plan: Plan) -> Iterator[Notice]:
    """Gaps in the price list, and prices that would not pay for the machine even if it never idled."""
    bill = costs(plan)
    if bill is None:
        return
    for item in () if _has_budget(plan) else bill.unpriced:  # with a budget it is a problem
        yield Notice(f"{_no_price(item, bill)}, so it is missing from every total", _price_remedy(plan, item))
    for model in bill.models:
        if model.at_a_loss and model.throughput:
            evidence = model.throughput.source.evidence
            yield Notice(
                f"{model.alias} is sold at ${model.price_usd_per_mtok:.3g} per million tokens and costs "
                f"${model.usd_per_mtok:.3g} even if it is never idle, at {model.throughput.tokens_per_second:,.0f} "
                f"tokens a second ({evidence.value}): a higher price in models/catalog.py, or measure",
                f"pulumi config set {model.alias}:tokensPerSecond <measured under load>",
            )


def _licences(plan: Plan) -> Iterator[Notice]:
    for model in plan.models:
        if model.state is State.UP and not model.spec.licence.commercial_use:
            alias, licence = model.spec.alias, model.spec.licence.name
            yield Notice(
                f"{alias} comes up, and the licence of its weights ({licence}) allows no commercial use",
                f"pulumi config set {alias}:replicas 0",
            )


def _unpinned(plan: Plan) -> Iterator[Notice]:
    """What is pinned by a name that may be pointed elsewhere."""
    images: dict[str, Image] = {
        i.repository: i for i in (LITELLM, POSTGRES, *(i for m in plan.deployed for i in pulled(m.spec)))
    }
    for image in images.values():
        if image.digest is None:
            yield Notice(
                f"image {image.reference()} has no digest on record: its tag may be pointed at other content",
                "ops pin",
            )
    for model in plan.deployed:
        if model.spec.weights and model.spec.weights.revision is None:
            yield Notice(
                f"{model.spec.alias}: no revision of {model.spec.model_id} on record: its default branch is served",
                "ops pin",
            )


def _cramped(plan: Plan) -> Iterator[Notice]:
    """Models at zero that would be refused if brought up: no problem yet."""
    if plan.gpu is None:
        return
    for model, load in on_gpu(plan.models):
        if model.state is State.OFF and (lacking := load.needs.lacking(plan.gpu.machine)):
            yield Notice(
                f"{model.spec.alias} is off; up, it would be refused: it needs {lacking}",
                f"pulumi config set machineType {_smallest_for(load.needs) or 'auto'}",
            )
