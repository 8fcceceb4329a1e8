from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import GIB, Evidence, Load, PerAudioSecond, Source, Throughput
from models.hf_config import parse_config
from models.memory.vllm import Knobs, gpu_fit
from models.memory.weights import gpu_weights_gib
from models.spec import ModelSpec
from models.throughput import (
    RATES,
    Experts,
    Machine,
    Work,
    decode_step_s,
    knee,
    most_streams,
    price_per_mtok,
    speed,
    usual,
    work,
)
from models.weights import CacheLayers, DecoderArchitecture, Quantization
from models.weights import Experts as ArchitectureExperts
from tests.catalog import CATALOG
from tests.checkout import CHECKOUT
from tests.models.hf_configs import CONFIGS
from tests.models.vllm_speeds import MISTRAL, REFERENCE, RUNS, Run, errors, table

DOCS = CHECKOUT / "docs" / "costs.md"
HERE = [spec for spec in CATALOG.values() if spec.weights]
L4 = Machine(RATES["l4"])
USUAL = usual(None)


def _off(pair: tuple[float, float]) -> float:
    measured, predicted = pair
    return abs(predicted / measured - 1)


# --- against published runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.what)
def test_a_published_run_is_predicted_within_15_percent(run: Run):
    speeds = {what: pair for what, pair in errors(run).items() if what != "ms to the first"}
    assert speeds
    assert {what: pair for what, pair in speeds.items() if _off(pair) > 0.15} == {}


@pytest.mark.parametrize("run", [run for run in RUNS if run.source == REFERENCE], ids=lambda run: run.what)
def test_every_figure_of_the_reference_is_predicted_within_15_percent(run: Run):
    found = errors(run)
    assert len(found) == 4
    assert {what: pair for what, pair in found.items() if _off(pair) > 0.15} == {}


def test_the_first_token_of_one_stream_is_predicted_within_5_percent():
    alone = [errors(run)["ms to the first"] for run in RUNS if run.first_token_ms and run.streams == 1]
    assert len(alone) == 5
    assert max(map(_off, alone)) < 0.05


def test_on_an_l4_trials_are_off_by_2_percent_in_the_median_and_by_6_at_most():
    trials = [_off(next(iter(errors(run).values()))) for run in RUNS if run.gpu == "l4" and not run.calibration]
    assert len(trials) > 20
    assert median(trials) < 0.025
    assert max(trials) < 0.06


def test_the_table_of_the_page_is_what_the_model_predicts():
    assert table() in DOCS.read_text(encoding="utf-8"), "run: python -m tests.models.vllm_speeds, into docs/costs.md"


# --- what a step reads and computes --------------------------------------------------------------------------


def _arch(alias: str) -> DecoderArchitecture:
    stored = CATALOG[alias].weights
    assert stored
    assert isinstance(stored.architecture, DecoderArchitecture)
    return stored.architecture


def _work(alias: str, quantization: Quantization = Quantization.NONE) -> Work:
    arch = _arch(alias)
    return work(arch, quantization, weights_gib=gpu_weights_gib(arch, quantization))


def test_the_input_embedding_is_looked_up_and_not_read():
    arch = _arch("coder-chat")
    task = _work("coder-chat")
    embedding = arch.vocab * arch.hidden
    assert task.size == pytest.approx(2 * (arch.parameters - embedding), rel=0.01)
    assert task.parameters + task.head == arch.parameters - embedding


def test_an_embedding_that_is_the_lm_head_too_is_read_once():
    arch = _arch("qwen-local")
    task = _work("qwen-local")
    assert task.size == pytest.approx(2 * arch.parameters, rel=0.07)  # beside it the allocator's 0.05 GiB
    assert task.parameters + task.head == arch.parameters


def test_a_step_has_the_hosts_time_for_itself_and_for_each_sequence():
    nothing = Work(size=0, parameters=0, head=0, cache=(), attention=0, fp8=False)
    one, two = (decode_step_s(nothing, L4, streams=n, context=1000) for n in (1, 2))
    assert one > 0
    assert 0 < two - one < one


def test_eight_bits_compute_faster_only_where_the_gpu_has_units_for_them():
    prompt = Load(prompt_tokens=4096, output_tokens=1)
    task = _work("coder-chat", Quantization.FP8)
    without = Machine(replace(L4.rates, fp8=None))
    assert speed(task, L4, prompt).first_token_s < 0.7 * speed(task, without, prompt).first_token_s


# Qwen3-30B-A3B: 48 layers, 128 experts of 3 x 2048 x 768, 8 of them a token. 3.35B parameters are active: 0.91B beside
# the experts (attention, router), 1.81B in experts, 0.31B each in embedding and lm_head.
_EXPERT = 48 * 3 * 2048 * 768
MIXTURE = Work(
    size=2 * 1.22e9,
    parameters=910_000_000,
    head=311_000_000,
    cache=((98_304, None),),
    attention=48 * 32 * 128,
    fp8=False,
    experts=Experts(count=128, active=8, parameters=_EXPERT, size=_EXPERT * 0.52),
)


