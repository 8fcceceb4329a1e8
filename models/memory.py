"""What a model needs: GPU memory and KV cache under vLLM, host memory, disk, and the CPU rows (TEI, llama.cpp).

Pure arithmetic on architecture numbers. It follows vLLM's own start-up: load the weights, run one forward pass
and one sampling step at the largest batch to find the peak, estimate the CUDA graphs, and give the KV cache
what is left of `total x utilization`. Formulas with their sources, and the error against real logs:
docs/memory.md. All figures are per GPU unless the name says otherwise; GiB is 2**30 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypedDict

from models.machines import G2_MACHINES, GPUS
from models.spec import (
    GIB,
    DecoderArchitecture,
    EncoderArchitecture,
    ModelSpec,
    Quantization,
    TeiEngine,
    VllmEngine,
    Weights,
)

# --- GPU: what differs between versions of vLLM --------------------------------------------------------------


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

# Chunked prefill switches itself on above this context in the versions that batch the whole context.
_WHOLE_CONTEXT_LIMIT = 32_768
_CHUNK = 2048
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
        tokens = _CHUNK if context > _WHOLE_CONTEXT_LIMIT else max(context, _CHUNK)
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


# --- remedies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remedy:
    """A change that makes a model fit, proven by the model itself."""

    what: str  # "a context of 8,192 tokens"
    flags: Mapping[str, str]  # of `ops fit`, to be added or to replace those given; "" is a flag without value
    fit: GpuFit


_SHORTEST_CONTEXT = 2048  # below this a chat model is of no use
_FEWEST_SEQS, _SMALLEST_CHUNK = 8, 512
_HIGHEST_UTILIZATION = 0.95
_LARGER_GPUS = ("a100-40gb", "l40s", "a100-80gb", "h100")


def _smaller(start: int, floor: int) -> Iterator[int]:
    """Powers of two below `start`, down to `floor`, largest first."""
    size = 1 << (start - 1).bit_length() >> 1
    while size >= floor:
        yield size
        size >>= 1


def remedies(
    arch: DecoderArchitecture,
    *,
    quantization: Quantization,
    weights_bytes: int | None,
    gpu_gib: float,
    knobs: Knobs,
    dtype: str = "bfloat16",
    version: VllmVersion = DEFAULT_VERSION,
) -> tuple[Remedy, ...]:
    """Changes that fit, the least intrusive first; each one was put through `gpu_fit`.

    Fewer sequences and smaller chunks cost throughput, utilization costs safety, eager mode costs speed, a
    shorter context and a quantised model cost ability, more GPUs and a larger GPU cost money. Where no single
    flag helps, all of the cheap ones together are tried.
    """

    def tried(
        what: str,
        flags: Mapping[str, str],
        changed: Knobs = knobs,
        *,
        q: Quantization = quantization,
        size: int | None = weights_bytes,
        gib: float = gpu_gib,
    ) -> Iterator[Remedy]:
        result = gpu_fit(
            arch, quantization=q, weights_bytes=size, gpu_gib=gib, knobs=changed, dtype=dtype, version=version
        )
        if result.fits:
            yield Remedy(what, flags, result)

    def first(candidates: Iterable[Iterator[Remedy]]) -> list[Remedy]:
        return list(islice(chain.from_iterable(candidates), 1))

    def shorter(base: Knobs, flags: Mapping[str, str]) -> Iterator[Remedy]:
        longest = gpu_fit(
            arch,
            quantization=quantization,
            weights_bytes=weights_bytes,
            gpu_gib=gpu_gib,
            knobs=base,
            dtype=dtype,
            version=version,
        ).max_model_len
        longest -= longest % 1024
        if longest >= _SHORTEST_CONTEXT:
            changed = replace(base, max_model_len=longest)
            what = f"a context of {longest:,} tokens"
            if flags:
                what += f", {base.max_num_seqs} sequences and utilization {base.utilization:g}"
            yield from tried(what, {**flags, "--max-model-len": str(longest)}, changed)

    # The next steps of 5 %; from above the highest, the way back to what an idle GPU has free.
    utilizations = [u / 100 for u in range(5, 100, 5) if u / 100 > knobs.utilization] or [_HIGHEST_UTILIZATION]
    found = first(
        tried(f"at most {n} sequences at once", {"--max-num-seqs": str(n)}, replace(knobs, max_num_seqs=n))
        for n in _smaller(knobs.max_num_seqs, _FEWEST_SEQS)
    )
    found += first(
        tried(
            f"prefill in chunks of {n:,} tokens",
            {"--max-num-batched-tokens": str(n)},
            replace(knobs, max_num_batched_tokens=n),
        )
        for n in _smaller(knobs.max_num_batched_tokens, max(_SMALLEST_CHUNK, knobs.max_num_seqs))
    )
    found += first(
        tried(f"utilization {u:.2f}", {"--utilization": f"{u:.2f}"}, replace(knobs, utilization=u))
        for u in utilizations
    )
    if not knobs.eager:
        found += tried("no CUDA graphs (slower decoding)", {"--eager": ""}, replace(knobs, eager=True))
    found += shorter(knobs, {})
    if not found:
        least = replace(
            knobs,
            max_num_seqs=min(knobs.max_num_seqs, _FEWEST_SEQS),
            max_num_batched_tokens=min(knobs.max_num_batched_tokens, _CHUNK),
            utilization=_HIGHEST_UTILIZATION,
        )
        flags = {
            "--max-num-seqs": str(least.max_num_seqs),
            "--max-num-batched-tokens": str(least.max_num_batched_tokens),
            "--utilization": str(least.utilization),
        }
        found += shorter(least, flags)
    for q in (Quantization.FP8, Quantization.AWQ):
        size = disk_bytes(arch, q)
        if size < gpu_weights_gib(arch, quantization, weights_bytes, dtype=dtype) * GIB * 0.9:
            flags = {"--quantization": q.value, "--weights-bytes": str(size)}
            found += tried(f"the model quantised to {q.value.upper()}", flags, q=q, size=size)
    found += first(
        tried(f"{n} GPUs", {"--tensor-parallel": str(n)}, replace(knobs, tensor_parallel=n))
        for n in (2, 4, 8)
        if n > knobs.tensor_parallel and arch.heads % n == 0
    )
    found += first(
        tried(f"a larger GPU ({name.upper()})", {"--gpu": name}, gib=GPU_GIB[name])
        for name in _LARGER_GPUS
        if GPU_GIB[name] > gpu_gib + 1
    )
    return tuple(found)


# --- catalog entries --------------------------------------------------------------------------------------------


def decoder(spec: ModelSpec) -> tuple[VllmEngine, Weights, DecoderArchitecture]:
    """The parts of an entry that runs on vLLM. Raises ValueError for any other."""
    engine, weights = spec.engine, spec.weights
    if (
        not isinstance(engine, VllmEngine)
        or weights is None
        or not isinstance(weights.architecture, DecoderArchitecture)
    ):
        raise ValueError(f"{spec.alias} does not run on vLLM")
    return engine, weights, weights.architecture


def knobs_of(spec: ModelSpec) -> Knobs:
    """The flags that an entry is served with."""
    engine, _, _ = decoder(spec)
    return Knobs(
        max_model_len=spec.context,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        utilization=engine.gpu_memory_utilization,
        tensor_parallel=engine.gpus,
        eager=engine.eager,
    )


class _Served(TypedDict):
    """What `gpu_fit` and `remedies` take of an entry."""

    quantization: Quantization
    weights_bytes: int | None
    gpu_gib: float
    knobs: Knobs
    dtype: str
    version: VllmVersion


def _served(spec: ModelSpec) -> tuple[DecoderArchitecture, _Served]:
    engine, weights, arch = decoder(spec)
    return arch, _Served(
        quantization=weights.quantization,
        weights_bytes=weights.bytes_on_disk,
        dtype=weights.dtype,
        gpu_gib=GPUS[engine.accelerator].usable_gib,
        knobs=knobs_of(spec),
        version=vllm_version(engine.image.tag.split("-")[0]),
    )


def fit_model(spec: ModelSpec) -> GpuFit:
    """Whether an entry fits the GPU it names. Raises ValueError for one that does not run on vLLM."""
    arch, served = _served(spec)
    return gpu_fit(arch, **served)


def model_remedies(spec: ModelSpec) -> tuple[Remedy, ...]:
    """What would make an entry fit. Raises ValueError for one that does not run on vLLM."""
    arch, served = _served(spec)
    return remedies(arch, **served)


# --- host memory and disk -------------------------------------------------------------------------------------

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


def host_memory(spec: ModelSpec) -> HostMemory:
    """Host memory of an entry on vLLM. Raises ValueError for any other."""
    engine, weights, _ = decoder(spec)
    return vllm_host_memory(weights.bytes_on_disk, engine.gpus)


def smallest_g2(host_gib: float, gpus: int = 1) -> str | None:
    """The smallest G2 machine with that many GPUs that leaves a pod so much memory, None if there is none."""
    holding = (m.name for m in G2_MACHINES.values() if m.gpus >= gpus and m.pod_gib >= host_gib)
    return next(holding, None)


_CLAIM_STEP_GIB = 5


def disk_gib(weights_bytes: int) -> int:
    """Size of the claim that holds weights: a quarter and 2 GiB on top, in steps of 5 GiB.

    The margin holds the partial files of an interrupted download, the file system's own share and the growth
    of a new revision, so that a claim, which never shrinks, seldom has to grow.
    """
    needed = weights_bytes / GIB * 1.25 + 2
    return math.ceil(needed / _CLAIM_STEP_GIB) * _CLAIM_STEP_GIB


def claim_gib(spec: ModelSpec) -> int:
    """Size of an entry's claim, whole GiB. Raises ValueError for an entry that stores nothing here."""
    if spec.weights is None:
        raise ValueError(f"{spec.alias} stores no weights here and has no claim")
    return disk_gib(spec.weights.bytes_on_disk)


