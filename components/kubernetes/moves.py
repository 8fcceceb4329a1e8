"""What is up and would move to a pool of another shape: told beforehand, and refused where nobody asked for it.

`auto` follows what is enabled, so a group, an override or another catalog can give it another shape. Only the engine
knows the one that exists, so these are hooks of the engine; `ops plan --against` has the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.kubernetes.judging import judging, mapping, refuse, resolved
from models.cold_start import IDLE_NODE_S
from models.machines import INSTANCE_TYPE_LABEL

GPU_SETTING, SYSTEM_SETTING = "machineType", "systemMachineType"


class MoveError(Exception):
    """A move that nobody asked for; the text says what moves, and how it stays or is moved."""


def move_of_model(alias: str, before: str, after: str, seconds: int, *, waits: bool) -> str:
    """In words. `seconds` is its start on another node; `waits` where the quota does not hold both nodes."""
    whole = seconds + (IDLE_NODE_S if waits else 0)
    wait = (
        f", about {IDLE_NODE_S // 60} of them until the old node is removed, since the quota does not hold both"
        if waits
        else ""
    )
    return (
        f"{alias} is up on {before} and would move to a new pool of {after}: away for {-(-whole // 60)} minutes{wait}"
    )


def move_of_system(before: str, after: str) -> str:
    """In words."""
    return (
        f"the system pool of {before} would be replaced by one of {after}, under the gateway and its database: both "
        "restart on the new nodes, and requests fail for some minutes"
    )


def unasked(setting: str, message: str, before: str, after: str, *, holds: bool) -> tuple[str, str]:
    """A refusal and its commands; `holds` where the old shape holds what is up."""
    move = f"pulumi config set {setting} {after}"
    remedy = f"pulumi config set {setting} {before}   # stays; or, to move: {move}" if holds else f"{move}   # moves"
    return f"{setting} is auto, and {message}", remedy


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """How a resource tells on which machine type something is up, and what to say of another one."""

    setting: str
    asked: bool  # config names the machine: then the move is a warning
    of: Callable[[Mapping[str, Any]], str | None]  # of inputs, the machine type; None where nothing is up
    told: Callable[[str, str], str]  # of the old and the new one
    holds: Callable[[str], bool]  # whether the old one holds what is up

    def stay(self, name: str) -> pulumi.ResourceHookBinding:
        """The hook of that resource."""

        async def judge(args: pulumi.ResourceHookArgs) -> None:
            before, after = self.of(await resolved(args.old_inputs)), self.of(await resolved(args.new_inputs))
            if before is None or after is None or before == after:
                return
            message = self.told(before, after)
            if self.asked:
                pulumi.log.warn(message)
                return
            refusal, remedy = unasked(self.setting, message, before, after, holds=self.holds(before))
            refuse(MoveError(f"{refusal}\n  remedy: {remedy}"))

        return pulumi.ResourceHookBinding(before_update=[judging(f"shape of {name}", judge)])


def shape_under_pods(inputs: Mapping[str, Any]) -> str | None:
    """The machine type that a Deployment selects; None where it is at zero."""
    spec = mapping(inputs.get("spec"))
    pod = mapping(mapping(spec.get("template")).get("spec"))
    return mapping(pod.get("nodeSelector")).get(INSTANCE_TYPE_LABEL) if spec.get("replicas") else None
