"""Host memory while a model loads on vLLM, and the disk that its weights take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.facts import GIB
from models.machines import G2_MACHINES

# The baseline. API server and engine core: Python, torch and CUDA's host side, tokenizer, compilation.
_SERVER_GIB, _WORKER_GIB = 1.5, 2.5
_SHM_GIB, _SHM_PARALLEL_GIB = 1.0, 2.0  # message queues between the processes; NCCL adds to it


@dataclass(frozen=True)
class HostMemory:
    """Memory of a vLLM pod while it loads, its highest point; request and limit of the pod."""

    process_gib: float  # server and workers
    staging_gib: float  # the weight files pass through memory once, charged to the pod as page cache
    shm_gib: float  # memory-backed /dev/shm, charged to the pod

    @property
    def total_gib(self) -> float:
        """All of it, rounded up to a tenth."""
        return math.ceil(round((self.process_gib + self.staging_gib + self.shm_gib) * 10, 6)) / 10


def vllm_host_memory(weights_bytes: int, gpus: int = 1) -> HostMemory:
    """The one baseline that decides whether a vLLM pod fits a node: processes + weight files + /dev/shm."""
    return HostMemory(
        process_gib=_SERVER_GIB + _WORKER_GIB * gpus,
        staging_gib=weights_bytes / GIB,
        shm_gib=_SHM_GIB if gpus == 1 else _SHM_PARALLEL_GIB,
    )


def smallest_g2(host_gib: float, gpus: int = 1) -> str | None:
    """The smallest G2 machine with that many GPUs that leaves a pod so much memory, None if there is none."""
    holding = (m.name for m in G2_MACHINES.values() if m.gpus >= gpus and m.pod_gib >= host_gib)
    return next(holding, None)


_CLAIM_STEP_GIB = 5
COMPILE_CACHE_GIB = 2  # of the claim; staging empties a compile cache that outgrew it


def disk_gib(weights_bytes: int) -> int:
    """Size of the claim that holds weights: a quarter and a compile cache on top, in steps of 5 GiB.

    The margin holds the file system's own share and the growth of a new revision, so that a claim, which never
    shrinks, seldom has to grow.
    """
    needed = weights_bytes / GIB * 1.25 + COMPILE_CACHE_GIB
    return math.ceil(needed / _CLAIM_STEP_GIB) * _CLAIM_STEP_GIB
