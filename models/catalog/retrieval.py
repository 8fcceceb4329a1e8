"""Embeddings and what else finds text."""

from __future__ import annotations

from models.catalog.parts import (
    PINNED,
    REPORTED,
    UNSCORED,
    UNTARGETED,
    at_cost,
    config_json,
    licence,
    onnx,
    pinned,
    safetensors,
)
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import Evaluation, Evidence, PerQuery, PerToken, Slo
from models.images import TEI_CPU, VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.throughput import cpu_tokens_per_second
from models.weights import EncoderArchitecture, Weights

_CORES = 2  # of what is too large for half a one
_AT_COST = "its cost: models/throughput.py, models/prices.csv"


def _at_cost(weights: Weights) -> PerToken:
    arch = weights.architecture
    if not isinstance(arch, EncoderArchitecture):
        raise ValueError("this is no encoder")
    rate = cpu_tokens_per_second(arch, _CORES, onnx=weights.format == "onnx")
    return PerToken(input_usd_per_mtok=at_cost(_CORES, rate), output_usd_per_mtok=0)


_M3 = onnx(
    "BAAI/bge-m3",
    revision="5617a9f61b028005a4858fdac845db406aefb181",
    bytes_on_disk=2_301_776_725,
    beside=("onnx/model.onnx_data", "onnx/Constant_7_attr__value"),
)
_GEMMA = safetensors(
    "google/embeddinggemma-300m",
    revision="57c266a740f537b4dc058e1b0cda161fd15afa75",
    bytes_on_disk=1_263_745_878,
    dtype="float32",
    files=("*.safetensors", "*.json"),
    gated=True,
)
ENTRIES = (
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
        # ONNX Runtime reads eight times as fast as candle, which TEI falls back to (docs/costs.md).
        weights=onnx(
            "BAAI/bge-base-en-v1.5",
            revision="a5beb1e3e68b9ab74eb54cfd186867f64f240e1a",
            bytes_on_disk=435_811_539,
        ),
        price=PerToken(input_usd_per_mtok=0.1, output_usd_per_mtok=0),
        slo=Slo(note="none: a batch job's latency is not a target"),
        evaluation=Evaluation(status="validated", result="registered; budgets bind (the proof that needs no GPU)"),
        licence=licence("MIT", "recalled", Evidence.MEMORY),
        sources=(REPORTED, PINNED, *config_json("BAAI/bge-base-en-v1.5", Evidence.VERIFIED, Evidence.REPORTED)),
    ),
    ModelSpec(
        alias="embeddings-m3",
        group="search",
        summary="BGE M3 on CPU: embeddings in many languages, 1,024 dimensions",
        task=Task.EMBEDDING,
        model_id="BAAI/bge-m3",
        served_name="bge-m3",
        engine=TeiEngine(image=TEI_CPU, pooling="cls", max_batch_tokens=2048, cpu=_CORES),
        # Of its 8,192: memory grows with the square, and batches of 8,192 were killed in 6 GB.
        context=2048,
        weights=_M3,
        price=_at_cost(_M3),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("MIT", "model card", Evidence.REPORTED),
        sources=(
            *pinned(
                "10 public repositories pin this commit, 10 the size of its files; one served it so", price=_AT_COST
            ),
            *config_json("BAAI/bge-m3", Evidence.MEMORY, Evidence.REPORTED),
        ),
    ),
    ModelSpec(
        alias="embeddings-gemma",
        group="search",
        summary="EmbeddingGemma 300M on CPU: embeddings in many languages, 768 dimensions or fewer",
        task=Task.EMBEDDING,
        model_id="google/embeddinggemma-300m",
        served_name="embeddinggemma-300m",
        engine=TeiEngine(image=TEI_CPU, pooling="mean", max_batch_tokens=2048, cpu=_CORES),
        context=2048,
        weights=_GEMMA,  # no ONNX in its repository: candle reads it, eight times as slowly
        price=_at_cost(_GEMMA),
        shortest_vector=128,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence(
            "gemma", "Gemma Terms of Use", Evidence.MEMORY, terms="its prohibited uses, which copies have to name too"
        ),
        sources=(
            *pinned("8 public repositories pin this commit", price=_AT_COST),
            *config_json("google/embeddinggemma-300m", Evidence.MEMORY, Evidence.MEMORY),
        ),
    ),
    ModelSpec(
        alias="embeddings-qwen3",
        group="search",
        summary="Qwen3 Embedding 0.6B: embeddings of long texts and code, 1,024 dimensions or fewer",
        task=Task.EMBEDDING,
        model_id="Qwen/Qwen3-Embedding-0.6B",
        served_name="qwen3-embedding-0.6b",
        engine=VllmEngine(image=VLLM, pooling="last", max_num_batched_tokens=8192),
        context=8192,
        weights=safetensors(
            "Qwen/Qwen3-Embedding-0.6B",
            revision="97b0c614be4d77ee51c0cef4e5f07c00f9eb65b3",
            bytes_on_disk=1_191_538_688,
        ),
        price=PerToken(input_usd_per_mtok=0.05, output_usd_per_mtok=0),
        shortest_vector=32,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.REPORTED),
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("Qwen/Qwen3-Embedding-0.6B", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="embeddings-qwen3-4b",
        group="search",
        summary="Qwen3 Embedding 4B: better ones, 2,560 dimensions or fewer",
        task=Task.EMBEDDING,
        model_id="Qwen/Qwen3-Embedding-4B",
        served_name="qwen3-embedding-4b",
        engine=VllmEngine(image=VLLM, pooling="last", max_num_batched_tokens=8192),
        context=8192,
        weights=safetensors(
            "Qwen/Qwen3-Embedding-4B",
            revision="5cf2132abc99cad020ac570b19d031efec650f2b",
            bytes_on_disk=8_043_530_240,
        ),
        price=PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0),
        shortest_vector=32,
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.REPORTED),
        sources=(
            *pinned("10 public repositories pin this commit"),
            *config_json("Qwen/Qwen3-Embedding-4B", Evidence.REPORTED, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="reranker",
        group="search",
        summary="BGE reranker base on CPU: which of some texts answers a question (English, Chinese)",
        task=Task.RERANK,
        model_id="BAAI/bge-reranker-base",
        served_name="bge-reranker-base",
        engine=TeiEngine(image=TEI_CPU, pooling=None, max_batch_tokens=1024, max_client_batch_size=200, cpu=_CORES),
        context=512,
        weights=onnx(
            "BAAI/bge-reranker-base",
            revision="2cfc18c9415c912f9d8155881c133215df768a70",
            bytes_on_disk=1_129_260_332,
            beside=(),
        ),
        price=PerQuery(usd_per_query=0.0002),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("MIT", "model card", Evidence.REPORTED),
        sources=(
            *pinned("10 public repositories pin this commit; one served it so, 20 short texts in 0.4 s on 4 cores"),
            *config_json("BAAI/bge-reranker-base", Evidence.MEMORY, Evidence.DERIVED),
        ),
    ),
    ModelSpec(
        alias="reranker-m3",
        group="search",
        summary="BGE reranker v2 M3 on CPU: the same in many languages, far more slowly",
        task=Task.RERANK,
        model_id="BAAI/bge-reranker-v2-m3",
        served_name="bge-reranker-v2-m3",
        engine=TeiEngine(image=TEI_CPU, pooling=None, max_batch_tokens=1024, max_client_batch_size=50, cpu=_CORES),
        context=1024,
        weights=safetensors(
            "BAAI/bge-reranker-v2-m3",
            revision="953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e",
            bytes_on_disk=2_288_105_768,
            dtype="float32",
            files=("model.safetensors", "*.json"),  # no ONNX in its repository
        ),
        price=PerQuery(usd_per_query=0.002),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.MEMORY),
        sources=(
            *pinned("5 public repositories pin this commit"),
            *config_json("BAAI/bge-reranker-v2-m3", Evidence.MEMORY, Evidence.DERIVED),
        ),
    ),
)
