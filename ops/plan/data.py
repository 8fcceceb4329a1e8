"""A plan for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from models.facts import Load
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from models.memory.vllm import GpuFit
from ops.engine import Registered
from stacks.access import effective, expand
from stacks.admission import Admission
from stacks.costs import Costs, Line, ModelCost, costs
from stacks.plan import Plan, PlannedModel, gateway_needs, gpu_holds, system_holds
from stacks.sections import Access


def plan_data(admission: Admission, resources: Sequence[Registered]) -> dict[str, Any]:
    """Everything of a plan that `--format json` prints. With problems there are no resources."""
    plan = admission.plan
    bill = costs(plan)
    by_alias = {model.alias: model for model in bill.models} if bill else {}
    known = {model.spec.alias for model in plan.models}
    return {
        "project": plan.settings.project,
        "stack": plan.settings.stack,
        # The program registers what depends on nothing at once, in any order.
        "resources": [_resource(r) for r in sorted(resources, key=lambda r: r.urn)],
        "models": [
            {**_model(m, known), "overlay": _overlay(plan, m), "cost": _model_cost(by_alias.get(m.spec.alias))}
            for m in plan.models
        ],
        "machines": {
            "gpu": {
                "type": plan.gpu.machine.name,
                "maxNodes": plan.max_gpu_nodes,
                "slots": plan.gpu_slots,
                "roomForTwo": plan.holds_two_gpu_nodes,
                "spot": plan.settings.platform.spot,
                "reason": plan.gpu.reason,
                "asked": plan.gpu.asked,
                "holding": [name for name in G2_MACHINES if gpu_holds(plan, name)],
            }
            if plan.gpu
            else None,
            "system": {
                "type": plan.system.machine.name,
                "nodes": plan.settings.platform.system_nodes,
                "reason": plan.system.reason,
                "asked": plan.system.asked,
                "holding": [name for name in SYSTEM_MACHINES if system_holds(plan, name)],
            },
            "gateway": {
                "replicas": plan.settings.platform.gateway.replicas,
                "cpu": gateway_needs(plan.settings, plan.models).cpu,
            },
        },
        "costs": _costs(bill) if bill else None,
        "limits": {
            "maxHourlyUsd": plan.settings.platform.max_hourly_usd,
            "maxMonthlyUsd": plan.settings.platform.max_monthly_usd,
        },
        "access": _access(plan),
        "problems": [asdict(p) for p in admission.problems],
        "notices": [asdict(n) for n in admission.notices],
    }


def _resource(resource: Registered) -> dict[str, Any]:
    return {
        "urn": resource.urn,
        "type": resource.type,
        "name": resource.name,
        "parent": resource.parent,
        "provider": resource.provider.rpartition("::")[0],
        "inputs": resource.inputs,
        "dependencies": list(resource.dependencies),
        "protect": resource.protect,
        "retainOnDelete": resource.retain_on_delete,
        "ignoreChanges": list(resource.ignore_changes),
    }


def _access(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """Teams and keys by alias: the models that they reach, and for how much."""
    platform = plan.settings.platform
    return {
        "teams": {alias: _entry(team, expand(plan, team.models)) for alias, team in platform.teams.items()},
        "keys": {
            alias: {
                **_entry(key, effective(plan, key.models, key.team)),
                "team": key.team if key.team in platform.teams else None,
            }
            for alias, key in platform.keys.items()
        },
    }


def _entry(access: Access, models: list[str]) -> dict[str, Any]:
    return {
        "models": models,
        "maxBudgetUsd": access.max_budget_usd,
        "budgetPeriod": access.budget_period if access.max_budget_usd else None,
        "tokensPerMinute": access.tokens_per_minute,
        "requestsPerMinute": access.requests_per_minute,
    }


def _model(model: PlannedModel, known: Collection[str]) -> dict[str, Any]:
    spec, load = model.spec, model.workload
    return {
        "alias": spec.alias,
        "group": spec.group,
        "task": spec.task.value,
        "engine": spec.engine.kind,
        "replicas": model.replicas,
        "gpus": spec.gpus,
        "state": model.state.value,
        "fallback": model.fallback if model.fallback in known else None,  # of a plan that is refused: any text
        "modelId": spec.model_id,
        "revision": spec.weights.revision if spec.weights else None,
        "servedName": spec.served_name,
        "context": spec.context,
        "claimGib": load.claim_gib if load else None,
        "memoryGib": load.needs.gib if load else None,
        "coldStartSeconds": load.cold_start.progress_deadline if load else None,
        "elsewhereSeconds": load.cold_start.elsewhere if load else None,
        "fit": _fit(model),
        "price": spec.price.model_dump(),
        "licence": spec.licence.name,
    }


def _overlay(plan: Plan, model: PlannedModel) -> dict[str, Any] | None:
    """What of its entry is this checkout's own; None for one of the catalog."""
    found = plan.overlaid.get(model.spec.alias)
    return found and {"file": found.file, "line": found.line, "fields": list(found.fields)}


def fit_of(model: PlannedModel) -> GpuFit | None:
    """Of one replica on its GPU; None where it needs none, or where its engine refuses its flags anyway."""
    try:
        return model.spec.engine.fit(model.spec)
    except ValueError:
        return None


def _fit(model: PlannedModel) -> dict[str, Any] | None:
    fit = fit_of(model)
    return fit and {
        "fits": fit.fits,
        "kvCacheGib": round(fit.kv_cache_gib, 2),
        "kvCacheTokens": fit.kv_cache_tokens,
        "maxModelLen": fit.max_model_len,
    }


def _model_cost(cost: ModelCost | None) -> dict[str, Any] | None:
    """None where nothing of a model runs, or where it costs nothing."""
    if cost is None:
        return None
    rate = cost.throughput
    return {
        "usdPerHour": cost.usd_per_hour,
        "tokensPerSecond": rate.tokens_per_second if rate else None,
        "throughputEvidence": rate.source.evidence.value if rate else None,
        "throughputAt": _load(rate.at) if rate else None,
        "usdPerMtok": cost.usd_per_mtok,
        "priceUsdPerMtok": cost.price_usd_per_mtok,
        "atALoss": cost.at_a_loss,
    }


def _load(load: Load) -> dict[str, int | None]:
    return {"promptTokens": load.prompt_tokens, "outputTokens": load.output_tokens, "streams": load.streams}


def _costs(bill: Costs) -> dict[str, Any]:
    return {
        "region": bill.region,
        "pricesAsOf": str(bill.as_of),
        "pricesByConfig": list(bill.overridden),
        "pricesByConfigAsOf": str(bill.overridden_as_of) if bill.overridden_as_of else None,
        "idleUsdPerMonth": bill.idle_usd_per_month,
        "usdPerHourNow": bill.usd_per_hour_now,
        "worstCaseUsdPerMonth": bill.worst_case_usd_per_month,
        "unpriced": list(bill.unpriced),
        "idle": [_line(line) for line in bill.idle],
        "gpuNodesNow": bill.nodes_now,
        "gpuNow": [_line(line) for line in bill.now],
        "gpuNodesAtWorst": bill.nodes_at_worst,
        "gpuAtWorst": [_line(line) for line in bill.at_worst],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "what": line.what,
        "item": str(line.item),
        "quantity": line.quantity,
        "unit": line.unit,
        "unitUsd": line.unit_usd,
        "usdPerMonth": round(line.usd, 4),
        "evidence": line.basis,
    }