# --- CPU rows ---------------------------------------------------------------------------------------------------

_FLOAT32 = 4
_TEI_PROCESS_GIB = 0.35  # router, tokenizers of every worker
_SCORE_COPIES, _FFN_COPIES, _ENCODER_HIDDEN_COPIES = 3, 2, 8  # tensors of one layer alive at once
_FRAGMENTATION = 1.25  # allocator arenas of a multi-threaded CPU backend


def encoder_gib(arch: EncoderArchitecture, *, max_batch_tokens: int, context: int) -> float:
    """Memory of text-embeddings-inference on CPU, float32, after its warm-up.

    The warm-up runs one batch of `max_batch_tokens` in inputs as long as the context allows, so attention
    scores (tokens x context x heads) are allocated in full before the first request.
    """
    length = min(context, max_batch_tokens)
    width = _SCORE_COPIES * length * arch.heads + _FFN_COPIES * arch.ffn + _ENCODER_HIDDEN_COPIES * arch.hidden
    activation = max_batch_tokens * width * _FLOAT32
    weights = arch.parameters * _FLOAT32
    return _TEI_PROCESS_GIB + (weights + activation) * _FRAGMENTATION / GIB


def tei_memory(spec: ModelSpec) -> float:
    """Host memory of an entry on text-embeddings-inference, GiB, rounded up to a tenth.

    Raises ValueError for any other entry.
    """
    engine, weights = spec.engine, spec.weights
    if (
        not isinstance(engine, TeiEngine)
        or weights is None
        or not isinstance(weights.architecture, EncoderArchitecture)
    ):
        raise ValueError(f"{spec.alias} is no encoder on text-embeddings-inference")
    arch = weights.architecture
    context = spec.context or arch.max_positions
    return math.ceil(encoder_gib(arch, max_batch_tokens=engine.max_batch_tokens, context=context) * 10) / 10


