"""GPU memory under vLLM: its own start-up as arithmetic.

Load the weights, run one forward pass and one sampling step at the largest batch to find the peak, estimate the CUDA
graphs, and give the KV cache what is left of `total x utilization`. Formulas with their sources, and the error against
real logs: docs/memory.md. All figures are per GPU unless the name says otherwise; GiB is 2**30 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.facts import GIB
from models.machines import GPUS
from models.memory.versions import DEFAULT_VERSION, VllmVersion
from models.weights import DecoderArchitecture, Quantization

# Chunked prefill switches itself on above this context in the versions that batch the whole context.
_WHOLE_CONTEXT_LIMIT = 32_768
CHUNK = 2048
_LARGE_GPU_GIB = 70  # get_batch_defaults: from here on (A100 excepted) the defaults of an H100
_LARGE_GPU_SEQS, _LARGE_GPU_TOKENS = 1024, 8192
_SEQS = 256

# What vLLM prints as total memory. L4 from the machine table; the others from logs in tests/models/vllm_logs.py.
GPU_GIB = {gpu.name.removeprefix("nvidia-"): gpu.usable_gib for gpu in GPUS.values()} | {
    "t4": 14.56,
    "a10g": 22.06,
    "rtx3090": 23.57,
    "rtx4090": 23.53,
    "v100-32gb": 31.74,
    "a100-40gb": 39.49,
    "l40s": 44.39,
    "a100-80gb": 79.15,
    "h100": 79.18,
}


@dataclass(frozen=True)
class Knobs:
    """The flags of vLLM that memory depends on."""

    max_model_len: int | None  # None: the model's max_position_embeddings, as vLLM does
    max_num_seqs: int
    max_num_batched_tokens: int
    utilization: float
    tensor_parallel: int = 1
    eager: bool = False
    block_size: int = 16  # tokens of a KV block


def default_knobs(
    gpu_gib: float,
    context: int,
    *,
    version: VllmVersion = DEFAULT_VERSION,
    max_num_seqs: int | None = None,
    large: bool | None = None,
) -> Knobs:
    """What `vllm serve` takes where no flag is given.

    `large` overrides the guess that a GPU of 70 GiB or more is an H100 (an A100 keeps the small defaults).
    """
    big = gpu_gib >= _LARGE_GPU_GIB if large is None else large
    tokens = version.batched_tokens
    if tokens is None:
        tokens = CHUNK if context > _WHOLE_CONTEXT_LIMIT else max(context, CHUNK)
        seqs = _SEQS
    else:
        tokens = max(tokens, _LARGE_GPU_TOKENS) if big else tokens
        seqs = _LARGE_GPU_SEQS if big else _SEQS
    tokens = min(tokens, (max_num_seqs or seqs) * context)
    return Knobs(
        max_model_len=None,
        max_num_seqs=max_num_seqs or min(seqs, tokens),
        max_num_batched_tokens=tokens,
        utilization=version.utilization,
    )


# --- GPU: weights -------------------------------------------------------------------------------------------

_HALF = 2  # bytes of float16 and bfloat16; vLLM serves a float32 checkpoint in half precision
# 4-bit groups of 128: 0.5 B a weight, a 2-byte scale and a 4-bit zero point a group.
_INT4_BYTES = 0.5 + (2 + 0.5) / 128
_ALLOCATOR_GIB = 0.05  # the loaded model exceeds its tensors by 0.01 to 0.10 GiB in the logs


@dataclass(frozen=True)
class _Shape:
    """What the parameter count tells about a decoder beside its config: MLP matrices and embedding copies."""

    mlp_matrices: int  # 3: gated (SwiGLU), 2: plain
    embeddings: int  # 2: lm_head is a matrix of its own, 1: tied to the embedding
    linear: int  # parameters outside embedding and lm_head


def body_parameters(arch: DecoderArchitecture, mlp_matrices: int) -> int:
    """Parameters of the layers: attention, MLP and norms."""
    attention = arch.hidden * arch.head_dim * (2 * arch.heads + 2 * arch.kv_heads)
    return arch.layers * (attention + mlp_matrices * arch.hidden * arch.ffn + 2 * arch.hidden) + arch.hidden


def _shape(arch: DecoderArchitecture) -> _Shape:
    """The reading of the parameter count that comes closest to it."""
    embedding = arch.vocab * arch.hidden

    def error(reading: tuple[int, int]) -> int:
        return abs(body_parameters(arch, reading[0]) + reading[1] * embedding - arch.parameters)

    matrices, copies = min(((m, c) for m in (3, 2) for c in (1, 2)), key=error)
    return _Shape(matrices, copies, arch.parameters - copies * embedding)


def disk_bytes(arch: DecoderArchitecture, quantization: Quantization, dtype: str = "bfloat16") -> int:
    """Size of the weight files from the architecture alone.

    4-bit files keep embedding and lm_head in half precision and apart, even where the model ties them.
    """
    shape = _shape(arch)
    embedding = arch.vocab * arch.hidden * _HALF
    match quantization:
        case Quantization.NONE:
            return arch.parameters * (4 if dtype == "float32" else _HALF)
        case Quantization.FP8:
            return shape.linear + shape.embeddings * embedding
        case Quantization.AWQ | Quantization.GPTQ:
            return int(shape.linear * _INT4_BYTES) + 2 * embedding


def gpu_weights_gib(
    arch: DecoderArchitecture,
    quantization: Quantization,
    weights_bytes: int | None = None,
    *,
    dtype: str = "bfloat16",
    tensor_parallel: int = 1,
) -> float:
    """Weights as vLLM holds them on each GPU, with its rotary table.

    Not all of the files arrive: a float32 checkpoint is served in half precision, a tied lm_head that a 4-bit
    checkpoint stores apart is shared again, and `fp8` on a half-precision checkpoint quantises while loading.
    """
    shape = _shape(arch)
    stored = disk_bytes(arch, quantization, dtype)
    loaded = weights_bytes or stored
    embedding = arch.vocab * arch.hidden * _HALF
    if quantization is Quantization.NONE and dtype == "float32":
        loaded //= 2
    elif quantization is Quantization.FP8 and loaded > 1.4 * stored:
        loaded = stored
    elif quantization in (Quantization.AWQ, Quantization.GPTQ) and shape.embeddings == 1:
        loaded -= embedding if loaded > stored - embedding / 2 else 0
    rotary = arch.max_positions * arch.head_dim * _HALF
    return (loaded / tensor_parallel + rotary) / GIB + _ALLOCATOR_GIB


# --- GPU: activations, graphs, KV cache -----------------------------------------------------------------------

_HIDDEN_COPIES = 4  # residual, norm output, layer input and output live beside the MLP's buffers
# A CUDA graph keeps some MiB a captured batch size; 7 MiB at 32 layers in the logs.
_GRAPH_MIB_PER_LAYER = 7 / 32
# NCCL and custom all-reduce: cards on PCIe against NVLink machines.
_TP_GIB, _TP_NVLINK_GIB = 0.2, 0.9
_CONTEXT_GIB = 0.2  # CUDA context of the engine: an idle L4 offers 21.83 of its 22.03 GiB
# Kept back from the verdict, never from the estimate: what versions differ in beyond the logs (docs/memory.md).
_VERDICT_GIB = 0.25


def forward_peak_gib(arch: DecoderArchitecture, knobs: Knobs) -> float:
    """Peak of one forward pass of `max_num_batched_tokens`: the widest of MLP and attention, and hidden states."""
    mlp = _shape(arch).mlp_matrices * arch.ffn
    attention = arch.head_dim * (2 * arch.heads + 2 * arch.kv_heads)
    width = max(mlp, attention) / knobs.tensor_parallel + _HIDDEN_COPIES * arch.hidden
    return knobs.max_num_batched_tokens * width * _HALF / GIB


def sampler_peak_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> float:
    """Peak of one sampling step; logits are gathered, so every GPU holds the whole vocabulary."""
    rows = min(knobs.max_num_seqs, knobs.max_num_batched_tokens)
    return rows * arch.vocab * version.sampler_bytes / GIB


def _captured_batches(limit: int) -> int:
    """Batch sizes up to `limit` that vLLM captures: 1, 2, 4, then steps of 8, from 256 on steps of 16."""
    return sum(size <= limit for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)))


def cuda_graph_gib(arch: DecoderArchitecture, knobs: Knobs) -> float:
    """Estimate of the CUDA graphs: piecewise ones up to twice, full ones up to once `max_num_seqs`."""
    if knobs.eager:
        return 0.0
    graphs = _captured_batches(min(2 * knobs.max_num_seqs, 512)) + _captured_batches(knobs.max_num_seqs)
    return graphs * arch.layers * _GRAPH_MIB_PER_LAYER / 1024


def kv_bytes_per_token(arch: DecoderArchitecture, tensor_parallel: int = 1) -> int:
    """KV cache of one token on one GPU; heads are copied where there are more GPUs than KV heads."""
    return 2 * arch.layers * math.ceil(arch.kv_heads / tensor_parallel) * arch.head_dim * _HALF


@dataclass(frozen=True)
class GpuFit:
    """Where the memory of one GPU goes. `total_gib` = outside + weights + non-torch + activation + graphs + KV."""

    total_gib: float  # what the GPU has
    budget_gib: float  # what vLLM may use of it
    weights_gib: float
    non_torch_gib: float
    activation_gib: float  # the higher of forward pass and sampler
    cuda_graph_gib: float  # reserved within the budget; 0 with eager and in versions that do not count it
    kv_cache_gib: float  # negative: how much is lacking
    kv_cache_tokens: int
    requested_len: int  # context asked for
    max_model_len: int  # longest context that fits, at most the model's own; 0 if none
    concurrency: float  # requests of the requested context at once
    fits: bool
    reason: str


def gpu_fit(
    arch: DecoderArchitecture,
    *,
    quantization: Quantization,
    weights_bytes: int | None,
    gpu_gib: float,
    knobs: Knobs,
    dtype: str = "bfloat16",
    version: VllmVersion = DEFAULT_VERSION,
) -> GpuFit:
    """Whether vLLM starts, and with how much KV cache.

    `weights_bytes` is the size of the weight files, None to compute it; `dtype` is that of the files.
    Raises ValueError for flags that vLLM refuses whatever the memory.
    """
    tp = knobs.tensor_parallel
    check_knobs(arch, knobs)
    requested = knobs.max_model_len or arch.max_positions
    budget = gpu_gib * knobs.utilization
    weights = gpu_weights_gib(arch, quantization, weights_bytes, dtype=dtype, tensor_parallel=tp)
    non_torch = version.non_torch_gib
    if tp > 1:
        non_torch += _TP_NVLINK_GIB if gpu_gib >= _LARGE_GPU_GIB else _TP_GIB
    activation = max(forward_peak_gib(arch, knobs), sampler_peak_gib(arch, knobs, version))
    graphs = cuda_graph_gib(arch, knobs) if version.counts_graphs else 0.0
    kv = budget - weights - non_torch - activation - graphs
    token_bytes = kv_bytes_per_token(arch, tp)

    def tokens(gib: float) -> int:
        blocks = math.floor(gib * GIB / (token_bytes * knobs.block_size))
        return max(blocks, 0) * knobs.block_size

    sure = tokens(kv - _VERDICT_GIB)
    free = budget <= gpu_gib - _CONTEXT_GIB
    fits = free and sure >= requested
    if fits:
        at_once = tokens(kv) / requested
        reason = f"the KV cache holds {tokens(kv):,} tokens: {at_once:.1f} requests of {requested:,} at once"
    elif not free:
        reason = (
            f"utilization {knobs.utilization:g} asks for {budget:.2f} GiB and an idle GPU has "
            f"{gpu_gib - _CONTEXT_GIB:.2f} GiB free"
        )
    elif kv <= 0:
        reason = f"nothing is left for the KV cache: {-kv:.2f} GiB are lacking"
    else:
        reason = (
            f"a context of {requested:,} tokens needs {requested * token_bytes / GIB:.2f} GiB of KV cache "
            f"and {kv:.2f} GiB are left, {_VERDICT_GIB:.2f} of them kept back for the estimate's error"
        )
    return GpuFit(
        total_gib=gpu_gib,
        budget_gib=budget,
        weights_gib=weights,
        non_torch_gib=non_torch,
        activation_gib=activation,
        cuda_graph_gib=graphs,
        kv_cache_gib=kv,
        kv_cache_tokens=tokens(kv),
        requested_len=requested,
        max_model_len=min(sure, arch.max_positions) if free else 0,
        concurrency=tokens(kv) / requested,
        fits=fits,
        reason=reason,
    )


def check_knobs(arch: DecoderArchitecture, knobs: Knobs) -> None:
    """Raise ValueError with the remedy for flags that vLLM refuses whatever the memory."""
    if not 0 < knobs.utilization <= 1:
        raise ValueError(f"utilization {knobs.utilization:g} is no share of a GPU; give one above 0 and up to 1")
    for name in ("max_num_seqs", "max_num_batched_tokens", "tensor_parallel"):
        if getattr(knobs, name) < 1:
            raise ValueError(f"{name} is {getattr(knobs, name)}; give at least 1")
    if knobs.max_model_len is not None and knobs.max_model_len < 1:
        raise ValueError(f"max_model_len is {knobs.max_model_len}; give at least 1")
    if (knobs.max_model_len or 0) > arch.max_positions:
        raise ValueError(
            f"max_model_len {knobs.max_model_len:,} exceeds the model's {arch.max_positions:,} positions, and "
            f"vLLM refuses to start; give at most --max-model-len {arch.max_positions}"
        )
    if knobs.max_num_batched_tokens < knobs.max_num_seqs:
        # Source: vllm/config/scheduler.py, every version: each sequence decodes a token a step.
        raise ValueError(
            f"max_num_batched_tokens {knobs.max_num_batched_tokens} is below max_num_seqs {knobs.max_num_seqs}, and "
            f"vLLM refuses to start; give --max-num-batched-tokens {knobs.max_num_seqs} or more"
        )
    if arch.heads % knobs.tensor_parallel:
        fitting = [n for n in (1, 2, 4, 8) if arch.heads % n == 0]
        raise ValueError(
            f"{arch.heads} attention heads do not divide among {knobs.tensor_parallel} GPUs, and vLLM refuses to "
            f"start; give --tensor-parallel {' or '.join(map(str, fitting))}"
        )
