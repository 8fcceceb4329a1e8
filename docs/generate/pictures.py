"""Memory of the catalog on its GPU, and what a stack costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from docs.generate.bars import Bar, stacked
from docs.generate.shown import Shown
from models.machines import GPUS
from models.spec import ModelSpec
from ops.entry_words import fit_of, fit_words, stored
from stacks.costs import CENTS, HOURLY_DIGITS, Costs, Line, costs

_GPU = GPUS["nvidia-l4"]
_MEMORY = ("weights", "CUDA libraries, buffers", "activation peak", "CUDA graphs", "KV cache", "left alone")
_WITHIN = {"free tier": "cluster fee"}  # lines of a bill that belong to another one


def memory(catalog: Mapping[str, ModelSpec]) -> str:
    """A bar a model that has a GPU: what takes its memory, and how many requests of the whole context it holds."""
    bars = [
        Bar(
            label=spec.alias,
            under=f"{stored(spec)} on {spec.engine.name()}",
            parts={
                "weights": fit.weights_gib,
                "CUDA libraries, buffers": fit.non_torch_gib,
                "activation peak": fit.activation_gib,
                "CUDA graphs": fit.cuda_graph_gib,
                "KV cache": max(fit.kv_cache_gib, 0),
                "left alone": fit.total_gib - fit.budget_gib,
            },
            behind=fit_words(fit),
        )
        for spec in catalog.values()
        if (fit := fit_of(spec))
    ]
    title = f"GPU memory of each model on one L4 of {_GPU.usable_gib:g} GiB"
    return stacked(title, bars, _MEMORY, end=math.ceil(_GPU.usable_gib), tick=5, unit="{} GiB", room=_MEMORY[-1])


def cost_rows(shown: Shown) -> Iterator[tuple[str, str, Costs, bool]]:
    """What is billed when: a label, how nodes are bought, the bill, and whether it is that of the worst case.

    Nothing up, then the first model that needs a GPU up and the worst case, each on demand and on spot.
    """
    idle = costs(shown.plan({}, spot=False))
    if idle is None:
        return
    yield "idle: every model at zero", "", idle, False
    alias = next((m.spec.alias for m in shown.plan({}).deployed if m.spec.gpus), None)
    if alias is None:
        return
    for label, worst in ((f"now, with {alias} up", False), ("worst case", True)):
        for spot in (False, True):
            if bill := costs(shown.plan({alias: 1}, spot=spot)):
                yield label, "spot" if spot else "on demand", bill, worst


def money(shown: Shown) -> str | None:
    """A bar for idle, now and worst: US dollars of a month, and what of it is what. None without a bill."""
    rows = list(cost_rows(shown))
    if not rows:
        return None
    bars: list[Bar] = []
    kinds: list[str] = []
    for label, bought, bill, worst in rows:
        parts: dict[str, float] = {}
        for line in (*bill.idle, *(bill.at_worst if worst else bill.now)):
            kind = _kind(line)
            parts[kind] = parts.get(kind, 0) + line.usd
        kinds += [kind for kind in parts if kind not in kinds]
        bars.append(Bar(label, bought, parts, cost_words(bill, worst=worst)))
    kinds = [kind for kind in kinds if any(bar.parts.get(kind, 0) > 0.005 for bar in bars)]
    end = math.ceil(max(sum(bar.parts.values()) for bar in bars) / 100) * 100
    title = f"US dollars a month, {rows[0][2].region}, prices of {rows[0][2].dated}"
    return stacked(title, bars, kinds, end=end, tick=_tick(end), unit="${}")


def _tick(end: float) -> float:
    return next(step for step in (50, 100, 200, 500, 1000, 5000, 10_000, math.inf) if end / step <= 10)


def _kind(line: Line) -> str:
    kind = line.what.partition(":")[0]
    return _WITHIN.get(kind, kind)


def cost_words(bill: Costs, *, worst: bool) -> str:
    """The figure that the plan shows: of an hour with something up, else of a month."""
    if worst:
        return f"${bill.worst_case_usd_per_month:,.{CENTS}f} a month"
    if bill.nodes_now:
        return f"${bill.usd_per_hour_now:,.{HOURLY_DIGITS}f} an hour"
    return f"${bill.idle_usd_per_month:,.{CENTS}f} a month"
