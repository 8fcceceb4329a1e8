"""Every figure is computed here by hand, from prices written out, and compared with what the program says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from models.facts import Evidence, Load, Source, Throughput
from models.prices import Item, PriceTable, list_prices
from models.spec import ModelSpec
from stacks.admission import Admission, admit
from stacks.costs import Costs, Line, costs
from stacks.settings import RawConfig
from tests.catalog import CATALOG

GROUPS = {"baseline": True, "coding-assistant": True, "retrieval": True}
BASE = {"gcp:project": "my-project", "gcp:zone": "us-central1-a", "ai-platform:groups": json.dumps(GROUPS)}
# Claims of the six models in GiB: 5 qwen-local, 10 coder-chat, 10 coder-fim, 15 coder-agent, 10 coder-mini,
# 5 embeddings. Their smallest machines: g2-standard-8 (coder-agent) and e2-standard-4.
CLAIMS = 55


def plan_with(settings: Mapping[str, str]) -> Admission:
    raw = RawConfig(project="ai-platform", stack="ai-dev", values={**BASE, **settings})
    return admit(raw, rehearsal=True)


def costs_of(**settings: str) -> Costs:
    """Costs of the base with settings on top; `coder_chat__replicas` is `coder-chat:replicas`."""
    named = {
        f"{key.split('__')[0].replace('_', '-')}:{key.split('__')[1]}" if "__" in key else f"ai-platform:{key}": value
        for key, value in settings.items()
    }
    admission = plan_with(named)
    assert not admission.problems
    bill = costs(admission.plan)
    assert bill is not None
    return bill


def line(lines: tuple[Line, ...], what: str) -> Line:
    (found,) = [line for line in lines if what in line.what]
    return found


# --- idle ----------------------------------------------------------------------------------------------------


def test_an_idle_stack_in_iowa_costs_its_system_node_nat_and_disks():
    # e2-standard-4 on demand; 50 GiB of boot disk, 10 of database, 10 of dumps, claims; NAT for one VM, one address.
    by_hand = 730 * 0.134023 + (50 + 10 + 10 + CLAIMS) * 0.10 + 730 * (0.0014 + 0.005)
    assert costs_of().idle_usd_per_month == round(by_hand, 2) == 115.01


def test_an_idle_stack_in_the_netherlands_costs_what_it_costs_there():
    by_hand = 730 * 0.147544 + (50 + 10 + 10 + CLAIMS) * 0.11 + 730 * (0.0014 + 0.005)
    assert costs_of(gcp__zone="europe-west4-a").idle_usd_per_month == round(by_hand, 2) == 126.13


def test_the_free_tier_pays_the_fee_of_one_cluster_and_nothing_else():
    bill = costs_of()
    assert line(bill.idle, "cluster fee").usd == pytest.approx(73.0)
    assert line(bill.idle, "free tier").usd == pytest.approx(-73.0)


def test_a_free_tier_spent_on_another_cluster_leaves_the_whole_fee():
    without = costs_of(prices=json.dumps({"onDemand": {"gke-free-tier": 0}}))
    assert without.idle_usd_per_month == pytest.approx(costs_of().idle_usd_per_month + 73.0)


def test_a_credit_smaller_than_the_fee_pays_that_much():
    bill = costs_of(prices=json.dumps({"onDemand": {"gke-free-tier": 50}}))
    assert line(bill.idle, "free tier").usd == -50


def test_kept_claims_of_a_disabled_group_stay_on_the_bill():
    off = json.dumps({**GROUPS, "coding-assistant": False})
    kept = costs_of(groups=off)
    assert line(kept.idle, "claims of 2 models").quantity == 10
    assert line(kept.idle, "claims kept of 4 models").quantity == 45
    gone = costs_of(groups=off, retainWeights="false")
    assert not [line for line in gone.idle if "kept" in line.what]
    assert kept.idle_usd_per_month == pytest.approx(gone.idle_usd_per_month + 4.5)


def test_a_group_that_config_never_named_was_never_on_and_keeps_nothing():
    named = {name: on for name, on in GROUPS.items() if name != "coding-assistant"}
    bill = costs_of(groups=json.dumps(named))
    assert not [line for line in bill.idle if "kept" in line.what]
    assert line(bill.idle, "claims of 2 models").quantity == 10


def test_a_larger_claim_costs_more():
    larger = costs_of(coder_chat__claimGib="110")
    assert larger.idle_usd_per_month == pytest.approx(costs_of().idle_usd_per_month + 10.0)


def test_every_system_node_is_billed_with_its_disk_and_nat():
    two = costs_of(systemNodes="2", systemMachineType="e2-standard-4")
    assert two.idle_usd_per_month == pytest.approx(115.01 + 730 * 0.134023 + 5 + 730 * 0.0014, abs=0.01)


def test_a_managed_database_replaces_the_disk():
    bill = costs_of(gateway=json.dumps({"database": "cloud-sql", "databaseGib": 20}))
    assert line(bill.idle, "Cloud SQL disk").usd == pytest.approx(20 * 0.17)
    assert bill.idle_usd_per_month == pytest.approx(115.01 - 2.0 + 730 * 0.035 + 20 * 0.17, abs=0.01)


def test_the_system_pool_is_never_spot():
    assert costs_of(spot="true").idle_usd_per_month == costs_of().idle_usd_per_month


# --- now and worst case --------------------------------------------------------------------------------------

GPU_NODE = 730 * 0.853624 + 100 * 0.10 + 730 * 0.0014  # g2-standard-8 on demand in Iowa
SPOT_NODE = 730 * 0.512012 + 100 * 0.10 + 730 * 0.0014


def test_with_everything_at_zero_an_hour_costs_the_idle_stack():
    assert costs_of().usd_per_hour_now == round(115.00879 / 730, 4)


@pytest.mark.parametrize(("spot", "node"), [("false", GPU_NODE), ("true", SPOT_NODE)])
def test_one_model_up_adds_one_node_and_its_disk(spot: str, node: float):
    bill = costs_of(coder_chat__replicas="1", spot=spot)
    assert bill.nodes_now == 1
    assert bill.usd_per_hour_now == round((115.00879 + node) / 730, 4)


def test_the_worst_case_is_one_node_all_month_whatever_is_up():
    assert costs_of().worst_case_usd_per_month == round(115.00879 + GPU_NODE, 2)
    assert costs_of(coder_chat__replicas="1").worst_case_usd_per_month == costs_of().worst_case_usd_per_month


def test_a_quota_of_two_doubles_the_worst_case_and_not_the_present():
    bill = costs_of(gpuQuota="2", coder_chat__replicas="1")
    assert (bill.nodes_now, bill.nodes_at_worst) == (1, 2)
    assert bill.worst_case_usd_per_month == round(115.00879 + 2 * GPU_NODE, 2)


def test_the_worst_case_ends_with_the_models_that_there_are():
    bill = costs_of(gpuQuota="8", groups=json.dumps({"baseline": True}))
    assert bill.nodes_at_worst == 1


def test_without_a_quota_no_gpu_is_ever_billed():
    bill = costs_of(gpuQuota="0")
    assert bill.worst_case_usd_per_month == bill.idle_usd_per_month


def test_machines_of_several_gpus_are_billed_whole():
    bill = costs_of(gpuQuota="4", machineType="g2-standard-24", coder_chat__replicas="1", coder_fim__replicas="1")
    assert (bill.nodes_now, bill.nodes_at_worst) == (1, 2)
    assert line(bill.now, "g2-standard-24").usd == pytest.approx(730 * 2.000833)


def test_models_that_share_a_gpu_share_a_node_if_its_memory_holds_both():
    shared = {
        "gpuSharingClients": "2",
        "qwen_local__gpuMemoryUtilization": "0.4",
        "coder_fim__gpuMemoryUtilization": "0.5",
    }
    up = {"qwen_local__replicas": "1", "coder_fim__replicas": "1", "gpuQuota": "2"}
    assert costs_of(**shared, **up).nodes_now == 1
    assert costs_of(**shared, **up, machineType="g2-standard-4").nodes_now == 2


def test_a_boot_disk_is_billed_as_long_as_its_node():
    more = costs_of(gpuBootDiskGib="200", coder_chat__replicas="1")
    less = costs_of(gpuBootDiskGib="100", coder_chat__replicas="1")
    assert more.idle_usd_per_month == less.idle_usd_per_month
    assert more.usd_per_hour_now == pytest.approx(less.usd_per_hour_now + 10 / 730, abs=1e-4)


def test_nat_is_not_billed_beyond_32_machines():
    fim = CATALOG["coder-fim"]
    many = {alias: fim.model_copy(update={"alias": alias}) for alias in (f"fim-{n}" for n in range(30))}
    settings = {"ai-platform:systemNodes": "10", "ai-platform:gpuQuota": "40"}
    raw = RawConfig(project="ai-platform", stack="ai-dev", values={**BASE, **settings})
    bill = costs(admit(raw, many, rehearsal=True).plan)
    assert bill is not None
    assert line(bill.idle, "system pool: NAT").quantity == 10 * 730
    assert bill.nodes_at_worst == 30
    assert line(bill.at_worst, "NAT").quantity == 22 * 730


# --- models --------------------------------------------------------------------------------------------------


def test_a_model_on_gpu_costs_the_node_it_keeps_up():
    (chat,) = [m for m in costs_of().models if m.alias == "coder-chat"]
    assert chat.usd_per_hour == pytest.approx(GPU_NODE / 730)


def test_a_model_on_cpu_costs_its_share_of_a_system_node():
    (embeddings,) = [m for m in costs_of().models if m.alias == "embeddings"]
    # 0.5 of the 3.52 cores that an e2-standard-4 leaves; of its memory it takes less.
    assert embeddings.usd_per_hour == pytest.approx((730 * 0.134023 + 5 + 730 * 0.0014) / 730 * 0.5 / 3.52)


def test_a_million_tokens_cost_the_hours_they_take():
    bill = costs_of(coder_chat__tokensPerSecond="1000")
    (chat,) = [m for m in bill.models if m.alias == "coder-chat"]
    assert chat.usd_per_mtok == pytest.approx(GPU_NODE / 730 * 1e6 / (1000 * 3600))
    assert chat.price_usd_per_mtok == pytest.approx((8 * 0.5 + 1.5) / 9)


def test_models_of_disabled_groups_and_of_other_providers_have_no_cost_here():
    aliases = [m.alias for m in costs_of(groups=json.dumps({"retrieval": True})).models]
    assert aliases == ["embeddings"]


# coder-chat sells a mixed million for $0.6111 and costs $0.8687 an hour: it pays from 394.9 tokens a second on.
@pytest.mark.parametrize(("rate", "warned"), [("394", True), ("396", False)])
def test_a_price_below_cost_is_warned_of(rate: str, warned: bool):
    notices = [n for n in plan_with({"coder-chat:tokensPerSecond": rate}).notices if "coder-chat is sold" in n.message]
    assert bool(notices) is warned
    if warned:
        assert "$0.611" in notices[0].message
        assert notices[0].remedy == "pulumi config set coder-chat:tokensPerSecond <measured under load>"


def test_an_assumed_throughput_is_said_to_be_one_with_what_it_holds_for():
    (notice,) = [n for n in plan_with({}).notices if "embeddings is sold" in n.message]
    assert "(assumed; 512 tokens)" in notice.message


def test_a_throughput_of_config_holds_for_the_usual_requests_of_the_context_of_config():
    bill = costs_of(coder_chat__tokensPerSecond="1000", coder_chat__maxModelLen="576")
    (chat,) = [m for m in bill.models if m.alias == "coder-chat"]
    assert chat.throughput
    assert chat.throughput.told == "reported; 512 + 64 tokens"


def test_a_measured_throughput_is_priced_in_the_mix_that_it_was_measured_in(monkeypatch: pytest.MonkeyPatch):
    measured = Throughput(
        tokens_per_second=1000,
        at=Load(prompt_tokens=300, output_tokens=100, streams=8),
        source=Source(facts="throughput", where="a bench", evidence=Evidence.VERIFIED),
    )
    spec = CATALOG["coder-chat"].model_copy(update={"throughput": measured})
    monkeypatch.setitem(cast("dict[str, ModelSpec]", CATALOG), "coder-chat", spec)
    (chat,) = [m for m in costs_of().models if m.alias == "coder-chat"]
    assert chat.price_usd_per_mtok == pytest.approx((3 * 0.5 + 1 * 1.5) / 4)
    assert "at 1,000/s (verified; 300 + 100 tokens, 8 at once)" in chat.told


# --- overrides and gaps --------------------------------------------------------------------------------------


def test_a_price_from_config_replaces_the_lists_and_shows_with_its_date():
    own: dict[str, Any] = {"asOf": "2026-11-01", "onDemand": {"e2-standard-4": 0.2}, "spot": {"g2-standard-8": 0.3}}
    bill = costs_of(prices=json.dumps(own), spot="true", coder_chat__replicas="1")
    assert line(bill.idle, "e2-standard-4").usd == pytest.approx(146)
    assert line(bill.now, "g2-standard-8").usd == pytest.approx(219)
    assert line(bill.now, "g2-standard-8").basis == "config"
    assert bill.dated == "2026-08-20; by config (2026-11-01): e2-standard-4, g2-standard-8"


def test_an_override_without_a_date_is_shown_as_such():
    assert "no date" in costs_of(prices=json.dumps({"onDemand": {"pd-balanced": 0.2}})).dated


@pytest.mark.parametrize(
    ("prices", "named"),
    [
        ({"onDemand": {"g2-standard-9": 1}}, "prices.onDemand.g2-standard-9: the name has no price here; "),
        ({"spot": {"pd-balanced": 1}}, "prices.spot.pd-balanced: the name has no price here"),
        ({"onDemand": {"pd-balanced": -1}}, "prices.onDemand.pd-balanced is -1"),
        ({"onDemand": {"pd-balanced": "cheap"}}, "prices.onDemand.pd-balanced is text of 5 characters"),
        ({"asOf": "yesterday"}, "must be a day such as 2026-08-20"),
        ({"onDemnd": {}}, "did you mean 'onDemand'?"),
    ],
)
def test_a_bad_override_is_refused_and_its_removal_mends_it(prices: dict[str, Any], named: str):
    (problem,) = plan_with({"ai-platform:prices": json.dumps(prices)}).problems
    assert named in problem.message
    assert problem.remedy.startswith("pulumi config rm --path 'ai-platform:prices.")


@pytest.mark.parametrize(("key", "value"), [("maxHourlyUsd", "0"), ("maxMonthlyUsd", "-5"), ("maxHourlyUsd", "lots")])
def test_a_budget_is_a_number_above_zero(key: str, value: str):
    (problem,) = plan_with({f"ai-platform:{key}": value}).problems
    # Removed, there would be no budget at all.
    assert problem.remedy == f"pulumi config set ai-platform:{key} <US dollars>"


def test_what_has_no_price_is_named_and_left_out_of_the_totals():
    settings = {"ai-platform:gateway": json.dumps({"database": "cloud-sql"}), "gcp:zone": "europe-west4-a"}
    admission = plan_with(settings)
    bill = costs(admission.plan)
    assert bill is not None
    assert bill.unpriced == (Item.CLOUD_SQL.value, Item.CLOUD_SQL_DISK.value)
    assert line(bill.idle, "Cloud SQL disk").basis == "unknown"
    told = [n for n in admission.notices if "no price is known for cloud-sql" in n.message]
    assert [n.remedy for n in told] == [
        f"pulumi config set --path 'ai-platform:prices.onDemand.{item}' <US dollars>" for item in bill.unpriced
    ]


def test_a_machine_without_a_price_leaves_its_models_without_a_cost(monkeypatch: pytest.MonkeyPatch):
    full = list_prices()
    gap = PriceTable(
        full.as_of, {key: price for key, price in full.prices.items() if key[0] != "g2-standard-8"}, full.units
    )
    monkeypatch.setattr("stacks.costs.list_prices", lambda: gap)
    admission = plan_with({"ai-platform:spot": "true"})
    assert [n.remedy for n in admission.notices if "no price is known" in n.message] == [
        "pulumi config set --path 'ai-platform:prices.spot.g2-standard-8' <US dollars>"
    ]
    bill = costs(admission.plan)
    assert bill is not None
    (chat,) = [m for m in bill.models if m.alias == "coder-chat"]
    assert (chat.usd_per_hour, chat.usd_per_mtok, chat.at_a_loss) == (None, None, False)


def test_a_cluster_of_your_own_costs_nothing_in_the_cloud():
    raw = RawConfig(
        project="ai-platform",
        stack="local",
        values={
            "ai-platform:target": "kubernetes",
            "ai-platform:kubeconfig": "k",
            "ai-platform:kubeContext": "c",
            "ai-platform:maxHourlyUsd": "0.01",
        },
    )
    admission = admit(raw, rehearsal=True)
    assert not admission.problems
    assert costs(admission.plan) is None


def test_flags_that_make_no_sense_leave_the_throughput_open():
    admission = plan_with({"coder-chat:maxNumBatchedTokens": "1"})
    bill = costs(admission.plan)
    assert bill is not None
    assert next(m for m in bill.models if m.alias == "coder-chat").usd_per_hour is not None


def test_totals_are_the_sums_of_their_lines():
    bill = costs_of(coder_chat__replicas="1")
    doubled = replace(bill, idle=bill.idle * 2)
    assert doubled.idle_usd_per_month == round(sum(line.usd for line in bill.idle) * 2, 2)


def test_measuring_one_model_leaves_the_catalog_as_it_is():
    costs_of(coder_chat__tokensPerSecond="1000")
    assert CATALOG["coder-chat"].throughput is None