def test_a_mixture_computes_with_its_active_experts_only():
    assert MIXTURE.active + 2 * MIXTURE.head == pytest.approx(3.35e9, rel=0.02)


def test_one_token_reads_its_own_experts_and_many_read_them_all():
    experts = MIXTURE.experts
    assert experts
    assert experts.touched(1) == pytest.approx(8)
    assert 8 < experts.touched(2) < 16  # some are the same
    assert experts.touched(1000) == pytest.approx(128)
    assert MIXTURE.read(1) < 0.2 * MIXTURE.read(1000)


def test_a_mixture_gains_less_from_a_batch_than_a_dense_model_while_experts_are_still_to_be_read():
    def gain(task: Work) -> float:
        one, eight = (speed(task, L4, USUAL, n).token_s for n in (1, 8))
        return 8 * one / eight

    dense = replace(MIXTURE, size=MIXTURE.read(1), experts=None)
    assert gain(MIXTURE) < 0.7 * gain(dense)


def test_an_architecture_with_experts_is_taken_apart_into_what_every_token_and_what_a_chosen_one_takes():
    layers, hidden, ffn, count, taken = 48, 2048, 768, 128, 8
    arch = DecoderArchitecture(
        parameters=30_532_000_000,
        layers=layers,
        heads=32,
        kv_heads=4,
        head_dim=128,
        hidden=hidden,
        ffn=6144,
        vocab=151_936,
        max_positions=40_960,
        tied=False,
        experts=ArchitectureExperts(layers=layers, count=count, per_token=taken, ffn=ffn),
    )
    task = work(arch, Quantization.FP8, weights_gib=29)
    embedding = arch.vocab * hidden
    assert task.active + 2 * embedding == arch.active_parameters
    assert task.read(10_000) == pytest.approx(29 * GIB - 2 * embedding)
    assert task.read(1) < 0.15 * task.read(10_000)


def test_a_sliding_layer_reads_its_window_and_a_latent_or_8_bit_cache_less():
    arch = _arch("coder-chat")
    full = work(arch, Quantization.NONE, weights_gib=15)
    half = work(arch, Quantization.NONE, weights_gib=15, kv_element_bytes=1)
    assert half.remembered(1000) == full.remembered(1000) / 2
    window = CacheLayers(attention="sliding", layers=28, kv_heads=4, head_dim=128, window=100)
    sliding = work(arch.model_copy(update={"cache": (window,)}), Quantization.NONE, weights_gib=15)
    assert sliding.remembered(50) == full.remembered(50)
    assert sliding.remembered(1000) == full.remembered(100)


# --- loads ---------------------------------------------------------------------------------------------------


def test_a_chunk_that_is_larger_reads_the_weights_less_often():
    task = _work("qwen-local")
    small, large = (
        speed(task, Machine(L4.rates, chunk=n), Load(prompt_tokens=8000, output_tokens=1)) for n in (64, 8192)
    )
    assert large.first_token_s < small.first_token_s


def test_a_longer_prompt_costs_more_than_its_length():
    task = _work("coder-chat", Quantization.AWQ)
    one, two = (speed(task, L4, Load(prompt_tokens=n, output_tokens=1)).first_token_s for n in (8000, 16_000))
    assert two > 2 * one


def test_the_knee_is_the_last_load_that_takes_at_most_twice_as_long_as_one_request_alone():
    task = _work("coder-chat", Quantization.AWQ)
    found = knee(task, L4, USUAL, 256)
    alone = speed(task, L4, USUAL).request_s
    assert 1 < found.streams < 256
    assert found.request_s <= 2 * alone < speed(task, L4, USUAL, found.streams + 1).request_s
    assert found.load.streams == found.streams


def test_the_knee_is_within_what_flags_and_cache_hold():
    assert knee(_work("qwen-local"), L4, USUAL, 3).streams == 3
    spec = CATALOG["coder-chat"]
    fit = VllmEngine.of(spec).fit(spec)
    assert most_streams(USUAL, replace(fit, kv_cache_gib=57_344 * (1152 * 5 + 16) / GIB), max_num_seqs=64) == 5
    assert most_streams(USUAL, fit, max_num_seqs=64) == 64
    assert most_streams(USUAL, replace(fit, kv_cache_gib=0.0), max_num_seqs=64) == 1


def test_short_requests_of_layers_with_a_state_are_as_many_as_their_states_and_not_as_their_tokens() -> None:
    model = parse_config(CONFIGS["Qwen3.5-4B"])
    assert isinstance(model.architecture, DecoderArchitecture)
    fit = gpu_fit(
        model.architecture,
        quantization=model.quantization,
        weights_bytes=model.weights_bytes,
        gpu_gib=22.03,
        knobs=Knobs(None, 256, 2048, 0.92),
    )
    assert most_streams(USUAL, fit, max_num_seqs=256) < fit.kv_cache_tokens // 1152


