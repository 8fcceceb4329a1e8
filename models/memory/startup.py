"""What a start-up needs beside its budget: memory that vLLM takes after it has sized the KV cache.

The KV cache is what is left of `total x utilization` after profiling. Then graphs are captured (counted by newer
versions, by an estimate that is often half of it), kernels are loaded and tuned, FlashInfer allocates its workspace,
and the sampler is warmed up at its largest batch. All of that has to fit the share that utilization leaves alone, with
the CUDA context that was there before.
Source (0.13 to 0.29): `compile_or_warm_up_model` in vllm/v1/worker/gpu_worker.py,
`warmup_kernels` of the second runner; the constants were read off start-ups that died there (docs/memory.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.memory.peaks import on_second_runner, sampler_peak_gib
from models.memory.versions import VllmVersion
from models.weights import DecoderArchitecture, Quantization

if TYPE_CHECKING:
    from models.memory.vllm import Knobs

CONTEXT_GIB = 0.2  # CUDA context of the engine: an idle L4 offers 21.83 of its 22.03 GiB
_KERNELS_GIB = 0.35  # modules that the first real steps load, their tuning, workspaces of cuBLAS
_WORKSPACE_GIB = 394 / 1024  # of FlashInfer: VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE
_MISSED_GRAPHS = 0.25  # share of the graphs that a counted estimate misses: logs say 0 to 0.5
# What graphs that nobody counts may take over their mean; with all-reduce buffers in them a log had 1.7 times it.
_UNCOUNTED_GRAPHS, _UNCOUNTED_PARALLEL_GRAPHS = 1.3, 1.7
# The profiling run reserves the bytes that are allocated at its peak. The second time they are cut out of what is left,
# and the allocator loses some of it: a fifth where FlashInfer samples, less where a sort was profiled as it runs.
_LOST, _LOST_SORTING = 0.2, 0.15
_SORTING_BYTES = 30  # from here on a sampling step sorts
# The second runner's first real steps filter, which its profiling run does not: bf16 and fp32 logits, masked ones and
# probabilities come on top of what it profiles. A study of one L4 allows 20 B, another start with 14 B lived.
_SECOND_BYTES = 14


@dataclass(frozen=True)
class Startup:
    """Memory beside the budget, on each GPU."""

    context_gib: float  # CUDA context and communicators, there before vLLM measures anything
    kernels_gib: float  # modules, tuning and workspaces
    graphs_gib: float  # CUDA graphs that the budget does not hold
    sampler_gib: float  # what the sampler's warm-up takes beyond what profiling reserved
    left_gib: float  # what utilization leaves alone, and what the budget holds for an encoder that no warm-up runs

    @property
    def needed_gib(self) -> float:
        """All of it."""
        return self.context_gib + self.kernels_gib + self.graphs_gib + self.sampler_gib

    @property
    def starts(self) -> bool:
        """Whether the share that utilization leaves holds it."""
        return self.needed_gib <= self.left_gib

    @property
    def reason(self) -> str:
        """Why it dies, with the largest part named."""
        parts = {
            "the sampler's warm-up": self.sampler_gib,
            "CUDA graphs": self.graphs_gib,
            "kernels and workspaces": self.kernels_gib,
            "the CUDA context and communicators": self.context_gib,
        }
        named = ", ".join(f"{name} {gib:.2f}" for name, gib in sorted(parts.items(), key=lambda part: -part[1]) if gib)
        return (
            f"it runs out of memory at start, after its KV cache is allocated: beside its budget it takes "
            f"{self.needed_gib:.2f} GiB ({named}) and utilization leaves {self.left_gib:.2f}"
        )


def startup(
    arch: DecoderArchitecture,
    knobs: Knobs,
    version: VllmVersion,
    quantization: Quantization,
    *,
    left_gib: float,
    activation_gib: float,
    reserved_gib: float,
    graphs_gib: float,
    communicators_gib: float = 0.0,
    flashinfer: bool = False,
) -> Startup:
    """The memory beside the budget of one GPU; `graphs_gib` are those captured, whoever counts them.

    `activation_gib` is the decoder's peak, `reserved_gib` that of the profiling run, which an encoder may have set.
    """
    second = on_second_runner(arch, knobs, quantization, version)
    counted = version.counts_graphs and (not second or version.counts_second_graphs)
    uncounted = _UNCOUNTED_GRAPHS if knobs.tensor_parallel == 1 else _UNCOUNTED_PARALLEL_GRAPHS
    share = _MISSED_GRAPHS if counted else uncounted
    sampler = 0.0
    if version.warms_sampler:
        if second:
            sampler = max(sampler_peak_gib(arch, knobs, version.profiled_bytes + _SECOND_BYTES) - activation_gib, 0)
        else:
            peak = sampler_peak_gib(arch, knobs, version.sampler_bytes)
            lost = _LOST_SORTING if version.sampler_bytes >= _SORTING_BYTES else _LOST
            sampler = peak * lost + max(peak - activation_gib, 0)
    return Startup(
        context_gib=CONTEXT_GIB + communicators_gib,
        kernels_gib=_KERNELS_GIB + (_WORKSPACE_GIB if flashinfer and version.flashinfer_workspace else 0),
        graphs_gib=graphs_gib * share,
        sampler_gib=sampler,
        left_gib=left_gib + max(reserved_gib - activation_gib, 0),
    )
