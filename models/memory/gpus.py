"""GPUs as vLLM sees them: the memory that it prints, and what their compute capability lets them run."""

from __future__ import annotations

from dataclasses import dataclass

from models.machines import GPUS
from models.memory.versions import VllmVersion
from models.weights import Quantization


@dataclass(frozen=True)
class Card:
    """One model of GPU."""

    gib: float  # total memory as vLLM prints it
    capability: tuple[int, int]  # of CUDA, (8, 9)


_HOPPER = 9


def needs_flashinfer(capability: tuple[int, int], *, fp8_cache: bool = False) -> bool:
    """Whether attention runs on FlashInfer, whose workspace is allocated after the KV cache.

    FlashAttention reads an FP8 cache on 9.x alone (`flash_attn_supports_fp8` in vLLM's fa_utils.py).
    """
    return capability < (8, 0) or capability[0] == 10 or (fp8_cache and capability[0] != _HOPPER)


# Memory: L4 from the machine table, the others from logs in tests/models/vllm_logs.py. Capabilities: NVIDIA's list.
CARDS = {gpu.name.removeprefix("nvidia-"): Card(gpu.usable_gib, gpu.capability) for gpu in GPUS.values()} | {
    "t4": Card(14.56, (7, 5)),
    "v100-32gb": Card(31.74, (7, 0)),
    "a10g": Card(22.06, (8, 6)),
    "rtx3090": Card(23.57, (8, 6)),
    "rtx4090": Card(23.53, (8, 9)),
    "rtx5090": Card(31.36, (12, 0)),
    "a100-40gb": Card(39.49, (8, 0)),
    "l40s": Card(44.39, (8, 9)),
    "a100-80gb": Card(79.15, (8, 0)),
    "h100": Card(79.18, (9, 0)),
}
GPU_GIB = {name: card.gib for name, card in CARDS.items()}

# Lowest capability of a kernel that vLLM has for it: `get_min_capability` of its quantisation classes.
_LOWEST = {
    Quantization.AWQ: (7, 5),
    Quantization.GPTQ: (7, 0),
    Quantization.FP8: (7, 5),
    Quantization.INT8: (7, 5),
    Quantization.MXFP4: (8, 0),
    Quantization.NVFP4: (7, 5),
    Quantization.BITSANDBYTES: (7, 0),
    Quantization.GGUF: (6, 0),
}
_AMPERE = (8, 0)


def _name(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def check_card(
    capability: tuple[int, int],
    *,
    quantization: Quantization,
    served_dtype: str,
    version: VllmVersion,
    family: str = "",
) -> None:
    """Raise ValueError with the remedy for what a card of that capability cannot run, whatever its memory."""
    if served_dtype == "bfloat16" and capability < _AMPERE:
        only = family in FLOAT32_OR_BFLOAT16
        raise ValueError(
            f"bfloat16 needs a GPU of compute capability 8.0 and this one has {_name(capability)}, so vLLM refuses "
            f"--dtype bfloat16{f', and {family} overflows in float16' if only else ''}; "
            f"give {'--gpu l4 or another card of 8.0 or later' if only else '--dtype float16'}"
        )
    lowest = _LOWEST.get(quantization, (0, 0))
    if quantization in (Quantization.FP8, Quantization.NVFP4) and not version.marlin_on_turing:
        lowest = _AMPERE
    check_method(capability, lowest, f"{quantization} weights need")


def check_dtype(given: str | None, family: str, capability: tuple[int, int] | None) -> None:
    """Raise ValueError with the remedy for a --dtype that vLLM refuses for a family, on every card."""
    if given == "float16" and family in FLOAT32_OR_BFLOAT16:
        old = capability is not None and capability < _AMPERE
        raise ValueError(
            f"{family} overflows in float16, so vLLM refuses --dtype float16; give "
            f"{'--gpu l4 or another card of 8.0 or later' if old else '--dtype bfloat16'}"
        )


def check_cache(capability: tuple[int, int], kv_cache_dtype: str, family: str) -> None:
    """Raise ValueError with the remedy for an FP8 cache that the only attention backend of a family cannot read."""
    if kv_cache_dtype in ("fp8", "fp8_e4m3") and family in ON_TRITON and capability < _E4M3:
        raise ValueError(
            f"attention of {family} runs on Triton, whose {kv_cache_dtype} KV cache needs a GPU of compute capability "
            f"{_name(_E4M3)} and this one has {_name(capability)}, so vLLM fails to start; give --kv-cache-dtype auto"
        )


def check_method(capability: tuple[int, int], lowest: tuple[int, int], what: str) -> None:
    """Raise ValueError with the remedy for a card below the lowest with a kernel; `what` is "fp8 weights need"."""
    if capability < lowest:
        raise ValueError(
            f"{what} a GPU of compute capability {_name(lowest)} and this one has {_name(capability)}, so vLLM refuses "
            f"to start; give --gpu l4 or another card of {_name(lowest)} or later"
        )


# Families with sinks, heads of 512 or cross attention, which FlashInfer refuses (vllm#40153, vllm#40677); what Triton
# says of FP8 below 8.9: vllm#26431.
ON_TRITON = frozenset({"gpt_oss", "gemma4", "whisper"})
_E4M3 = (8, 9)

# `_FLOAT16_NOT_SUPPORTED_MODELS` in vllm/config/model.py.
FLOAT32_OR_BFLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "plamo2", "glm4"})
