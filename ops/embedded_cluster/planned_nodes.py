"""The machines that a plan asks for, as simulated nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.machines import L4_ZONES, SYSTEM_BOOT_DISK_GIB
from ops.config_files import load
from ops.embedded_cluster.nodes import NodeShape
from stacks.admission import admit
from stacks.plan import Plan


def nodes_of(plan: Plan) -> tuple[NodeShape, ...]:
    """The GPU pool at its full size, and the system pool."""
    platform, zone = plan.settings.platform, L4_ZONES[0]
    nodes: list[NodeShape] = []
    if plan.gpu:
        shape = NodeShape.of("g2", plan.gpu.machine, zone=zone, boot_disk_gib=platform.gpu_boot_disk_gib)
        nodes += _numbered(replace(shape, gpus=shape.gpus * platform.gpu_sharing_clients), plan.max_gpu_nodes)
    system = NodeShape.of("system", plan.system.machine, zone=zone, boot_disk_gib=SYSTEM_BOOT_DISK_GIB)
    return (*nodes, *_numbered(system, platform.system_nodes))


def nodes_of_stack(project_dir: Path, stack: str = "local") -> tuple[NodeShape, ...]:
    """The same for a stack file, whatever else stands against its config. Raises OpsError."""
    return nodes_of(admit(load(project_dir, stack), rehearsal=True).plan)


def _numbered(shape: NodeShape, count: int) -> list[NodeShape]:
    return [shape] + [replace(shape, name=f"{shape.name}-{number}") for number in range(2, count + 1)]
