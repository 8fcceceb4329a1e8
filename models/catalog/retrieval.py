"""Embeddings and what else finds text."""

from __future__ import annotations

from models.catalog.parts import PINNED, REPORTED, config_json, licence, onnx
from models.engines.tei import TeiEngine
from models.facts import Evaluation, Evidence, PerToken, Slo
from models.images import TEI_CPU
from models.spec import ModelSpec
from models.tasks import Task

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
)