@dataclass(frozen=True)
class GgufMemory:
    """Memory of llama.cpp on CPU."""

    file_gib: float  # mapped, and touched whole by the first token
    kv_cache_gib: float
    compute_gib: float
    process_gib: float

    @property
    def total_gib(self) -> float:
        """All of it."""
        return self.file_gib + self.kv_cache_gib + self.compute_gib + self.process_gib


_GGUF_PROCESS_GIB = 0.3  # HTTP server and Python around the library
_UBATCH = 512  # tokens of one physical batch
_GRAPH_HIDDEN_COPIES = 5


def gguf_memory(arch: DecoderArchitecture, *, file_bytes: int, context: int) -> GgufMemory:
    """Memory of llama.cpp serving a GGUF file on CPU with an f16 KV cache, which it allocates in full.

    The compute buffer is the larger of the logits of a batch and one layer's attention scores, as its log
    prints it: 296 MiB for Llama-2-7B at 4096 tokens, 70.5 MiB at 512.
    """
    hidden = _UBATCH * arch.hidden * _FLOAT32
    logits = _UBATCH * arch.vocab * _FLOAT32 + hidden
    scores = arch.heads * _UBATCH * context * _FLOAT32 + _GRAPH_HIDDEN_COPIES * hidden
    return GgufMemory(
        file_gib=file_bytes / GIB,
        kv_cache_gib=kv_bytes_per_token(arch) * context / GIB,
        compute_gib=max(logits, scores) / GIB,
        process_gib=_GGUF_PROCESS_GIB,
    )
