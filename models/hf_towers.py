"""Encoders of images and sound: their parameters, and the largest item that vLLM profiles them with.

Sources: the model classes of vLLM (vllm/model_executor/models), the processors' defaults of Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.hf_fields import count, part, words
from models.weights import Tower

# Rows of the encoder's width alive at once beside its MLP's buffers (two, or gate, up and their product): the residual
# and what its norm made of it. Two logs of Qwen3.5-4B say 10.3 times the width where the MLP is four times as wide.
_WIDTH_COPIES = 2
# Of Qwen2.5-VL, by its source: the layer's input, what attention added, the sum, its norm and the MLP's output; its
# pixels lie beside them. Logs of 65,536 and 458,752 rows a video agree within 3 %.
_WINDOWED_COPIES = 5
_QWEN_IMAGE_TOKENS = 16_384  # of the largest image: 12,845,056 pixels in 28 x 28, 16,777,216 in 32 x 32
_QWEN = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"}
_QWEN_WITH_FRAMES = {"qwen2_vl", "qwen2_5_vl"}  # two frames of a video are as large as the largest image
# Of a video of 25,165,824 pixels, 12.5 tokens a time stamp: announced before 0.13 for the 12,288 that it becomes.
_QWEN_ANNOUNCED = {"qwen3_vl": 153_600, "qwen3_vl_moe": 153_600}
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
        return Tower(
            parameters=body + beside,
            tokens=tokens,
            patches=side * side,
            width=_WIDTH_COPIES * hidden,
            split=2 * ffn,
            whole=tokens,
            whole_image=tokens,
        )
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
            width=_WIDTH_COPIES * hidden,
            split=3 * ffn,
        )
    hidden, ffn = count(vision, ("hidden_size",), 768), count(vision, ("intermediate_size",), 3072)  # gemma4
    body = _blocks(count(vision, ("num_hidden_layers",), 16), hidden, ffn, 3)
    table = 2 * count(vision, ("position_embedding_size",), 10_240) * hidden
    pool = count(vision, ("pooling_kernel_size",), 3)
    tokens = _GEMMA4_VIDEO_TOKENS
    text = part(config, "text_config") or {}
    both_ways = text.get("use_bidirectional_attention") == "vision"
    image = max(
        count(vision, ("default_output_length",), 280), _GEMMA4_SOUND_TOKENS if part(config, "audio_config") else 0
    )
    return Tower(
        parameters=body + table + hidden * text_hidden + _conformer(config, text_hidden),
        tokens=tokens,
        patches=tokens * pool * pool,
        width=_WIDTH_COPIES * hidden + 3 * ffn,  # run by transformers, whole on every GPU
        whole=tokens if both_ways else 0,
        whole_image=image if both_ways else 0,
    )


def _conformer(config: Mapping[str, Any], text_hidden: int) -> int:
    """Parameters of Gemma 4's encoder of sound, if it has one. Its items are shorter than a video.

    Source: `Gemma4AudioModel` of transformers: two feed-forward parts four times as wide, attention with relative
    positions, a gated convolution.
    """
    audio = part(config, "audio_config")
    if audio is None:
        return 0
    hidden, out = count(audio, ("hidden_size",), 1024), count(audio, ("output_proj_dims",), 1536)
    layer = (16 + 5 + 3) * hidden * hidden + (count(audio, ("conv_kernel_size",), 5) + 10) * hidden
    return count(audio, ("num_hidden_layers",), 12) * layer + hidden * (hidden + out) + out * text_hidden


_GEMMA4_VIDEO_TOKENS = 2496  # 32 frames of 70 tokens, their marks and time stamps
_GEMMA4_SOUND_TOKENS = 750  # 30 s


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
        width=_WINDOWED_COPIES * hidden + patch if gated else _WIDTH_COPIES * hidden,
        split=(3 if gated else 2) * ffn,
        embeddings=mergers,
        frame_tokens=_QWEN_IMAGE_TOKENS if family in _QWEN_WITH_FRAMES else 0,
        announced=_QWEN_ANNOUNCED.get(family, 0),
    )
