"""Encoders of images and sound: their parameters, and the largest item that vLLM profiles them with.

Sources: the model classes of vLLM (vllm/model_executor/models), the processors' defaults of Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.hf_fields import count, part, words
from models.weights import Tower

# Rows of the encoder's width alive at once beside its MLP: the residual and what its norm made of it. Two logs of
# Qwen3.5-4B say 10.3 times the width where the MLP is four times as wide.
_WIDTH_COPIES = 2
_QWEN_IMAGE_TOKENS = 16_384  # of the largest image: 12,845,056 pixels in 28 x 28, 16,777,216 in 32 x 32
_QWEN = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"}
_CHANNELS = 3


def _blocks(layers: int, hidden: int, ffn: int, matrices: int) -> int:
    return layers * (4 * hidden * hidden + matrices * hidden * ffn + 6 * hidden + ffn)


def tower(config: Mapping[str, Any], family: str, text_hidden: int) -> Tower:
    """The encoder of a family that is known to have one. Raises ValueError for a key that it lacks."""
    vision = part(config, "vision_config") or {}
    if family in _QWEN:
        return _qwen(vision, family, text_hidden)
    if family == "gemma3":
        hidden, ffn = count(vision, ("hidden_size",), 1152), count(vision, ("intermediate_size",), 4304)
        side = count(vision, ("image_size",), 896) // count(vision, ("patch_size",), 14)
        body = _blocks(count(vision, ("num_hidden_layers",), 27), hidden, ffn, 2)
        beside = hidden * (_CHANNELS * 14 * 14 + side * side + text_hidden)
        tokens = count(config, ("mm_tokens_per_image",), 256)
        return Tower(parameters=body + beside, tokens=tokens, patches=side * side, width=_width(hidden, ffn, 2))
    if family == "mistral3":
        hidden, ffn = count(vision, ("hidden_size",), 1024), count(vision, ("intermediate_size",), 4096)
        side = count(vision, ("image_size",), 1540) // count(vision, ("patch_size",), 14)
        merge = count(config, ("spatial_merge_size",), 2)
        merged = side // merge
        body = _blocks(count(vision, ("num_hidden_layers",), 24), hidden, ffn, 3)
        beside = hidden * hidden * merge * merge + hidden * text_hidden + text_hidden * text_hidden
        return Tower(
            parameters=body + beside,
            tokens=merged * (merged + 1),  # every row ends with a break
            patches=side * side,
            width=_width(hidden, ffn, 3),
        )
    hidden, ffn = count(vision, ("hidden_size",), 768), count(vision, ("intermediate_size",), 3072)  # gemma4
    body = _blocks(count(vision, ("num_hidden_layers",), 16), hidden, ffn, 3)
    table = 2 * count(vision, ("position_embedding_size",), 10_240) * hidden
    pool = count(vision, ("pooling_kernel_size",), 3)
    tokens = _GEMMA4_VIDEO_TOKENS
    return Tower(
        parameters=body + table + hidden * text_hidden,
        tokens=tokens,
        patches=tokens * pool * pool,
        width=_width(hidden, ffn, 3),
    )


_GEMMA4_VIDEO_TOKENS = 2496  # 32 frames of 70 tokens, their marks and time stamps


def _width(hidden: int, ffn: int, matrices: int) -> int:
    return _WIDTH_COPIES * hidden + matrices * ffn  # a gated one: gate, up and their product


def _qwen(vision: Mapping[str, Any], family: str, text_hidden: int) -> Tower:
    merge = count(vision, ("spatial_merge_size",), 2) ** 2
    patch = count(vision, ("patch_size",), 14) ** 2 * count(vision, ("temporal_patch_size",), 2) * _CHANNELS
    gated = family == "qwen2_5_vl"
    if family == "qwen2_vl":
        hidden = count(vision, ("embed_dim",), 1280)
        ffn = hidden * count(vision, ("mlp_ratio",), 4)
        out = count(vision, ("hidden_size",), text_hidden)
    else:
        hidden, ffn = count(vision, ("hidden_size",)), count(vision, ("intermediate_size",))
        out = count(vision, ("out_hidden_size",), text_hidden)
    mergers = 1 + len(words(vision, "deepstack_visual_indexes"))
    merger = hidden * merge * (hidden * merge + out)
    table = count(vision, ("num_position_embeddings",), 1) * hidden
    body = _blocks(count(vision, ("depth", "num_hidden_layers")), hidden, ffn, 3 if gated else 2)
    return Tower(
        parameters=body + patch * hidden + mergers * merger + table,
        tokens=_QWEN_IMAGE_TOKENS,
        patches=_QWEN_IMAGE_TOKENS * merge,
        width=_width(hidden, ffn, 3 if gated else 2),
        embeddings=mergers,
    )
