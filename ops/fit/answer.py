"""What `ops fit` answers whatever serves the model: where it runs, and what is printed with it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from models.machines import G2_MACHINES, Machine
from ops.errors import OpsError
from ops.fit.flags import MACHINES, command_line
from ops.fit.profiles import TO_COPY

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Answer:
    fits: bool
    json: dict[str, Json]
    text: str


def place_on(
    args: argparse.Namespace, host_gib: float, candidates: list[Machine], gpus: int = 0
) -> tuple[bool, Machine | None]:
    """Whether the named machine holds the load, and the machine to take: the named one or the smallest."""
    holding = next((m for m in candidates if m.pod_gib >= host_gib), None)
    if args.machine is None:
        return True, holding
    named = MACHINES[args.machine]
    if named.gpus < gpus:
        enough = next((m.name for m in G2_MACHINES.values() if m.gpus >= gpus), None)
        raise OpsError(
            f"{named.name} has {named.gpus} GPUs and {gpus} are needed", command_line(args, {"--machine": enough})
        )
    if named.pod_gib >= host_gib:
        return True, named
    return False, holding


def lacking(args: argparse.Namespace, host_gib: float) -> str:
    left = MACHINES[args.machine].pod_gib
    return f"loading needs {host_gib:.1f} GiB of host memory and {args.machine} leaves {left:.1f} GiB for a pod"


def bigger_machine(args: argparse.Namespace, machine: Machine) -> list[dict[str, Json]]:
    return [{"what": f"a {machine.name}", "command": command_line(args, {"--machine": machine.name})}]


def rest_lines(
    host: float, machine: Machine | None, disk: int, notes: tuple[str, ...], changes: list[dict[str, Json]]
) -> list[str]:
    on = f"; smallest machine: {machine.name}" if machine else ""
    lines = [f"  host memory {host:.1f} GiB while loading{on}; disk {disk} GiB"]
    lines += [f"  note: {note}" for note in notes]
    if changes:
        lines += ["", "  nearest changes that fit:"]
        lines += [f"    {change['what']}:\n{TO_COPY}{change['command']}" for change in changes]
    return lines
