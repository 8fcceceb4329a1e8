"""Models enabled one by one: the alias's own word wins over its group's, and all else follows from what is enabled."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stacks.access import expand
from stacks.admission import Admission, admit
from stacks.costs import costs
from stacks.plan import State
from stacks.settings import RawConfig
from tests.catalog import CATALOG
from tests.support import Records, config, recorded

ONLY_RETRIEVAL = ("groups.baseline=false", "groups.coding-assistant=false", "keys={}", "teams={}")
ALONE = (*ONLY_RETRIEVAL, "coder-chat:enabled=true")


def judged(*assignments: str) -> Admission:
    return admit(config(*assignments), rehearsal=True)


def states(*assignments: str) -> dict[str, State]:
    return {m.spec.alias: m.state for m in judged(*assignments).plan.models}


def deployments(records: Records) -> set[str]:
    return {d.name for d in records.all("Deployment")} & CATALOG.keys()


def test_a_model_is_enabled_alone_while_its_group_is_off() -> None:
    found = states(*ALONE)
    assert found["coder-chat"] is State.OFF
    assert {found[alias] for alias in ("coder-fim", "coder-agent", "coder-mini", "qwen-local")} == {State.DISABLED}
    assert deployments(recorded(*ALONE)) == {"coder-chat", "embeddings"}


def test_a_model_is_left_out_of_a_group_that_is_on() -> None:
    found = states("coder-mini:enabled=false")
    assert found["coder-mini"] is State.DISABLED
    assert found["coder-chat"] is State.OFF
    assert deployments(recorded("coder-mini:enabled=false")) == set(CATALOG) - {"coder-mini", "claude-haiku"}


def test_what_a_model_is_called_does_not_depend_on_how_it_was_enabled() -> None:
    def urns(records: Records) -> set[str]:
        return {r.urn for r in records.resources if r.name.startswith("coder-chat")}

    assert urns(recorded(*ALONE)) == urns(recorded("coder-chat:replicas=0"))


def test_it_is_billed_as_what_is_enabled_and_its_claim_as_kept_once_it_is_not() -> None:
    def claims(*assignments: str) -> dict[str, float]:
        bill = costs(judged(*assignments).plan)
        assert bill is not None
        return {line.what: line.quantity for line in bill.idle if "laim" in line.what and "dumps" not in line.what}

    assert claims(*ALONE)["claims of 2 models"] == 15
    groups = ('groups={"retrieval":true}', "keys={}", "teams={}")
    assert claims(*groups) == {"claims of 1 models": 5}
    assert claims(*groups, "coder-chat:enabled=false") == {
        "claims of 1 models": 5,
        "claims kept of 1 models that are not enabled": 10,
    }


def test_a_group_in_a_list_of_models_means_those_of_it_that_are_enabled() -> None:
    plan = judged(*ALONE).plan
    assert expand(plan, ["coding-assistant"]) == ["coder-chat"]
    assert expand(plan, ["coder-chat", "coder-fim"]) == ["coder-chat"]


@pytest.mark.parametrize(
    ("assignments", "said", "remedy"),
    [
        (
            (*ONLY_RETRIEVAL, "coder-chat:replicas=1"),
            "neither it nor its group 'coding-assistant' is enabled",
            "pulumi config set coder-chat:enabled true   # or: pulumi config set coder-chat:replicas 0",
        ),
        (
            ("coder-chat:enabled=false", "coder-chat:replicas=1"),
            "coder-chat:enabled is false",
            "pulumi config set coder-chat:enabled true   # or: pulumi config set coder-chat:replicas 0",
        ),
        (("coder-chat:enabled=yes",), "coder-chat:enabled is 'yes': must be true or false", "pulumi config set"),
        (("claude-haiku:enabled=true",), "nothing of this model runs here", "pulumi config rm claude-haiku:enabled"),
    ],
)
def test_what_is_refused_names_the_shortest_way(assignments: tuple[str, ...], said: str, remedy: str) -> None:
    found = judged(*assignments).problems
    assert [p for p in found if said in p.message and p.remedy.startswith(remedy)], found


def test_an_entry_that_never_fits_is_done_without_alone_and_is_then_nobody_s_business() -> None:
    chat = CATALOG["coder-chat"]
    assert chat.weights is not None
    whole = chat.weights.model_copy(update={"bytes_on_disk": 60_000_000_000})
    catalog = {**CATALOG, "coder-chat": chat.model_copy(update={"weights": whole})}
    values = {
        "gcp:project": "my-project",
        "gcp:zone": "us-central1-a",
        "ai-platform:groups": json.dumps({"coding-assistant": True}),
        "coder-chat:replicas": "0",
        "coder-chat:gpuMemoryUtilization": "0.5",
    }
    raw = RawConfig("ai-platform", "test", values)
    (problem,) = [p for p in admit(raw, catalog, rehearsal=True).problems if "coder-chat" in p.message]
    assert problem.remedy.startswith("pulumi config set coder-chat:enabled false   # nothing that config can set")
    mended = replace(raw, values={**values, "coder-chat:enabled": "false"})
    assert admit(mended, catalog, rehearsal=True).problems == ()
