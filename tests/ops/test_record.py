"""What `--record` makes of a measurement: fields of an entry that is read back, and that a plan prices with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.catalog import SHIPPED
from models.catalog.overlay import lay_text
from models.facts import Evidence
from ops.bench import command as bench
from ops.errors import OpsError
from ops.eval.command import evaluation
from ops.measuring.record import measured, record
from ops.measuring.task import RESULT
from stacks.admission import admit
from tests.catalog import GROUPS
from tests.ops.test_bench import Cluster, arguments, site
from tests.support import config

Json = dict[str, Any]
ALIAS = "coder-chat"


def times(p95: float) -> Json:
    return {"mean": p95, "p50": p95, "p90": p95, "p95": p95, "p99": p95}


def ran(strategy: str, total: float, **more: object) -> Json:
    requests = {"sent": 9, "completed": 9, "failed": 0, "counted": 9}
    speed = {"input": 0.0, "output": 0.0, "total": total}
    latencies = {"ttft_ms": times(123.4), "itl_ms": times(11.2), "e2e_ms": times(1987.0)}
    return {"strategy": strategy, "requests": requests, "requests_per_second": 1.0, "error": None} | (
        {"tokens_per_second": speed} | latencies | more
    )


CONTEXT: Json = {
    "alias": ALIAS,
    "gpu": "nvidia-l4",
    "machine": "g2-standard-8",
    "image": "docker.io/vllm/vllm-openai:v9@sha256:1",
    "replicas": 1,
    "date": "2026-11-26T10:00:00+00:00",
}
SHAPE: Json = {
    "name": "reference",
    "prompt_tokens": 256,
    "output_tokens": 128,
    "runs": [
        ran("synchronous", 200.0, streams=1),
        ran("throughput", 4321.5, streams=16),
        ran("constant", 1000.0, rate=2.5, saturated=False),
        ran("constant", 4000.0, rate=9.0, saturated=True, ttft_ms=times(9000.0)),
    ],
}
RESULTS: Json = {"context": CONTEXT, "shapes": [SHAPE]}


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "models.local.yaml"
    monkeypatch.setenv("MODELS_LOCAL", str(file))
    return file


def test_throughput_is_the_closed_loop_s_and_targets_are_of_the_last_rate_that_was_kept_up_with() -> None:
    found = measured(RESULTS)
    assert found["throughput"].model_dump(mode="json") == {
        "tokens_per_second": 4321.5,
        "at": {"prompt_tokens": 256, "output_tokens": 128, "streams": 16},
        "source": {
            "facts": "throughput",
            "where": "ops bench 2026-11-26: nvidia-l4, g2-standard-8, docker.io/vllm/vllm-openai:v9",
            "evidence": "verified",
        },
    }
    slo = found["slo"].model_dump()
    assert (slo["ttft_p95_ms"], slo["itl_p95_ms"], slo["e2e_p95_ms"], slo["output_tokens"]) == (130, 12, 2000, 128)
    assert slo["note"].startswith("measured at 2.5 requests/s of 256 tokens; ops bench 2026-11-26")


def test_what_is_recorded_is_read_back_and_the_next_plan_prices_with_it(overlay: Path) -> None:
    record(ALIAS, measured(RESULTS))
    laid = lay_text(SHIPPED, GROUPS, overlay.read_text(), overlay.name)
    assert not laid.flaws
    spec = laid.catalog[ALIAS]
    assert spec.expected_throughput
    assert (spec.expected_throughput.tokens_per_second, spec.expected_throughput.source.evidence) == (
        4321.5,
        Evidence.VERIFIED,
    )
    plan = admit(config(f"{ALIAS}:replicas=1"), laid.catalog, GROUPS, rehearsal=True).plan
    model = next(m for m in plan.models if m.spec.alias == ALIAS)
    assert model.streams
    assert model.spec.expected_throughput == spec.throughput


def test_another_measurement_replaces_the_older_one_and_leaves_the_rest_of_the_entry(overlay: Path) -> None:
    overlay.write_text(
        "# ours\nmodels:\n  - alias: coder-chat\n    summary: our own\n  - alias: coder-fim\n    context: 4096\n"
    )
    faster = json.loads(json.dumps(RESULTS))
    faster["shapes"][0]["runs"][1]["tokens_per_second"]["total"] = 5000.0
    record(ALIAS, measured(RESULTS))
    record(ALIAS, measured(faster))
    record(ALIAS, {"evaluation": evaluation({"context": CONTEXT, "gate_percent": 70, "suites": [SUITE]})})
    laid = lay_text(SHIPPED, GROUPS, overlay.read_text(), overlay.name)
    spec = laid.catalog[ALIAS]
    assert spec.throughput
    assert (spec.summary, spec.throughput.tokens_per_second) == ("our own", 5000.0)
    assert laid.catalog["coder-fim"].context == 4096
    assert spec.evaluation.status == "scored"
    assert spec.evaluation.result == "HumanEval 150/164 = 91 % (gate: 70 %), ops eval 2026-11-26"
    assert overlay.read_text().startswith("# ours\n")


SUITE = {"name": "HumanEval", "right": 150, "of": 164}


def test_figures_of_several_replicas_and_of_none_are_not_recorded() -> None:
    two = {**RESULTS, "context": {**CONTEXT, "replicas": 2}}
    with pytest.raises(OpsError, match="2 replicas"):
        measured(two)
    silent = {**RESULTS, "shapes": [{**SHAPE, "runs": [ran("synchronous", 0.0, streams=1, e2e_ms={})]}]}
    with pytest.raises(OpsError, match="nothing to record"):
        measured(silent)


def test_a_bench_that_is_to_record_does(overlay: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Cluster("c", log=[RESULT + json.dumps([SHAPE])])

    def found(*_: object) -> Any:
        return site(cluster)

    monkeypatch.setattr(bench, "site_of", found)
    assert bench.run(arguments("--record", "--output", str(tmp_path / "f"))) == 0
    assert "tokens_per_second: 4321.5" in overlay.read_text()
