"""Reads a Hugging Face config.json into an architecture, its quantisation and what the estimate leaves out.

Only what the memory model covers is accepted: dense decoders and BERT-like encoders. Everything else is
refused by name, with the reason, because a number for it would be a guess. Key names and defaults are those of
the model classes in Hugging Face transformers; which context a scaled rotary embedding gives follows vLLM.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from models.memory.vllm import body_parameters
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_FFN = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_VOCAB = ("vocab_size", "padded_vocab_size")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")

_ENCODERS = {"bert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "distilbert"}
# Two MLP matrices instead of the three of a gated MLP.
_PLAIN_MLP = {"gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "phi", "falcon", "starcoder2", "bloom", "mpt"}
# Model classes that tie lm_head to the embedding where config.json is silent.
_TIED = {"gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_bigcode", "opt", "cohere", "falcon", "bloom"}
# Rotary scalings whose factor is part of max_position_embeddings already.
_INCLUDED_SCALINGS = {"llama3", "longrope", "su", "mrope", "default"}
_MULTIMODAL = "multimodal: the encoder's own activations and its profiling run are left out"
# Parts of a config that only a model of images or sound has.
_SENSES = frozenset(
    ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "visual", "img_processor", "audio_processor")
)
_DTYPES = {"float32", "float16", "bfloat16"}
_MOST = 10**12  # of whatever a config counts: far above any model, far below what a float holds


class UnsupportedModelError(ValueError):
    """A model that the memory model does not cover."""


@dataclass(frozen=True)
class HfModel:
    """What a config.json says."""

    architecture: DecoderArchitecture | EncoderArchitecture
    quantization: Quantization
    dtype: str  # of the files
    size_known: bool  # the architecture alone gives the size of the files
    notes: tuple[str, ...]  # what the estimate leaves out


def read_config(path: Path) -> HfModel:
    """Read a config.json, or the one in a directory.

    Raises ValueError with the remedy for a file that cannot be read and a config that lacks or breaks a key,
    and UnsupportedModelError for a model that the memory model does not cover.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config: object = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}; give the path of a model's config.json") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{file} is no JSON; download the model's config.json again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no JSON object; give a model's config.json")
    try:
        return parse_config(cast("dict[str, Any]", config))
    except RecursionError:
        raise ValueError(f"{file} nests too deep; download the model's config.json again") from None


def parse_config(config: Mapping[str, Any]) -> HfModel:
    """What a config says. Raises as `read_config` does."""
    nested = config.get("text_config")
    if isinstance(nested, dict):
        text = cast("dict[str, Any]", nested)
        shared = {key: config[key] for key in ("torch_dtype", "dtype", "quantization_config") if key in config}
        return replace(
            parse_config(shared | text),
            size_known=False,
            notes=(_MULTIMODAL,),
        )
    _refuse_uncovered(config)
    quantization, size_known = _quantization(config)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ValueError(f"torch_dtype '{dtype}' is none of {', '.join(sorted(_DTYPES))}")
    notes: list[str] = []
    kind = str(config.get("model_type", ""))
    if kind in _ENCODERS:
        return HfModel(_encoder(config), quantization, dtype, size_known, ())
    windows = config.get("layer_types")
    sliding = isinstance(windows, list) and "sliding_attention" in cast("list[object]", windows)
    if sliding or (config.get("sliding_window") and config.get("use_sliding_window", True)):
        notes.append("sliding window: counted as full attention, so vLLM may hold more tokens")
    if not config.keys().isdisjoint(_SENSES):  # its text model lies flat beside them, as in Qwen2-VL
        notes.append(_MULTIMODAL)
        size_known = False
    return HfModel(_decoder(config, kind), quantization, dtype, size_known, tuple(notes))


