"""What differs in memory between versions of vLLM, read in its sources and start-up logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from models.weights import DecoderArchitecture, Quantization

# Whose models run on the second model runner: nobody's, some families', all without experts and states, everybody's.
Runner = Literal["v1", "some", "dense", "v2"]


@dataclass(frozen=True)
class VllmVersion:
    """The accounting of a range of vLLM versions; the numbers were read in its sources and start-up logs."""

    name: str  # first version of the range
    utilization: float  # default of --gpu-memory-utilization
    sampler_bytes: float  # peak of one sampling step, bytes per sequence and vocabulary entry
    non_torch_gib: float  # CUDA libraries, persistent buffers: what the budget pays beside weights
    counts_graphs: bool  # whether the CUDA-graph estimate is taken off the KV cache
    batched_tokens: int | None  # default of --max-num-batched-tokens under 70 GiB; None: the whole context
    seqs: int = 256  # default of --max-num-seqs under 70 GiB
    large_defaults: bool = True  # whether any GPU of 70 GiB has the defaults of an H100
    old_engine_below: tuple[int, int] = (0, 0)  # cards below it run the first engine, which batches the whole context
    tokens_by_context: bool = False  # "GPU KV cache size" is concurrency times context, not blocks of all groups
    hybrid_cache: bool = True  # sliding windows keep only their window
    group_ratio: float = 1.25  # two kinds of layers closer than this share groups of the larger one's size
    cache_of_files: bool = False  # a KV cache in 8 bits where the files' quantiser says so and no flag else
    batches_in_flight: int = 1  # steps whose tokens a sliding window still holds
    refuses_sequences: bool = False  # more of them than blocks, which layers with a state need for their graphs
    caches_states: bool = False  # prefix caching is on for layers with a state, which then keep one more
    latent_block: int = 64  # tokens of a block of MLA, as its kernels want it
    full_graphs: bool = True  # decode graphs beside the piecewise ones
    runner: Runner = "v1"
    # As sampler_bytes, of the second runner's profiling run: logits in two precisions, and the counts of its penalties.
    profiled_bytes: float = 10
    counts_second_graphs: bool = False  # whether the second runner estimates its graphs
    second_guesses_ngrams: bool = False  # else the first runner takes what guesses by n-grams
    # As non_torch_gib: what the first runner's estimate of its graphs leaves behind, and kernels of experts.
    estimated_graphs_gib: float = 0
    experts_gib: float = 0
    huge_batch: bool = False  # 16384 tokens by default on GPUs of 160 GiB
    marlin_on_turing: bool = True  # FP8 and NVFP4 weights run on cards below 8.0
    dense_captures: bool = False  # batch sizes are captured in steps of 8 up to 512
    modalities: int = 1  # kinds of items that the profiling run encodes: later only the one of the most tokens
    video_frames: int = 14  # of the longest video that the profiling run encodes; 0: of one no larger than an image
    image_beside_video: bool = False  # whether the context holds an image beside that video
    state_kernels_gib: float = 0  # that kernels of layers with a state keep on cards of 12.x (vllm#36973)
    announces_video: bool = False  # room for the tokens that a video is announced with, not those that it becomes
    warms_sampler: bool = True  # a sampling step runs after the KV cache is allocated
    refuses_parts: bool = False  # of an item within which attention goes both ways (vllm#42687)
    raises_batch: bool = False  # to such an item, where --max-num-batched-tokens is not given (vllm PR#43051)
    compiles_beside: bool = False  # a start that compiles holds a copy of the embedding through its profiling run
    flashinfer_workspace: bool = True  # cards without FlashAttention take FlashInfer

    def second_runner(self, arch: DecoderArchitecture, quantization: Quantization, *, ngrams: bool = False) -> bool:
        """Whether a model runs on the second model runner ("Model Runner V2"); `ngrams` guess ahead."""
        if ngrams and not self.second_guesses_ngrams:
            return False
        match self.runner:
            case "v1":
                return False
            case "some":  # DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES, unquantised and dense
                return (
                    arch.family in _SECOND_RUNNER[self.name]
                    and quantization is Quantization.NONE
                    and arch.experts is None
                )
            case "dense":
                return arch.experts is None and arch.states is None
            case "v2":
                return True


_SECOND_RUNNER = {
    "0.22": {"qwen3"},
    "0.23": {"qwen3", "llama", "mistral"},
    "0.24": {"qwen3", "llama", "mistral"},
}

# 38.5 B: sort-based top-k/top-p (fp32 logits, sorted copy, int64 indices, probabilities, masks).
# 16 B: bf16 and fp32 logits, probabilities, noise; the sort is gone.
_V0 = VllmVersion(
    "0",
    0.90,
    38.5,
    0.90,
    False,
    None,
    hybrid_cache=False,
    full_graphs=False,
    dense_captures=True,
    warms_sampler=False,
    marlin_on_turing=False,
    modalities=2,
    video_frames=0,
    flashinfer_workspace=False,
)
_V0_6 = replace(_V0, name="0.6.4", non_torch_gib=0.10)
_V0_8 = replace(
    _V0_6,
    name="0.8",
    batched_tokens=2048,
    seqs=1024,  # vllm#16158
    large_defaults=False,
    old_engine_below=(8, 0),
    warms_sampler=True,
    modalities=1,
    video_frames=16,
    image_beside_video=True,
    announces_video=True,
)
_V0_8_4 = replace(_V0_8, name="0.8.4", seqs=256)
_V0_8_5 = replace(_V0_8_4, name="0.8.5", large_defaults=True)
_V0_9 = replace(_V0_8_5, name="0.9", old_engine_below=(0, 0))
_V0_10 = replace(_V0_9, name="0.10", hybrid_cache=True)
_V0_11 = replace(_V0_10, name="0.11", full_graphs=True, video_frames=14, image_beside_video=False)
_V0_12 = replace(_V0_11, name="0.12", flashinfer_workspace=True)
_V0_13 = replace(_V0_12, name="0.13", dense_captures=False, announces_video=False)
_V0_15 = replace(_V0_13, name="0.15", cache_of_files=True)
_V0_18 = replace(_V0_15, name="0.18", sampler_bytes=16, non_torch_gib=0.30, experts_gib=0.40, state_kernels_gib=3.4)
_V0_19 = replace(_V0_18, name="0.19", group_ratio=1.5, marlin_on_turing=True)
_V0_20 = replace(_V0_19, name="0.20", counts_graphs=True, refuses_sequences=True, refuses_parts=True)
_V0_21 = replace(
    _V0_20, name="0.21", utilization=0.92, estimated_graphs_gib=0.35, tokens_by_context=True, state_kernels_gib=0
)
_V0_22 = replace(_V0_21, name="0.22", runner="some", raises_batch=True)
_V0_23 = replace(_V0_22, name="0.23")
_V0_24 = replace(_V0_23, name="0.24", estimated_graphs_gib=0, compiles_beside=True)
_V0_25 = replace(_V0_24, name="0.25", runner="dense")
_V0_27 = replace(_V0_25, name="0.27", batches_in_flight=2)
_V0_28 = replace(_V0_27, name="0.28", caches_states=True, huge_batch=True)
_V0_29 = replace(_V0_28, name="0.29", runner="v2", counts_second_graphs=True)
_V0_30 = replace(_V0_29, name="0.30", second_guesses_ngrams=True)
# Newest first.
VLLM_VERSIONS = (
    *(_V0_30, _V0_29, _V0_28, _V0_27, _V0_25, _V0_24, _V0_23, _V0_22, _V0_21, _V0_20, _V0_19, _V0_18),
    *(_V0_15, _V0_13, _V0_12, _V0_11, _V0_10, _V0_9, _V0_8_5, _V0_8_4, _V0_8, _V0_6, _V0),
)


def release(version: str) -> tuple[int, ...]:
    """A release as numbers that compare: "v0.11.1" is (0, 11, 1). Raises ValueError for what is none."""
    parts = version.removeprefix("v").split(".")
    if not all(part.isdecimal() for part in parts):  # int() takes signs, spaces and underscores too
        raise ValueError(version)
    return tuple(int(part) for part in parts)


def vllm_version(version: str) -> VllmVersion:
    """The accounting of a release, "0.23.0" or "v0.23". Raises ValueError for anything else."""
    try:
        found = release(version)
    except ValueError:
        raise ValueError(f"'{version}' is no vLLM version; give one like 0.23.0") from None
    return next(v for v in VLLM_VERSIONS if found >= release(v.name))


DEFAULT_VERSION = vllm_version("0.23.0")  # what the catalog's image pins
