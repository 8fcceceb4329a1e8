"""Numbers of a Hugging Face config.json, under any of their names and checked."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any, cast

from models.weights import MOST_LAYERS

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
HIDDEN = ("hidden_size", "n_embd", "d_model")
FFN = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
VOCAB = ("vocab_size", "padded_vocab_size")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

_MOST = 10**12  # of whatever a config counts: far above any model, far below what a float holds
# Rotary scalings whose factor is part of max_position_embeddings already, as vLLM reads them.
_INCLUDED_SCALINGS = {"llama3", "longrope", "su", "mrope", "default"}


class UnsupportedModelError(ValueError):
    """A model that the memory model does not cover; `flags` of `ops fit` that make it one that is covered."""

    def __init__(self, message: str, flags: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.flags = flags or {}


def part(config: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    """The first of the nested objects of these names."""
    found = next((config[name] for name in names if isinstance(config.get(name), dict)), None)
    return cast("dict[str, Any]", found) if found is not None else None


def words(config: Mapping[str, Any], *names: str) -> list[str]:
    """A list of strings under any of its names; whatever else stands there counts as none."""
    found: object = next((config[name] for name in names if isinstance(config.get(name), list)), None)
    return [str(word) for word in cast("list[object]", found)] if found is not None else []


def count(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    """A positive whole number under any of its names."""
    name = next((n for n in names if config.get(n) is not None), None)
    if name is None:
        if default is None:
            raise ValueError(
                f"config.json lacks '{names[0]}', without which memory cannot be computed; give the config.json "
                "of the model itself, not of an adapter or a tokenizer"
            )
        return default
    value: object = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json has {name} = {reprlib.repr(value)}, which is no positive whole number")
    most = MOST_LAYERS if name in LAYERS else _MOST
    if value > most:
        raise ValueError(f"config.json has {name} = {reprlib.repr(value)}, and no model has more than {most:,}")
    return value


def optional(config: Mapping[str, Any], *names: str) -> int:
    """As `count`, and 0 where it is absent or 0."""
    return count(config, names, 1) if any(config.get(name) for name in names) else 0


def positions(config: Mapping[str, Any], family: str, default: int | None = None) -> int:
    """Longest context: vLLM multiplies by a rotary scaling that max_position_embeddings does not include.

    Source: `_get_and_verify_max_len` in vllm/config/model.py. Gemma 3's positions are scaled already.
    """
    most = count(config, POSITIONS, default)
    if "gemma3" in family:
        return most
    found: object = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(found, dict):
        return most
    scaling = cast("dict[str, Any]", found)
    # Newer configs have one scaling a kind of attention; those that name a factor agree on it.
    nested = [cast("dict[str, Any]", rope) for rope in scaling.values() if isinstance(rope, dict)]
    if nested and "rope_type" not in scaling and "type" not in scaling:
        scaling = next((rope for rope in nested if "factor" in rope), nested[0])
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor: object = scaling.get("factor")
    if kind in _INCLUDED_SCALINGS or isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 1:
        return most
    if kind in ("yarn", "deepseek_yarn"):
        most = count(scaling, ("original_max_position_embeddings",), most)
    if factor > _MOST or not math.isfinite(factor) or most * factor > _MOST:
        raise ValueError(f"config.json scales {most} positions by {reprlib.repr(factor)}, as no model does")
    return int(most * factor)
