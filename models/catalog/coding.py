"""Models for editors and agents: chat about code, fill-in-the-middle, tool calls."""

from __future__ import annotations

from models.catalog.parts import DAY_2, PINNED, REPORTED, awq, config_json, licence, safetensors
from models.engines.vllm import VllmEngine
from models.facts import Evaluation, Evidence, PerToken, Slo, Source
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task

_NO_TARGET = Slo(note="to be derived on the coder tier; none is set yet")
_CODER = PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5)

ENTRIES = (
    ModelSpec(
        alias="coder-chat",
        group="coding-assistant",
        summary="Qwen2.5-Coder 7B Instruct, AWQ: chat about code",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
        served_name="qwen2.5-coder-7b-instruct",
        # Alone it writes a token in 19 ms: 26 chunks a second.
        engine=VllmEngine(image=VLLM, kernel="awq_marlin", stream_interval=2),
        context=16_384,
        weights=awq(
            "Qwen/Qwen2.5-Coder-7B-Instruct",
            revision="8e8ed243bbe6f9a5aff549a0924562fc719b2b8a",
            bytes_on_disk=5_570_000_000,
        ),
        price=_CODER,
        slo=_NO_TARGET,
        evaluation=Evaluation(status="scored", result="HumanEval 18/20 = 90 % (gate: 70 %)"),
        licence=licence("Apache-2.0", "model card", Evidence.VERIFIED),
        sources=(
            REPORTED,
            PINNED,
            *config_json("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", Evidence.VERIFIED, Evidence.VERIFIED),
        ),
    ),
    ModelSpec(
        alias="coder-fim",
        group="coding-assistant",
        summary="Qwen2.5-Coder 1.5B base: fill-in-the-middle completion",
        # The base model: instruct models mangle the FIM control tokens.
        task=Task.FIM,
        model_id="Qwen/Qwen2.5-Coder-1.5B",
        served_name="qwen2.5-coder-1.5b",
        # Alone it writes a token in 14 ms: 18 chunks a second.
        engine=VllmEngine(image=VLLM, max_num_seqs=128, stream_interval=4),
        context=8192,
        weights=safetensors(
            "Qwen/Qwen2.5-Coder-1.5B",
            revision="df3ce67c0e24480f20468b6ef2894622d69eb73b",
            bytes_on_disk=3_087_000_000,
        ),
        price=PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0.4),
        slo=_NO_TARGET,
        evaluation=Evaluation(status="validated", result="FIM /v1/completions answers, direct and by key"),
        licence=licence("Apache-2.0", "recalled", Evidence.MEMORY),
        sources=(REPORTED, PINNED, *config_json("Qwen/Qwen2.5-Coder-1.5B", Evidence.VERIFIED, Evidence.DERIVED)),
    ),
    ModelSpec(
        alias="coder-agent",
        group="coding-assistant",
        summary="Qwen2.5-Coder 14B Instruct, AWQ: agents that call tools",
        task=Task.AGENT,
        model_id="Qwen/Qwen2.5-Coder-14B-Instruct-AWQ",
        served_name="qwen2.5-coder-14b-instruct",
        engine=VllmEngine(
            image=VLLM,
            kernel="awq_marlin",
            max_num_seqs=32,
            # Not Hermes, which finds no call in what Qwen2.5-Coder writes.
            tool_call_parser="qwen2_5_coder",
            tool_parser_plugin="qwen2_5_coder_tools.py",
            chat_template="qwen2_5_coder.jinja",
        ),
        context=16_384,
        weights=awq(
            "Qwen/Qwen2.5-Coder-14B-Instruct",
            revision="eb3172f06a6d6b3a15f08947b0668d782e4d2d2c",
            bytes_on_disk=9_980_000_000,
        ),
        price=_CODER,
        slo=_NO_TARGET,
        evaluation=Evaluation(
            status="reported",
            result="48 of 49 calls of the 14B in <tools> tags, by another template; with ours not run yet: ops smoke",
        ),
        licence=licence("Apache-2.0", "model card", Evidence.VERIFIED),
        sources=(
            REPORTED,
            PINNED,
            *config_json("Qwen/Qwen2.5-Coder-14B-Instruct-AWQ", Evidence.MEMORY, Evidence.VERIFIED),
        ),
    ),
    ModelSpec(
        alias="coder-mini",
        group="coding-assistant",
        summary="Qwen2.5-Coder 3B Instruct, AWQ: chat on a smaller machine",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-Coder-3B-Instruct-AWQ",
        served_name="qwen2.5-coder-3b-instruct",
        # Alone it writes a token in 10 ms: 26 chunks a second.
        engine=VllmEngine(image=VLLM, kernel="awq_marlin", stream_interval=4),
        context=16_384,
        weights=awq("Qwen/Qwen2.5-Coder-3B-Instruct", revision=None, bytes_on_disk=2_690_000_000),
        price=_CODER,
        slo=_NO_TARGET,
        evaluation=Evaluation(status="none", result="the day-2 guide's example; not evaluated"),
        licence=licence("qwen-research", "model card; terms recalled", Evidence.MEMORY, commercial_use=False),
        sources=(
            Source(facts="alias, model, served name, context, price", where=DAY_2, evidence=Evidence.REPORTED),
            *config_json("Qwen/Qwen2.5-Coder-3B-Instruct-AWQ", Evidence.VERIFIED, Evidence.VERIFIED),
        ),
    ),
)