def test_tables_that_a_token_takes_a_row_of_are_not_read_in_each_step() -> None:
    model = parse_config(CONFIGS["gemma-4-E4B"])
    assert isinstance(model.architecture, DecoderArchitecture)
    assert model.architecture.looked_up == pytest.approx(2.8e9, rel=0.01)
    read = work(model.architecture, Quantization.NONE, weights_gib=15.18)
    assert read.size == pytest.approx((15.18 * GIB) - 2 * 2.82e9 - 2 * model.architecture.tower.parameters, rel=0.01)  # type: ignore[union-attr]
    assert read.active < 5e9


# --- entries -------------------------------------------------------------------------------------------------


def _rate(spec: ModelSpec) -> Throughput:
    found = spec.engine.assumed_throughput(spec)
    assert found is not None
    return found


@pytest.mark.parametrize("spec", HERE, ids=lambda spec: spec.alias)
def test_an_estimate_is_shown_as_an_assumption(spec: ModelSpec):
    assert _rate(spec).source.evidence is Evidence.ASSUMED


def test_an_estimate_says_for_which_load_it_holds():
    assert _rate(CATALOG["coder-chat"]).told == "assumed; 1,024 + 128 tokens, 64 at once"
    assert _rate(CATALOG["embeddings"]).told == "assumed; 512 tokens"


def test_a_smaller_model_serves_more():
    def rate(alias: str) -> float:
        return _rate(CATALOG[alias]).tokens_per_second

    assert rate("coder-agent") < rate("coder-chat") < rate("coder-mini") < rate("coder-fim") < rate("qwen-local")


def test_fewer_sequences_at_once_serve_less():
    spec = CATALOG["coder-chat"]
    assert isinstance(spec.engine, VllmEngine)
    narrow = spec.model_copy(update={"engine": spec.engine.model_copy(update={"max_num_seqs": 4})})
    assert _rate(narrow).tokens_per_second < _rate(spec).tokens_per_second


def test_two_gpus_serve_twice_as_much_as_one_but_for_the_hosts_time():
    spec = CATALOG["coder-chat"]
    doubled = spec.model_copy(update={"engine": spec.engine.model_copy(update={"gpus": 2})})
    assert 1.9 < _rate(doubled).tokens_per_second / _rate(spec).tokens_per_second < 2


def test_a_context_shorter_than_the_usual_request_shrinks_the_request():
    spec = CATALOG["coder-chat"].model_copy(update={"context": 90})
    found = _rate(spec)
    assert found.at.prompt_tokens + found.at.output_tokens <= 90
    assert 0 < found.tokens_per_second < 10_000


def test_two_cores_embed_twice_as_much_as_one():
    spec = CATALOG["embeddings"]
    doubled = spec.model_copy(update={"engine": spec.engine.model_copy(update={"cpu": 1.0})})
    assert _rate(doubled).tokens_per_second == pytest.approx(2 * _rate(spec).tokens_per_second)


def test_onnx_weights_are_read_several_times_as_fast_as_those_that_candle_loads():
    spec = CATALOG["embeddings"]
    assert isinstance(spec.engine, TeiEngine)
    assert spec.weights
    onnx = spec.model_copy(update={"weights": spec.weights.model_copy(update={"format": "onnx"})})
    assert 8 < _rate(onnx).tokens_per_second / _rate(spec).tokens_per_second < 9  # 1,104 s against 125.8 s
    assert "ONNX Runtime" in _rate(onnx).source.where
    assert "candle" in _rate(spec).source.where


def test_what_was_measured_replaces_the_estimate():
    source = Source(facts="throughput", where="a bench", evidence=Evidence.VERIFIED)
    measured = Throughput(tokens_per_second=123, at=USUAL, source=source)
    assert CATALOG["coder-chat"].model_copy(update={"throughput": measured}).expected_throughput == measured


def test_an_external_model_has_no_throughput_here():
    assert CATALOG["claude-haiku"].expected_throughput is None


def test_the_price_of_a_mixed_token_weighs_what_is_read_and_written():
    assert price_per_mtok(CATALOG["coder-chat"].price, USUAL) == pytest.approx((8 * 0.5 + 1 * 1.5) / 9)
    other = Load(prompt_tokens=256, output_tokens=128)
    assert price_per_mtok(CATALOG["coder-chat"].price, other) == pytest.approx((2 * 0.5 + 1 * 1.5) / 3)


def test_an_embedding_is_priced_by_what_it_reads():
    assert price_per_mtok(CATALOG["embeddings"].price, usual(512, generates=False)) == 0.1


def test_a_model_that_is_not_sold_by_the_token_has_no_price_a_token():
    spec = CATALOG["coder-chat"].model_copy(update={"price": PerAudioSecond(usd_per_second=0.0001)})
    assert price_per_mtok(spec.price, USUAL) is None


def test_mistral_is_read_without_its_embedding():
    task = work(MISTRAL, Quantization.NONE, weights_gib=gpu_weights_gib(MISTRAL, Quantization.NONE))
    assert task.size == pytest.approx(2 * (MISTRAL.parameters - MISTRAL.vocab * MISTRAL.hidden), rel=0.01)
