"""A plan for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ops.plan.engine import Registered
from stacks.admission import Admission
from stacks.plan import PlannedModel


def plan_data(admission: Admission, resources: Sequence[Registered]) -> dict[str, Any]:
    """Everything of a plan that `--format json` prints. With problems there are no resources."""
    plan = admission.plan
    return {
        "project": plan.settings.project,
        "stack": plan.settings.stack,
        "resources": [_resource(r) for r in resources],
        "models": [_model(m) for m in plan.models],
        "machines": {
            "gpu": {"type": plan.gpu.machine.name, "maxNodes": plan.max_gpu_nodes, "reason": plan.gpu.reason}
            if plan.gpu
            else None,
            "system": {
                "type": plan.system.machine.name,
                "nodes": plan.settings.platform.system_nodes,
                "reason": plan.system.reason,
            },
        },
        "problems": [asdict(p) for p in admission.problems],
        "notices": [asdict(n) for n in admission.notices],
    }


def _resource(resource: Registered) -> dict[str, Any]:
    return {
        "urn": resource.urn,
        "type": resource.type,
        "name": resource.name,
        "parent": resource.parent,
        "inputs": resource.inputs,
        "dependencies": list(resource.dependencies),
        "protect": resource.protect,
        "retainOnDelete": resource.retain_on_delete,
    }


def _model(model: PlannedModel) -> dict[str, Any]:
    spec, load = model.spec, model.workload
    return {
        "alias": spec.alias,
        "group": spec.group,
        "engine": spec.engine.kind,
        "replicas": model.replicas,
        "gpus": spec.gpus,
        "state": model.state.value,
        "modelId": spec.model_id,
        "revision": spec.weights.revision if spec.weights else None,
        "servedName": spec.served_name,
        "context": spec.context,
        "claimGib": load.claim_gib if load else None,
        "memoryGib": load.needs.gib if load else None,
        "coldStartSeconds": load.cold_start.progress_deadline if load else None,
        "price": spec.price.model_dump(),
        "licence": spec.licence.name,
    }
