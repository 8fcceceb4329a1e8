from __future__ import annotations

import pytest

from models.engines.vllm import VllmEngine
from models.facts import Evidence, PerAudioSecond, Source, Throughput
from models.machines import L4
from models.memory.weights import disk_bytes
from models.spec import ModelSpec
from models.throughput import decode_step_s, price_per_mtok
from models.weights import DecoderArchitecture, Quantization
from tests.catalog import CATALOG

MISTRAL = DecoderArchitecture(
    parameters=7_241_732_096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    hidden=4096,
    ffn=14_336,
    vocab=32_000,
    max_positions=32_768,
)
# One L4, vLLM 0.16.0, 2026-04-05, README of bereketlemma/llm-inference-bench: batch, tokens written, tokens a second.
PUBLISHED = [
    *((Quantization.NONE, *run) for run in ((1, 128, 17.9), (1, 512, 17.8), (4, 128, 68.5), (4, 512, 68.0))),
    *((Quantization.NONE, *run) for run in ((8, 128, 133.9), (8, 512, 133.9))),
    *((Quantization.AWQ, *run) for run in ((1, 128, 61.4), (1, 512, 60.5), (4, 128, 234.9), (4, 512, 227.8))),
    *((Quantization.AWQ, *run) for run in ((8, 128, 452.3), (8, 512, 429.1))),
]
HERE = [spec for spec in CATALOG.values() if spec.weights]


@pytest.mark.parametrize(("quantization", "batch", "written", "published"), PUBLISHED)
def test_decoding_on_an_l4_is_within_7_percent_of_published_runs(
    quantization: Quantization, batch: int, written: int, published: float
):
    weight_bytes = disk_bytes(MISTRAL, quantization)
    step = decode_step_s(MISTRAL, L4, weight_bytes=weight_bytes, batch=batch, context=written / 2)
    assert batch / step == pytest.approx(published, rel=0.07)


def _rate(spec: ModelSpec) -> Throughput:
    found = spec.engine.assumed_throughput(spec)
    assert found is not None
    return found


@pytest.mark.parametrize("spec", HERE, ids=lambda spec: spec.alias)
def test_an_estimate_is_shown_as_an_assumption(spec: ModelSpec):
    assert _rate(spec).source.evidence is Evidence.ASSUMED


def test_a_smaller_model_serves_more():
    def rate(alias: str) -> float:
        return _rate(CATALOG[alias]).tokens_per_second

    assert rate("coder-agent") < rate("coder-chat") < rate("coder-mini") < rate("coder-fim") < rate("qwen-local")


def test_fewer_sequences_at_once_serve_less():
    spec = CATALOG["coder-chat"]
    assert isinstance(spec.engine, VllmEngine)
    narrow = spec.model_copy(update={"engine": spec.engine.model_copy(update={"max_num_seqs": 4})})
    assert _rate(narrow).tokens_per_second < _rate(spec).tokens_per_second


def test_two_gpus_serve_twice_as_much_as_one():
    spec = CATALOG["coder-chat"]
    doubled = spec.model_copy(update={"engine": spec.engine.model_copy(update={"gpus": 2})})
    assert _rate(doubled).tokens_per_second == pytest.approx(2 * _rate(spec).tokens_per_second, rel=0.02)


def test_a_context_shorter_than_the_usual_request_shrinks_the_request():
    spec = CATALOG["coder-chat"].model_copy(update={"context": 90})
    assert 0 < _rate(spec).tokens_per_second < 10_000


def test_two_cores_embed_twice_as_much_as_one():
    spec = CATALOG["embeddings"]
    doubled = spec.model_copy(update={"engine": spec.engine.model_copy(update={"cpu": 1.0})})
    assert _rate(doubled).tokens_per_second == pytest.approx(2 * _rate(spec).tokens_per_second)


def test_what_was_measured_replaces_the_estimate():
    source = Source(facts="throughput", where="a bench", evidence=Evidence.VERIFIED)
    measured = Throughput(tokens_per_second=123, source=source)
    assert CATALOG["coder-chat"].model_copy(update={"throughput": measured}).expected_throughput == measured


def test_an_external_model_has_no_throughput_here():
    assert CATALOG["claude-haiku"].expected_throughput is None


def test_the_price_of_a_mixed_token_weighs_eight_read_to_one_written():
    assert price_per_mtok(CATALOG["coder-chat"].price, generates=True) == pytest.approx((8 * 0.5 + 1 * 1.5) / 9)


def test_an_embedding_is_priced_by_what_it_reads():
    assert price_per_mtok(CATALOG["embeddings"].price, generates=False) == 0.1


def test_a_model_that_is_not_sold_by_the_token_has_no_price_a_token():
    spec = CATALOG["coder-chat"].model_copy(update={"price": PerAudioSecond(usd_per_second=0.0001)})
    assert price_per_mtok(spec.price, generates=True) is None
