"""The memory model against real start-up logs, and what holds for any model."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.facts import GIB
from models.hf_config import parse_config
from models.machines import G2_MACHINES
from models.memory.host import HostMemory, disk_gib, smallest_g2, vllm_host_memory
from models.memory.kv_cache import kv_layout
from models.memory.llama_cpp import gguf_memory
from models.memory.remedies import remedies
from models.memory.tei import encoder_gib
from models.memory.versions import DEFAULT_VERSION, vllm_version
from models.memory.vllm import (
    GpuFit,
    Knobs,
    Speculation,
    cuda_graph_gib,
    default_knobs,
    gpu_fit,
    kv_bytes_per_token,
)
from models.memory.weights import disk_bytes, gpu_weights_gib
from models.spec import ModelSpec
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization
from tests.catalog import CATALOG
from tests.models.hf_configs import CONFIGS
from tests.models.vllm_caches import CACHES, WEIGHTS, CacheLog, WeightLog
from tests.models.vllm_log import Log
from tests.models.vllm_logs import (
    ARCHITECTURES,
    LOGS,
    architecture,
    capability,
    error,
    file_bytes,
    predict,
    summary,
    table,
)
from tests.models.vllm_new_logs import DEATHS, NEW_LOGS, REFUSED
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
def test_no_predicted_kv_cache_of_a_dense_decoder_is_far_off_its_log(log: Log) -> None:
    assert abs(error(log)) < (0.12 if log.trial else 0.08)


@pytest.mark.parametrize("log", NEW_LOGS, ids=lambda log: f"{log.model}-{log.gpu}-{log.version}")
def test_no_predicted_kv_cache_of_another_architecture_is_far_off_its_log(log: Log) -> None:
    assert abs(error(log)) < (0.15 if log.trial else 0.12)


@pytest.mark.parametrize("trial", [False, True], ids=["calibration", "trial"])
def test_the_median_error_is_under_2_percent_in_calibration_and_on_trial(trial: bool) -> None:
    for logs in (LOGS, NEW_LOGS):
        assert statistics.median(abs(error(log)) for log in logs if log.trial is trial) < 0.02


@pytest.mark.parametrize(
    "log", [log for log in LOGS if log.kv_gib and log.tokens], ids=lambda log: f"{log.model}-{log.gpu}"
)
def test_logged_gib_give_the_logged_tokens(log: Log) -> None:
    assert log.kv_gib
    tokens = log.kv_gib * GIB / kv_bytes_per_token(architecture(log.model), log.tp)
    assert tokens == pytest.approx(log.tokens, rel=0.003)


@pytest.mark.parametrize("log", CACHES, ids=lambda log: f"{log.model}-{log.version}-{log.kv_gib}")
def test_a_logged_cache_holds_the_tokens_that_its_groups_and_pages_say(log: CacheLog) -> None:
    knobs = Knobs(
        max_model_len=log.max_model_len,
        max_num_seqs=256,
        max_num_batched_tokens=log.batched,
        utilization=0.9,
        tensor_parallel=log.tp,
        kv_cache_dtype=log.kv_dtype,
        prefix_caching=log.prefix_caching,
        speculation=log.speculation,
    )
    layout = kv_layout(architecture(log.model), knobs, vllm_version(log.version))
    # The log rounds its GiB: half a hundredth more or less is as good, and a block is the least that can differ.
    low, high = (layout.tokens(log.kv_gib + off, log.max_model_len) for off in (-0.0051, 0.0051))
    assert low <= log.tokens <= high


@pytest.mark.parametrize(
    "log", [log for log in (*LOGS, *NEW_LOGS, *REFUSED) if not log.starts], ids=lambda log: log.source
)
def test_what_vllm_refused_is_never_said_to_fit(log: Log) -> None:
    assert not predict(log).fits
    # Nor when nobody says which version it is, unless that one was another engine, or had a fault of its own.
    if vllm_version(log.version) is not vllm_version("0.1") and log not in REFUSED:
        assert not predict(replace(log, version="0.23.0")).fits


@pytest.mark.parametrize(
    "log", [log for log in (*LOGS, *NEW_LOGS) if log.starts], ids=lambda log: f"{log.model}-{log.gpu}"
)
def test_what_vllm_started_is_never_refused(log: Log) -> None:
    assert predict(log).fits


@pytest.mark.parametrize("log", WEIGHTS, ids=lambda log: f"{log.model}-{log.gib}")
def test_weights_on_the_gpu_are_within_3_percent_of_the_log(log: WeightLog) -> None:
    found = gpu_weights_gib(architecture(log.model), log.quantization, file_bytes(log.model), tensor_parallel=log.tp)
    assert found == pytest.approx(log.gib, rel=0.03)


def test_the_documentation_shows_the_errors_of_this_model() -> None:
    docs = DOCS.read_text(encoding="utf-8")
    assert table() in docs, "run: python -m tests.models.vllm_logs, into docs/memory.md"
    assert summary() in docs, "run: python -m tests.models.vllm_logs, into docs/memory.md"


@pytest.mark.parametrize("log", DEATHS, ids=lambda log: f"{log.model}-{log.gpu}-{log.version}")
def test_a_start_that_died_behind_its_budget_is_refused_and_every_way_out_of_it_starts(log: Log) -> None:
    fit = predict(log)
    assert not fit.fits
    assert "after its KV cache is allocated" in fit.reason
    assert fit.max_model_len == 0
    arch = architecture(log.model)
    knobs = replace(
        default_knobs(log.gpu_gib, arch.max_positions, version=vllm_version(log.version), max_num_seqs=log.seqs),
        max_model_len=log.max_model_len,
        max_num_batched_tokens=log.batched or 2048,
        utilization=log.utilization,
        tensor_parallel=log.tp,
    )
    found = remedies(
        arch,
        quantization=log.quantization,
        weights_bytes=file_bytes(log.model),
        gpu_gib=log.gpu_gib,
        knobs=knobs,
        version=vllm_version(log.version),
        capability=capability(log),
        served_dtype=log.dtype,
    )
    assert found
    assert all(remedy.fit.fits and remedy.fit.startup.starts for remedy in found)
    # The flag that leaves the most KV cache comes first: here fewer sequences, or no graphs.
    dearer = {"--gpu", "--tensor-parallel", "--quantization", "--max-model-len"}
    assert found[0].fit.kv_cache_gib == max(r.fit.kv_cache_gib for r in found if dearer.isdisjoint(r.flags))


def test_the_same_start_lives_with_the_sequences_that_its_log_lived_with() -> None:
    (died,) = (log for log in DEATHS if log.tp == 4)
    assert predict(replace(died, seqs=128)).fits


def test_many_sequences_at_a_high_utilization_die_and_few_live() -> None:
    arch = ARCHITECTURES["Qwen2.5-7B"]

    def fits(seqs: int, utilization: float) -> bool:
        knobs = Knobs(4096, seqs, 2048, utilization)
        fit = gpu_fit(arch, quantization=Quantization.AWQ, weights_bytes=None, gpu_gib=22.03, knobs=knobs)
        return fit.fits

    assert fits(64, 0.95)
    assert not fits(1024, 0.95)
    assert fits(1024, 0.90)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gemma-4-26B-A4B", "whisper-large-v3"])
def test_an_fp8_cache_that_triton_alone_would_read_needs_a_card_that_can(name: str) -> None:
    model = parse_config(CONFIGS[name])

    def fit(dtype: str, capability: tuple[int, int]) -> GpuFit:
        assert isinstance(model.architecture, DecoderArchitecture)
        return gpu_fit(
            model.architecture,
            quantization=model.quantization,
            weights_bytes=model.weights_bytes,
            gpu_gib=79.18,
            knobs=Knobs(None, 64, 4096, 0.9, kv_cache_dtype=dtype),
            capability=capability,
        )

    with pytest.raises(ValueError, match=r"8\.9 and this one has 8\.6.*give --kv-cache-dtype auto"):
        fit("fp8", (8, 6))
    assert fit("fp8_e5m2", (8, 6)).fits
    assert fit("fp8", (8, 9)).startup == fit("auto", (8, 9)).startup  # no workspace of FlashInfer


def test_early_versions_of_the_second_engine_start_1024_sequences_on_any_card() -> None:
    assert [default_knobs(23.57, 8192, version=vllm_version(v)).max_num_seqs for v in ("0.8.3", "0.8.4")] == [1024, 256]
    assert default_knobs(14.56, 8192, version=vllm_version("0.8.2"), capability=(7, 5)).max_num_seqs == 256


@pytest.mark.parametrize(
    ("name", "utilization", "context", "logged"),
    [
        ("Qwen3.6-27B-FP8", 0.95, None, 856),  # vllm-project/recipes#551
        ("Qwen3.6-27B", 0.92, 32_768, 348),  # index 58819291093: Qwen3.5-27B, the same layers
    ],
)
def test_more_sequences_than_blocks_for_their_states_are_refused(
    name: str, utilization: float, context: int | None, logged: int
) -> None:
    model = parse_config(CONFIGS[name])

    def fit(seqs: int, version: str = "0.22.0", *, eager: bool = False) -> GpuFit:
        assert isinstance(model.architecture, DecoderArchitecture)
        return gpu_fit(
            model.architecture,
            quantization=model.quantization,
            weights_bytes=model.weights_bytes,
            gpu_gib=79.18,
            knobs=Knobs(context or 262_144, seqs, 8192, utilization, eager=eager),
            version=vllm_version(version),
        )

    many = fit(1024)
    assert not many.fits
    assert "each of 1024 sequences needs a block" in many.reason
    assert many.max_model_len == 0
    assert many.layout.blocks(many.kv_cache_gib) == pytest.approx(logged, rel=0.06)
    few = fit(256)
    assert fit(1024, "0.19.1").fits == few.fits  # capped silently, before
    assert "block" not in fit(1024, eager=True).reason  # no graphs are captured
    assert few.fits


def test_what_is_taken_beside_the_budget_grows_with_what_takes_it() -> None:
    arch = ARCHITECTURES["Qwen3-8B"]

    def needed(
        version: str,
        seqs: int = 256,
        capability: tuple[int, int] = (8, 9),
        *,
        eager: bool = False,
        cache: str = "auto",
    ) -> float:
        knobs = Knobs(8192, seqs, 2048, 0.9, eager=eager, kv_cache_dtype=cache)
        fit = gpu_fit(
            arch,
            quantization=Quantization.NONE,
            weights_bytes=None,
            gpu_gib=39.49,
            knobs=knobs,
            version=vllm_version(version),
            capability=capability,
            served_dtype="float16",
        )
        return fit.startup.needed_gib

    assert needed("0.19") > needed("0.19", eager=True)  # graphs that nobody counts
    assert needed("0.19") > needed("0.21")  # and those that the budget holds
    assert needed("0.23", 512) > needed("0.23", 256)  # sequences
    assert needed("0.13", capability=(10, 0)) > needed("0.13")  # FlashInfer's workspace
    assert needed("0.23", cache="fp8") > needed("0.23")  # FlashAttention reads an FP8 cache on 9.x alone
    assert needed("0.23", cache="fp8", capability=(9, 0)) == needed("0.23", capability=(9, 0))
    assert needed("0.23", cache="fp8", capability=(10, 0)) == needed("0.23", capability=(10, 0))


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


@pytest.mark.parametrize(
    ("quantization", "dtype", "capability", "version", "told"),
    [
        (Quantization.NONE, "bfloat16", (7, 5), "0.23", "8.0.*--dtype float16"),
        (Quantization.NONE, "bfloat16", (7, 0), "0.23", "8.0.*--dtype float16"),
        (Quantization.NONE, "float16", (7, 5), "0.23", None),
        (Quantization.NONE, "bfloat16", (8, 9), "0.23", None),
        (Quantization.AWQ, "float16", (7, 0), "0.23", "7.5"),
        (Quantization.MXFP4, "float16", (7, 5), "0.23", "8.0"),
        (Quantization.FP8, "float16", (7, 5), "0.13", "8.0"),
        (Quantization.FP8, "float16", (7, 5), "0.23", None),
    ],
)
def test_what_a_card_cannot_run_is_refused_whatever_its_memory(
    quantization: Quantization, dtype: str, capability: tuple[int, int], version: str, told: str | None
) -> None:
    def fit() -> GpuFit:
        return gpu_fit(
            QWEN_7B,
            quantization=quantization,
            weights_bytes=None,
            gpu_gib=79.15,
            knobs=KNOBS,
            version=vllm_version(version),
            capability=capability,
            served_dtype=dtype,
        )

    if told is None:
        assert fit().fits
    else:
        with pytest.raises(ValueError, match=told):
            fit()


def test_an_fp8_cache_holds_twice_the_tokens_and_adapters_and_drafts_take_their_memory() -> None:
    plain = fit_7b()
    halved = fit_7b(replace(KNOBS, kv_cache_dtype="fp8"))
    assert halved.kv_cache_tokens == pytest.approx(2 * plain.kv_cache_tokens, rel=0.001)
    # 4 slots of rank 64 beside 28 layers: about 20 million parameters an adapter and rank 8.
    adapters = fit_7b(replace(KNOBS, max_loras=4, max_lora_rank=64))
    assert 0.5 < adapters.weights_gib - plain.weights_gib < 1.5
    draft = Speculation("draft", 3, ARCHITECTURES["Qwen2.5-0.5B"])
    drafted = fit_7b(replace(KNOBS, speculation=draft))
    assert drafted.weights_gib - plain.weights_gib == pytest.approx(0.93, rel=0.02)
    assert drafted.kv_cache_tokens < plain.kv_cache_tokens * 0.9
    assert fit_7b(replace(KNOBS, speculation=Speculation("ngram", 3))).kv_cache_tokens <= plain.kv_cache_tokens


def _qwen_vl(context: int, version: str = "0.23", name: str = "Qwen2.5-VL-7B", **changes: Any) -> GpuFit:
    knobs = replace(Knobs(context, 256, 2048, 0.9), **changes)
    model = parse_config(CONFIGS[name])
    assert isinstance(model.architecture, DecoderArchitecture)
    return gpu_fit(
        model.architecture,
        quantization=model.quantization,
        weights_bytes=model.weights_bytes,
        gpu_gib=79.15,
        knobs=knobs,
        version=vllm_version(version),
    )


def test_the_longest_video_of_the_context_is_profiled_unless_prompts_have_none() -> None:
    one_image = _qwen_vl(8192)
    longest = _qwen_vl(128_000)
    assert longest.activation_gib == pytest.approx(7 * one_image.activation_gib, rel=0.01)  # 14 frames, two an image
    assert _qwen_vl(65_536).activation_gib == pytest.approx(4 * one_image.activation_gib, rel=0.01)
    assert _qwen_vl(128_000, videos=False).activation_gib == one_image.activation_gib
    assert _qwen_vl(128_000, "0.9").activation_gib == pytest.approx(6 * one_image.activation_gib, rel=0.01)


def test_a_refusal_names_what_the_encoder_s_profiling_holds() -> None:
    assert "GiB are held for its encoder" in _qwen_vl(128_000, utilization=0.3).reason
    assert "encoder" not in _qwen_vl(128_000, utilization=0.9).reason


def test_a_shorter_context_is_offered_where_its_shorter_video_makes_the_room() -> None:
    model = parse_config(CONFIGS["Qwen2.5-VL-7B"])
    assert isinstance(model.architecture, DecoderArchitecture)
    knobs = Knobs(None, 256, 2048, 0.92)
    found = remedies(
        model.architecture,
        quantization=model.quantization,
        weights_bytes=model.weights_bytes,
        gpu_gib=22.03,
        knobs=knobs,
    )
    shorter = next(remedy for remedy in found if "--max-model-len" in remedy.flags)
    assert 16_384 < int(shorter.flags["--max-model-len"]) < 32_768
    assert shorter.fit.fits


def test_several_gpus_share_the_encoder_s_mlp_and_older_versions_keep_room_for_announced_videos() -> None:
    one, four = (_qwen_vl(8192, name="Qwen3-VL-30B-A3B", tensor_parallel=tp) for tp in (1, 4))
    assert four.activation_gib < one.activation_gib
    announced = _qwen_vl(8192, "0.11", "Qwen3-VL-30B-A3B").activation_gib
    without = _qwen_vl(8192, "0.11", "Qwen3-VL-30B-A3B", videos=False).activation_gib
    assert announced - without > 1.5


def test_what_is_reserved_for_an_encoder_is_there_while_graphs_are_captured() -> None:
    fit = _qwen_vl(128_000)
    assert fit.startup.left_gib > 79.15 * 0.1 + 10


def test_kernels_of_layers_with_a_state_cost_more_on_one_kind_of_card_in_some_versions() -> None:
    arch = parse_config(CONFIGS["Qwen3.5-4B"]).architecture
    assert isinstance(arch, DecoderArchitecture)

    def non_torch(version: str, capability: tuple[int, int]) -> float:
        fit = gpu_fit(
            arch,
            quantization=Quantization.NONE,
            weights_bytes=None,
            gpu_gib=31.36,
            knobs=KNOBS,
            version=vllm_version(version),
            capability=capability,
        )
        return fit.non_torch_gib

    assert non_torch("0.19", (12, 0)) > non_torch("0.19", (8, 9)) + 3
    assert non_torch("0.23", (12, 0)) == non_torch("0.23", (8, 9))


def test_a_tied_lm_head_that_the_files_store_apart_is_loaded_once() -> None:
    arch = parse_config(CONFIGS["Qwen3-0.6B"]).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert gpu_weights_gib(arch, Quantization.NONE, 1_503_300_328) == pytest.approx(1.12, rel=0.03)


@pytest.mark.parametrize(("version", "tp", "gib"), [("0.27.1", 1, 1.0151), ("0.27.1", 2, 0.5076), ("0.23.0", 1, 0)])
def test_a_first_start_holds_the_embedding_again_from_0_24_on(version: str, tp: int, gib: float) -> None:
    def activation(**changes: Any) -> float:
        knobs = replace(KNOBS, max_num_seqs=1, max_num_batched_tokens=64, tensor_parallel=tp, **changes)
        fit = gpu_fit(
            QWEN_7B,
            quantization=Quantization.NONE,
            weights_bytes=None,
            gpu_gib=44,
            knobs=knobs,
            version=vllm_version(version),
        )
        return fit.activation_gib

    later = activation(compiled=True)
    assert activation() == pytest.approx(max(gib, later), abs=0.001)
    assert activation(eager=True) == later


def test_eager_mode_reserves_nothing_for_cuda_graphs() -> None:
    assert cuda_graph_gib(QWEN_7B, replace(KNOBS, eager=True)) == 0
    assert cuda_graph_gib(QWEN_7B, KNOBS) > 0


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"max_model_len": 40_000}, "--max-model-len 32768"),
        ({"tensor_parallel": 3}, "--tensor-parallel 1 or 2 or 4"),
        ({"speculation": Speculation("mtp", 1)}, "--speculative-method ngram"),
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


def test_the_kv_cache_of_llama_2_at_4096_is_2_gib() -> None:
    assert gguf_memory(ARCHITECTURES["Llama-2-7b"], file_bytes=GIB, context=4096).kv_cache_gib == 2


def test_the_default_version_is_the_one_the_catalog_pins() -> None:
    pinned = {spec.engine.image.tag for spec in ON_VLLM if isinstance(spec.engine, VllmEngine)}
    assert {vllm_version(tag) for tag in pinned} == {DEFAULT_VERSION}


def test_versions_differ_in_runner_defaults_and_what_is_beside_torch() -> None:
    arch = ARCHITECTURES["Qwen2.5-7B"]
    runs = {v: vllm_version(v).second_runner(arch, Quantization.AWQ) for v in ("0.24.0", "0.25.0")}
    assert runs == {"0.24.0": False, "0.25.0": True}
    ngrams = {v: vllm_version(v).second_runner(arch, Quantization.AWQ, ngrams=True) for v in ("0.29.0", "0.30.0")}
    assert ngrams == {"0.29.0": False, "0.30.0": True}
    batches = [default_knobs(178, 8192, version=vllm_version(v)).max_num_batched_tokens for v in ("0.27.0", "0.28.0")]
    assert batches == [8192, 16_384]

    def beside(gpu_gib: float = 22.03, card: tuple[int, int] = (8, 9), *, eager: bool = False, tp: int = 1) -> float:
        knobs = Knobs(4096, 64, 2048, 0.9, eager=eager, tensor_parallel=tp)
        found = gpu_fit(
            arch, quantization=Quantization.AWQ, weights_bytes=None, gpu_gib=gpu_gib, knobs=knobs, capability=card
        )
        return found.non_torch_gib

    assert beside(eager=True) < beside()
    assert beside(95, (12, 0), tp=2) < beside(95, (9, 0), tp=2)  # PCIe against NVLink


def test_a_stream_interval_is_refused_of_a_release_that_does_not_know_it() -> None:
    spec = CATALOG["coder-chat"]
    engine = VllmEngine.of(spec)

    def refused(tag: str) -> list[str]:
        old = engine.model_copy(update={"image": engine.image.model_copy(update={"tag": tag}), "stream_interval": 4})
        return [found.message for found in old.refusals(old.adapted(spec)) if "streamInterval" in found.message]

    assert refused("v0.11.1") == refused("v0.23.0") == []
    (told,) = refused("v0.11.0")
    assert "does not know --stream-interval" in told


@pytest.mark.parametrize("wrong", ["-1", "+1", "0.2_3", "0. 23", "", "v"])
def test_what_is_no_release_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="no vLLM version"):
        vllm_version(wrong)
