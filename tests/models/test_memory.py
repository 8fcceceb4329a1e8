"""The memory model against real start-up logs, and what holds for any model."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import GIB
from models.hf_config import UnsupportedModelError, parse_config, read_config
from models.machines import G2_MACHINES
from models.memory.host import HostMemory, disk_gib, smallest_g2, vllm_host_memory
from models.memory.llama_cpp import gguf_memory
from models.memory.remedies import remedies
from models.memory.tei import encoder_gib
from models.memory.versions import DEFAULT_VERSION, vllm_version
from models.memory.vllm import (
    GpuFit,
    Knobs,
    cuda_graph_gib,
    default_knobs,
    disk_bytes,
    gpu_fit,
    gpu_weights_gib,
    kv_bytes_per_token,
)
from models.spec import ModelSpec
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization
from tests.catalog import CATALOG
from tests.models.vllm_logs import ARCHITECTURES, LOGS, WEIGHTS, Log, WeightLog, error, predict, table
from tests.support import needs

QWEN_7B = ARCHITECTURES["Qwen2.5-7B"]
QWEN_14B = ARCHITECTURES["Qwen2.5-14B"]
KNOBS = Knobs(max_model_len=16_384, max_num_seqs=64, max_num_batched_tokens=2048, utilization=0.90)
ON_VLLM = [spec for spec in CATALOG.values() if isinstance(spec.engine, VllmEngine)]
DOCS = Path(__file__).parents[2] / "docs" / "memory.md"


def fit_7b(knobs: Knobs = KNOBS, gpu_gib: float = 22.03, q: Quantization = Quantization.AWQ) -> GpuFit:
    return gpu_fit(QWEN_7B, quantization=q, weights_bytes=None, gpu_gib=gpu_gib, knobs=knobs)


# --- against real logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.model}-{log.gpu}-{log.version}")
def test_no_predicted_kv_cache_is_more_than_10_percent_off_its_log(log: Log) -> None:
    assert abs(error(log)) < 0.10


def test_the_median_error_against_the_logs_is_under_2_percent() -> None:
    assert statistics.median(abs(error(log)) for log in LOGS) < 0.02


@pytest.mark.parametrize(
    "log", [log for log in LOGS if log.kv_gib and log.tokens], ids=lambda log: f"{log.model}-{log.gpu}"
)
def test_logged_gib_give_the_logged_tokens(log: Log) -> None:
    assert log.kv_gib
    tokens = log.kv_gib * GIB / kv_bytes_per_token(ARCHITECTURES[log.model], log.tp)
    assert tokens == pytest.approx(log.tokens, rel=0.003)


@pytest.mark.parametrize("log", [log for log in LOGS if not log.starts], ids=lambda log: log.source)
def test_what_vllm_refused_is_never_said_to_fit(log: Log) -> None:
    assert not predict(log).fits
    # Nor when nobody says which version it is.
    assert not predict(replace(log, version="0.23.0")).fits


@pytest.mark.parametrize("log", [log for log in LOGS if log.starts], ids=lambda log: f"{log.model}-{log.gpu}")
def test_what_vllm_started_is_never_refused(log: Log) -> None:
    assert predict(log).fits


@pytest.mark.parametrize("log", WEIGHTS, ids=lambda log: f"{log.model}-{log.gib}")
def test_weights_on_the_gpu_are_within_3_percent_of_the_log(log: WeightLog) -> None:
    arch = ARCHITECTURES[log.model]
    assert gpu_weights_gib(arch, log.quantization, tensor_parallel=log.tp) == pytest.approx(log.gib, rel=0.03)


def test_the_documentation_shows_the_errors_of_this_model() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "run: python -m tests.models.vllm_logs, into docs/memory.md"


# --- weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ON_VLLM, ids=lambda spec: spec.alias)
def test_computed_file_sizes_match_the_catalog(spec: Any) -> None:
    weights = spec.weights
    assert disk_bytes(weights.architecture, weights.quantization, weights.dtype) == pytest.approx(
        weights.bytes_on_disk,
        rel=0.015,  # a catalog entry counts tokenizer files as well
    )


def test_a_tied_head_stored_apart_in_4_bit_files_is_shared_again_on_the_gpu() -> None:
    arch = CATALOG["coder-mini"].weights.architecture  # type: ignore[union-attr]
    assert isinstance(arch, DecoderArchitecture)
    stored = disk_bytes(arch, Quantization.AWQ)
    saved = stored / GIB - gpu_weights_gib(arch, Quantization.AWQ, stored)
    assert saved == pytest.approx(arch.vocab * arch.hidden * 2 / GIB, abs=0.1)


def test_a_float32_checkpoint_takes_half_its_size_on_the_gpu() -> None:
    assert gpu_weights_gib(QWEN_7B, Quantization.NONE, dtype="float32") == pytest.approx(
        gpu_weights_gib(QWEN_7B, Quantization.NONE), rel=1e-6
    )


def test_fp8_given_half_precision_files_is_quantised_while_loading() -> None:
    half = disk_bytes(QWEN_7B, Quantization.NONE)
    assert gpu_weights_gib(QWEN_7B, Quantization.FP8, half) == gpu_weights_gib(QWEN_7B, Quantization.FP8)


# --- properties of the estimate -------------------------------------------------------------------------------


def test_the_parts_add_up_to_the_budget() -> None:
    fit = fit_7b()
    parts = fit.weights_gib + fit.non_torch_gib + fit.activation_gib + fit.cuda_graph_gib + fit.kv_cache_gib
    assert parts == pytest.approx(fit.budget_gib)
    assert fit.budget_gib == pytest.approx(22.03 * 0.90)


@pytest.mark.parametrize("tokens", [2048, 4096, 8192, 32_768])
def test_a_longer_context_never_holds_more_requests(tokens: int) -> None:
    shorter, longer = (fit_7b(replace(KNOBS, max_model_len=n)) for n in (tokens // 2, tokens))
    assert longer.concurrency < shorter.concurrency
    assert longer.kv_cache_tokens == shorter.kv_cache_tokens


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"max_num_seqs": 256}, False),
        ({"max_num_batched_tokens": 8192}, False),
        ({"utilization": 0.95}, True),
        ({"eager": True}, True),
        ({"tensor_parallel": 2}, True),
    ],
    ids=str,
)
def test_flags_move_the_kv_cache_the_way_they_should(change: dict[str, Any], more: bool) -> None:
    before, after = fit_7b(), fit_7b(replace(KNOBS, **change))
    assert (after.kv_cache_gib > before.kv_cache_gib) is more


def test_more_gpu_memory_never_fits_less() -> None:
    fits = [fit_7b(gpu_gib=gib) for gib in (6, 8, 12, 16, 22.03, 40)]
    assert [f.fits for f in fits] == sorted(f.fits for f in fits)
    assert [f.max_model_len for f in fits] == sorted(f.max_model_len for f in fits)


def test_the_longest_context_that_fits_fits_and_one_block_more_does_not() -> None:
    knobs = replace(KNOBS, utilization=0.36)
    longest = fit_7b(knobs).max_model_len
    assert 16 <= longest < QWEN_7B.max_positions
    assert longest % knobs.block_size == 0
    assert fit_7b(replace(knobs, max_model_len=longest)).fits
    assert not fit_7b(replace(knobs, max_model_len=longest + knobs.block_size)).fits


def test_tokens_are_whole_blocks() -> None:
    fit = fit_7b()
    assert fit.kv_cache_tokens % 16 == 0
    assert 0 <= fit.kv_cache_gib * GIB - fit.kv_cache_tokens * 57_344 < 16 * 57_344


def test_weights_that_exceed_the_gpu_leave_a_negative_kv_cache_and_no_context() -> None:
    fit = fit_7b(gpu_gib=12, q=Quantization.NONE)
    assert fit.kv_cache_gib < 0
    assert (fit.kv_cache_tokens, fit.max_model_len, fit.fits) == (0, 0, False)
    assert "lacking" in fit.reason


def test_without_a_context_the_model_s_own_is_asked_for() -> None:
    assert fit_7b(replace(KNOBS, max_model_len=None)).requested_len == QWEN_7B.max_positions


def test_a_budget_that_an_idle_gpu_has_not_free_is_refused() -> None:
    fit = fit_7b(replace(KNOBS, utilization=1.0))
    assert not fit.fits
    assert "free" in fit.reason


def test_kv_heads_are_copied_where_there_are_more_gpus_than_kv_heads() -> None:
    assert kv_bytes_per_token(QWEN_7B, 4) == kv_bytes_per_token(QWEN_7B) // 4
    assert kv_bytes_per_token(QWEN_7B, 7) == kv_bytes_per_token(QWEN_7B, 4)


def test_eager_mode_reserves_nothing_for_cuda_graphs() -> None:
    assert cuda_graph_gib(QWEN_7B, replace(KNOBS, eager=True)) == 0
    assert cuda_graph_gib(QWEN_7B, KNOBS) > 0


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"max_model_len": 40_000}, "--max-model-len 32768"),
        ({"tensor_parallel": 3}, "--tensor-parallel 1 or 2 or 4"),
        ({"utilization": 1.2}, "above 0 and up to 1"),
        ({"max_num_seqs": 0}, "at least 1"),
        ({"max_num_seqs": 256, "max_num_batched_tokens": 128}, "--max-num-batched-tokens 256 or more"),
    ],
    ids=str,
)
def test_flags_that_vllm_refuses_are_refused_with_a_remedy(change: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        fit_7b(replace(KNOBS, **change))


# --- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "utilization", "counts_graphs"),
    [("v0.23.0", 0.92, True), ("0.19.1", 0.90, False), ("0.8.5", 0.90, False)],
)
def test_a_version_brings_its_own_accounting(version: str, utilization: float, counts_graphs: bool) -> None:
    found = vllm_version(version)
    assert (found.utilization, found.counts_graphs) == (utilization, counts_graphs)


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.23\.0"):
        vllm_version("latest")


def test_defaults_of_flags_are_those_of_vllm_0_23() -> None:
    small = default_knobs(22.03, 32_768)
    assert (small.max_num_seqs, small.max_num_batched_tokens, small.utilization) == (256, 2048, 0.92)
    large = default_knobs(79.18, 32_768)
    assert (large.max_num_seqs, large.max_num_batched_tokens) == (1024, 8192)
    a100 = default_knobs(79.15, 32_768, large=False)
    assert (a100.max_num_seqs, a100.max_num_batched_tokens) == (256, 2048)


# --- remedies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "quantization", "knobs"),
    [
        (QWEN_14B, Quantization.NONE, KNOBS),
        (QWEN_7B, Quantization.NONE, replace(KNOBS, max_num_seqs=1024, max_model_len=32_768, utilization=0.85)),
        (ARCHITECTURES["Qwen3-32B"], Quantization.AWQ, KNOBS),
        (QWEN_7B, Quantization.AWQ, replace(KNOBS, utilization=0.3)),
        (QWEN_7B, Quantization.AWQ, replace(KNOBS, utilization=1.0)),
    ],
    ids=["14B", "7B-1024-seqs", "32B-AWQ", "7B-AWQ-low", "7B-AWQ-all"],
)
def test_every_remedy_of_a_refusal_fits(arch: DecoderArchitecture, quantization: Quantization, knobs: Knobs) -> None:
    assert not gpu_fit(arch, quantization=quantization, weights_bytes=None, gpu_gib=22.03, knobs=knobs).fits
    found = remedies(arch, quantization=quantization, weights_bytes=None, gpu_gib=22.03, knobs=knobs)
    assert found
    assert all(remedy.fit.fits for remedy in found)


def test_fewer_sequences_come_before_a_shorter_context_and_a_larger_gpu_last() -> None:
    knobs = replace(KNOBS, max_num_seqs=1024, max_model_len=32_768, utilization=0.85)
    found = remedies(QWEN_7B, quantization=Quantization.NONE, weights_bytes=None, gpu_gib=22.03, knobs=knobs)
    order = [next(iter(remedy.flags)) for remedy in found]
    assert order[0] == "--max-num-seqs"
    assert order[-1] == "--gpu"
    assert order.index("--max-model-len") > 0


# --- host memory and disk ---------------------------------------------------------------------------------------


def _host(spec: ModelSpec) -> HostMemory:
    return VllmEngine.of(spec).host_memory(spec)


def test_14b_is_refused_and_7b_accepted_on_g2_standard_4() -> None:
    small, next_one = (G2_MACHINES[name].pod_gib for name in ("g2-standard-4", "g2-standard-8"))
    assert _host(CATALOG["coder-chat"]).total_gib < small
    assert small < _host(CATALOG["coder-agent"]).total_gib < next_one


def test_host_memory_is_the_sum_of_its_parts_rounded_up() -> None:
    host = _host(CATALOG["coder-chat"])
    parts = host.process_gib + host.staging_gib + host.shm_gib
    assert parts <= host.total_gib < parts + 0.1


def test_every_gpu_brings_a_worker_and_the_group_a_larger_shm() -> None:
    one, two = vllm_host_memory(10 * GIB, 1), vllm_host_memory(10 * GIB, 2)
    assert two.process_gib > one.process_gib
    assert two.shm_gib > one.shm_gib


def test_the_smallest_machine_has_the_gpus_and_the_memory() -> None:
    assert smallest_g2(10) == "g2-standard-4"
    assert smallest_g2(20) == "g2-standard-8"
    assert smallest_g2(20, gpus=2) == "g2-standard-24"
    assert smallest_g2(1000) is None


@pytest.mark.parametrize("spec", [s for s in CATALOG.values() if s.weights], ids=lambda s: s.alias)
def test_a_claim_holds_the_weights_and_a_margin(spec: Any) -> None:
    assert spec.engine.claim_gib(spec) >= spec.weights.bytes_on_disk / GIB * 1.25 + 2


def test_a_somewhat_larger_revision_seldom_changes_a_claim() -> None:
    sizes = [gib * GIB for gib in range(1, 60)]
    assert sum(disk_gib(size) == disk_gib(int(size * 1.02)) for size in sizes) > 0.75 * len(sizes)


def test_a_model_without_weights_has_no_claim() -> None:
    spec = CATALOG["claude-haiku"]
    assert spec.engine.claim_gib(spec) == 0


# --- the catalog --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ON_VLLM, ids=lambda spec: spec.alias)
def test_every_catalog_model_fits_its_gpu_at_its_context(spec: Any) -> None:
    fit = spec.engine.fit(spec)
    assert fit is not None
    assert fit.fits, fit.reason
    assert fit.requested_len == spec.context
    assert fit.concurrency >= 1


def test_a_model_without_a_gpu_is_not_fitted() -> None:
    spec = CATALOG["embeddings"]
    assert spec.engine.fit(spec) is None


def test_vllm_judges_decoders_only() -> None:
    spec, other = CATALOG["coder-chat"], CATALOG["embeddings"]
    with pytest.raises(ValueError, match="coder-chat is no decoder"):
        spec.engine.fit(spec.model_copy(update={"weights": other.weights}))


# --- CPU rows -----------------------------------------------------------------------------------------------------


def test_tei_memory_grows_with_the_batch_its_warm_up_runs() -> None:
    spec = CATALOG["embeddings"]
    assert isinstance(spec.engine, TeiEngine)
    larger = spec.model_copy(update={"engine": spec.engine.model_copy(update={"max_batch_tokens": 16_384})})
    assert spec.weights
    assert spec.weights.bytes_on_disk / GIB < needs(spec).gib < 2 < needs(larger).gib


def test_a_batch_of_a_thousand_inputs_is_within_what_is_planned_and_more_of_them_cost_more() -> None:
    spec = CATALOG["embeddings"]
    assert isinstance(spec.engine, TeiEngine)
    assert 1000 <= spec.engine.max_client_batch_size < spec.engine.max_concurrent_requests
    vast = spec.model_copy(update={"engine": spec.engine.model_copy(update={"max_client_batch_size": 100_000})})
    assert needs(vast).gib > needs(spec).gib + 1


def test_an_encoder_batch_shorter_than_the_context_needs_less() -> None:
    arch = CATALOG["embeddings"].weights.architecture  # type: ignore[union-attr]
    assert isinstance(arch, EncoderArchitecture)
    assert encoder_gib(arch, max_batch_tokens=256, context=512) < encoder_gib(arch, max_batch_tokens=512, context=512)


@pytest.mark.parametrize(
    ("model", "context", "mib"), [("Llama-2-7b", 4096, 296), ("Llama-2-7b", 512, 70.5), ("Llama-3-8B", 8192, 560)]
)
def test_llama_cpp_compute_buffers_match_its_logs(model: str, context: int, mib: float) -> None:
    memory = gguf_memory(ARCHITECTURES[model], file_bytes=GIB, context=context)
    assert memory.compute_gib * 1024 == pytest.approx(mib, rel=0.03)


def test_the_kv_cache_of_llama_2_at_4096_is_2_gib() -> None:
    assert gguf_memory(ARCHITECTURES["Llama-2-7b"], file_bytes=GIB, context=4096).kv_cache_gib == 2


# --- config.json --------------------------------------------------------------------------------------------------

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


def test_a_sliding_window_is_counted_as_full_attention_and_said_so() -> None:
    assert "full attention" in parse_config(LLAMA | {"sliding_window": 4096}).notes[0]
    assert not parse_config(LLAMA | {"sliding_window": 4096, "use_sliding_window": False}).notes


@pytest.mark.parametrize(
    ("quantized", "expected", "known"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantization.AWQ, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, Quantization.GPTQ, True),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, Quantization.GPTQ, False),
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


def test_a_multimodal_config_is_read_for_its_text_model_and_leaves_the_size_open() -> None:
    model = parse_config(
        {"model_type": "some_vl", "torch_dtype": "bfloat16", "text_config": LLAMA, "vision_config": {}}
    )
    assert model.architecture == decoder_of()
    assert not model.size_known


@pytest.mark.parametrize("part", ["vision_config", "audio_config", "mm_vision_tower", "visual", "img_processor"])
def test_a_multimodal_config_whose_text_model_lies_flat_says_the_same(part: str) -> None:
    nested = parse_config({"model_type": "some_vl", "text_config": LLAMA, part: {}})
    flat = parse_config(LLAMA | {part: {}})
    assert flat.notes == nested.notes
    assert "multimodal" in " ".join(flat.notes)
    assert not flat.size_known


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
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
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


def test_the_default_version_is_the_one_the_catalog_pins() -> None:
    pinned = {spec.engine.image.tag for spec in ON_VLLM if isinstance(spec.engine, VllmEngine)}
    assert {vllm_version(tag) for tag in pinned} == {DEFAULT_VERSION}
