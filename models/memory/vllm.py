"""GPU memory under vLLM: its own start-up as arithmetic.

Load the weights, run one forward pass and one sampling step at the largest batch to find the peak, estimate the CUDA
graphs, and give the KV cache what is left of `total x utilization`. Formulas with their sources, and the error against
real logs: docs/memory.md. All figures are per GPU unless the name says otherwise; GiB is 2**30 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from models.facts import GIB
from models.memory.gpus import ON_TRITON, check_cache, check_card, check_dtype, needs_flashinfer
from models.memory.kv_cache import KvLayout, cache_layers, kv_layout, layer_token_bytes
from models.memory.peaks import (
    compiling_gib,
    contexts_of_items,
    forward_peak_gib,
    on_second_runner,
    profiled_sampler_bytes,
    sampler_peak_gib,
    tower_output_gib,
    tower_peak_gib,
)
from models.memory.startup import CONTEXT_GIB, Startup, startup
from models.memory.versions import DEFAULT_VERSION, VllmVersion
from models.memory.weights import HALF, gpu_weights_gib
from models.weights import DecoderArchitecture, Quantization, Tower

# Chunked prefill switches itself on above this context in the versions that batch the whole context.
_WHOLE_CONTEXT_LIMIT = 32_768
CHUNK = 2048
_LARGE_GPU_GIB = 70  # get_batch_defaults: from here on (A100 excepted) the defaults of an H100
_LARGE_GPU_SEQS, _LARGE_GPU_TOKENS = 1024, 8192
_HUGE_GPU_GIB, _HUGE_GPU_TOKENS = 160, 16_384
_SEQS = 256

# Bytes of an element of the KV cache, by --kv-cache-dtype; "auto" is the model's own, which is half precision.
KV_CACHE_DTYPES = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True)
class Speculation:
    """Tokens that are guessed ahead (--speculative-config)."""

    method: Literal["ngram", "mtp", "draft"]
    tokens: int  # guessed a step
    draft: DecoderArchitecture | None = None  # of "draft"
    draft_bytes: int | None = None  # of its files


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
    kv_cache_dtype: str = "auto"
    max_loras: int = 0  # adapters at once; 0 without --enable-lora
    max_lora_rank: int = 16
    speculation: Speculation | None = None
    language_only: bool = False  # --language-model-only: no encoder of images
    videos: bool = True  # --limit-mm-per-prompt '{"video": 0}' takes none, and profiles with images alone
    compiled: bool = False  # a later start, which finds the code that an earlier one compiled
    prefix_caching: bool | None = None  # None: as the version does where layers have a state, the only ones it costs

    @property
    def kv_element_bytes(self) -> int:
        """Bytes of an element of the KV cache."""
        return KV_CACHE_DTYPES[self.kv_cache_dtype]

    @property
    def speculative_tokens(self) -> int:
        """Tokens guessed a step."""
        return self.speculation.tokens if self.speculation else 0


def default_knobs(
    gpu_gib: float,
    context: int,
    *,
    version: VllmVersion = DEFAULT_VERSION,
    max_num_seqs: int | None = None,
    large: bool | None = None,
    capability: tuple[int, int] | None = None,
    tower: Tower | None = None,
) -> Knobs:
    """What `vllm serve` takes where no flag is given.

    `large` overrides the guess that a GPU of 70 GiB or more is an H100 (an A100 keeps the small defaults); `tower` is
    the encoder that is loaded. A video counts even where --limit-mm-per-prompt takes none.
    """
    big = version.large_defaults and (gpu_gib >= _LARGE_GPU_GIB if large is None else large)
    tokens = version.batched_tokens
    if tokens is None or (capability is not None and capability < version.old_engine_below):
        tokens = CHUNK if context > _WHOLE_CONTEXT_LIMIT else max(context, CHUNK)
        seqs = _SEQS
    else:
        most = _HUGE_GPU_TOKENS if version.huge_batch and gpu_gib >= _HUGE_GPU_GIB else _LARGE_GPU_TOKENS
        tokens = max(tokens, most) if big else tokens
        seqs = _LARGE_GPU_SEQS if big else version.seqs
    if tower is not None and version.raises_batch:
        tokens = max(tokens, tower.whole)
    tokens = min(tokens, (max_num_seqs or seqs) * context)
    return Knobs(
        max_model_len=None,
        max_num_seqs=max_num_seqs or min(seqs, tokens),
        max_num_batched_tokens=tokens,
        utilization=version.utilization,
    )


# --- graphs, adapters, KV cache ---------------------------------------------------------------------------------

# A CUDA graph keeps some MiB a captured batch size; 7 MiB at 32 layers in the logs.
_GRAPH_MIB_PER_LAYER = 7 / 32
# Of layers with a state, however few graphs: 0.36 GiB estimated for two, 0.51 taken by nine.
_LEAST_STATE_GRAPHS_GIB = 0.35
# NCCL and custom all-reduce: cards on PCIe against NVLink machines.
_TP_GIB, _TP_NVLINK_GIB = 0.2, 0.9
_NAMED_GIB = 0.5  # of an encoder's peak: from here on a refusal names it
_BLACKWELL_CONSUMER = 12  # compute capability of RTX 50 and RTX PRO cards, which have no NVLink
# Kept back from the verdict, never from the estimate: what versions differ in beyond the logs (docs/memory.md).
_VERDICT_GIB = 0.25


def _captured_batches(limit: int, version: VllmVersion) -> int:
    """Batch sizes up to `limit` that vLLM captures: 1, 2, 4, then steps of 8, from 256 on of 16."""
    sizes = range(8, 513, 8) if version.dense_captures else (*range(8, 256, 8), *range(256, 513, 16))
    return sum(size <= limit for size in (1, 2, 4, *sizes))


def cuda_graph_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion = DEFAULT_VERSION) -> float:
    """Estimate of the CUDA graphs: piecewise ones up to twice, full ones up to once `max_num_seqs`."""
    if knobs.eager:
        return 0.0
    rows = knobs.max_num_seqs * (1 + knobs.speculative_tokens)
    most = min(2 * rows, 512, knobs.max_num_batched_tokens)
    decodes_only = any(layers.attention == "cross" for layers in arch.cache)  # encoder-decoders capture nothing else
    graphs = 0 if decodes_only else _captured_batches(most, version)
    if version.full_graphs:
        graphs += _captured_batches(min(rows, most), version)
    if knobs.max_loras:
        graphs *= 2  # with and without an adapter
    gib = graphs * arch.layers * _GRAPH_MIB_PER_LAYER / 1024
    return max(gib, _LEAST_STATE_GRAPHS_GIB) if arch.states else gib


def lora_gib(arch: DecoderArchitecture, knobs: Knobs) -> float:
    """Slots of the adapters on one GPU, allocated while loading: two thin matrices beside each linear layer.

    Source: `create_lora_weights` in vllm/lora/layers: each slice of a fused layer has its own first matrix, which every
    GPU keeps whole.
    """
    if not knobs.max_loras:
        return 0.0
    tp, hidden, heads = knobs.tensor_parallel, arch.hidden, arch.heads * arch.head_dim
    attention = 3 * hidden + (heads + 2 * arch.kv_heads * arch.head_dim) / tp + heads / tp + hidden
    mlp = 2 * hidden + 2 * arch.ffn / tp + arch.ffn / tp + hidden
    per_layer = attention + mlp
    if arch.experts is not None:
        per_layer = attention + arch.experts.count * (3 * hidden + 3 * arch.experts.ffn / tp)
    return knobs.max_loras * knobs.max_lora_rank * arch.layers * per_layer * HALF / GIB


def draft_gib(arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization) -> float:
    """Weights of what guesses ahead, on one GPU: none for n-grams."""
    speculation = knobs.speculation
    if speculation is None or speculation.method == "ngram":
        return 0.0
    if speculation.method == "mtp":
        return arch.unloaded * HALF / knobs.tensor_parallel / GIB
    if speculation.draft is None:
        raise ValueError("a draft model guesses ahead and nobody says which; give --draft-config FILE")
    return gpu_weights_gib(
        speculation.draft, Quantization.NONE, speculation.draft_bytes, tensor_parallel=knobs.tensor_parallel
    )


def kv_bytes_per_token(arch: DecoderArchitecture, tensor_parallel: int = 1, element_bytes: float = HALF) -> int:
    """KV cache of one token on one GPU, in all layers whose cache grows with the tokens."""
    return int(
        sum(layers.layers * layer_token_bytes(layers, tensor_parallel, element_bytes) for layers in cache_layers(arch))
    )


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
    startup: Startup  # what it takes beside the budget
    layout: KvLayout  # how the KV cache is cut

    def at_once(self, length: int) -> int:
        """Requests of so many tokens that the KV cache holds at once."""
        return int(self.layout.concurrency(self.kv_cache_gib, length))


def gpu_fit(
    arch: DecoderArchitecture,
    *,
    quantization: Quantization,
    weights_bytes: int | None,
    gpu_gib: float,
    knobs: Knobs,
    dtype: str = "bfloat16",
    version: VllmVersion = DEFAULT_VERSION,
    capability: tuple[int, int] | None = None,
    served_dtype: str | None = None,
) -> GpuFit:
    """Whether vLLM starts, and with how much KV cache.

    `weights_bytes` is the size of the weight files, None to compute it; `dtype` is that of the files, `served_dtype`
    that of --dtype where it is given; `capability` is the card's, None where nobody knows it.
    Raises ValueError for flags that vLLM refuses whatever the memory, and for what the card cannot run.
    """
    check_knobs(arch, knobs, version)
    check_dtype(served_dtype, arch.family, capability)
    if capability is not None:
        served = "bfloat16" if (served_dtype or dtype) == "float32" else served_dtype or dtype
        check_card(capability, quantization=quantization, served_dtype=served, version=version, family=arch.family)
        check_cache(capability, knobs.kv_cache_dtype, arch.family)
    if knobs.language_only and arch.tower is not None:
        arch, weights_bytes = _without_tower(arch, weights_bytes)
    tp = knobs.tensor_parallel
    requested = knobs.max_model_len or arch.max_positions
    budget = gpu_gib * knobs.utilization
    weights = gpu_weights_gib(arch, quantization, weights_bytes, dtype=dtype, tensor_parallel=tp)
    weights += lora_gib(arch, knobs) + draft_gib(arch, knobs, quantization)
    on_pcie = capability is not None and capability[0] == _BLACKWELL_CONSUMER
    communicators = 0.0 if tp == 1 else _TP_NVLINK_GIB if gpu_gib >= _LARGE_GPU_GIB and not on_pcie else _TP_GIB
    kernels = version.state_kernels_gib if arch.states and on_pcie else 0
    second = on_second_runner(arch, knobs, quantization, version)
    kernels += version.experts_gib if arch.experts else 0
    kernels += 0 if second or knobs.eager else version.estimated_graphs_gib
    non_torch = version.non_torch_gib + communicators + kernels
    activation = activation_gib(arch, knobs, quantization, version)
    decoder_peak = decoder_peak_gib(arch, knobs, quantization, version)
    captured = cuda_graph_gib(arch, knobs, version)
    graphs = captured if version.counts_graphs and (not second or version.counts_second_graphs) else 0.0
    kv = budget - weights - non_torch - activation - graphs
    layout = kv_layout(arch, knobs, version)
    # MLA has kernels of its own.
    others = arch.family in ON_TRITON or any(kind.attention == "latent" for kind in arch.cache)
    fp8_cache = knobs.kv_element_bytes == 1 and not others
    beside = startup(
        arch,
        knobs,
        version,
        quantization,
        left_gib=gpu_gib - budget,
        activation_gib=decoder_peak,
        # Of a later start, which has less of it.
        reserved_gib=activation_gib(arch, replace(knobs, compiled=True), quantization, version),
        graphs_gib=captured,
        communicators_gib=communicators,
        flashinfer=capability is not None and needs_flashinfer(capability, fp8_cache=fp8_cache),
    )
    longest = _longest(arch, layout, knobs, quantization, version, left=kv + activation)
    free = budget <= gpu_gib - CONTEXT_GIB
    sequences = _most_sequences(arch, layout, knobs, version, kv)
    starts = free and beside.starts and knobs.max_num_seqs <= sequences
    fits = starts and longest >= requested
    reason = _reason(
        layout, knobs, beside, kv=kv, requested=requested, longest=longest, total=gpu_gib, sequences=sequences
    )
    return GpuFit(
        total_gib=gpu_gib,
        budget_gib=budget,
        weights_gib=weights,
        non_torch_gib=non_torch,
        activation_gib=activation,
        cuda_graph_gib=graphs,
        kv_cache_gib=kv,
        kv_cache_tokens=layout.tokens(kv, requested),
        requested_len=requested,
        max_model_len=longest if starts else 0,
        concurrency=layout.concurrency(kv, requested),
        fits=fits,
        reason=reason if fits else reason + _held(activation - decoder_peak),
        startup=beside,
        layout=layout,
    )


def _longest(
    arch: DecoderArchitecture,
    layout: KvLayout,
    knobs: Knobs,
    quantization: Quantization,
    version: VllmVersion,
    *,
    left: float,
) -> int:
    """The longest context of which one request fits; `left` is for activation and KV cache together.

    A shorter context profiles with a shorter video, which leaves the KV cache more.
    """
    return max(
        layout.longest(
            left - activation_gib(arch, replace(knobs, max_model_len=most), quantization, version) - _VERDICT_GIB, most
        )
        for most in contexts_of_items(arch, knobs, version)
    )


def _most_sequences(
    arch: DecoderArchitecture, layout: KvLayout, knobs: Knobs, version: VllmVersion, kv: float
) -> float:
    """As many as vLLM starts with: graphs of a decode step need a block for the state of each (vllm#38270)."""
    if arch.states is None or knobs.eager or not version.refuses_sequences:
        return math.inf
    return layout.blocks(kv - _VERDICT_GIB)


def _without_tower(arch: DecoderArchitecture, weights_bytes: int | None) -> tuple[DecoderArchitecture, int | None]:
    tower = arch.tower.parameters * HALF if arch.tower else 0
    return arch.model_copy(update={"tower": None}), weights_bytes - tower if weights_bytes else None


def activation_gib(
    arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization, version: VllmVersion = DEFAULT_VERSION
) -> float:
    """The higher of the profiling run's peaks: encoder, forward pass beside the encoder's output, sampler, compiler."""
    beside = tower_output_gib(arch, knobs, version)
    decoder = max(decoder_peak_gib(arch, knobs, quantization, version), compiling_gib(arch, knobs, version))
    return max(tower_peak_gib(arch, knobs, version), beside + decoder)


def decoder_peak_gib(
    arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization, version: VllmVersion = DEFAULT_VERSION
) -> float:
    """The higher of the profiling run's peaks without an encoder: forward pass and sampler."""
    sampler = sampler_peak_gib(arch, knobs, profiled_sampler_bytes(arch, knobs, quantization, version))
    return max(forward_peak_gib(arch, knobs, quantization), sampler)


def _held(encoder_gib: float) -> str:
    if encoder_gib < _NAMED_GIB:
        return ""
    return f"; {encoder_gib:.2f} GiB are held for its encoder of images, videos or sound"


def _reason(
    layout: KvLayout,
    knobs: Knobs,
    beside: Startup,
    *,
    kv: float,
    requested: int,
    longest: int,
    total: float,
    sequences: float,
) -> str:
    budget = total * knobs.utilization
    if budget > total - CONTEXT_GIB:
        return (
            f"utilization {knobs.utilization:g} asks for {budget:.2f} GiB and an idle GPU has "
            f"{total - CONTEXT_GIB:.2f} GiB free"
        )
    if kv <= 0:
        return f"nothing is left for the KV cache: {-kv:.2f} GiB are lacking"
    if longest < requested:
        return (
            f"a context of {requested:,} tokens needs {layout.gib(requested):.2f} GiB of KV cache "
            f"and {kv:.2f} GiB are left, {_VERDICT_GIB:.2f} of them kept back for the estimate's error"
        )
    if not beside.starts:
        return beside.reason
    if knobs.max_num_seqs > sequences:
        return (
            f"each of {knobs.max_num_seqs} sequences needs a block for its state and the KV cache has {sequences:g}, "
            f"{_VERDICT_GIB:.2f} GiB kept back for the estimate's error, so vLLM refuses to start"
        )
    at_once = layout.concurrency(kv, requested)
    return (
        f"the KV cache holds {layout.tokens(kv, requested):,} tokens: {at_once:.1f} requests of {requested:,} at once"
    )


def least_batch(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion = DEFAULT_VERSION) -> int:
    """Tokens that a batch has to hold for vLLM to start: one of each sequence, and an item that is taken whole."""
    tower = None if knobs.language_only or not version.refuses_parts else arch.tower
    whole = 0 if tower is None else tower.whole if knobs.videos else tower.whole_image
    return max(knobs.max_num_seqs, whole)


def check_knobs(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion = DEFAULT_VERSION) -> None:
    """Raise ValueError with the remedy for flags that vLLM refuses whatever the memory."""
    if not 0 < knobs.utilization <= 1:
        raise ValueError(
            f"utilization {knobs.utilization:g} is no share of a GPU; give --utilization 0.9 or another above 0 "
            "and up to 1"
        )
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
    least = least_batch(arch, knobs, version)
    if knobs.max_num_batched_tokens < knobs.max_num_seqs:
        # Source: vllm/config/scheduler.py, every version: each sequence decodes a token a step.
        raise ValueError(
            f"max_num_batched_tokens {knobs.max_num_batched_tokens} is below max_num_seqs {knobs.max_num_seqs}, and "
            f"vLLM refuses to start; give --max-num-batched-tokens {least} or more"
        )
    if knobs.max_num_batched_tokens < least:
        # Source: `compute_mm_encoder_budget` in vllm/v1/core/encoder_cache_manager.py.
        raise ValueError(
            f"max_num_batched_tokens {knobs.max_num_batched_tokens} is below the {least} of the largest image or "
            f"video, which is taken whole, and vLLM refuses to start; give --max-num-batched-tokens {least} or more"
        )
    if knobs.speculation and knobs.speculation.method == "mtp" and not arch.unloaded:
        raise ValueError(
            "this model has no layers that predict more than one token, and vLLM refuses to start with method mtp; "
            "give --speculative-method ngram"
        )
    if arch.heads % knobs.tensor_parallel:
        fitting = [n for n in (1, 2, 4, 8) if arch.heads % n == 0]
        raise ValueError(
            f"{arch.heads} attention heads do not divide among {knobs.tensor_parallel} GPUs, and vLLM refuses to "
            f"start; give --tensor-parallel {' or '.join(map(str, fitting))}"
        )
