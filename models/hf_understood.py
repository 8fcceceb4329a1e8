"""What a family of models does not have, and which known family an unknown one is most like.

Source of the class names: the architectures that Hugging Face transformers and vLLM register.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, cast

from models.hf_families import DECODERS, MIXTURES, PATTERNED, STATEFUL, WITH_LATENT, WITH_SHARED_CACHE, decoder
from models.hf_fields import EXPERTS, HEADS, KV_HEADS, UnsupportedModelError, optional, part, words
from models.hf_quantization import Stored

MEASURE = 'vllm serve MODEL --max-num-seqs 8   # its line "Available KV cache memory" says what no model here can'
_STATES = ("state_size", "mamba_d_state", "ssm_cfg", "ssm_state_size", "mamba_num_heads")
# Keys of caches that nothing here cuts: layers that read another layer's, heads of two sizes, sparse attention,
# attention to an encoder, layers that differ one by one.
_OTHER_CACHES = (
    *("num_kv_shared_layers", "global_head_dim", "num_global_key_value_heads", "hidden_size_per_layer_input"),
    *("index_topk", "compress_ratios", "cross_attention_layers", "attention_chunk_size"),
    *("block_configs", "use_cla", "conv_L_cache", "hybrid_override_pattern", "attn_layer_period"),
)
# Lists whose layers differ, a number each: those of attention and others.
_MIXED = ("attn_type_list", "hybrid_layer_pattern")
_ENCODER_CLASSES = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForPreTraining")
# Whose cache vLLM keeps compressed (`is_deepseek_mla`); others with a kv_lora_rank, MiniCPM3 among them, expand it.
_COMPRESSED = ("deepseek", "kimi", "pangu", "glm", "mistral", "axk1", "joyai")
_LEAST_PREFIX = 4  # letters that two families of one maker share


def understood(config: Mapping[str, Any], family: str) -> None:
    """Refuse what a family does not have, whatever it calls itself. Raises UnsupportedModelError."""

    def refuse(what: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{what}, which the memory model does not know of model_type '{family}'; {MEASURE}"
        )

    experts = next((k for k in EXPERTS if optional(config, k) > 1), None)
    if experts and family not in MIXTURES:
        raise refuse(f"this is a mixture of experts ({experts} {config[experts]})")
    if config.get("kv_lora_rank") and family not in WITH_LATENT:
        raise refuse(f"this model compresses its KV cache (MLA, kv_lora_rank {config['kv_lora_rank']})")
    if config.get("is_encoder_decoder"):
        raise refuse("this is an encoder-decoder")
    layers = config.get("layer_types")
    kinds = {str(kind) for kind in cast("list[object]", layers)} if isinstance(layers, list) else set[str]()
    known = {"full_attention", "sliding_attention", "attention"}
    if family in STATEFUL:
        known.add("linear_attention")
    if foreign := sorted(kinds - known):
        raise refuse(f"this model has layers of another kind ({', '.join(foreign)})")
    if family not in STATEFUL:
        linear = [k for k in config if k == "full_attention_interval" or k.startswith("linear_")]
        linear = [k for k in linear if config[k]]
        if linear:
            raise refuse(f"this model has layers of linear attention ({', '.join(sorted(linear)[:3])})")
    state = next((k for k in _STATES if config.get(k)), None)
    if state:
        raise refuse(f"this model has state-space layers ({state})")
    mixed = next((k for k in _MIXED if isinstance(config.get(k), list) and len({*map(repr, config[k])}) > 1), None)
    if mixed:
        raise refuse(f"this model has layers of several kinds ({mixed})")
    if config.get("sliding_window") and config.get("sliding_window_pattern") and not kinds and family not in PATTERNED:
        raise refuse(f"some of this model's layers slide (sliding_window_pattern {config['sliding_window_pattern']!r})")
    cache = next((k for k in _OTHER_CACHES if config.get(k)), None)
    if cache and family not in WITH_SHARED_CACHE:
        raise refuse(f"this model cuts its KV cache in a way of its own ({cache})")


def alike(text: Mapping[str, Any], family: str, files: Stored) -> str | None:
    """The known family that an unknown one is most like and can be judged as, or None."""
    if _encodes(text):
        return "modernbert" if text.get("rope_theta") or text.get("rope_parameters") else "bert"
    for candidate in _candidates(text, family):
        try:
            understood(text, candidate)
            decoder(text, candidate, files, None)
        except ValueError:
            continue
        return candidate
    return None


def _encodes(text: Mapping[str, Any]) -> bool:
    """Whether it is an encoder by the names of its classes, or by segments that only those embed."""
    classes = words(text, "architectures")
    if text.get("is_encoder_decoder"):
        return False
    if any(name.endswith("Model") for name in classes):
        return not _writes(text)
    return any(name.endswith(_ENCODER_CLASSES) for name in classes) if classes else bool(text.get("type_vocab_size"))


def _writes(text: Mapping[str, Any]) -> bool:
    """Whether it has what decoders have, whatever its class is called: ChatGLM's and Qwen2.5-Omni's end in "Model"."""
    heads, kv_heads = optional(text, *HEADS), optional(text, *KV_HEADS)
    named = [*words(text, "architectures"), *(part(text, "auto_map") or {})]
    return 0 < kv_heads < heads or any("CausalLM" in name or "LMHead" in name for name in named)


def _same(letters: tuple[str, str]) -> bool:
    return letters[0] == letters[1]


def _candidates(text: Mapping[str, Any], family: str) -> Iterator[str]:
    """Families of the same maker first, then those that have the same parts."""
    shared = {name: sum(1 for _ in takewhile(_same, zip(name, family, strict=False))) for name in DECODERS}
    yield from sorted(
        (name for name in shared if shared[name] >= _LEAST_PREFIX), key=lambda name: (-shared[name], len(name), name)
    )
    if text.get("kv_lora_rank") and family.lower().startswith(_COMPRESSED):
        yield from ("deepseek_v3", "deepseek_v2")
    if any(optional(text, key) > 1 for key in EXPERTS):
        yield from ("qwen2_moe" if text.get("shared_expert_intermediate_size") else "qwen3_moe", "mixtral")
    yield "llama"
