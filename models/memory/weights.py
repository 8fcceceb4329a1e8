"""Weights: the size of the files from the architecture, and what of it a GPU holds once vLLM has loaded them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.facts import GIB
from models.weights import DecoderArchitecture, Experts, Quantization

HALF = 2  # bytes of float16 and bfloat16; vLLM serves a float32 checkpoint in half precision
# Bytes of a weight that a quantised file stores small, scales included.
STORED_BYTES = {
    Quantization.AWQ: 0.5 + (2 + 0.5) / 128,  # groups of 128: a 2-byte scale and a 4-bit zero point each
    Quantization.GPTQ: 0.5 + (2 + 0.5) / 128,
    Quantization.FP8: 1.0,
    Quantization.INT8: 1.0,
    Quantization.MXFP4: 0.5 + 1 / 32,  # blocks of 32 with a 1-byte scale
    Quantization.NVFP4: 0.5 + 1 / 16,  # blocks of 16 with a 1-byte scale
    Quantization.BITSANDBYTES: 0.5 + 4 / 64,  # vLLM keeps the scales of its blocks of 64 in float32
    Quantization.GGUF: 4.85 / 8,  # Q4_K_M; where it matters the size of the file is given
}
# Quantised while loading where the files are in half precision.
_ON_LOAD = frozenset({Quantization.FP8, Quantization.BITSANDBYTES})
# Files of these keep embedding and lm_head apart, even where the model ties them.
_APART = frozenset({Quantization.AWQ, Quantization.GPTQ})
# The loaded model exceeds its tensors by as much of them, and by at most so many GiB, in the logs.
_ALLOCATOR_SHARE, _ALLOCATOR_GIB = 0.004, 0.05


@dataclass(frozen=True)
class Shape:
    """What the parameter count tells about a decoder beside its config: MLP matrices and embedding copies."""

    mlp_matrices: int  # 3: gated (SwiGLU), 2: plain
    embeddings: int  # 2: lm_head is a matrix of its own, 1: tied to the embedding
    linear: int  # parameters of the matrices that a quantised file stores small


def body_parameters(arch: DecoderArchitecture, mlp_matrices: int) -> int:
    """Parameters of the layers of a dense decoder: attention, MLP and norms."""
    attention = arch.hidden * arch.head_dim * (2 * arch.heads + 2 * arch.kv_heads)
    return arch.layers * (attention + mlp_matrices * arch.hidden * arch.ffn + 2 * arch.hidden) + arch.hidden


def shape(arch: DecoderArchitecture) -> Shape:
    """What the architecture says, and where it is silent the reading of the parameter count that comes closest."""
    embedding = arch.vocab * arch.hidden

    def error(reading: tuple[int, int]) -> int:
        return abs(body_parameters(arch, reading[0]) + reading[1] * embedding - arch.parameters)

    matrices, copies = min(((m, c) for m in (3, 2) for c in (1, 2)), key=error)
    if arch.mlp_matrices is not None:
        matrices = arch.mlp_matrices
    if arch.tied is not None:
        copies = 1 if arch.tied else 2
    linear = arch.parameters - copies * embedding if arch.linear is None else arch.linear
    return Shape(matrices, copies, linear)


def disk_bytes(arch: DecoderArchitecture, quantization: Quantization, dtype: str = "bfloat16") -> int:
    """Size of the weight files from the architecture alone."""
    found = shape(arch)
    beside = (arch.tower.parameters if arch.tower else 0) + arch.unloaded
    if quantization is Quantization.NONE:
        return (arch.parameters + beside) * (4 if dtype == "float32" else HALF)
    embedding = arch.vocab * arch.hidden
    copies = 2 if quantization in _APART else found.embeddings
    half = arch.parameters - found.linear - found.embeddings * embedding + copies * embedding + beside
    return int(found.linear * STORED_BYTES[quantization]) + half * HALF


def _padding(arch: DecoderArchitecture, experts: Experts, tensor_parallel: int) -> float:
    """Share that experts in MXFP4 grow by: the kernels want widths of whole tiles (Marlin, below Blackwell)."""
    ffn = math.ceil(experts.ffn / tensor_parallel)
    hidden, width = math.ceil(arch.hidden / 256) * 256, math.ceil(ffn / 128) * 128
    return hidden * width / (arch.hidden * ffn)


def gpu_weights_gib(
    arch: DecoderArchitecture,
    quantization: Quantization,
    weights_bytes: int | None = None,
    *,
    dtype: str = "bfloat16",
    tensor_parallel: int = 1,
) -> float:
    """Weights as vLLM holds them on each GPU, with its rotary tables.

    Not all of the files arrive: a float32 checkpoint is served in half precision, a tied lm_head that a checkpoint
    stores apart is shared again, a prediction head that nobody asked for stays in its file, and `fp8` or
    `bitsandbytes` on a half-precision checkpoint quantise while loading.
    """
    found = shape(arch)
    stored = disk_bytes(arch, quantization, dtype)
    loaded = weights_bytes or stored
    embedding = arch.vocab * arch.hidden * (4 if quantization is Quantization.NONE and dtype == "float32" else HALF)
    if quantization in _ON_LOAD and loaded > 1.4 * stored:
        loaded = stored
    elif found.embeddings == 1:
        apart = stored if quantization in _APART else stored + embedding
        loaded -= embedding if loaded > apart - embedding / 2 else 0
    loaded -= arch.unloaded * HALF
    if quantization is Quantization.NONE and dtype == "float32":
        loaded //= 2
    if quantization is Quantization.MXFP4 and arch.experts:
        of_experts = (
            arch.experts.layers * arch.experts.count * 3 * arch.hidden * arch.experts.ffn * STORED_BYTES[quantization]
        )
        loaded += int(of_experts * (_padding(arch, arch.experts, tensor_parallel) - 1))
    rotary = arch.max_positions * arch.head_dim * HALF * arch.rotary_tables
    gib = (loaded / tensor_parallel + rotary) / GIB
    return gib + min(gib * _ALLOCATOR_SHARE, _ALLOCATOR_GIB)
