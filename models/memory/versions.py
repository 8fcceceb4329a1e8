"""What differs in memory between versions of vLLM, read in its sources and start-up logs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VllmVersion:
    """The accounting of a range of vLLM versions; the numbers were read in its sources and start-up logs."""

    name: str  # first version of the range
    utilization: float  # default of --gpu-memory-utilization
    sampler_bytes: float  # peak of one sampling step, bytes per sequence and vocabulary entry
    non_torch_gib: float  # CUDA libraries, NCCL, persistent buffers: what the budget pays beside weights
    counts_graphs: bool  # whether the CUDA-graph estimate is taken off the KV cache
    batched_tokens: int | None  # default of --max-num-batched-tokens under 70 GiB; None: the whole context


# Newest first. 38.5 B: sort-based top-k/top-p (fp32 logits, sorted copy, int64 indices, probabilities, masks).
# 16 B: bf16 and fp32 logits, probabilities, noise; the sort is gone.
VLLM_VERSIONS = (
    VllmVersion("0.24", 0.92, 16, 0.15, counts_graphs=True, batched_tokens=8192),
    VllmVersion("0.21", 0.92, 16, 0.55, counts_graphs=True, batched_tokens=2048),
    VllmVersion("0.18", 0.90, 16, 0.45, counts_graphs=False, batched_tokens=2048),
    VllmVersion("0.9", 0.90, 38.5, 0.10, counts_graphs=False, batched_tokens=2048),
    VllmVersion("0.6.4", 0.90, 38.5, 0.10, counts_graphs=False, batched_tokens=None),
    VllmVersion("0", 0.90, 38.5, 0.90, counts_graphs=False, batched_tokens=None),
)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def vllm_version(version: str) -> VllmVersion:
    """The accounting of a release, "0.23.0" or "v0.23". Raises ValueError for anything else."""
    try:
        release = _release(version)
    except ValueError:
        raise ValueError(f"'{version}' is no vLLM version; give one like 0.23.0") from None
    return next(v for v in VLLM_VERSIONS if release >= _release(v.name))


DEFAULT_VERSION = vllm_version("0.23.0")  # what the catalog's image pins
