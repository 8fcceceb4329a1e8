"""Peaks of vLLM's profiling run: one forward pass, one sampling step, one encoder pass at their largest batches.

Within a run the attention kernels themselves are left out (there is no KV cache yet), so what counts are the tensors of
one layer that are alive at once. Source: `profile_run` and `_dummy_run` in vllm/v1/worker/gpu_model_runner.py, and
`workspace_shapes` of the fused experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.facts import GIB
from models.memory.kv_cache import cache_layers
from models.memory.versions import VllmVersion
from models.memory.weights import HALF, shape
from models.weights import DecoderArchitecture, Quantization, Tower

if TYPE_CHECKING:
    from models.memory.vllm import Knobs

_HIDDEN_COPIES = 4  # residual, norm output, layer input and output live beside the MLP's buffers
# Experts whose kernels (Marlin, CUTLASS) keep their outputs apart from gate and up.
_OUTPUT_APART = frozenset(Quantization) - {Quantization.NONE, Quantization.FP8, Quantization.INT8}
_LATENT_CHUNK = 64 * 1024  # tokens of context that MLA prefill expands at once, at most


def forward_peak_gib(arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization) -> float:
    """Peak of one forward pass of `max_num_batched_tokens`: the widest layer's buffers, and hidden states."""
    tp = knobs.tensor_parallel
    wide = max(shape(arch).mlp_matrices * arch.ffn, arch.head_dim * (2 * arch.heads + 2 * arch.kv_heads)) / tp
    if arch.experts is not None:
        experts, hidden = arch.experts, arch.hidden
        ffn = experts.ffn / tp
        # Gate and up beside the product, and each expert's output before the sum; router logits in float32.
        routed = experts.per_token * (max(2 * ffn, hidden) + max(ffn, hidden if quantization in _OUTPUT_APART else 0))
        wide = max(wide, routed + 3 * experts.shared_ffn / tp + 2 * experts.count)
    if arch.states is not None:
        # Queries, keys, values and gate of the projection, the convolution's copy, and the output.
        values = arch.states.heads * arch.states.head_dim
        wide = max(wide, (2 * arch.states.conv_dim + 2 * values) / tp)
    layer = knobs.max_num_batched_tokens * (wide + _HIDDEN_COPIES * arch.hidden) * HALF
    if expanded := max((layers.expanded for layers in cache_layers(arch)), default=0):
        # What prefill expands of the compressed context, simulated by the profiling run.
        chunk = min(max(8 * (knobs.max_model_len or arch.max_positions), 4 * knobs.max_num_seqs * 64), _LATENT_CHUNK)
        layer += max(chunk, knobs.max_num_seqs * 64) * expanded / tp * HALF
    return layer / GIB


def compiling_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> float:
    """What a start holds that compiles, and one that finds compiled code does not; 0 where nothing is compiled.

    That it is the size of the embedding is what logs of such starts say (docs/memory.md, "A start that compiles"): no
    source was found.
    """
    if knobs.eager or knobs.compiled or not version.compiles_beside:
        return 0.0
    return arch.vocab * arch.hidden * HALF / knobs.tensor_parallel / GIB


def sampler_peak_gib(arch: DecoderArchitecture, knobs: Knobs, bytes_each: float) -> float:
    """Peak of one sampling step; logits are gathered, so every GPU holds the whole vocabulary."""
    rows = min(knobs.max_num_seqs, knobs.max_num_batched_tokens)
    return rows * arch.vocab * bytes_each / GIB


def on_second_runner(arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization, version: VllmVersion) -> bool:
    """Whether these flags run on the second model runner."""
    ngrams = knobs.speculation is not None and knobs.speculation.method == "ngram"
    return version.second_runner(arch, quantization, ngrams=ngrams)


def profiled_sampler_bytes(
    arch: DecoderArchitecture, knobs: Knobs, quantization: Quantization, version: VllmVersion
) -> float:
    """Bytes per sequence and vocabulary entry that the profiling run sees."""
    second = on_second_runner(arch, knobs, quantization, version)
    return version.profiled_bytes if second else version.sampler_bytes


def _item_tokens(tower: Tower, arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> int:
    """Embeddings of the largest item: an image, or the longest video that the context holds.

    Source: `get_num_frames_with_most_features` in vllm/model_executor/models/qwen2_vl.py.
    """
    if not tower.frame_tokens or not knobs.videos:
        return tower.tokens
    room = (knobs.max_model_len or arch.max_positions) - (tower.tokens if version.image_beside_video else 0)
    pairs = min(room // tower.frame_tokens, version.video_frames // 2)
    return max(tower.tokens, pairs * tower.frame_tokens)


def contexts_of_items(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> tuple[int, ...]:
    """Contexts below which the largest item is a smaller one, with the longest context that the model has."""
    tower = arch.tower
    if tower is None or not tower.frame_tokens or not knobs.videos:
        return (arch.max_positions,)
    beside = tower.tokens if version.image_beside_video else 0
    bounds = (beside + pairs * tower.frame_tokens - 1 for pairs in range(2, version.video_frames // 2 + 1))
    return (arch.max_positions, *(bound for bound in bounds if bound < arch.max_positions))


def tower_peak_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> float:
    """Peak of the encoder's pass over the largest items that one batch may hold; 0 without an encoder."""
    tower = arch.tower
    if tower is None:
        return 0.0
    tokens = _item_tokens(tower, arch, knobs, version)
    items = max(knobs.max_num_batched_tokens // tokens, 1) * version.modalities
    rows = items * tokens * tower.patches / tower.tokens
    return rows * (tower.width + tower.split / knobs.tensor_parallel) * HALF / GIB


def tower_output_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> float:
    """The encoder's output, which the profiling run keeps while the decoder runs."""
    tower = arch.tower
    if tower is None:
        return 0.0
    largest = _item_tokens(tower, arch, knobs, version)
    tokens = max(knobs.max_num_batched_tokens // largest, 1) * largest
    if version.announces_video and knobs.videos:
        tokens = max(tokens, tower.announced)
    return tokens * arch.hidden * tower.embeddings * HALF / GIB
