"""The model families that the memory model knows, and what each one's config.json means.

A family that is not here is refused by name: the same keys mean different tensors elsewhere. Key names and defaults are
those of the configuration classes of Hugging Face transformers (5.24), tensors those of vLLM's model classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.hf_fields import EXPERTS, FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, count, optional, positions, words
from models.hf_quantization import Stored
from models.memory.weights import HALF
from models.weights import CacheLayers, DecoderArchitecture, Experts, Quantization, StateLayers, Tower

ENCODERS = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "electra", "distilbert"),
        *("modernbert", "nomic_bert", "new", "gte", "deberta", "deberta-v2"),
    }
)
GATED_ENCODERS = frozenset({"modernbert", "nomic_bert", "new", "gte"})  # three MLP matrices, rotary positions

_GATED = {
    *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"),
    *("granite", "cohere", "cohere2", "olmo", "olmo2", "olmo3", "smollm3", "internlm2", "internlm3", "exaone"),
    *("exaone4", "glm", "glm4", "stablelm", "baichuan", "seed_oss", "helium", "ernie4_5", "hunyuan_v1_dense"),
    *("minicpm", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_5_text", "aquila", "xverse", "orion"),
}
# Two MLP matrices instead of the three of a gated MLP.
PLAIN = {
    *("gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "phi", "falcon", "starcoder2", "bloom", "mpt", "nemotron"),
    *("arcee", "apertus"),
}
_EXPERTS = {
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "qwen3_next", "qwen3_5_moe_text", "qwen3_vl_moe_text"),
    *("glm4_moe", "glm4_moe_lite", "deepseek_v2", "deepseek_v3", "mistral4"),
}
WITH_LATENT = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "mistral4"}
STATEFUL = {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
_GEMMA4 = {"gemma4_text"}
MIXTURES = _EXPERTS | _GEMMA4
WITH_SHARED_CACHE = _GEMMA4  # layers that read another layer's cache, and heads of two sizes
DECODERS = frozenset({*_GATED, *PLAIN, *_EXPERTS, *WITH_LATENT, *STATEFUL, *_GEMMA4})
# A family's text model by the name of the whole.
TEXT_OF = {
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "mistral3": "mistral",
}
WITH_SOUND = {"gemma4"}  # whose encoder of sound is counted beside that of images
# Model classes that tie lm_head to the embedding where config.json is silent.
TIED = {
    *("gemma", "gemma2", "gemma3_text", "gemma4_text", "gpt2", "gpt_bigcode", "opt", "cohere", "cohere2", "falcon"),
    *("bloom", "mpt", "starcoder2"),
}
# What config.json leaves out of a nested text model, by its class.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "gemma4_text": {
        "head_dim": 256,
        "vocab_size": 262_144,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262_144,
    },
    "gemma2": {"sliding_window": 4096, "head_dim": 256},
    "qwen3_vl_text": {"head_dim": 128},
    "qwen3_5_text": {"head_dim": 256},
    "qwen3_5_moe_text": {"head_dim": 256},
    "qwen3_next": {"head_dim": 256},
    "gpt_oss": {"head_dim": 64},
}
# Whose window is off unless `use_sliding_window` says otherwise.
_SILENT_WINDOW = {"qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen2_vl_text", "qwen2_5_vl_text"}
# Of how many layers one has full attention, by the class; a config may say otherwise.
_PATTERNS = {"gemma3_text": 6, "gemma4_text": 6, "cohere2": 4, "exaone4": 4}
PATTERNED = frozenset({"gemma2", "gpt_oss", *_PATTERNS})
_ATTENTIONS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "state",
}


def layer_kinds(config: Mapping[str, Any], family: str, layers: int) -> list[str]:
    """What each layer does: "full", "sliding" or "state". Raises ValueError for a kind that nobody knows here."""
    named = words(config, "layer_types")
    if named:
        unknown = sorted(set(named) - _ATTENTIONS.keys())
        if unknown:
            raise ValueError(f"layer_types has {', '.join(unknown)}")
        if len(named) < layers:
            raise ValueError(f"config.json has {layers} layers and layer_types names {len(named)} of them")
        return [_ATTENTIONS[kind] for kind in named][:layers]
    every = _every(config, family)
    if every:
        other = "state" if family in STATEFUL else "sliding"
        kinds = ["full" if (layer + 1) % every == 0 else other for layer in range(layers)]
        return [*kinds[:-1], "full"] if family in _GEMMA4 else kinds
    pattern = config.get("sliding_window_pattern")
    if family == "exaone4" and isinstance(pattern, str) and pattern and config.get("sliding_window"):
        return ["full" if pattern[layer % len(pattern)] == "G" else "sliding" for layer in range(layers)]
    return ["sliding" if _slides(config, family) else "full"] * layers


def _every(config: Mapping[str, Any], family: str) -> int:
    """Each so-manieth layer has full attention where `layer_types` is silent; 0 where all layers are alike."""
    if family in STATEFUL:
        return count(config, ("full_attention_interval",), 4)
    if family in ("gemma2", "gpt_oss"):
        return 2
    if family not in _PATTERNS or not config.get("sliding_window"):
        return 0
    if family == "exaone4" and isinstance(config.get("sliding_window_pattern"), str):
        return 0  # "LLLG": local and global in turn
    return count(config, ("sliding_window_pattern",), _PATTERNS[family])


def _slides(config: Mapping[str, Any], family: str) -> bool:
    """Whether all layers have the window that a config names."""
    return bool(config.get("sliding_window")) and bool(config.get("use_sliding_window", family not in _SILENT_WINDOW))


def decoder(config: Mapping[str, Any], family: str, files: Stored, tower: Tower | None) -> DecoderArchitecture:
    """The decoder that a config describes. Raises ValueError for a key that it lacks or breaks."""
    given = {key: value for key, value in config.items() if value is not None or key == "kv_lora_rank"}
    config = {**_DEFAULTS.get(family, {}), **given}
    layers, heads, hidden = count(config, LAYERS), count(config, HEADS), count(config, HIDDEN)
    head_dim = count(config, ("head_dim",), hidden // heads) if hidden >= heads else 0
    if head_dim < 1:
        raise ValueError(f"config.json has {heads} attention heads for a hidden size of {hidden}")
    one_kv_head = config.get("multi_query") and not config.get("new_decoder_architecture")  # whatever num_kv_heads says
    kv_heads = 1 if one_kv_head else count(config, KV_HEADS, heads)
    if kv_heads > heads or heads % kv_heads:
        raise ValueError(f"config.json has {heads} attention heads and {kv_heads} KV heads, which do not divide them")
    experts = _experts(config, family, layers)
    plain = family in PLAIN
    no_ffn = experts is not None and experts.layers == layers
    arch = DecoderArchitecture(
        parameters=1,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        ffn=count(config, FFN, 4 * hidden if plain else experts.ffn if no_ffn and experts else None),
        vocab=count(config, VOCAB),
        max_positions=positions(config, family),
        family=family.removesuffix("_text"),
        tied=bool(config.get("tie_word_embeddings", family in TIED)),
        mlp_matrices=2 if plain else 3,
        experts=experts,
        tower=tower,
        rotary_tables=2 if family in ("gemma3_text", "gemma4_text") else 1,
    )
    kinds = layer_kinds(config, family, layers)
    arch = arch.model_copy(update=_caches(config, family, arch, kinds))
    return _counted(config, family, arch, kinds, files)


def _experts(config: Mapping[str, Any], family: str, layers: int) -> Experts | None:
    names = ("num_experts",) if family in _GEMMA4 else EXPERTS
    number = optional(config, *names)
    if family in _GEMMA4 and not config.get("enable_moe_block"):
        number = 0
    if number <= 1:
        return None
    ffn = count(config, ("moe_intermediate_size", "expert_intermediate_size", *FFN))
    shared = optional(config, "shared_expert_intermediate_size") or optional(config, "n_shared_experts") * ffn
    per_token = count(config, ("num_experts_per_tok", "top_k_experts", "moe_topk"))
    if per_token > number:
        raise ValueError(f"config.json has {number} experts, and {per_token} of them for each token")
    dense = optional(config, "first_k_dense_replace") + len(words(config, "mlp_only_layers"))
    dense = max(dense, words(config, "mlp_layer_types").count("dense"))
    step = count(config, ("decoder_sparse_step", "moe_layer_freq"), 1)
    return Experts(
        layers=max((layers - dense) // step, 1),
        count=number,
        per_token=per_token,
        ffn=ffn,
        shared_ffn=shared,
    )


def _latent(config: Mapping[str, Any], family: str) -> bool:
    """Whether the KV cache is compressed: a config of such a family may say that it is not, as DeepSeek-OCR's does.

    Source: `is_deepseek_mla` in vllm/config/model.py, which reads kv_lora_rank alone.
    """
    off = config["kv_lora_rank"] is None if "kv_lora_rank" in config else config.get("use_mla") is False
    return family in WITH_LATENT and not off


def _caches(config: Mapping[str, Any], family: str, arch: DecoderArchitecture, kinds: list[str]) -> dict[str, Any]:
    """The layers that keep a cache or a state."""
    if _latent(config, family):
        width = count(config, ("kv_lora_rank",)) + count(config, ("qk_rope_head_dim",), 64)
        expanded = count(config, ("qk_nope_head_dim",), 128) + count(config, ("v_head_dim",), 128)
        latent = CacheLayers(
            attention="latent", layers=arch.layers, kv_heads=1, head_dim=width, expanded=arch.heads * expanded
        )
        return {"cache": (latent,)}
    shared = optional(config, "num_kv_shared_layers")
    kept = kinds[: len(kinds) - shared]
    found: dict[str, Any] = {}
    full, sliding = kept.count("full"), kept.count("sliding")
    caches: list[CacheLayers] = []
    if sliding:
        window = count(config, ("sliding_window",))
        caches.append(
            CacheLayers(
                attention="sliding", layers=sliding, kv_heads=arch.kv_heads, head_dim=arch.head_dim, window=window
            )
        )
    if full and (sliding or kinds.count("state") or shared):
        heads, dim = arch.kv_heads, arch.head_dim
        if family in _GEMMA4:
            dim = count(config, ("global_head_dim",), 512)
            heads = count(config, ("num_global_key_value_heads",), heads) if config.get("attention_k_eq_v") else heads
        caches.append(CacheLayers(attention="full", layers=full, kv_heads=heads, head_dim=dim))
    found["cache"] = tuple(caches)
    if states := kinds.count("state"):
        keys = count(config, ("linear_num_key_heads",), 16) * count(config, ("linear_key_head_dim",), 128)
        heads, dim = count(config, ("linear_num_value_heads",), 32), count(config, ("linear_value_head_dim",), 128)
        found["states"] = StateLayers(
            layers=states,
            heads=heads,
            head_dim=dim,
            state_dim=count(config, ("linear_key_head_dim",), 128),
            state_bytes=4 if str(config.get("mamba_ssm_dtype", "")) == "float32" else HALF,
            conv_dim=2 * keys + heads * dim,
            conv_width=count(config, ("linear_conv_kernel_dim",), 4),
        )
    return found


def _counted(
    config: Mapping[str, Any], family: str, arch: DecoderArchitecture, kinds: list[str], files: Stored
) -> DecoderArchitecture:
    """With the parameters counted: all of them, and those of the matrices that the files store small."""
    hidden, layers, experts = arch.hidden, arch.layers, arch.experts
    replaced = experts.layers if experts and family not in _GEMMA4 else 0  # by experts; in Gemma 4 they stand beside
    # Matrices by the name that a quantiser would leave out.
    matrices = {
        "self_attn.q_proj": _attention(config, family, arch, kinds),
        "linear_attn.in_proj_qkvz": _linear_attention(arch),
        "mlp.gate_proj": (layers + _wider(config, family) - replaced) * (arch.mlp_matrices or 3) * hidden * arch.ffn,
    }
    beside = 2 * layers * hidden + hidden
    if experts is not None:
        matrices["mlp.experts.0.gate_proj"] = experts.layers * experts.count * 3 * hidden * experts.ffn
        matrices["mlp.shared_expert.gate_proj"] = experts.layers * 3 * hidden * experts.shared_ffn
        beside += experts.layers * experts.count * hidden
        if family == "gpt_oss":
            beside += experts.layers * experts.count * (2 * experts.ffn + hidden)
    tables = 0
    if family in _GEMMA4:
        per_layer = optional(config, "hidden_size_per_layer_input")
        tables = per_layer * layers * optional(config, "vocab_size_per_layer_input")
        beside += tables + per_layer * layers * 2 * hidden
    linear = sum(parameters * files.share(module, layers) for module, parameters in matrices.items())
    if files.quantization is Quantization.MXFP4 and family == "gpt_oss":
        linear = matrices.get("mlp.experts.0.gate_proj", 0)
    embeddings = (1 if arch.tied else 2) * arch.vocab * hidden
    return arch.model_copy(
        update={
            "parameters": sum(matrices.values()) + beside + embeddings,
            "linear": int(linear) if files.quantization is not Quantization.NONE else sum(matrices.values()),
            "looked_up": tables,
            "unloaded": _prediction_head(config, family, arch),
        }
    )


def _wider(config: Mapping[str, Any], family: str) -> int:
    """Layers whose MLP is twice as wide: in Gemma 4's smallest, those that read another layer's cache."""
    doubled = family in _GEMMA4 and config.get("use_double_wide_mlp")
    return optional(config, "num_kv_shared_layers") if doubled else 0


def _attention(config: Mapping[str, Any], family: str, arch: DecoderArchitecture, kinds: list[str]) -> int:
    """Parameters of the attention of all layers that have it."""
    hidden, heads = arch.hidden, arch.heads
    if _latent(config, family):
        nope, rope = count(config, ("qk_nope_head_dim",), 128), count(config, ("qk_rope_head_dim",), 64)
        value, latent = count(config, ("v_head_dim",), 128), count(config, ("kv_lora_rank",))
        rank = optional(config, "q_lora_rank")
        queries = rank * (hidden + heads * (nope + rope)) if rank else hidden * heads * (nope + rope)
        keys_and_values = hidden * (latent + rope) + latent * heads * (nope + value)
        return arch.layers * (queries + keys_and_values + heads * value * hidden)
    gate = 2 if family in STATEFUL else 1  # an output gate as wide as the queries

    def one(kv_heads: int, dim: int, values: int = 1) -> int:
        return hidden * dim * (heads * gate + heads + (1 + values) * kv_heads)

    total = sum(kind != "state" for kind in kinds) * one(arch.kv_heads, arch.head_dim)
    if family in _GEMMA4:
        dim, full = count(config, ("global_head_dim",), 512), kinds.count("full")
        shared = bool(config.get("attention_k_eq_v"))
        heads_of_full = count(config, ("num_global_key_value_heads",), arch.kv_heads) if shared else arch.kv_heads
        total += full * (one(heads_of_full, dim, 0 if shared else 1) - one(arch.kv_heads, arch.head_dim))
    return total


def _linear_attention(arch: DecoderArchitecture) -> int:
    """Parameters of the gated delta nets: queries, keys, values and gate, two gates a head, output."""
    states = arch.states
    if states is None:
        return 0
    values = states.heads * states.head_dim
    one = arch.hidden * (states.conv_dim + values + 2 * states.heads) + values * arch.hidden
    return states.layers * (one + states.conv_dim * states.conv_width)


def _prediction_head(config: Mapping[str, Any], family: str, arch: DecoderArchitecture) -> int:
    """Parameters of the layers that predict more than one token (MTP): in the files, loaded for speculation only."""
    number = optional(config, "mtp_num_hidden_layers", "num_nextn_predict_layers", "num_mtp_layers")
    if family == "qwen3_next" and not number:
        number = 1
    if not number:
        return 0
    gate = 2 if family in STATEFUL else 1
    attention = arch.hidden * arch.head_dim * (arch.heads * (gate + 1) + 2 * arch.kv_heads)
    experts = arch.experts
    mlp = (
        3 * arch.hidden * (experts.count * experts.ffn + experts.shared_ffn) if experts else 3 * arch.hidden * arch.ffn
    )
    # DeepSeek's and GLM's files hold the embedding and the lm_head again beside it.
    copies = 2 * arch.vocab * arch.hidden if family in WITH_LATENT or family == "glm4_moe" else 0
    return number * (attention + mlp + 2 * arch.hidden * arch.hidden + copies)
