"""What a team with one L4 runs today: agents that write code, and chat with thinking, at 4 bits."""

from __future__ import annotations

from models.catalog.parts import (
    UNSCORED,
    UNTARGETED,
    awq,
    config_json,
    licence,
    pinned,
    safetensors,
)
from models.engines.vllm import VllmEngine
from models.facts import Defaults, Evidence, PerToken
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import Quantization

_AGENT = PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5)
_APACHE = licence("Apache-2.0", "model card", Evidence.REPORTED)

ENTRIES = (
    ModelSpec(
        alias="devstral",
        group="one-l4",
        summary="Devstral Small 2 24B at 4 bits: an agent that writes code",
        task=Task.AGENT,
        model_id="cyankiwi/Devstral-Small-2-24B-Instruct-2512-AWQ-4bit",
        served_name="devstral-small-2-24b-instruct-2512",
        engine=VllmEngine(
            image=VLLM,
            gpu_memory_utilization=0.95,
            max_num_seqs=8,
            max_num_batched_tokens=1024,
            tool_call_parser="mistral",
            language_model_only=True,  # it reads images too, at a GiB of KV cache
        ),
        context=32_768,
        weights=safetensors(
            "mistralai/Devstral-Small-2-24B-Instruct-2512",
            revision=None,
            bytes_on_disk=16_066_553_856,
            quantization=Quantization.GPTQ,  # as compressed-tensors stores it, in groups of 32
            # Not params.json: vLLM reads it as Mistral's own, and takes the model for Pixtral (vllm#29904).
            files=("model*.safetensors", "model.safetensors.index.json", "config.json", "*token*.json", "*.jinja"),
        ),
        price=_AGENT,
        defaults=Defaults(temperature=0.15),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("no public repository pins one: `ops pin`"),
            *config_json("cyankiwi/Devstral-Small-2-24B-Instruct-2512-AWQ-4bit", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="gpt-oss",
        group="one-l4",
        summary="gpt-oss 20B in MXFP4: an agent that thinks first",
        task=Task.AGENT,
        model_id="openai/gpt-oss-20b",
        served_name="gpt-oss-20b",
        engine=VllmEngine(
            image=VLLM,
            gpu_memory_utilization=0.95,
            max_num_seqs=32,
            tool_call_parser="openai",
            reasoning_parser="openai_gptoss",
        ),
        context=65_536,
        weights=safetensors(
            "openai/gpt-oss-20b",
            revision="6cee5e81ee83917806bbde320786a8fb61efebee",
            bytes_on_disk=13_761_300_984,
            quantization=Quantization.MXFP4,
            # Beside them its repository has the same again for two other programs.
            files=("model-*.safetensors", "model.safetensors.index.json", "*config.json", "*token*.json", "*.jinja"),
        ),
        price=PerToken(input_usd_per_mtok=0.3, output_usd_per_mtok=0.9),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("openai/gpt-oss-20b", Evidence.VERIFIED, Evidence.REPORTED),
        ),
    ),
    ModelSpec(
        alias="qwen3-coder",
        group="one-l4",
        summary="Qwen3-Coder 30B-A3B at 4 bits: an agent that writes code, fast",
        task=Task.AGENT,
        model_id="QuantTrio/Qwen3-Coder-30B-A3B-Instruct-AWQ",
        served_name="qwen3-coder-30b-a3b-instruct",
        engine=VllmEngine(
            image=VLLM,
            kernel="awq_marlin",
            gpu_memory_utilization=0.95,
            max_num_seqs=8,
            tool_call_parser="qwen3_coder",
        ),
        context=24_576,
        weights=awq(
            "Qwen/Qwen3-Coder-30B-A3B-Instruct",
            revision="c58857a7f41c0920f73d1b56678640f9c02017d7",
            bytes_on_disk=16_802_648_064,
        ),
        price=_AGENT,
        defaults=Defaults(temperature=0.7, top_p=0.8),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("6 public repositories pin this commit, one with size, context and speed on 20 GB"),
            *config_json("Qwen/Qwen3-Coder-30B-A3B-Instruct", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="qwen3-8b",
        group="one-l4",
        summary="Qwen3 8B, AWQ: an agent that thinks first, with room for many at once",
        task=Task.AGENT,
        model_id="Qwen/Qwen3-8B-AWQ",
        served_name="qwen3-8b-awq",
        engine=VllmEngine(
            image=VLLM,
            kernel="awq_marlin",
            stream_interval=2,
            tool_call_parser="hermes",
            reasoning_parser="qwen3",
        ),
        context=32_768,
        weights=awq("Qwen/Qwen3-8B", revision="4da05a8edb55c6046cce958586c33b61da07bb79", bytes_on_disk=6_098_460_672),
        price=PerToken(input_usd_per_mtok=0.3, output_usd_per_mtok=0.9),
        defaults=Defaults(temperature=0.6, top_p=0.95),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("7 public repositories pin this commit"),
            *config_json("Qwen/Qwen3-8B-AWQ", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="qwen3-14b",
        group="one-l4",
        summary="Qwen3 14B, AWQ: an agent that thinks first",
        task=Task.AGENT,
        model_id="Qwen/Qwen3-14B-AWQ",
        served_name="qwen3-14b-awq",
        engine=VllmEngine(
            image=VLLM,
            kernel="awq_marlin",
            max_num_seqs=32,
            tool_call_parser="hermes",
            reasoning_parser="qwen3",
        ),
        context=32_768,
        weights=awq("Qwen/Qwen3-14B", revision="31c69efc29464b6bb0aee1398b5a7b50a99340c3", bytes_on_disk=9_976_555_520),
        price=_AGENT,
        defaults=Defaults(temperature=0.6, top_p=0.95),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("8 public repositories pin this commit"),
            *config_json("Qwen/Qwen3-14B-AWQ", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="granite-fim",
        group="one-l4",
        summary="Granite 4.1 3B base: fill-in-the-middle completion, of 2026",
        # The control tokens of Qwen2.5-Coder's, so editors are set up as for that one.
        task=Task.FIM,
        model_id="ibm-granite/granite-4.1-3b-base",
        served_name="granite-4.1-3b-base",
        engine=VllmEngine(image=VLLM, max_num_seqs=64, stream_interval=2),
        context=8192,
        weights=safetensors(
            "ibm-granite/granite-4.1-3b-base",
            revision="dacb9cb9157bec98e99b09f285c92a4d58405c96",
            bytes_on_disk=6_805_672_960,
        ),
        price=PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0.6),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=_APACHE,
        sources=(
            *pinned("3 public repositories pin this commit, one with parameters and control tokens"),
            *config_json("ibm-granite/granite-4.1-3b-base", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
)
