"""Chat models that are not about code."""

from __future__ import annotations

from models.catalog.parts import (
    LLAMA_3_2,
    PINNED,
    REPORTED,
    UNSCORED,
    UNTARGETED,
    config_json,
    licence,
    pinned,
    safetensors,
)
from models.engines.vllm import VllmEngine
from models.facts import Defaults, Evaluation, Evidence, Load, PerToken, Slo, Source, Throughput
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import Quantization

_QWEN = Defaults(temperature=0.7, top_p=0.9, max_tokens=512)  # of the guide
_SMALL = PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0.6)
_LLAMA_FILES = ("model*.safetensors", "*.json")  # beside them its repository has the same again for another program

ENTRIES = (
    ModelSpec(
        alias="qwen-local",
        group="baseline",
        summary="Qwen2.5 0.5B Instruct: the benchmark endpoint",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-0.5B-Instruct",
        served_name="qwen2.5-0.5b-instruct",
        # Alone it writes a token in 5 ms: 23 chunks a second.
        engine=VllmEngine(image=VLLM, max_num_seqs=128, stream_interval=8),
        context=8192,
        weights=safetensors(
            "Qwen/Qwen2.5-0.5B-Instruct",
            revision="7ae557604adf67be50417f59c2c2f167def9a775",
            bytes_on_disk=999_586_347,
        ),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        throughput=Throughput(
            tokens_per_second=11_319,  # 3,773 written, and twice as many read
            at=Load(prompt_tokens=256, output_tokens=128, streams=32),
            source=Source(
                facts="throughput",
                where="ahmedwaleedmalik/k8s-llm-inference-platform docs/public/benchmarks.md @ 441dd0a3: one L4, "
                "g2-standard-4, vLLM 0.23.0, utilization 0.6, closed loop, prefix cache not helping. An open loop "
                "there saturated at 6.1k",
                evidence=Evidence.VERIFIED,
            ),
        ),
        slo=Slo(
            ttft_p95_ms=250,
            itl_p95_ms=20,
            e2e_p95_ms=1500,
            output_tokens=128,
            note="baseline, measured with GuideLLM on one L4; derive again for another model or GPU",
        ),
        evaluation=Evaluation(status="benchmarked", result="GuideLLM baseline"),
        licence=licence("Apache-2.0", "recalled", Evidence.MEMORY),
        sources=(REPORTED, PINNED, *config_json("Qwen/Qwen2.5-0.5B-Instruct", Evidence.VERIFIED, Evidence.DERIVED)),
    ),
    ModelSpec(
        alias="qwen3-4b",
        group="small-chat",
        summary="Qwen3 4B Instruct 2507: chat, without thinking aloud",
        task=Task.CHAT,
        model_id="Qwen/Qwen3-4B-Instruct-2507",
        served_name="qwen3-4b-instruct-2507",
        engine=VllmEngine(image=VLLM, stream_interval=2),
        context=16_384,
        weights=safetensors(
            "Qwen/Qwen3-4B-Instruct-2507",
            revision="cdbee75f17c01a7cc42f958dc650907174af0554",
            bytes_on_disk=8_060_917_568,
        ),
        price=_SMALL,
        defaults=_QWEN,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.REPORTED),
        sources=(
            *pinned("10 public repositories pin this commit, one with the size of its files"),
            *config_json("Qwen/Qwen3-4B-Instruct-2507", Evidence.REPORTED, Evidence.REPORTED),
        ),
    ),
    ModelSpec(
        alias="qwen3-4b-fp8",
        group="small-chat",
        summary="Qwen3 4B Instruct 2507 in 8 bits: the same, in half the memory",
        task=Task.CHAT,
        model_id="Qwen/Qwen3-4B-Instruct-2507-FP8",
        served_name="qwen3-4b-instruct-2507-fp8",
        engine=VllmEngine(image=VLLM, stream_interval=2),
        context=16_384,
        weights=safetensors(
            "Qwen/Qwen3-4B-Instruct-2507",
            revision="8591804019c8b22094c3b5b4454e0edc05dffc98",
            bytes_on_disk=4_411_601_920,
            quantization=Quantization.FP8,
        ),
        price=_SMALL,
        defaults=_QWEN,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.REPORTED),
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("Qwen/Qwen3-4B-Instruct-2507-FP8", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="llama-3-2-1b",
        group="small-chat",
        summary="Llama 3.2 1B Instruct: chat, the smallest of its makers",
        task=Task.CHAT,
        model_id="meta-llama/Llama-3.2-1B-Instruct",
        served_name="llama-3.2-1b-instruct",
        engine=VllmEngine(image=VLLM, max_num_seqs=128, stream_interval=4),
        context=16_384,
        weights=safetensors(
            "meta-llama/Llama-3.2-1B-Instruct",
            revision="9213176726f574b556790deb65791e0c5aa438b6",
            bytes_on_disk=2_471_628_800,
            files=_LLAMA_FILES,
            gated=True,
        ),
        price=PerToken(input_usd_per_mtok=0.1, output_usd_per_mtok=0.3),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=LLAMA_3_2,
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("meta-llama/Llama-3.2-1B-Instruct", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="llama-3-2-3b",
        group="small-chat",
        summary="Llama 3.2 3B Instruct: chat",
        task=Task.CHAT,
        model_id="meta-llama/Llama-3.2-3B-Instruct",
        served_name="llama-3.2-3b-instruct",
        engine=VllmEngine(image=VLLM, stream_interval=2),
        context=16_384,
        weights=safetensors(
            "meta-llama/Llama-3.2-3B-Instruct",
            revision="0cb88a4f764b7a12671c53f0838cd831a0843b95",
            bytes_on_disk=6_425_499_648,
            files=_LLAMA_FILES,
            gated=True,
        ),
        price=_SMALL,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=LLAMA_3_2,
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("meta-llama/Llama-3.2-3B-Instruct", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
)
