"""What a plan is refused for before it costs money, and that its remedies, followed, lead to success."""

from __future__ import annotations

import json

import pytest

from models.machines import G2_MACHINES, SYSTEM_MACHINES
from stacks.admission import Admission, admit
from stacks.plan import State
from tests.catalog import CATALOG
from tests.stacks.remedies import alternatives, follow, judge, with_values
from tests.support import VLLM_ALIASES, needs

P = "ai-platform:"


def only(admission: Admission) -> tuple[str, str]:
    assert len(admission.problems) == 1, [p.message for p in admission.problems]
    problem = admission.problems[0]
    return problem.message, problem.remedy


# Config that is refused, in one way each.
REFUSED: dict[str, dict[str, str]] = {
    "two models on one GPU": {"coder-chat:replicas": "1", "coder-fim:replicas": "1"},
    "three models on one GPU": {"coder-chat:replicas": "1", "coder-fim:replicas": "1", "qwen-local:replicas": "1"},
    "no quota at all": {f"{P}gpuQuota": "0", "coder-chat:replicas": "1"},
    "a machine with more GPUs than the quota": {f"{P}machineType": "g2-standard-24", "coder-chat:replicas": "1"},
    "replicas of a group that is off": {
        f"{P}groups": json.dumps({"baseline": True}),
        "coder-chat:replicas": "1",
    },
    "replicas of a model that is disabled alone": {"coder-chat:enabled": "false", "coder-chat:replicas": "1"},
    "14B on the small machine": {f"{P}machineType": "g2-standard-4", "coder-agent:replicas": "1"},
    "a context beyond the model's positions": {"coder-chat:maxModelLen": "65536", "coder-chat:replicas": "1"},
    "a cache that does not fit": {
        "coder-agent:maxModelLen": "32768",
        "coder-agent:gpuMemoryUtilization": "0.6",
        "coder-agent:replicas": "1",
    },
    "fewer tokens a step than sequences": {"coder-chat:maxNumBatchedTokens": "2", "coder-chat:replicas": "1"},
    "a batch below one input": {"embeddings:maxBatchTokens": "256"},
    "a cluster that is not named": {f"{P}target": "kubernetes"},
    "a claim below the weights": {"coder-chat:claimGib": "3"},
    "a boot disk below the image": {f"{P}gpuBootDiskGib": "50", "coder-chat:replicas": "1"},
    "two models that share a GPU and each want most of it": {
        f"{P}gpuSharingClients": "2",
        "coder-chat:replicas": "1",
        "coder-fim:replicas": "1",
    },
    "two models that share a GPU and not the memory beside it": {
        f"{P}gpuSharingClients": "2",
        f"{P}machineType": "g2-standard-4",
        "coder-chat:replicas": "1",
        "coder-chat:gpuMemoryUtilization": "0.55",
        "coder-fim:replicas": "1",
        "coder-fim:gpuMemoryUtilization": "0.4",
    },
    "a system pool that is too small": {f"{P}systemMachineType": "e2-standard-2", "embeddings:replicas": "1"},
    "more gateways than the system pool holds": {
        f"{P}systemMachineType": "e2-standard-2",
        f"{P}gateway": '{"replicas": 6}',
    },
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=list(REFUSED))
def test_every_way_out_that_a_refusal_offers_leads_to_success(values: dict[str, str]) -> None:
    wrong = with_values(values)
    found = admit(wrong).problems
    assert found
    for problem in found:
        ways = alternatives(problem.remedy)
        assert ways, problem.remedy
        for line in ways:
            after = admit(follow(wrong, line))
            assert problem.message not in [p.message for p in after.problems], line
            assert not {p.message for p in after.problems} - {p.message for p in found}, line
    # One way out of each, one after the other, ends in a plan that is admitted.
    mended, steps = wrong, 0
    while remaining := admit(mended).problems:
        mended, steps = follow(mended, alternatives(remaining[0].remedy)[0]), steps + 1
        assert steps < 10, [str(p) for p in remaining]


# --- the slot --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", VLLM_ALIASES)
def test_every_model_of_the_catalog_can_come_up_alone(alias: str) -> None:
    admission = judge({f"{alias}:replicas": "1"})
    assert not admission.problems
    assert [m.spec.alias for m in admission.plan.models if m.state is State.UP] == [alias]


def test_a_second_model_is_refused_with_both_names_and_both_swaps() -> None:
    message, remedy = only(judge(REFUSED["two models on one GPU"]))
    assert "coder-chat" in message
    assert "coder-fim" in message
    assert "GPUS_ALL_REGIONS" in message
    assert "to keep coder-chat: pulumi config set coder-fim:replicas 0" in remedy
    assert "to keep coder-fim: pulumi config set coder-chat:replicas 0" in remedy


