"""What models stream against what the gateway carries: what the plan says, and that its remedies silence it."""

from __future__ import annotations

import pytest

from models.gateway_streams import BUSY, CHUNK_S, LEAST_CPU, STREAM_S, Streams, carried, proxy_cpu
from stacks.admission import Admission, admit
from stacks.plan import gateway_needs
from stacks.rules.streams import carries
from stacks.settings import RawConfig
from tests.stacks.remedies import alternatives, follow, judge, with_values

# 1,024 + 128 tokens a request, as a stack's tokensPerSecond stands for: a ninth of them is written.
FAST = {"coder-fim:replicas": "1", "coder-fim:tokensPerSecond": "18000"}
REPLICAS = "pulumi config set --path 'ai-platform:gateway.replicas'"


def told(config: RawConfig) -> list[tuple[str, str]]:
    """What is said of streams: message and remedy."""
    admission = admit(config)
    assert not admission.problems, [str(problem) for problem in admission.problems]
    return [(n.message, n.remedy or "") for n in admission.notices if "may stream" in n.message]


def cpu(admission: Admission) -> float:
    return gateway_needs(admission.plan.settings, admission.plan.models).cpu


def test_a_model_that_writes_more_than_the_gateway_carries_is_told_and_each_way_out_ends_it() -> None:
    config = with_values(FAST)
    ((message, remedy),) = told(config)
    assert "coder-fim may stream 2,000 tokens a second (coder-fim in chunks of 1 and requests of 128)" in message
    assert "with 1 replica:" in message
    ways = alternatives(remedy)
    assert [way.split()[3].rpartition(":")[2] for way in ways][:1] == ["streamInterval"]
    assert len(ways) == 2
    for way in ways:
        assert told(follow(config, way)) == []


def test_what_the_gateway_is_said_to_carry_is_carried_without_a_word() -> None:
    ((message, _),) = told(with_values(FAST))
    carries = int(message.partition("the gateway carries ")[2].split()[0].replace(",", ""))
    assert told(with_values({**FAST, "coder-fim:tokensPerSecond": str(9 * (carries - 1))})) == []
    assert told(with_values({**FAST, "coder-fim:tokensPerSecond": str(9 * (carries + 2))}))


def test_where_no_chunk_is_large_enough_more_replicas_are_the_way() -> None:
    config = with_values({**FAST, "coder-fim:tokensPerSecond": "90000"})
    ((_, remedy),) = told(config)
    (way,) = alternatives(remedy)  # more replicas alone would be more than there may be
    assert way.startswith(f"pulumi config set coder-fim:streamInterval 16 && {REPLICAS} ")
    assert told(follow(config, way)) == []
    largest = with_values({**FAST, "coder-fim:tokensPerSecond": "54000", "coder-fim:streamInterval": "16"})
    ((_, remedy),) = told(largest)
    assert remedy.startswith(REPLICAS)
    assert "streamInterval" not in remedy
    assert told(follow(largest, remedy)) == []


def test_of_larger_chunks_and_more_replicas_the_way_of_fewer_replicas_is_first() -> None:
    """Many take a larger system pool, and more than the example's budget."""
    config = with_values({"qwen-local:replicas": "1", "qwen-local:streamInterval": "1"})
    ((_, remedy),) = told(config)
    first, second = alternatives(remedy)
    assert first.endswith(f"qwen-local:streamInterval 16 && {REPLICAS} 2")
    assert second.startswith(REPLICAS)
    assert told(follow(config, first)) == told(follow(config, second)) == []


@pytest.mark.parametrize("values", [{}, {"coder-fim:tokensPerSecond": "18000"}, {"embeddings:replicas": "1"}])
def test_what_is_off_or_writes_nothing_is_no_load(values: dict[str, str]) -> None:
    assert told(with_values(values)) == []


def test_the_gateway_asks_for_the_cpu_of_what_may_be_up_and_scaling_does_not_roll_it() -> None:
    coding = {"ai-platform:groups": '{"coding-assistant": true}'}
    off, up = judge(coding), judge({**coding, "coder-chat:replicas": "1"})
    assert cpu(off) == cpu(up) > LEAST_CPU
    chunky = {f"{alias}:streamInterval": "8" for alias in ("coder-fim", "coder-mini")}
    assert LEAST_CPU <= cpu(judge({**coding, **chunky})) < cpu(off)
    assert cpu(judge({"ai-platform:groups": '{"retrieval": true}'})) == LEAST_CPU


def test_a_replica_asks_for_no_more_than_it_can_carry_streams_with() -> None:
    huge = Streams(100_000, 1, 128)
    assert proxy_cpu([huge], 1, 1) == BUSY
    assert proxy_cpu([], 1, 1) == LEAST_CPU


def test_larger_chunks_save_the_work_of_chunks_and_none_of_requests() -> None:
    one = Streams(1000, 1, 100)
    assert one.cores == pytest.approx(1000 * CHUNK_S + 10 * STREAM_S)
    assert one.at(10).cores == pytest.approx(100 * CHUNK_S + 10 * STREAM_S)
    assert carried(one, 2) * one.cores / 1000 == pytest.approx(2 * BUSY)


def test_models_that_share_a_gpu_take_turns_and_are_not_counted_as_if_each_had_one() -> None:
    shared = {
        **FAST,
        "coder-mini:replicas": "1",
        "coder-mini:tokensPerSecond": "18000",
        "coder-fim:gpuMemoryUtilization": "0.45",
        "coder-mini:gpuMemoryUtilization": "0.45",
        "coder-fim:maxModelLen": "2048",
        "coder-mini:maxModelLen": "2048",
        "ai-platform:gpuSharingClients": "2",
    }
    ((message, _),) = told_of(shared)
    ((alone, _),) = told(with_values(FAST))
    assert "may stream 2,000 tokens" in message
    assert "may stream 2,000 tokens" in alone


def told_of(values: dict[str, str]) -> list[tuple[str, str]]:
    """What is said of streams, whatever else is wrong."""
    return [(n.message, n.remedy or "") for n in carries(judge(values).plan)]


@pytest.mark.parametrize("rate", ["18000", "90000", "250000", "900000", "9000000"])
def test_no_remedy_is_told_that_does_not_mend_however_much_is_written(rate: str) -> None:
    config = with_values({**FAST, "coder-fim:tokensPerSecond": rate})
    ((_, remedy),) = told(config)
    ways = alternatives(remedy)
    assert ways
    for way in ways:
        assert not list(carries(admit(follow(config, way)).plan))


def test_a_way_out_of_streams_is_not_undone_by_what_is_said_of_rates() -> None:
    keys = {"ai-platform:keys": '{"a": {"models": ["coder-fim"], "requestsPerMinute": 60, "maxBudgetUsd": 5}}'}
    config = with_values({**FAST, **keys, "coder-fim:streamInterval": "16", "coder-fim:tokensPerSecond": "54000"})
    (remedy,) = (n.remedy or "" for n in carries(admit(config).plan))
    after = admit(follow(config, remedy))
    assert not list(carries(after.plan))
    (rates,) = (n for n in after.notices if "counts rates for itself" in n.message)
    assert rates.remedy is None
    assert f"keys.a up to {after.plan.settings.platform.gateway.replicas * 60} requests" in rates.message
