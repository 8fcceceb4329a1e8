"""What the models that are up may stream, against what the gateway carries: told, and not refused."""

from __future__ import annotations

from collections.abc import Iterator

from models.gateway_database import MAX_REPLICAS
from models.gateway_streams import BUSY, Streams, replicas_for
from stacks.commands import set_command
from stacks.plan import Plan, PlannedModel, State
from stacks.problems import Notice

# Tokens a chunk that a remedy proposes: more at a time reads like stuttering, and saves little beside the requests.
_INTERVALS = (2, 4, 8, 16)


def carries(plan: Plan) -> Iterator[Notice]:
    """Models that write more than the gateway hands on in time."""
    up = [(m, m.streams) for m in plan.models if m.state is State.UP and m.streams]
    replicas = plan.settings.platform.gateway.replicas
    if not up or _cores(up) <= replicas * BUSY:
        return
    most, written = max(up, key=lambda pair: pair[0].replicas * pair[1].cores)
    tokens = sum(m.replicas * found.tokens_per_s for m, found in up)
    share = replicas * BUSY / _cores(up)
    yield Notice(
        f"{', '.join(m.spec.alias for m, _ in up)} may stream {tokens:,.0f} tokens a second "
        f"({most.spec.alias} {written.told}), and the gateway carries {share * tokens:,.0f} of them with {replicas} "
        f"replica{'' if replicas == 1 else 's'}: beyond that each stream waits for the others",
        _remedy(plan, up, most),
    )


def _cores(up: list[tuple[PlannedModel, Streams]]) -> float:
    return sum(model.replicas * found.cores for model, found in up)


def _remedy(plan: Plan, up: list[tuple[PlannedModel, Streams]], most: PlannedModel) -> str:
    """Larger chunks of the model that takes most, or more replicas; both, where neither is enough."""
    replicas, project = plan.settings.platform.gateway.replicas, plan.settings.project
    settable = "stream_interval" in most.spec.engine.settable
    larger = [n for n in _INTERVALS if settable and n > most.spec.engine.tokens_a_chunk]

    def cores(interval: int) -> float:
        return _cores([(m, found.at(interval) if m is most else found) for m, found in up])

    def told(count: int) -> str:
        return set_command(project, ("gateway", "replicas"), min(MAX_REPLICAS, count))

    more = replicas_for(_cores(up))
    ways = [told(more)] if more <= MAX_REPLICAS or not larger else []
    for interval in larger:
        if cores(interval) <= replicas * BUSY:
            ways.insert(0, set_command(most.spec.alias, ("streamInterval",), interval))
            break
    else:
        if larger and (fewer := replicas_for(cores(larger[-1]))) < more:
            # First: replicas are what is paid for.
            ways.insert(0, f"{set_command(most.spec.alias, ('streamInterval',), larger[-1])} && {told(fewer)}")
    return "   # or: ".join(ways or [told(more)])
