"""The catalog that the tests of behaviour run on: theirs, so that nobody's own models turn one of them red.

Its rows are those of the reference deployment on the day they were written down here, and stay as they are: claims,
bills and lists in the tests are worked out by hand from them. What this repository ships is `tests/shipped.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import models.catalog
from models.catalog import Group
from models.engines.external import ExternalProvider
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import Evaluation, Evidence, Licence, PerToken, Slo, Source
from models.images import TEI_CPU, VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization, Weights

GROUPS: Mapping[str, Group] = {
    "baseline": Group(summary="the small model that benchmarks and smoke tests run on"),
    "coding-assistant": Group(summary="chat, fill-in-the-middle and tool-using models for editors and agents"),
    "retrieval": Group(summary="embeddings for @codebase and RAG"),
    "local": Group(summary="entries that a checkout adds for itself, in models.local.yaml"),
    "providers": Group(
        summary="external providers behind the same keys and budgets",
        unavailable="its egress gateway, which holds the provider's key, is not part of this version",
    ),
}

_REFERENCE = "reference deployment, model catalog"
_DAY_2 = "reference deployment, day-2 guide"

# What vLLM reads of a Qwen2.5 repository; README, LICENSE and .gitattributes stay behind.
_QWEN_FILES = ("*.safetensors", "*.json", "merges.txt")

_NO_TARGET = Slo(note="to be derived on the coder tier; none is set yet")


def _apache(where: str, evidence: Evidence) -> Licence:
    return Licence(
        name="Apache-2.0", commercial_use=True, source=Source(facts="licence", where=where, evidence=evidence)
    )


def _config_json(model_id: str, evidence: Evidence, size: Evidence) -> tuple[Source, ...]:
    """The two sources that every open model has: its config.json and its file sizes."""
    return (
        Source(facts="architecture", where=f"config.json of {model_id}", evidence=evidence),
        Source(facts="bytes on disk", where=f"files of {model_id}", evidence=size),
    )


_REPORTED = Source(facts="alias, context, price, target, evaluation", where=_REFERENCE, evidence=Evidence.REPORTED)

_PINNED = Source(
    facts="revision",
    where="6 to 10 public repositories pin this commit; `ops pin` compares it with the hub",
    evidence=Evidence.REPORTED,
)

_ENTRIES = (
    ModelSpec(
        alias="qwen-local",
        group="baseline",
        summary="Qwen2.5 0.5B Instruct: the benchmark endpoint",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-0.5B-Instruct",
        served_name="qwen2.5-0.5b-instruct",
        engine=VllmEngine(image=VLLM, max_num_seqs=128),
        context=8192,
        weights=Weights(
            revision="7ae557604adf67be50417f59c2c2f167def9a775",
            format="safetensors",
            quantization=Quantization.NONE,
            dtype="bfloat16",
            files=_QWEN_FILES,
            bytes_on_disk=999_586_347,
            architecture=DecoderArchitecture(
                parameters=494_000_000,
                layers=24,
                heads=14,
                kv_heads=2,
                head_dim=64,
                hidden=896,
                ffn=4864,
                vocab=151_936,
                max_positions=32_768,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        slo=Slo(
            ttft_p95_ms=250,
            itl_p95_ms=20,
            e2e_p95_ms=1500,
            output_tokens=128,
            note="baseline, measured with GuideLLM on one L4; derive again for another model or GPU",
        ),
        evaluation=Evaluation(status="benchmarked", result="GuideLLM baseline"),
        licence=_apache("recalled", Evidence.MEMORY),
        sources=(
            _REPORTED,
            _PINNED,
            *_config_json("Qwen/Qwen2.5-0.5B-Instruct", Evidence.VERIFIED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="coder-chat",
        group="coding-assistant",
        summary="Qwen2.5-Coder 7B Instruct, AWQ: chat about code",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
        served_name="qwen2.5-coder-7b-instruct",
        engine=VllmEngine(image=VLLM, kernel="awq_marlin"),
        context=16_384,
        weights=Weights(
            revision="8e8ed243bbe6f9a5aff549a0924562fc719b2b8a",
            format="safetensors",
            quantization=Quantization.AWQ,
            dtype="float16",
            files=_QWEN_FILES,
            bytes_on_disk=5_570_000_000,
            architecture=DecoderArchitecture(
                parameters=7_615_600_000,
                layers=28,
                heads=28,
                kv_heads=4,
                head_dim=128,
                hidden=3584,
                ffn=18_944,
                vocab=152_064,
                max_positions=32_768,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        slo=_NO_TARGET,
        evaluation=Evaluation(status="scored", result="HumanEval 18/20 = 90 % (gate: 70 %)"),
        licence=_apache("model card", Evidence.VERIFIED),
        sources=(
            _REPORTED,
            _PINNED,
            *_config_json("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", Evidence.VERIFIED, Evidence.VERIFIED),
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
        engine=VllmEngine(image=VLLM, max_num_seqs=128),
        context=8192,
        weights=Weights(
            revision="df3ce67c0e24480f20468b6ef2894622d69eb73b",
            format="safetensors",
            quantization=Quantization.NONE,
            dtype="bfloat16",
            files=_QWEN_FILES,
            bytes_on_disk=3_087_000_000,
            architecture=DecoderArchitecture(
                parameters=1_543_700_000,
                layers=28,
                heads=12,
                kv_heads=2,
                head_dim=128,
                hidden=1536,
                ffn=8960,
                vocab=151_936,
                max_positions=32_768,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0.4),
        slo=_NO_TARGET,
        evaluation=Evaluation(status="validated", result="FIM /v1/completions answers, direct and by key"),
        licence=_apache("recalled", Evidence.MEMORY),
        sources=(_REPORTED, _PINNED, *_config_json("Qwen/Qwen2.5-Coder-1.5B", Evidence.VERIFIED, Evidence.DERIVED)),
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
            tool_call_parser="qwen2_5_coder",
            tool_parser_plugin="qwen2_5_coder_tools.py",
            chat_template="qwen2_5_coder.jinja",
        ),
        context=16_384,
        weights=Weights(
            revision="eb3172f06a6d6b3a15f08947b0668d782e4d2d2c",
            format="safetensors",
            quantization=Quantization.AWQ,
            dtype="float16",
            files=_QWEN_FILES,
            bytes_on_disk=9_980_000_000,
            architecture=DecoderArchitecture(
                parameters=14_770_000_000,
                layers=48,
                heads=40,
                kv_heads=8,
                head_dim=128,
                hidden=5120,
                ffn=13_824,
                vocab=152_064,
                max_positions=32_768,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        slo=_NO_TARGET,
        evaluation=Evaluation(status="validated", result="two-step tool loop by a budgeted key"),
        licence=_apache("model card", Evidence.VERIFIED),
        sources=(
            _REPORTED,
            _PINNED,
            *_config_json("Qwen/Qwen2.5-Coder-14B-Instruct-AWQ", Evidence.MEMORY, Evidence.VERIFIED),
        ),
    ),
    ModelSpec(
        alias="coder-mini",
        group="coding-assistant",
        summary="Qwen2.5-Coder 3B Instruct, AWQ: chat on a smaller machine",
        task=Task.CHAT,
        model_id="Qwen/Qwen2.5-Coder-3B-Instruct-AWQ",
        served_name="qwen2.5-coder-3b-instruct",
        engine=VllmEngine(image=VLLM, kernel="awq_marlin"),
        context=16_384,
        weights=Weights(
            revision=None,
            format="safetensors",
            quantization=Quantization.AWQ,
            dtype="float16",
            files=_QWEN_FILES,
            bytes_on_disk=2_690_000_000,
            architecture=DecoderArchitecture(
                parameters=3_085_900_000,
                layers=36,
                heads=16,
                kv_heads=2,
                head_dim=128,
                hidden=2048,
                ffn=11_008,
                vocab=151_936,
                max_positions=32_768,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.5, output_usd_per_mtok=1.5),
        slo=_NO_TARGET,
        evaluation=Evaluation(status="none", result="the day-2 guide's example; not evaluated"),
        licence=Licence(
            name="qwen-research",
            commercial_use=False,
            source=Source(facts="name (verified), terms (recalled)", where="model card", evidence=Evidence.MEMORY),
        ),
        sources=(
            Source(facts="alias, model, served name, context, price", where=_DAY_2, evidence=Evidence.REPORTED),
            *_config_json("Qwen/Qwen2.5-Coder-3B-Instruct-AWQ", Evidence.VERIFIED, Evidence.VERIFIED),
        ),
    ),
    ModelSpec(
        alias="embeddings",
        group="retrieval",
        summary="BGE base (English) on CPU: embeddings for @codebase and RAG",
        task=Task.EMBEDDING,
        # bge rather than nomic-embed-text: TEI's strict parser rejects nomic's config.json.
        model_id="BAAI/bge-base-en-v1.5",
        served_name="bge-base-en-v1.5",
        engine=TeiEngine(image=TEI_CPU, pooling="cls", max_batch_tokens=4096, cpu=0.5),
        context=512,
        weights=Weights(
            revision="a5beb1e3e68b9ab74eb54cfd186867f64f240e1a",
            format="safetensors",
            quantization=Quantization.NONE,
            dtype="float32",
            files=("model.safetensors", "*.json", "vocab.txt"),
            bytes_on_disk=438_000_000,
            architecture=EncoderArchitecture(
                parameters=109_000_000,
                layers=12,
                heads=12,
                hidden=768,
                ffn=3072,
                vocab=30_522,
                max_positions=512,
            ),
        ),
        price=PerToken(input_usd_per_mtok=0.1, output_usd_per_mtok=0),
        slo=Slo(note="none: a batch job's latency is not a target"),
        evaluation=Evaluation(status="validated", result="registered; budgets bind (the proof that needs no GPU)"),
        licence=Licence(
            name="MIT",
            commercial_use=True,
            source=Source(facts="licence", where="recalled", evidence=Evidence.MEMORY),
        ),
        sources=(_REPORTED, _PINNED, *_config_json("BAAI/bge-base-en-v1.5", Evidence.VERIFIED, Evidence.MEMORY)),
    ),
    ModelSpec(
        alias="claude-haiku",
        group="providers",
        summary="Claude Haiku 4.5 through the egress gateway",
        task=Task.CHAT,
        model_id="claude-haiku-4-5",
        served_name="claude-haiku-4-5",
        engine=ExternalProvider(provider="anthropic"),
        context=None,
        weights=None,
        price=PerToken(input_usd_per_mtok=1, output_usd_per_mtok=5, cached_input_usd_per_mtok=0.1),
        slo=Slo(note="external: the provider's own"),
        evaluation=Evaluation(status="none", result="external provider"),
        licence=Licence(
            name="proprietary",
            commercial_use=True,
            source=Source(facts="provider's terms of service", where=_REFERENCE, evidence=Evidence.REPORTED),
        ),
        sources=(
            _REPORTED,
            Source(facts="list price", where="price map of LiteLLM 1.106.2", evidence=Evidence.VERIFIED),
        ),
    ),
)

CATALOG: Mapping[str, ModelSpec] = {entry.alias: entry for entry in _ENTRIES}


def install() -> None:
    """Make this the catalog of the process, for the whole program: from now on `models.catalog` gives these entries.

    To be called before anything but `models` is imported: `from models.catalog import CATALOG` takes what is there.
    """
    models.catalog.SHIPPED, models.catalog.GROUPS = CATALOG, GROUPS  # pyright: ignore[reportConstantRedefinition]
    laid = models.catalog.with_overlay(CATALOG, GROUPS)
    models.catalog.CATALOG, models.catalog.OVERLAID, models.catalog.FLAWS = laid  # pyright: ignore[reportConstantRedefinition]
    models.catalog.PLACES = {}  # pyright: ignore[reportConstantRedefinition]


def gated(spec: ModelSpec) -> ModelSpec:
    """An entry whose weights the hub gives only to whoever accepted their licence."""
    assert spec.weights is not None
    return spec.model_copy(update={"weights": spec.weights.model_copy(update={"gated": True})})
