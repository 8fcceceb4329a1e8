"""What a config.json is read as, and what is refused by name instead of being guessed at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.hf_config import UnsupportedModelError, parse_config, read_config
from models.memory.vllm import default_knobs, gpu_fit
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization
from tests.models.hf_configs import CONFIGS

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
}


def decoder_of(**changes: Any) -> DecoderArchitecture:
    arch = parse_config(LLAMA | changes).architecture
    assert isinstance(arch, DecoderArchitecture)
    return arch


def test_a_llama_config_gives_the_published_architecture() -> None:
    arch = decoder_of()
    assert arch.parameters == pytest.approx(8.03e9, rel=0.001)
    assert (arch.head_dim, arch.kv_heads, arch.max_positions) == (128, 8, 131_072)


def test_head_dim_is_read_where_given_and_derived_where_not() -> None:
    assert decoder_of(head_dim=256).head_dim == 256
    assert decoder_of(num_attention_heads=64, num_key_value_heads=8).head_dim == 64


def test_tied_embeddings_count_once() -> None:
    untied, tied = decoder_of(), decoder_of(tie_word_embeddings=True)
    assert untied.parameters - tied.parameters == 128_256 * 4096


def test_yarn_lengthens_the_original_context() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
    assert decoder_of(rope_scaling=scaling, max_position_embeddings=32_768).max_positions == 131_072


def test_without_kv_heads_every_head_has_its_own() -> None:
    assert decoder_of(num_key_value_heads=None).kv_heads == 32


def test_a_sliding_window_is_a_window_where_the_family_uses_it() -> None:
    (layers,) = decoder_of(model_type="mistral", sliding_window=4096).cache
    assert (layers.attention, layers.window, layers.layers) == ("sliding", 4096, 32)
    assert not decoder_of(model_type="mistral", sliding_window=4096, use_sliding_window=False).cache
    assert not decoder_of(model_type="qwen2", sliding_window=4096).cache


@pytest.mark.parametrize(
    ("quantized", "expected", "known"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantization.AWQ, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, Quantization.GPTQ, True),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, Quantization.GPTQ, True),
        ({"quant_method": "gptq", "bits": 5, "group_size": 128}, Quantization.GPTQ, False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Quantization.BITSANDBYTES, True),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, Quantization.INT8, True),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Quantization.NVFP4, True),
        ({"quant_method": "gguf"}, Quantization.GGUF, False),
        ({"quant_method": "fp8"}, Quantization.FP8, True),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, Quantization.FP8, False),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, Quantization.GPTQ, False),
    ],
)
def test_the_quantisation_is_read_from_the_config(
    quantized: dict[str, Any], expected: Quantization, known: bool
) -> None:
    model = parse_config(LLAMA | {"quantization_config": quantized})
    assert (model.quantization, model.size_known) == (expected, known)


@pytest.mark.parametrize("nested", ["text_config", "llm_config", "language_config", "thinker_config"])
def test_a_multimodal_config_of_an_unknown_encoder_is_refused_by_name(nested: str) -> None:
    config = {"model_type": "some_vl", "torch_dtype": "bfloat16", nested: LLAMA, "vision_config": {"depth": 2}}
    with pytest.raises(UnsupportedModelError, match=f"'some_vl'.*{nested}.*--language-model-only") as refused:
        parse_config(config)
    assert refused.value.flags == {"--language-model-only": ""}
    model = parse_config(config, language_only=True)
    assert model.architecture == decoder_of()
    assert "--language-model-only" in model.notes[0]


@pytest.mark.parametrize(
    "part", ["vision_config", "audio_config", "vision_tower", "mm_vision_tower", "visual", "img_processor"]
)
@pytest.mark.parametrize("family", ["llama", "minicpmv", "dots_ocr"])
def test_a_multimodal_config_whose_text_model_lies_flat_is_refused_too(part: str, family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{family}'.*{part}"):
        parse_config(LLAMA | {"model_type": family, part: {}})


def test_images_and_sound_together_are_refused_where_only_images_are_known() -> None:
    with pytest.raises(UnsupportedModelError, match="sound"):
        parse_config(CONFIGS["Qwen3.5-4B"] | {"audio_config": {"hidden_size": 1024}})


@pytest.mark.parametrize("family", ["", "mamba", "jamba", "t5", "some_moe_that_is_none"])
def test_a_family_that_nobody_knows_is_refused_and_judged_as_another_on_the_user_s_word(family: str) -> None:
    config = LLAMA | {"model_type": family, "architectures": ["SomeForCausalLM"]}
    with pytest.raises(UnsupportedModelError, match="--like llama") as refused:
        parse_config(config)
    assert refused.value.flags == {"--like": "llama"}
    model = parse_config(config, like="llama")
    assert model.architecture == decoder_of()
    assert "on your word" in model.notes[0]


@pytest.mark.parametrize(
    ("method", "nearest"),
    [("hqq", "awq"), ("torchao", "awq"), ("quark", "awq"), ("modelopt", "awq"), ("something", "awq"), ("", "awq")],
)
def test_an_unknown_quantisation_is_refused_and_the_advice_works(method: str, nearest: str) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": method}}
    with pytest.raises(UnsupportedModelError, match="--quantization and --weights-bytes of the nearest one") as refused:
        parse_config(config)
    assert refused.value.flags["--quantization"] == nearest
    model = parse_config(config, quantization=Quantization(nearest))
    assert (model.quantization, model.weights_bytes) == (Quantization.AWQ, None)


@pytest.mark.parametrize(
    "keys", [{"quant_method": "modelopt", "quant_algo": "MXFP8"}, {"quant_method": "mxfp8"}, {"bits": 8}]
)
def test_what_is_stored_in_8_bits_is_not_said_to_be_near_to_4(keys: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        parse_config(LLAMA | {"quantization_config": {"quant_method": "something"} | keys})
    assert refused.value.flags["--quantization"] == "int8"


def test_a_bert_config_is_an_encoder() -> None:
    config = {
        "model_type": "bert",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 30_522,
        "max_position_embeddings": 512,
    }
    arch = parse_config(config).architecture
    assert isinstance(arch, EncoderArchitecture)
    assert arch.parameters == pytest.approx(109e6, rel=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"n_routed_experts": 64}, "mixture of experts"),
        ({"kv_lora_rank": 512}, "MLA"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"mamba_d_state": 16}, "state-space"),
        ({"full_attention_interval": 4}, "linear attention"),
        ({"linear_num_value_heads": 32}, "linear attention"),
        ({"layer_types": ["chunked_attention", "full_attention"]}, "chunked_attention"),
    ],
    ids=str,
)
def test_what_the_model_does_not_cover_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        parse_config(LLAMA | change)


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        parse_config({name: value for name, value in LLAMA.items() if name != key})


@pytest.mark.parametrize("value", ["32", 0, -1, 2.5, True, []], ids=repr)
def test_a_broken_number_is_named_with_its_key(value: Any) -> None:
    with pytest.raises(ValueError, match="num_hidden_layers"):
        parse_config(LLAMA | {"num_hidden_layers": value})


def test_kv_heads_that_do_not_divide_the_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="5 KV heads"):
        parse_config(LLAMA | {"num_key_value_heads": 5})


@pytest.mark.parametrize(("content", "reason"), [("{", "no JSON"), ("[]", "no JSON object"), ("\ufeff", "no JSON")])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        read_config(file)


def test_a_directory_is_read_for_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    assert read_config(tmp_path).architecture == decoder_of()


def test_gemma_3_has_the_positions_that_it_says_whatever_its_scaling() -> None:
    scaled = CONFIGS["gemma-3-1b"] | {
        "max_position_embeddings": 131_072,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }
    assert parse_config(scaled).architecture.max_positions == 131_072


def test_a_nested_gemma_3_takes_the_defaults_of_its_class_and_its_sliding_layers() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    model = parse_config({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}})
    arch = model.architecture
    assert isinstance(arch, DecoderArchitecture)
    assert [(layers.attention, layers.layers) for layers in arch.cache] == [("sliding", 29), ("full", 5)]
    assert model.weights_bytes == pytest.approx(8.6e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen3-30B-A3B", 61.06e9),
        ("gpt-oss-20b", 13.76e9),
        ("Qwen3.5-4B", 9.32e9),
        ("DeepSeek-V2-Lite", 31.41e9),
        ("Qwen2.5-VL-3B", 7.51e9),
        ("gemma-4-26B-A4B", 51.61e9),
        ("whisper-large-v3", 3.09e9),
        ("Mistral-Small-3.2", 48.02e9),
    ],
)
def test_the_files_of_published_models_have_the_size_that_their_configs_give(name: str, size: float) -> None:
    assert parse_config(CONFIGS[name]).weights_bytes == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("family", ["modernbert", "nomic_bert", "new", "deberta-v2", "xlm-roberta"])
def test_encoders_of_other_names_have_no_kv_cache(family: str) -> None:
    config = {"model_type": family, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    config |= {"num_hidden_layers": 12, "vocab_size": 30_522, "max_position_embeddings": 512}
    assert isinstance(parse_config(config).architecture, EncoderArchitecture)


def test_what_a_quantiser_leaves_out_stays_in_half_precision() -> None:
    ignored = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn.q_proj", "lm_head"]}
    every = {"quant_method": "fp8"}
    some, all_of_it = (parse_config(LLAMA | {"quantization_config": q}).weights_bytes for q in (ignored, every))
    assert some is not None
    assert all_of_it is not None
    one_layer = 4096 * 128 * (2 * 32 + 2 * 8)
    assert some - all_of_it == pytest.approx(one_layer, rel=0.001)


@pytest.mark.parametrize("without", [(), ("use_mla",), ("kv_lora_rank",)])
def test_a_family_that_compresses_its_cache_keeps_keys_and_values_where_a_config_says_so(
    without: tuple[str, ...],
) -> None:
    config = CONFIGS["DeepSeek-OCR"]
    text = {key: value for key, value in config["language_config"].items() if key not in without}
    arch = parse_config(config | {"language_config": text}, language_only=True).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert arch.cache == ()
    assert (arch.layers, arch.kv_heads, arch.head_dim) == (12, 10, 128)
    assert arch.parameters == pytest.approx(2.93e9, rel=0.01)  # 6.67 GB of files with its encoders
    with pytest.raises(ValueError, match="lacks 'kv_lora_rank'"):
        parse_config(
            {"model_type": "deepseek_v2"}
            | {key: value for key, value in text.items() if key not in ("use_mla", "kv_lora_rank")}
        )


def test_a_language_model_two_levels_deep_is_found_and_named() -> None:
    config = {"model_type": "omni", "thinker_config": {"text_config": LLAMA, "audio_config": {"layers": 2}}}
    with pytest.raises(UnsupportedModelError, match=r"thinker_config\.text_config.*--language-model-only"):
        parse_config(config)
    assert parse_config(config, language_only=True).architecture == decoder_of()


def test_an_adapter_s_config_is_called_one() -> None:
    with pytest.raises(ValueError, match="not of an adapter or a tokenizer"):
        parse_config({"peft_type": "LORA", "base_model_name_or_path": "some/model"})


_ODD: tuple[Any, ...] = (
    *(0, -1, 1, 3, "x", "", None, [], {}, True, 1.5, 10**13, float("nan"), ["full_attention"], ["linear_attention"]),
    {"quant_method": "awq", "bits": 4, "group_size": 0},
    {"quant_method": "fp8", "modules_to_not_convert": ["re:(["]},
    {"config_groups": {"a": {"weights": {"num_bits": 4, "type": "float"}}}},
)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_broken_config_is_refused_and_never_a_traceback(name: str) -> None:
    keys = ("quantization_config", "layer_types", "num_experts", "kv_lora_rank", "sliding_window", "vision_config")
    inside = CONFIGS[name].get("text_config", {})
    for odd in _ODD:
        for key in {*CONFIGS[name], *inside, *keys}:
            broken = {**CONFIGS[name], key: odd}
            if key in inside:
                broken = {**CONFIGS[name], "text_config": {**inside, key: odd}}
            try:
                model = parse_config(broken)
            except ValueError:
                continue
            arch = model.architecture
            assert isinstance(arch, DecoderArchitecture | EncoderArchitecture)
            if isinstance(arch, DecoderArchitecture):
                knobs = default_knobs(22.03, arch.max_positions)
                gpu_fit(
                    arch,
                    quantization=model.quantization,
                    weights_bytes=model.weights_bytes,
                    gpu_gib=22.03,
                    knobs=replace(knobs, max_num_batched_tokens=8192),  # that hold any item, however short the context
                )


@pytest.mark.parametrize(
    "pattern",
    ["re:(a+)+$", "re:((.*).*)*c", "re:(.|.)*x", "re:.*.*.*.*.*x", "re:(?:m|o){1,99}$", "re:" + "(" * 6000],
)
def test_a_pattern_that_would_take_years_to_match_is_refused_with_a_way_out_that_works(pattern: str) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "fp8", "ignore": [pattern]}}
    with pytest.raises(UnsupportedModelError, match="too long to match") as refused:
        parse_config(config)
    assert refused.value.flags == {"--quantization": "fp8"}
    assert parse_config(config, quantization=Quantization.FP8).quantization is Quantization.FP8


@pytest.mark.parametrize(
    "pattern", ["re:.*lm_head", "re:.*self_attn.*", r"re:model\.layers\.\d+\.mlp\.(gate|up)_proj$", "re:.*[*+]x"]
)
def test_patterns_as_quantisers_write_them_are_matched(pattern: str) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "fp8", "ignore": [pattern]}}
    assert parse_config(config).size_known


def test_a_family_s_suggestion_is_of_its_maker_where_that_one_has_its_parts() -> None:
    experts = {"num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512}
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    for family, parts, near in (
        ("phi3small", {}, "phi3"),
        ("glm4v_text", {}, "glm4"),
        ("some_moe", experts, "qwen3_moe"),
        ("kimi_k2", experts | latent, "deepseek_v3"),
    ):
        config = LLAMA | parts | {"model_type": family, "architectures": ["SomeForCausalLM"]}
        with pytest.raises(UnsupportedModelError, match=f"--like {near}$") as refused:
            parse_config(config)
        parse_config(config, like=refused.value.flags["--like"])


def test_a_compressed_cache_is_offered_to_those_alone_that_vllm_keeps_compressed() -> None:
    latent = {"kv_lora_rank": 256, "q_lora_rank": 768, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64}
    with pytest.raises(UnsupportedModelError, match="nor like one") as refused:
        parse_config(LLAMA | latent | {"model_type": "minicpm3", "architectures": ["MiniCPM3ForCausalLM"]})
    assert not refused.value.flags


def test_layers_that_differ_one_by_one_are_offered_as_no_other_family() -> None:
    blocks = [{"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}}]
    with pytest.raises(UnsupportedModelError, match="nor like one"):
        parse_config(LLAMA | {"model_type": "nemotron-nas", "block_configs": blocks})


@pytest.mark.parametrize(
    "keys",
    [
        {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "multi_query_group_num": 2},
        {"model_type": "qwen2_5_omni_text", "architectures": ["Qwen2_5OmniModel"]},
        {"model_type": "x", "architectures": ["XModel"], "auto_map": {"AutoModelForCausalLM": "x.XForCausalLM"}},
    ],
)
def test_a_decoder_whose_class_is_called_model_is_never_offered_as_an_encoder(keys: dict[str, Any]) -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads" or "auto_map" not in keys}
    with pytest.raises(UnsupportedModelError) as refused:
        parse_config(config | keys)
    model = parse_config(config | keys, like=refused.value.flags["--like"])
    assert isinstance(model.architecture, DecoderArchitecture)


def test_an_encoder_with_a_decoder_is_offered_as_neither() -> None:
    keys = {"model_type": "t5", "architectures": ["T5EncoderModel"], "is_encoder_decoder": True}
    with pytest.raises(UnsupportedModelError, match="nor like one"):
        parse_config(LLAMA | keys)


@pytest.mark.parametrize("name", ["SomeForMaskedLM", "JinaBertModel", "SomeForSequenceClassification"])
def test_an_encoder_of_a_family_that_nobody_knows_is_never_offered_as_a_decoder(name: str) -> None:
    heads = LLAMA["num_attention_heads"]
    config = LLAMA | {"model_type": "albert", "architectures": [name], "rope_scaling": None}
    config |= {"num_key_value_heads": heads}
    with pytest.raises(UnsupportedModelError, match="--like bert") as refused:
        parse_config(config)
    assert isinstance(parse_config(config, like=refused.value.flags["--like"]).architecture, EncoderArchitecture)


@pytest.mark.parametrize(
    "own",
    [
        {"index_topk": 2048},
        {"num_kv_shared_layers": 10},
        {"global_head_dim": 512},
        {"cross_attention_layers": [3, 8]},
        {"sliding_window": 4096, "sliding_window_pattern": 4},
    ],
    ids=str,
)
def test_a_cache_that_is_cut_in_a_way_of_its_own_is_refused_and_no_other_family_is_offered(own: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="does not know"):
        parse_config(LLAMA | own)
    with pytest.raises(UnsupportedModelError, match="nor like one") as refused:
        parse_config(LLAMA | own | {"model_type": "novel", "architectures": ["NovelForCausalLM"]})
    assert not refused.value.flags


@pytest.mark.parametrize("both_ways", [{"is_causal": False}, {"use_bidirectional_attention": True}], ids=str)
def test_a_decoder_that_attends_both_ways_is_an_encoder(both_ways: dict[str, Any]) -> None:
    assert isinstance(parse_config(LLAMA | both_ways).architecture, EncoderArchitecture)


def test_falcon_s_one_kv_head_is_one_whatever_it_counts_beside_it() -> None:
    falcon = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    falcon |= {"num_kv_heads": 71, "multi_query": True, "vocab_size": 65_024, "max_position_embeddings": 2048}
    arch = parse_config(falcon).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert arch.kv_heads == 1
    assert arch.parameters == pytest.approx(6.92e9, rel=0.01)


def test_local_and_global_layers_in_turn_are_read_from_letters_too() -> None:
    exaone = LLAMA | {"model_type": "exaone4", "sliding_window": 4096, "sliding_window_pattern": "LLLG"}
    arch = parse_config(exaone).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert [(layers.attention, layers.layers) for layers in arch.cache] == [("sliding", 24), ("full", 8)]


def test_gemma_4_has_an_encoder_of_sound_layers_that_share_a_cache_and_some_twice_as_wide() -> None:
    arch = parse_config(CONFIGS["gemma-4-E4B"]).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert sum(layers.layers for layers in arch.cache) == 42 - 18
    text = CONFIGS["gemma-4-E4B"]["text_config"]
    silent, wide = (
        parse_config({"model_type": "gemma4", "text_config": text | more}).weights_bytes
        for more in ({}, {"use_double_wide_mlp": True})
    )
    assert silent
    assert wide
    assert wide - silent == 18 * 3 * 2560 * 10_240 * 2
    deaf = {key: value for key, value in CONFIGS["gemma-4-E4B"].items() if key != "audio_config"}
    heard, deafened = (parse_config(config).weights_bytes for config in (CONFIGS["gemma-4-E4B"], deaf))
    assert heard
    assert deafened
    assert heard - deafened == pytest.approx(0.61e9, rel=0.03)


def test_glm_4_7_flash_is_a_mixture_with_a_latent_cache() -> None:
    glm = {"model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10_240, "num_hidden_layers": 47}
    glm |= {"num_attention_heads": 20, "num_key_value_heads": 20, "n_routed_experts": 64, "n_shared_experts": 1}
    glm |= {"num_experts_per_tok": 4, "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "kv_lora_rank": 512}
    glm |= {"q_lora_rank": 768, "qk_rope_head_dim": 64, "qk_nope_head_dim": 192, "v_head_dim": 256}
    glm |= {"vocab_size": 154_880, "max_position_embeddings": 202_752, "num_nextn_predict_layers": 1}
    model = parse_config(glm)
    assert isinstance(model.architecture, DecoderArchitecture)
    assert [(layers.attention, layers.head_dim) for layers in model.architecture.cache] == [("latent", 576)]
    assert model.weights_bytes == pytest.approx(62.5e9, rel=0.02)


@pytest.mark.parametrize(
    "stored",
    [
        {"quantization_config": {"quant_method": "exl2", "bits": 4.0}},
        {"quantization_config": {"group_size": 64, "bits": 4}},
        {"quantization": {"group_size": 64, "bits": 4}},
    ],
    ids=str,
)
def test_weights_that_no_version_of_vllm_serves_are_refused_and_never_sized(stored: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="no kernel") as refused:
        parse_config(LLAMA | stored, quantization=Quantization.AWQ)
    assert not refused.value.flags


def test_what_modelopt_says_in_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    said = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(said), encoding="utf-8")
    assert read_config(tmp_path).quantization is Quantization.NVFP4
    (tmp_path / "hf_quant_config.json").write_text("[", encoding="utf-8")
    assert read_config(tmp_path).quantization is Quantization.NONE


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        # nomic-embed-text v1.5 and v2-moe, jina-embeddings-v2-base-en: what their pages say.
        ({"model_type": "nomic_bert", "vocab_size": 30_528, "activation_function": "swiglu"}, 137),
        (
            {"model_type": "nomic_bert", "vocab_size": 250_048, "activation_function": "gelu"}
            | {"num_experts": 8, "moe_every_n_layers": 2},
            475,
        ),
        (
            {"model_type": "bert", "vocab_size": 30_528, "position_embedding_type": "alibi"}
            | {"feed_forward_type": "geglu"},
            137,
        ),
    ],
)
def test_an_encoder_counts_its_gates_and_experts(config: dict[str, Any], millions: int) -> None:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    arch = parse_config(sizes | {"max_position_embeddings": 8192} | config).architecture
    assert isinstance(arch, EncoderArchitecture)
    assert arch.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_an_encoder_of_experts_that_nobody_knows_is_refused() -> None:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        parse_config(sizes | {"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 9, "num_experts": 8})


@pytest.mark.parametrize(
    "mixed",
    [
        {"attn_type_list": [0, 0, 1, 0]},
        {"hybrid_layer_pattern": [0, 1, 1, 1]},
        {"conv_L_cache": 3},
        {"use_cla": True, "cla_share_factor": 2},
    ],
)
def test_layers_of_several_kinds_are_refused_whatever_lists_them(mixed: dict[str, Any]) -> None:
    for family in ("llama", "some_new_one"):
        with pytest.raises(UnsupportedModelError) as refused:
            parse_config(LLAMA | mixed | {"model_type": family})
        assert refused.value.flags == {}
    assert parse_config(LLAMA | {"attn_type_list": [1, 1, 1]}).architecture == decoder_of()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"quantization_config": "awq"}, "no object"),
        ({"layer_types": ["full_attention"] * 3}, "names 3 of them"),
        ({"hybrid_override_pattern": "M-M*"}, "hybrid_override_pattern"),
        ({"attn_type_list": [0, 1]}, "attn_type_list"),
        (
            {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 80, "moe_intermediate_size": 768},
            "8 experts, and 80",
        ),
    ],
)
def test_what_contradicts_itself_or_cuts_layers_its_own_way_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_config(LLAMA | wrong)


def test_a_decoder_of_old_whose_class_is_an_lm_head_is_never_offered_as_an_encoder() -> None:
    old = LLAMA | {"model_type": "qwen", "architectures": ["QWenLMHeadModel"], "num_key_value_heads": 32}
    with pytest.raises(UnsupportedModelError) as refused:
        parse_config(old)
    assert "bert" not in str(refused.value)
    assert "bert" not in str(refused.value.flags)
