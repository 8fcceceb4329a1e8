"""What a pod needs of its node: the requests that admission checks and components render, from one place."""

from __future__ import annotations

from dataclasses import dataclass

from models.machines import Machine


@dataclass(frozen=True)
class Needs:
    """Requests of one pod. Memory and disk are limits as well."""

    cpu: float  # cores
    gib: float  # memory, memory-backed volumes included
    ephemeral_gib: float  # scratch volumes and logs
    gpus: int = 0
    shm_gib: float = 0  # part of `gib`: memory-backed /dev/shm

    def lacking(self, machine: Machine) -> str | None:
        """The first thing a machine has too little of, in words, or None if one of these pods fits."""
        if self.gpus > machine.gpus:
            return f"{self.gpus} GPUs, and {machine.name} has {machine.gpus}"
        if self.gib > machine.pod_gib:
            return f"{self.gib:.1f} GiB of memory, and {machine.name} leaves {machine.pod_gib:.1f} GiB"
        if self.cpu > machine.pod_cpu:
            return f"{self.cpu:g} CPU, and {machine.name} leaves {machine.pod_cpu:g}"
        return None


TMP_GIB = 2
LOGS_GIB = 0.5
