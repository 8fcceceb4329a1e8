"""Models that hear, rank, see and embed as a stack plans and deploys them, and weights that have to be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from models.spec import ModelSpec
from stacks.admission import Admission, admit
from stacks.costs import costs
from tests.guide_entries import ENTRIES, GROUPS_WITH_GUIDE, RERANKER, SPEECH, VECTORS, VISION, WITH_GUIDE
from tests.stacks.remedies import alternatives, follow, with_values
from tests.support import recorded_with_catalog

ON = {"ai-platform:groups": '{"guide": true}', "ai-platform:gpuQuota": "3"}
PRICELESS = {"ai-platform:maxHourlyUsd": "100", "ai-platform:maxMonthlyUsd": "100000"}


def pickled() -> Mapping[str, ModelSpec]:
    """The same entries, but that the one that hears has its weights in a pickle."""
    assert SPEECH.weights
    files = {"format": "pickle", "files": ("pytorch_model.bin", "*.json")}
    spec = SPEECH.model_copy(update={"weights": SPEECH.weights.model_copy(update=files)})
    return {**WITH_GUIDE, spec.alias: spec}


def judged(values: Mapping[str, str] | None = None, catalog: Mapping[str, ModelSpec] = WITH_GUIDE) -> Admission:
    config = with_values({**ON, **PRICELESS, **(values or {})})
    return admit(config, catalog, GROUPS_WITH_GUIDE, rehearsal=True)


def test_each_kind_can_come_up_and_is_priced_in_its_own_unit() -> None:
    admission = judged({f"{alias}:replicas": "1" for alias in ENTRIES})
    assert not admission.problems, admission.problems
    bill = costs(admission.plan)
    assert bill
    told = {model.alias: (model.price_usd_per_mtok, model.throughput is not None) for model in bill.models}
    assert {alias: told[alias] for alias in (RERANKER.alias, SPEECH.alias)} == {
        RERANKER.alias: (None, True),
        SPEECH.alias: (None, False),
    }
    assert told[VECTORS.alias] == (pytest.approx(0.3), True)


def test_what_the_gateway_is_told_of_each_kind() -> None:
    config = with_values({**ON, **PRICELESS})
    records = recorded_with_catalog(config, WITH_GUIDE, GROUPS_WITH_GUIDE)
    listed: list[dict[str, Any]] = yaml.safe_load(
        records.manifest("ConfigMap", "litellm-config", "gateway")["data"]["config.yaml"]
    )["model_list"]
    told = {entry["model_name"]: (entry["litellm_params"], entry["model_info"]) for entry in listed}
    params, info = told[VISION.alias]
    assert (info["mode"], info["supports_vision"], info["supports_response_schema"]) == ("chat", True, True)
    assert (params["temperature"], params["top_p"], params["max_tokens"]) == (0.7, 0.9, 512)
    assert params["max_parallel_requests"] == 2
    params, info = told[RERANKER.alias]
    assert (params["model"], info["mode"]) == (f"hosted_vllm/{RERANKER.served_name}", "rerank")
    assert params["api_base"].endswith(":8000")
    params, info = told[SPEECH.alias]
    assert (params["model"], info["mode"]) == (f"openai/{SPEECH.served_name}", "audio_transcription")
    assert told[VECTORS.alias][0]["allowed_openai_params"] == ["dimensions"]
    assert [told[alias][1]["owned_by"] for alias in ENTRIES] == ["vllm", "vllm", "tei", "vllm"]


def test_each_kind_is_served_with_what_it_needs() -> None:
    records = recorded_with_catalog(with_values({**ON, **PRICELESS}), WITH_GUIDE, GROUPS_WITH_GUIDE)
    arguments = {alias: records.pod(alias).containers[-1]["args"] for alias in ENTRIES}
    assert {"--runner=pooling", '--pooler-config={"pooling_type": "LAST"}'} <= set(arguments[VECTORS.alias])
    assert '--hf-overrides={"is_matryoshka": true}' in arguments[VECTORS.alias]
    assert "--dtype=float16" in arguments[SPEECH.alias]
    assert not [argument for argument in arguments[RERANKER.alias] if argument.startswith("--pooling")]


def test_pickled_weights_come_up_once_config_says_that_they_may() -> None:
    catalog, alias = pickled(), SPEECH.alias
    assert judged(catalog=catalog).problems == ()
    (problem,) = judged({f"{alias}:replicas": "1"}, catalog).problems
    assert "pickle" in problem.message
    config = with_values({**ON, **PRICELESS, f"{alias}:replicas": "1"})
    ways = list(alternatives(problem.remedy))
    assert len(ways) == 2
    for way in ways:
        assert admit(follow(config, way), catalog, GROUPS_WITH_GUIDE, rehearsal=True).problems == ()


def test_a_pickle_is_loaded_as_one_and_nothing_else_is() -> None:
    config = with_values({**ON, **PRICELESS})
    for catalog, loads in ((pickled(), True), (WITH_GUIDE, False)):
        args = recorded_with_catalog(config, catalog, GROUPS_WITH_GUIDE).pod(SPEECH.alias).containers[-1]["args"]
        assert ("--load-format=pt" in args) == loads
