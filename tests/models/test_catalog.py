"""The shipped catalog, entry by entry: what any good entry has. Nothing here knows how many there are, or which."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from models.engines.vllm import VllmEngine
from models.facts import GIB
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from models.spec import ModelSpec
from models.weights import DecoderArchitecture, Quantization, Weights
from tests.shipped import CATALOG, FLAWS, GROUPS

every_entry = pytest.mark.parametrize("spec", CATALOG.values(), ids=CATALOG)


def _only(entries: Iterable[ModelSpec]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spec", entries, ids=lambda spec: spec.alias)


every_stored = _only([spec for spec in CATALOG.values() if spec.engine.runs_here])
every_external = _only([spec for spec in CATALOG.values() if not spec.engine.runs_here])
every_on_vllm = _only([spec for spec in CATALOG.values() if isinstance(spec.engine, VllmEngine)])
every_on_a_gpu = _only([spec for spec in CATALOG.values() if spec.gpus])


def weights(spec: ModelSpec) -> Weights:
    assert spec.weights is not None
    return spec.weights


def test_no_entry_was_left_out_for_a_flaw() -> None:
    assert not FLAWS, "\n".join(f"{flaw.message}\n  remedy: {flaw.remedy}" for flaw in FLAWS)


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", CATALOG)
def test_an_entry_is_under_its_own_alias_in_a_group_that_exists(alias: str) -> None:
    spec = CATALOG[alias]
    assert spec.alias == alias
    assert spec.group in GROUPS, f"{alias}: add the group {spec.group!r} to GROUPS, or choose one of {list(GROUPS)}"


@every_entry
def test_the_served_name_is_no_alias_and_nobody_else_s(spec: ModelSpec) -> None:
    assert spec.served_name not in CATALOG, f"{spec.alias}: a client could pass the gateway by and not notice"
    others = [other.alias for other in CATALOG.values() if other.served_name == spec.served_name]
    assert others == [spec.alias], f"{spec.served_name!r} is the served_name of {others}"


@every_entry
def test_names_derived_from_an_alias_are_names_that_kubernetes_takes(spec: ModelSpec) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", spec.alias)
    assert len(f"{spec.alias}-model-cache") <= 63


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_a_name_for_config_and_says_what_it_is_for(group: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", group)
    assert GROUPS[group].summary


@every_external
def test_an_external_model_waits_for_its_egress_in_a_group_that_says_so(spec: ModelSpec) -> None:
    assert GROUPS[spec.group].unavailable, f"{spec.alias} cannot be served, and {spec.group} can be enabled"


# --- facts ---------------------------------------------------------------------------------------------------------


@every_entry
def test_an_entry_says_where_its_facts_were_read(spec: ModelSpec) -> None:
    assert all(source.facts and source.where for source in (*spec.sources, spec.licence.source))
    assert spec.licence.name, f"{spec.alias}: name the licence of its weights"


@every_entry
def test_an_entry_is_what_its_type_allows_and_survives_being_written_and_read(spec: ModelSpec) -> None:
    """Validated anew: a context within the model's positions, a price above zero, weights where an engine runs here."""
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


@every_stored
def test_the_files_that_the_engine_reads_are_listed_and_pickles_say_so(spec: ModelSpec) -> None:
    stored = weights(spec)
    of_weights = {"pickle": ".bin"}.get(stored.format, stored.format)
    assert any(of_weights in pattern for pattern in stored.files), f"{spec.alias}: no weights among {stored.files}"
    run_code = [pattern for pattern in stored.files if re.search(r"\.(bin|pt|pth|ckpt)$|^\*$", pattern)]
    assert bool(run_code) == (stored.format == "pickle"), f"{spec.alias}: {run_code} run code when they are loaded"


@every_stored
def test_size_on_disk_and_number_of_parameters_are_of_one_model(spec: ModelSpec) -> None:
    """A tenth to spare: tokenizers lie beside the weights; in quantised ones embeddings and heads stay as they were."""
    stored = weights(spec)
    width = {"float32": 4, "float16": 2, "bfloat16": 2}[stored.dtype]
    low, high = {
        Quantization.NONE: (0.9 * width, 1.1 * width),
        Quantization.FP8: (0.9, 1.1 * width),
    }.get(stored.quantization, (0.45, width))
    per_parameter = stored.bytes_on_disk / stored.parameters
    assert low <= per_parameter <= high, (
        f"{spec.alias}: {stored.bytes_on_disk} bytes on disk are {per_parameter:.2f} for each of "
        f"{stored.parameters} parameters, and {stored.quantization}, {stored.dtype} has {low} to {high}"
    )


@every_stored
def test_key_value_heads_divide_the_heads(spec: ModelSpec) -> None:
    architecture = weights(spec).architecture
    if isinstance(architecture, DecoderArchitecture):
        assert architecture.heads % architecture.kv_heads == 0, spec.alias


# --- engine, memory, disk ------------------------------------------------------------------------------------------


@every_entry
def test_an_engine_refuses_nothing_of_its_entry(spec: ModelSpec) -> None:
    """For vLLM, first of all: it fits its GPU at its own context."""
    told = [refusal.message for refusal in spec.engine.refusals(spec)]
    assert not told, f"{told}; `ops fit {spec.alias}` shows what mends it"


@every_on_a_gpu
def test_a_model_serves_at_least_one_request_of_its_whole_context(spec: ModelSpec) -> None:
    fit = spec.engine.fit(spec)
    assert fit is not None
    assert fit.requested_len == spec.context
    assert fit.concurrency >= 1


@every_on_vllm
def test_a_kernel_is_for_the_quantisation_of_the_weights(spec: ModelSpec) -> None:
    kernel, quantization = VllmEngine.of(spec).kernel, weights(spec).quantization
    assert kernel is None or kernel.startswith(quantization.value), f"{spec.alias}: {kernel} reads no {quantization}"


@every_stored
def test_a_replica_fits_a_machine_that_exists(spec: ModelSpec) -> None:
    needs = spec.engine.needs(spec)
    assert needs is not None
    lacking = [needs.lacking(machine) for machine in (G2_MACHINES if spec.gpus else SYSTEM_MACHINES).values()]
    assert None in lacking, f"{spec.alias} wants {lacking[-1]}"


@every_stored
def test_a_claim_holds_the_weights_and_a_margin(spec: ModelSpec) -> None:
    assert spec.engine.claim_gib(spec) >= weights(spec).bytes_on_disk / GIB * 1.25 + 2


@every_stored
def test_the_deadlines_of_a_start_contain_the_phases_before_them(spec: ModelSpec) -> None:
    budget = spec.engine.cold_start(spec)
    assert budget is not None
    assert budget.progress_deadline >= budget.node + budget.image + budget.stage + budget.load
    assert budget.await_timeout > budget.progress_deadline


@every_stored
def test_the_image_says_which_driver_its_cuda_needs_where_it_runs_on_a_gpu(spec: ModelSpec) -> None:
    assert (spec.engine.images[0].min_driver is not None) == (spec.gpus > 0), spec.alias
