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
from models.weights import DecoderArchitecture, Quantization

if TYPE_CHECKING:
    from models.memory.vllm import Knobs

_HIDDEN_COPIES = 4  # residual, norm output, layer input and output live beside the MLP's buffers
# Experts whose kernels (Marlin, CUTLASS) keep their outputs apart from gate and up.
_OUTPUT_APART = frozenset(Quantization) - {Quantization.NONE, Quantization.FP8, Quantization.INT8}
_LATENT_CHUNK = 64 * 1024  # tokens of context that MLA prefill expands at once, at most
_LATENT_VALUE = 128  # v_head_dim and qk_nope_head_dim of every MLA model so far


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
    if any(layers.attention == "latent" for layers in cache_layers(arch)):
        # What prefill expands of the compressed context, simulated by the profiling run.
        chunk = min(max(8 * (knobs.max_model_len or arch.max_positions), 4 * knobs.max_num_seqs * 64), _LATENT_CHUNK)
        layer += max(chunk, knobs.max_num_seqs * 64) * arch.heads / tp * 2 * _LATENT_VALUE * HALF
    return layer / GIB


def sampler_peak_gib(arch: DecoderArchitecture, knobs: Knobs, bytes_each: float) -> float:
    """Peak of one sampling step; logits are gathered, so every GPU holds the whole vocabulary."""
    rows = min(knobs.max_num_seqs, knobs.max_num_batched_tokens)
    return rows * arch.vocab * bytes_each / GIB


def profiled_sampler_bytes(arch: DecoderArchitecture, quantization: Quantization, version: VllmVersion) -> float:
    """Bytes per sequence and vocabulary entry that the profiling run sees."""
    return version.profiled_bytes if version.second_runner(arch, quantization) else version.sampler_bytes


def tower_peak_gib(arch: DecoderArchitecture, knobs: Knobs, version: VllmVersion) -> float:
    """Peak of the encoder's pass over the largest items that one batch may hold; 0 without an encoder."""
    tower = arch.tower
    if tower is None:
        return 0.0
    items = max(knobs.max_num_batched_tokens // tower.tokens, 1) * version.modalities
    return items * tower.patches * tower.width * HALF / GIB


def tower_output_gib(arch: DecoderArchitecture, knobs: Knobs) -> float:
    """The encoder's output, which the profiling run keeps while the decoder runs."""
    tower = arch.tower
    if tower is None:
        return 0.0
    tokens = max(knobs.max_num_batched_tokens // tower.tokens, 1) * tower.tokens
    return tokens * arch.hidden * tower.embeddings * HALF / GIB
