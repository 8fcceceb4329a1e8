"""What a plan may cost, and what it would have to be sold at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from models.machines import G2_MACHINES
from stacks.costs import HOURLY_DIGITS, Costs, costs
from stacks.plan import Plan, State, make_plan, on_gpu
from stacks.problems import Notice, Problem

Technical = Callable[[Plan], Iterator[Problem]]  # every other rule: a cheaper plan must not break one


def budgets(plan: Plan, technical: Technical) -> Iterator[Problem]:
    """The hourly budget judges what the config brings up, the monthly one the worst that the quota allows."""
    platform = plan.settings.platform
    if not _has_budget(plan) or (bill := costs(plan)) is None:
        return
    if bill.unpriced:
        yield from (
            Problem(f"{_no_price(item, bill)}, so no budget can be judged", _price_remedy(plan, item))
            for item in bill.unpriced
        )
        return
    hourly, monthly = bill.usd_per_hour_now, bill.worst_case_usd_per_month
    if platform.max_hourly_usd is not None and hourly > platform.max_hourly_usd:
        up = [m.spec.alias for m in plan.models if m.state is State.UP]
        yield Problem(
            f"maxHourlyUsd is {platform.max_hourly_usd:.10g}, and with {', '.join(up) or 'every model at zero'}"
            f"{' up' if up else ''} this stack is billed ${hourly:.{HOURLY_DIGITS}f} an hour (prices of {bill.dated})",
            _cheaper(plan, technical, "max_hourly_usd", hourly),
        )
    if platform.max_monthly_usd is not None and monthly > platform.max_monthly_usd:
        yield Problem(
            f"maxMonthlyUsd is {platform.max_monthly_usd:.10g}, and ${monthly:.2f} would be billed for a month of "
            f"{bill.nodes_at_worst} GPU node{'' if bill.nodes_at_worst == 1 else 's'} around the clock, "
            f"${bill.idle_usd_per_month:.2f} with every model at zero (prices of {bill.dated})",
            _cheaper(plan, technical, "max_monthly_usd", monthly),
        )


def _has_budget(plan: Plan) -> bool:
    platform = plan.settings.platform
    return platform.max_hourly_usd is not None or platform.max_monthly_usd is not None


def _within(plan: Plan, budget: str) -> bool:
    """Whether a plan keeps one of its budgets."""
    bill, limit = costs(plan), getattr(plan.settings.platform, budget)
    if bill is None or bill.unpriced:
        return False
    return limit >= (bill.usd_per_hour_now if budget == "max_hourly_usd" else bill.worst_case_usd_per_month)


def _what_if(plan: Plan, platform: Mapping[str, Any], zero: tuple[str, ...] = ()) -> Plan:
    """The same plan with other settings of the platform, and some models at zero."""
    models = {
        alias: overrides.model_copy(update={"replicas": 0}) if alias in zero else overrides
        for alias, overrides in plan.settings.models.items()
    }
    changed = replace(plan.settings, platform=plan.settings.platform.model_copy(update=dict(platform)), models=models)
    # Overrides are applied already; applying them again changes nothing.
    return make_plan(changed, {model.spec.alias: model.spec for model in plan.models})


def _cheaper(plan: Plan, technical: Technical, budget: str, cost: float) -> str:
    """Commands that each keep the budget alone and bring no new problem, the least drastic first."""
    present = set(technical(plan))

    def mends(changed: Plan) -> bool:
        keeps_a_node = changed.max_gpu_nodes > 0 or plan.max_gpu_nodes == 0
        return keeps_a_node and _within(changed, budget) and set(technical(changed)) <= present

    found: list[str] = []
    if budget == "max_hourly_usd":
        zero: tuple[str, ...] = ()
        for model in sorted(plan.models, key=lambda m: m.gpus):
            if model.state is State.UP and model.gpus:
                zero = (*zero, model.spec.alias)
                if mends(_what_if(plan, {}, zero)):
                    found.append(" && ".join(f"pulumi config set {alias}:replicas 0" for alias in zero))
                    break
    if plan.gpu and not plan.settings.platform.spot and mends(_what_if(plan, {"spot": True})):
        found.append("pulumi config set spot true")
    smaller = (m for m in _smaller(plan, budget) if mends(_what_if(plan, {"machine_type": m})))
    found += [f"pulumi config set machineType {machine}" for machine in islice(smaller, 1)]
    if budget == "max_monthly_usd":
        quotas = range(plan.settings.platform.gpu_quota - 1, 0, -1)
        if quota := next((q for q in quotas if mends(_what_if(plan, {"gpu_quota": q}))), None):
            found.append(f"pulumi config set gpuQuota {quota}")
    key = "maxHourlyUsd" if budget == "max_hourly_usd" else "maxMonthlyUsd"
    found.append(f"pulumi config set {key} {math.ceil(round(cost * 100, 2)) / 100:.2f}")
    return "   # or: ".join(found)


def _smaller(plan: Plan, budget: str) -> Iterator[str]:
    """Machines with as many GPUs and less beside them that hold what the budget is about, the largest first."""
    if plan.gpu is None:
        return
    states = (State.UP,) if budget == "max_hourly_usd" else (State.UP, State.OFF)
    loads = [load for m, load in on_gpu(plan.models) if m.state in states]
    for machine in sorted(G2_MACHINES.values(), key=lambda m: m.vcpus, reverse=True):
        less = machine.gpus == plan.gpu.machine.gpus and machine.vcpus < plan.gpu.machine.vcpus
        if less and not any(load.needs.lacking(machine) for load in loads):
            yield machine.name


def _no_price(item: str, bill: Costs) -> str:
    return f"no price is known for {item} in {bill.region}"


def _price_remedy(plan: Plan, item: str) -> str:
    kind = "spot" if plan.settings.platform.spot and item in G2_MACHINES else "onDemand"
    return f"pulumi config set --path '{plan.settings.project}:prices.{kind}.{item}' <US dollars>"


def prices(plan: Plan) -> Iterator[Notice]:
    """Gaps in the price list, and prices that would not pay for the machine even if it never idled."""
    bill = costs(plan)
    if bill is None:
        return
    for item in () if _has_budget(plan) else bill.unpriced:  # with a budget it is a problem
        yield Notice(f"{_no_price(item, bill)}, so it is missing from every total", _price_remedy(plan, item))
    for model in bill.models:
        if model.at_a_loss and model.throughput:
            yield Notice(
                f"{model.alias} is sold at ${model.price_usd_per_mtok:.3g} per million tokens and costs "
                f"${model.usd_per_mtok:.3g} even if it is never idle, at {model.throughput.tokens_per_second:,.0f} "
                f"tokens a second ({model.throughput.told}): a higher price in models/catalog, or measure",
                f"pulumi config set {model.alias}:tokensPerSecond <measured under load>",
            )
