from __future__ import annotations

import io
import json
from collections.abc import Mapping

import pytest
from rich.console import Console

from ops.engine import run
from ops.plan.data import plan_data
from ops.plan.text import print_costs
from stacks.admission import admit
from stacks.costs import Costs, costs
from stacks.program import main
from stacks.settings import RawConfig
from tests.catalog import CATALOG

CLOUD = {
    "gcp:project": "my-project",
    "gcp:zone": "us-central1-a",
    "ai-platform:groups": json.dumps({"coding-assistant": True, "retrieval": True, "providers": False}),
    "coder-chat:replicas": "1",
}
# What is estimated of coder-chat, tokens a second, and what a million of them cost; tests/models judges the estimate.
_ESTIMATE = CATALOG["coder-chat"].expected_throughput
assert _ESTIMATE
RATE = _ESTIMATE.tokens_per_second
COST = 0.8687 / (RATE * 3600) * 1e6
LOCAL = {"ai-platform:target": "kubernetes", "ai-platform:kubeconfig": "k", "ai-platform:kubeContext": "c"}


def raw(values: Mapping[str, str]) -> RawConfig:
    return RawConfig(project="ai-platform", stack="test", values=values)


def bill_of(values: Mapping[str, str]) -> Costs:
    bill = costs(admit(raw(values), rehearsal=True).plan)
    assert bill is not None
    return bill


def text(bill: Costs | None) -> str:
    out = io.StringIO()
    print_costs(Console(file=out, width=140, highlight=False), bill)
    return out.getvalue()


def test_the_text_has_the_three_totals_and_the_date_of_their_prices():
    bill = bill_of(CLOUD)
    shown = text(bill)
    assert f"${bill.idle_usd_per_month:,.2f} a month" in shown
    assert f"${bill.usd_per_hour_now:,.4f} an hour" in shown
    assert f"${bill.worst_case_usd_per_month:,.2f} a month at worst, all up all month (1 GPU node)" in shown
    assert "prices: us-central1, 2026-08-20" in shown


def test_the_text_shows_every_line_of_the_bill_with_what_its_price_rests_on():
    bill = bill_of(CLOUD)
    shown = text(bill).splitlines()
    for line in (*bill.idle, *bill.at_worst):
        assert any(line.what in row and f"{line.usd:,.2f}" in row and line.basis in row for row in shown), line.what


def test_the_text_puts_the_cost_of_tokens_beside_their_registered_price():
    (row,) = [row for row in text(bill_of(CLOUD)).splitlines() if row.startswith("coder-chat")]
    assert row.split()[:8] == ["coder-chat", "0.8687", f"{RATE:,.0f}", f"{COST:.3f}", "0.611", "0.5", "1.5", "assumed;"]


def test_a_missing_price_shows_as_missing_and_not_as_zero():
    values = {**CLOUD, "gcp:zone": "europe-west4-a", "ai-platform:gateway": json.dumps({"database": "cloud-sql"})}
    shown = text(bill_of(values))
    assert "missing from these totals: cloud-sql-db-g1-small, cloud-sql-ssd" in shown
    (row,) = [row for row in shown.splitlines() if "Cloud SQL disk" in row]
    assert row.split()[-3:] == ["?", "?", "unknown"]


def test_a_local_stack_says_that_no_cloud_is_billed():
    assert "no cloud is billed" in text(costs(admit(raw(LOCAL), rehearsal=True).plan))


def test_json_has_the_totals_their_lines_and_the_cost_of_each_model():
    admission = admit(raw(CLOUD), rehearsal=True)
    data = json.loads(json.dumps(plan_data(admission, [])))
    bill = bill_of(CLOUD)
    told = data["costs"]
    assert told["pricesAsOf"] == "2026-08-20"
    assert told["worstCaseUsdPerMonth"] == bill.worst_case_usd_per_month
    assert sum(line["usdPerMonth"] for line in told["idle"]) == pytest.approx(told["idleUsdPerMonth"], abs=0.01)
    now = sum(line["usdPerMonth"] for line in told["idle"] + told["gpuNow"]) / 730
    assert now == pytest.approx(told["usdPerHourNow"], abs=1e-4)
    by_alias = {model["alias"]: model["cost"] for model in data["models"]}
    assert by_alias["coder-chat"]["throughputEvidence"] == "assumed"
    assert by_alias["coder-chat"]["throughputAt"] == {"promptTokens": 1024, "outputTokens": 128, "streams": 64}
    assert by_alias["coder-chat"]["usdPerMtok"] < by_alias["coder-chat"]["priceUsdPerMtok"]
    assert by_alias["embeddings"]["atALoss"] is True
    assert by_alias["qwen-local"] is None
    assert by_alias["claude-haiku"] is None


def test_json_of_a_local_stack_has_no_costs():
    assert plan_data(admit(raw(LOCAL), rehearsal=True), [])["costs"] is None


def test_pulumi_up_puts_out_the_same_totals_and_their_date():
    outputs = run(raw(CLOUD), main).outputs
    bill = bill_of(CLOUD)
    assert outputs["idleUsdPerMonth"] == bill.idle_usd_per_month
    assert outputs["usdPerHourNow"] == bill.usd_per_hour_now
    assert outputs["worstCaseUsdPerMonth"] == bill.worst_case_usd_per_month
    assert outputs["pricesAsOf"] == "2026-08-20"
    assert outputs["modelCosts"]["coder-chat"] == (
        f"$0.8687/h; ${COST:.3f} per million tokens at {RATE:,.0f}/s (assumed; 1,024 + 128 tokens, 64 at once), "
        "sold at $0.611"
    )
    assert outputs["modelCosts"]["embeddings"].endswith("sold at $0.100, below cost")


def test_a_local_stack_puts_out_no_cost():
    assert not {"idleUsdPerMonth", "usdPerHourNow", "modelCosts"} & run(raw(LOCAL), main).outputs.keys()