def _refuse_uncovered(config: Mapping[str, Any]) -> None:
    def refuse(what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{what}, and the memory model covers dense decoders and BERT-like encoders only")

    experts = next(
        (k for k in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts") if config.get(k)),
        None,
    )
    if experts and config[experts] != 1:
        raise refuse(f"this is a mixture of experts ({experts} {config[experts]})")
    if config.get("kv_lora_rank"):
        raise refuse(f"this model compresses its KV cache (MLA, kv_lora_rank {config['kv_lora_rank']})")
    if config.get("is_encoder_decoder"):
        raise refuse("this is an encoder-decoder")
    layers = config.get("layer_types")
    kinds = {str(kind) for kind in cast("list[object]", layers)} if isinstance(layers, list) else set[str]()
    recurrent = sorted(kinds - {"full_attention", "sliding_attention", "chunked_attention", "attention"})
    if recurrent:
        raise refuse(f"this model has layers without attention ({', '.join(recurrent)})")
    state = next((k for k in ("state_size", "mamba_d_state", "ssm_cfg", "ssm_state_size") if config.get(k)), None)
    if state:
        raise refuse(f"this model has state-space layers ({state})")


def _count(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
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
    if value > _MOST:
        raise ValueError(f"config.json has {name} = {reprlib.repr(value)}, and no model has more than {_MOST:,}")
    return value


def _quantization(config: Mapping[str, Any]) -> tuple[Quantization, bool]:
    """How the weights are stored, and whether the architecture gives their size."""
    found: object = config.get("quantization_config")
    if not isinstance(found, dict):
        return Quantization.NONE, True
    quantized = cast("dict[str, Any]", found)
    method = str(quantized.get("quant_method", "")).lower()
    if method == "compressed-tensors":
        method = "fp8" if "float" in str(quantized.get("format", "")) else "gptq"
        return Quantization(method), False
    if method not in (Quantization.AWQ, Quantization.GPTQ, Quantization.FP8):
        raise UnsupportedModelError(
            f"quantisation '{method or 'unnamed'}' is none that the memory model covers (awq, gptq, fp8); "
            "give --quantization and --weights-bytes of the nearest one"
        )
    bits = quantized.get("bits", 4)
    usual = method == Quantization.FP8 or (bits == 4 and quantized.get("group_size", 128) == 128)
    return Quantization(method), usual


def _positions(config: Mapping[str, Any]) -> int:
    """Longest context: vLLM multiplies by a rotary scaling that max_position_embeddings does not include."""
    positions = _count(config, _POSITIONS)
    found: object = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(found, dict):
        return positions
    scaling = cast("dict[str, Any]", found)
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor: object = scaling.get("factor")
    if kind in _INCLUDED_SCALINGS or not isinstance(factor, int | float) or factor <= 1:
        return positions
    if kind == "yarn":
        positions = _count(scaling, ("original_max_position_embeddings",), positions)
    if factor > _MOST or not math.isfinite(factor) or positions * factor > _MOST:
        raise ValueError(f"config.json scales {positions} positions by {reprlib.repr(factor)}, as no model does")
    return int(positions * factor)


def _decoder(config: Mapping[str, Any], kind: str) -> DecoderArchitecture:
    layers, heads, hidden = _count(config, _LAYERS), _count(config, _HEADS), _count(config, _HIDDEN)
    head_dim = _count(config, ("head_dim",), hidden // heads)
    if head_dim < 1:
        raise ValueError(f"config.json has {heads} attention heads for a hidden size of {hidden}")
    plain = kind in _PLAIN_MLP
    arch = DecoderArchitecture(
        parameters=1,
        layers=layers,
        heads=heads,
        kv_heads=_count(config, _KV_HEADS, 1 if config.get("multi_query") else heads),
        head_dim=head_dim,
        hidden=hidden,
        ffn=_count(config, _FFN, 4 * hidden if plain else None),
        vocab=_count(config, _VOCAB),
        max_positions=_positions(config),
    )
    if arch.kv_heads > heads or heads % arch.kv_heads:
        raise ValueError(
            f"config.json has {heads} attention heads and {arch.kv_heads} KV heads, which do not divide them"
        )
    embeddings = 1 if config.get("tie_word_embeddings", kind in _TIED) else 2
    parameters = body_parameters(arch, 2 if plain else 3) + embeddings * arch.vocab * hidden
    return arch.model_copy(update={"parameters": parameters})


def _encoder(config: Mapping[str, Any]) -> EncoderArchitecture:
    layers = _count(config, (*_LAYERS, "n_layers"))
    heads, hidden = _count(config, _HEADS), _count(config, (*_HIDDEN, "dim"))
    ffn = _count(config, (*_FFN, "hidden_dim"))
    vocab, positions = _count(config, _VOCAB), _count(config, _POSITIONS)
    body = layers * (4 * hidden * hidden + 2 * hidden * ffn + 9 * hidden + ffn)
    return EncoderArchitecture(
        parameters=body + (vocab + positions + 4) * hidden + hidden * hidden,
        layers=layers,
        heads=heads,
        hidden=hidden,
        ffn=ffn,
        vocab=vocab,
        max_positions=positions,
    )
