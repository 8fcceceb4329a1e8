"""What a pod needs of its node: the requests that admission checks and components render, from one place."""

from __future__ import annotations

from dataclasses import dataclass

from models.machines import Machine
from models.memory import host_memory, tei_memory
from models.spec import ModelSpec, TeiEngine, VllmEngine


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


# Tokenising and scheduling want two cores beside the GPU; more is used where it is free.
_VLLM_CPU = 2.0
VLLM_HOME_GIB = 4  # Triton and FlashInfer kernels, usage files
TMP_GIB = 2
_LOGS_GIB = 0.5


def needs(spec: ModelSpec) -> Needs:
    """Requests of one replica.

    Raises ValueError for an entry that runs elsewhere.
    """
    match spec.engine:
        case VllmEngine():
            host = host_memory(spec)
            return Needs(
                cpu=_VLLM_CPU,
                gib=host.total_gib,
                ephemeral_gib=VLLM_HOME_GIB + TMP_GIB + _LOGS_GIB,
                gpus=spec.engine.gpus,
                shm_gib=host.shm_gib,
            )
        case TeiEngine():
            return Needs(cpu=spec.engine.cpu, gib=tei_memory(spec), ephemeral_gib=TMP_GIB + _LOGS_GIB)
        case _:
            raise ValueError(f"{spec.alias} runs elsewhere and needs nothing of a node")