def test_of_three_models_each_may_be_kept() -> None:
    _, remedy = only(judge(REFUSED["three models on one GPU"]))
    assert len(alternatives(remedy)) == 3
    for line, kept in zip(alternatives(remedy), ["qwen-local", "coder-chat", "coder-fim"], strict=True):
        plan = admit(follow(with_values(REFUSED["three models on one GPU"]), line)).plan
        assert [m.spec.alias for m in plan.models if m.state is State.UP] == [kept]


def test_a_larger_quota_admits_more() -> None:
    assert not judge({**REFUSED["two models on one GPU"], f"{P}gpuQuota": "2"}).problems


def test_gpus_of_a_model_that_is_not_deployed_are_not_counted() -> None:
    values = {"coder-chat:replicas": "0", "coder-fim:replicas": "1", "embeddings:replicas": "1"}
    assert not judge(values).problems


@pytest.mark.parametrize("alias", [*VLLM_ALIASES, "embeddings"])
def test_a_second_replica_of_weights_on_one_node_s_claim_is_refused(alias: str) -> None:
    values = {f"{alias}:replicas": "2", f"{P}gpuQuota": "2", f"{P}systemNodes": "3"}
    message, remedy = only(judge(values))
    assert "ReadWriteOnce" in message
    assert remedy == f"pulumi config set {alias}:replicas 1"


# --- machines --------------------------------------------------------------------------------------------------


def test_the_smallest_machine_that_holds_every_enabled_model_is_chosen_and_the_reason_given() -> None:
    everything = judge({}).plan.gpu
    assert everything is not None
    assert everything.machine.name == "g2-standard-8"
    assert "coder-agent" in everything.reason
    small = judge({f"{P}groups": json.dumps({"baseline": True})}).plan.gpu
    assert small is not None
    assert small.machine.name == "g2-standard-4"


def test_a_model_that_is_off_counts_for_the_machine_so_that_bringing_it_up_makes_no_new_pool() -> None:
    off, up = judge({}).plan.gpu, judge({"coder-agent:replicas": "1"}).plan.gpu
    assert off is not None
    assert up is not None
    assert off.machine == up.machine


def test_the_14b_is_refused_on_16_gib_of_host_memory_and_the_7b_is_not() -> None:
    message, remedy = only(judge(REFUSED["14B on the small machine"]))
    assert "GiB of memory" in message
    assert "coder-agent" in message
    assert remedy == "pulumi config set machineType g2-standard-8"
    assert not judge({f"{P}machineType": "g2-standard-4", "coder-chat:replicas": "1"}).problems


def test_a_model_that_is_off_and_would_not_fit_is_a_remark_and_no_refusal() -> None:
    admission = judge({f"{P}machineType": "g2-standard-4"})
    assert not admission.problems
    remark = next(n for n in admission.notices if n.message.startswith("coder-agent is off"))
    assert remark.remedy == "pulumi config set machineType g2-standard-8"


@pytest.mark.parametrize("shape", list(G2_MACHINES))
def test_a_machine_from_config_is_taken_as_it_is(shape: str) -> None:
    chosen = judge({f"{P}machineType": shape, f"{P}gpuQuota": "8"}).plan.gpu
    assert chosen is not None
    assert (chosen.machine.name, chosen.reason) == (shape, "set by machineType")


def test_the_quota_is_turned_into_machines() -> None:
    plan = judge({f"{P}machineType": "g2-standard-24", f"{P}gpuQuota": "5"}).plan
    assert plan.max_gpu_nodes == 2


def test_without_quota_there_is_no_machine_and_models_at_zero_are_fine() -> None:
    admission = judge({f"{P}gpuQuota": "0"})
    assert admission.plan.gpu is None
    assert not admission.problems


def test_a_model_that_needs_more_gpus_than_a_machine_has_is_never_planned_on_it() -> None:
    spec = CATALOG["coder-chat"]
    wide = spec.model_copy(update={"engine": spec.engine.model_copy(update={"gpus": 2})})
    values = {f"{P}gpuQuota": "2", "coder-chat:replicas": "1"}
    chosen = admit(with_values(values), {**CATALOG, "coder-chat": wide}).plan.gpu
    assert chosen is not None
    assert chosen.machine.gpus >= 2


# --- system pool -----------------------------------------------------------------------------------------------


def test_the_smallest_system_machine_that_holds_gateway_and_cpu_models_is_chosen() -> None:
    plan = judge({}).plan
    names = list(SYSTEM_MACHINES)
    smaller = names[: names.index(plan.system.machine.name)]
    assert smaller
    for name in smaller:
        assert judge({f"{P}systemMachineType": name, "embeddings:replicas": "1"}).problems, name
    assert not judge({f"{P}systemMachineType": plan.system.machine.name, "embeddings:replicas": "1"}).problems


