"""What the models that are up may stream, against what the gateway carries: told, and not refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from models.gateway_database import MAX_REPLICAS
from models.gateway_streams import BUSY, replicas_for
from stacks.commands import set_command
from stacks.plan import Plan, PlannedModel, State
from stacks.problems import Notice

# Tokens a chunk that a remedy proposes: more at a time reads like stuttering, and saves little beside the requests.
_INTERVALS = (2, 4, 8, 16)


def carries(plan: Plan) -> Iterator[Notice]:
    """Models that write more than the gateway hands on in time."""
    up = [m for m in plan.models if m.state is State.UP and m.streams]
    replicas = plan.settings.platform.gateway.replicas
    cores, tokens = _load(plan, up)
    if cores <= replicas * BUSY:
        return
    most = max(up, key=_cores)
    described = most.streams.told if most.streams else ""
    yield Notice(
        f"{', '.join(m.spec.alias for m in up)} may stream {tokens:,.0f} tokens a second "
        f"({most.spec.alias} {described}), and the gateway carries {replicas * BUSY / cores * tokens:,.0f} of them "
        f"with {replicas} replica{'' if replicas == 1 else 's'}: beyond that each stream waits for the others",
        _remedy(plan, up),
    )


def _cores(model: PlannedModel) -> float:
    return model.replicas * model.streams.cores if model.streams else 0.0


def _load(
    plan: Plan,
    up: list[PlannedModel],
    intervals: Mapping[str, int] | None = None,
    scaled: Mapping[str, int] | None = None,
) -> tuple[float, float]:
    """Cores of the gateway, and tokens a second, of all that is up, at other intervals or replicas of some.

    Those that share a GPU take turns on it: no more of them write at full speed than there are GPUs.
    """
    pods = [
        (m.spec.gpus, m.streams.at((intervals or {}).get(m.spec.alias, m.spec.engine.tokens_a_chunk)))
        for m in up
        if m.streams
        for _ in range((scaled or {}).get(m.spec.alias, m.replicas))
    ]
    cores, tokens, free = 0.0, 0.0, float(plan.settings.platform.gpu_quota)
    for gpus, streams in sorted(pods, key=lambda pod: pod[1].cores / max(1, pod[0]), reverse=True):
        share = min(1.0, free / gpus) if gpus else 1.0
        free -= share * gpus
        cores += share * streams.cores
        tokens += share * streams.tokens_per_s
    return cores, tokens


def _remedy(plan: Plan, up: list[PlannedModel]) -> str:
    """Larger chunks, of the dearest first, or more replicas of the gateway; both, where neither is enough."""
    replicas, project = plan.settings.platform.gateway.replicas, plan.settings.project
    raised: dict[str, int] = {}
    steps: list[dict[str, int]] = []  # the largest chunks of the dearest model, of the two dearest, ...
    enough: dict[str, int] | None = None
    for model in sorted(up, key=_cores, reverse=True):
        now, most = model.spec.engine.tokens_a_chunk, model.spec.engine.most_tokens_a_chunk
        tried = [{**raised, model.spec.alias: n} for n in _INTERVALS if now < n <= most]
        enough = enough or next((each for each in tried if _load(plan, up, each)[0] <= replicas * BUSY), None)
        raised = tried[-1] if tried else raised
        steps += tried[-1:]

    def told(intervals: Mapping[str, int], count: int = replicas) -> str:
        commands = [set_command(alias, ("streamInterval",), n) for alias, n in intervals.items()]
        return " && ".join(
            commands + [set_command(project, ("gateway", "replicas"), count)] * (count != replicas),
        )

    more = replicas_for(_load(plan, up)[0])
    ways = [told({}, more)] if more <= MAX_REPLICAS else []
    if enough:
        ways.insert(0, told(enough))
    elif steps:
        fewer, _, both = min((replicas_for(_load(plan, up, each)[0]), len(each), told(each)) for each in steps)
        if fewer < more and fewer <= MAX_REPLICAS:
            # First: replicas are what is paid for.
            ways.insert(0, told({}, fewer) if not both else f"{both} && {told({}, fewer)}")
    return "   # or: ".join(ways) or " && ".join(filter(None, (told(raised, MAX_REPLICAS), _scaled(plan, up, raised))))


def _scaled(plan: Plan, up: list[PlannedModel], raised: Mapping[str, int]) -> str:
    """Fewer replicas of what writes most, until the most replicas of the gateway carry the rest."""
    scaled = {m.spec.alias: m.replicas for m in up}
    dearest = sorted(
        up, key=lambda m: m.streams.at(raised.get(m.spec.alias, m.streams.interval)).cores if m.streams else 0.0
    )
    while dearest and _load(plan, up, raised, scaled)[0] > MAX_REPLICAS * BUSY:
        scaled[dearest[-1].spec.alias] -= 1
        if not scaled[dearest[-1].spec.alias]:
            dearest.pop()
    return " && ".join(
        set_command(m.spec.alias, ("replicas",), scaled[m.spec.alias]) for m in up if scaled[m.spec.alias] != m.replicas
    )
