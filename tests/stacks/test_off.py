"""Off does not mean unchecked: what could never run is refused at once, what does not fit now is told."""

from __future__ import annotations

from typing import Any

import pytest

from stacks.admission import Admission, admit
from tests.support import config

NEVER = {
    "a context beyond the positions": ("coder-chat:maxModelLen=9999999", "coder-chat:maxModelLen is 9999999"),
    "a share of the GPU below the weights": (
        "coder-agent:gpuMemoryUtilization=0.4",
        "coder-agent does not fit its GPU",
    ),
    "fewer batched tokens than sequences": ("coder-chat:maxNumBatchedTokens=8", "below maxNumSeqs"),
    "a batch that cuts inputs": ("embeddings:maxBatchTokens=100", "below the context"),
    "a claim below the weights": ("coder-agent:claimGib=5", "coder-agent:claimGib is 5"),
    "a fallback that cannot answer": ("coder-chat:fallback=coder-fim", "cannot answer in place of coder-chat"),
}
OFF = ("groups.coding-assistant=false", "groups.retrieval=false")


def judged(*assignments: str) -> Admission:
    return admit(config(*assignments), rehearsal=True)


@pytest.mark.parametrize("wrong", NEVER)
def test_what_no_bring_up_could_satisfy_is_refused_at_zero_replicas(wrong: str) -> None:
    assignment, message = NEVER[wrong]
    problems = judged(assignment).problems
    assert [message in problem.message for problem in problems] == [True], problems


@pytest.mark.parametrize("wrong", [name for name in NEVER if "claim" not in name])
def test_it_is_refused_in_a_group_that_is_off_as_well(wrong: str) -> None:
    assignment, message = NEVER[wrong]
    assert message in " ".join(problem.message for problem in judged(assignment, *OFF).problems)


def test_the_rest_of_a_group_that_is_off_is_nobody_s_business() -> None:
    assert judged(*OFF, "keys={}", "teams={}").problems == ()


NOT_NOW = {
    "a machine too small for it": (["machineType=g2-standard-4"], "coder-agent", "of memory"),
    "a disk too small for it": (["gpuBootDiskGib=50"], "coder-chat", "gpuBootDiskGib is 50"),
    "a system pool too small for it": (
        ["systemMachineType=e2-standard-2", "gateway.replicas=2"],
        "embeddings",
        "1 x e2-standard-2 has no room",
    ),
}


@pytest.mark.parametrize("why", NOT_NOW)
def test_what_merely_does_not_fit_now_is_told_and_its_remedy_mends_it(why: str) -> None:
    assignments, alias, reason = NOT_NOW[why]
    found = judged(*assignments)
    told = [n for n in found.notices if n.message.startswith(f"{alias} is off; up, it would be refused: ")]
    assert len(told) == 1
    assert reason in told[0].message
    up = judged(*assignments, f"{alias}:replicas=1")
    assert any(alias in problem.message for problem in up.problems)
    key, value = _setting(told[0].remedy)
    assert judged(*assignments, f"{alias}:replicas=1", f"{key}={value}").problems == ()


def _setting(remedy: Any) -> tuple[str, str]:
    """`pulumi config set KEY VALUE`"""
    words = str(remedy).split()
    assert words[:3] == ["pulumi", "config", "set"], remedy
    return words[3], words[4]