def test_more_gateways_get_a_larger_system_pool() -> None:
    one, many = (judge({f"{P}gateway": json.dumps({"replicas": n})}).plan.system.machine.memory_gib for n in (1, 8))
    assert many > one


def test_a_system_pool_that_is_too_small_is_refused_with_what_it_has_to_hold() -> None:
    message, remedy = only(judge(REFUSED["a system pool that is too small"]))
    assert "embeddings" in message
    assert "e2-standard-2" in message
    assert remedy.startswith("pulumi config set systemMachineType e2-standard-")


# --- sharing, claims, disks ------------------------------------------------------------------------------------


def test_models_that_share_a_gpu_must_fit_it_together() -> None:
    message, remedy = only(judge(REFUSED["two models that share a GPU and each want most of it"]))
    assert all(f"{alias} (0.9)" in message for alias in ("coder-chat", "coder-fim"))
    assert "gpuMemoryUtilization" in remedy


def test_models_that_share_a_node_must_fit_it_together() -> None:
    message, remedy = only(judge(REFUSED["two models that share a GPU and not the memory beside it"]))
    assert "coder-chat and coder-fim need 4 CPU" in message
    assert remedy == "pulumi config set machineType g2-standard-8"


def test_models_on_nodes_of_their_own_need_not_fit_one_together() -> None:
    values = {f"{P}machineType": "g2-standard-4", "coder-chat:replicas": "1", "coder-fim:replicas": "1"}
    assert not judge({**values, f"{P}gpuQuota": "2"}).problems


def test_sharing_admits_what_fits_together() -> None:
    values = {
        **REFUSED["two models that share a GPU and each want most of it"],
        "coder-chat:gpuMemoryUtilization": "0.6",
        "coder-fim:gpuMemoryUtilization": "0.35",
    }
    assert not judge(values).problems


@pytest.mark.parametrize("alias", [*VLLM_ALIASES, "embeddings"])
def test_a_claim_below_what_the_weights_need_is_refused_even_at_zero(alias: str) -> None:
    needed = CATALOG[alias].engine.claim_gib(CATALOG[alias])
    assert not judge({f"{alias}:claimGib": str(needed)}).problems
    message, _ = only(judge({f"{alias}:claimGib": str(needed - 1)}))
    assert f"the {needed} GiB" in message
    assert "never shrinks" in message


def test_a_boot_disk_that_the_image_does_not_fit_is_refused() -> None:
    message, remedy = only(judge(REFUSED["a boot disk below the image"]))
    assert "gpuBootDiskGib is 50" in message
    assert remedy == "pulumi config set gpuBootDiskGib 90"  # the smallest by tens; test_remedies types it


def test_a_context_that_the_gpu_s_memory_does_not_hold_is_refused_with_one_that_it_does() -> None:
    message, remedy = only(judge(REFUSED["a cache that does not fit"]))
    assert message.startswith("coder-agent does not fit its GPU")
    assert remedy.startswith("pulumi config set coder-agent:")


# --- problems are problems -------------------------------------------------------------------------------------


def test_problems_of_the_config_and_of_the_plan_are_told_together() -> None:
    values = {**REFUSED["two models on one GPU"], "coder-chat:claimGib": "3", "coder-chatt:replicas": "1"}
    messages = " ".join(p.message for p in judge(values).problems)
    for part in ("GPUs asked for: 2", "coder-chat:claimGib is 3", "coder-chatt:replicas"):
        assert part in messages


def test_what_is_pinned_by_nobody_is_flagged() -> None:
    notices = " ".join(n.message for n in judge({}).notices)
    for alias, spec in CATALOG.items():
        unpinned = spec.weights is not None and spec.weights.revision is None
        assert (f"{alias}: no revision" in notices) == unpinned


def test_the_needs_of_every_entry_fit_a_machine_that_exists() -> None:
    for alias in VLLM_ALIASES:
        assert any(needs(CATALOG[alias]).lacking(m) is None for m in G2_MACHINES.values()), alias


def test_a_model_that_may_not_earn_money_says_so_when_it_comes_up() -> None:
    def said(values: dict[str, str]) -> list[str]:
        return [notice.message for notice in judge(values).notices if "commercial use" in notice.message]

    assert said({"coder-chat:replicas": "1"}) == []
    assert said({}) == []
    (message,) = said({"coder-mini:replicas": "1"})
    assert message.startswith("coder-mini comes up, and the licence of its weights (qwen-research)")
