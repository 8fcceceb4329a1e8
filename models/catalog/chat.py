"""Chat models that are not about code."""

from __future__ import annotations

from models.catalog.parts import PINNED, REPORTED, config_json, licence, safetensors
from models.engines.vllm import VllmEngine
from models.facts import Evaluation, Evidence, Load, PerToken, Slo, Source, Throughput
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task

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
)
