"""Who holds the GPUs: the quota, and what shares one."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.commands import set_command
from stacks.plan import Plan, State
from stacks.problems import Problem


def idle_replicas(plan: Plan) -> Iterator[Problem]:
    for model in plan.models:
        if model.replicas and model.state is State.DISABLED:
            alias = model.spec.alias
            own = plan.settings.models[alias].asked_enabled is False
            why = f"{alias}:enabled is false" if own else f"neither it nor its group '{model.spec.group}' is enabled"
            yield Problem(
                f"{alias}:replicas is {model.replicas}, but {why}, so nothing would run",
                f"{set_command(alias, ('enabled',), value=True)}   # or: {set_command(alias, ('replicas',), 0)}",
            )


def quota(plan: Plan) -> Iterator[Problem]:
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


def shared_gpu(plan: Plan) -> Iterator[Problem]:
    """Time-sharing isolates no memory: whatever may meet on one GPU has to fit it together."""
    clients = plan.settings.platform.gpu_sharing_clients
    if clients == 1:
        return
    shares = sorted(
        (
            (share.of_one, m.spec.alias, share.setting)
            for m in plan.models
            if m.state is State.UP and (share := m.spec.engine.share)
            for _ in range(m.replicas)
        ),
        reverse=True,
    )[:clients]
    total = sum(share for share, _, _ in shares)
    if total > 1:
        names = " and ".join(f"{alias} ({share:g})" for share, alias, _ in shares)
        each = int(95 / len(shares)) / 100
        yield Problem(
            f"gpuSharingClients is {clients}, and {names} may meet on one GPU: together they claim {total:.2f} of its "
            "memory, so the second one fails at start",
            " && ".join(
                f"pulumi config set {alias}:{setting} {each:g}"
                for alias, setting in {a: s for _, a, s in shares}.items()
            ),
        )
