"""Whether pods fit the nodes that were chosen: memory, CPU, disk."""

from __future__ import annotations

from collections.abc import Iterator

from models.machines import CLUSTER_AGENTS, G2_MACHINES, SYSTEM_MACHINES, Machine, ephemeral_allocatable_gib
from models.needs import Needs
from stacks.plan import Choice, Plan, PlannedModel, State, Workload, on_cpu, on_gpu, system_fits, system_needs
from stacks.problems import Notice, Problem
from stacks.sections import MAX_SYSTEM_NODES, Platform


def gpu_node(plan: Plan) -> Iterator[Problem]:
    """Host memory, CPU, disk of the node that was chosen."""
    for model, load in on_gpu(plan.models):
        if model.state is not State.UP:
            continue
        if plan.gpu is None:
            yield Problem(
                f"{model.spec.alias}:replicas is {model.replicas}, but gpuQuota is 0, so there is no GPU pool",
                "pulumi config set gpuQuota 1   # once Google has granted the quota GPUS_ALL_REGIONS",
            )
        else:
            yield from _lacking(plan, plan.gpu, model, load)


def _lacking(plan: Plan, choice: Choice, model: PlannedModel, load: Workload) -> Iterator[Problem]:
    """What one model would lack on the nodes that were chosen."""
    alias, size = model.spec.alias, plan.settings.platform.gpu_boot_disk_gib
    if lacking := load.needs.lacking(choice.machine):
        yield Problem(
            f"{alias} needs {lacking} ({choice.reason}), so its pod would never be scheduled, or be killed while it "
            "loads",
            f"pulumi config set machineType {_smallest_for(load.needs) or 'auto'}",
        )
    # Unpacked, an image takes about twice its compressed size; both are on disk while it is unpacked.
    wanted = load.needs.ephemeral_gib + model.spec.engine.images[0].compressed_gib * 3
    disk = ephemeral_allocatable_gib(size)
    if wanted > disk:
        enough = next(gib for gib in range(50, 10_000, 10) if ephemeral_allocatable_gib(gib) >= wanted)
        yield Problem(
            f"gpuBootDiskGib is {size}, which leaves {disk:g} GiB, and the image and scratch space of {alias} need "
            f"{wanted:g} GiB: the pod would be evicted",
            f"pulumi config set gpuBootDiskGib {enough}",
        )


def shared_node(plan: Plan) -> Iterator[Problem]:
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


def system_pool(plan: Plan) -> Iterator[Problem]:
    if plan.settings.platform.target != "gke":
        return
    pods = system_needs(plan.settings, plan.models, all_on=False)
    nodes, machine = plan.settings.platform.system_nodes, plan.system.machine
    if system_fits(machine, nodes, pods):
        return
    wanted_cpu, wanted_gib = sum(n.cpu for _, n in pods), sum(n.gib for _, n in pods)
    yield Problem(
        f"the pods without a GPU ({', '.join(name for name, _ in pods)}) need {wanted_cpu:g} CPU and "
        f"{wanted_gib:.1f} GiB beside GKE's own {CLUSTER_AGENTS.cpu:g} CPU and {CLUSTER_AGENTS.gib:g} GiB, and "
        f"{nodes} x {machine.name} leaves {machine.pod_cpu:g} CPU and {machine.pod_gib:g} GiB a node: some would "
        "never be scheduled",
        _larger_system_pool(plan, pods) or _less(plan),
    )


def _less(plan: Plan) -> str:
    """Without the model that asks for the most, where no pool holds all."""
    largest = list(SYSTEM_MACHINES.values())[-1]
    up = [(load.needs, model) for model, load in on_cpu(plan.models) if model.state is State.UP]
    shares = {m.spec.alias: m.replicas * max(n.cpu / largest.pod_cpu, n.gib / largest.pod_gib) for n, m in up}
    most = max(shares, key=lambda alias: shares[alias], default=None)
    return f"pulumi config set {most}:replicas 0" if most else "pulumi config set --path gateway.replicas 1"


def _larger_system_pool(plan: Plan, pods: list[tuple[str, Needs]]) -> str | None:
    """The smallest change of it that holds these pods, if one does."""
    nodes, machine = plan.settings.platform.system_nodes, plan.system.machine
    if larger := next((m.name for m in SYSTEM_MACHINES.values() if system_fits(m, nodes, pods)), None):
        return f"pulumi config set systemMachineType {larger}"
    more = range(nodes + 1, MAX_SYSTEM_NODES + 1)
    if enough := next((n for n in more if system_fits(machine, n, pods)), None):
        return f"pulumi config set systemNodes {enough}"
    largest = list(SYSTEM_MACHINES.values())[-1]
    if enough := next((n for n in more if system_fits(largest, n, pods)), None):
        return f"pulumi config set systemMachineType {largest.name} && pulumi config set systemNodes {enough}"
    return None


def cramped(plan: Plan) -> Iterator[Notice]:
    """Models at zero that would be refused if brought up: no problem yet."""
    for model, load in on_gpu(plan.models):
        if plan.gpu is None or model.state is not State.OFF:
            continue
        for problem in _lacking(plan, plan.gpu, model, load):
            yield Notice(f"{model.spec.alias} is off; up, it would be refused: {problem.message}", problem.remedy)
    if plan.settings.platform.target != "gke":
        return
    pods, nodes = system_needs(plan.settings, plan.models, all_on=False), plan.settings.platform.system_nodes
    for model, load in on_cpu(plan.models):
        more = [*pods, (model.spec.alias, load.needs)]
        if model.state is State.OFF and not system_fits(plan.system.machine, nodes, more):
            yield Notice(
                f"{model.spec.alias} is off; up, it would be refused: {nodes} x {plan.system.machine.name} has no room "
                f"for its {load.needs.cpu:g} CPU and {load.needs.gib:g} GiB beside what runs there",
                _larger_system_pool(plan, more),
            )
