"""What an engine refuses, and what a model's claim has to hold: true of an entry and its overrides alone."""

from __future__ import annotations

from collections.abc import Iterator

from models.engines.base import Refusal
from stacks.commands import set_command
from stacks.plan import Plan, PlannedModel, State
from stacks.problems import Problem


def refusals(plan: Plan) -> Iterator[Problem]:
    """What no bring-up could ever satisfy, found before ten billed minutes, whether the model is up or not."""
    for model in plan.models:
        for refusal in model.spec.engine.refusals(model.spec):
            # Of a disabled model only what config itself says of it, and can say otherwise.
            if model.state is State.DISABLED and not (_overridden(plan, model) and refusal.settings):
                continue
            yield Problem(refusal.message, _remedy(model, refusal))


def _overridden(plan: Plan, model: PlannedModel) -> bool:
    own = plan.settings.models.get(model.spec.alias)
    return own is not None and bool(own.model_fields_set - {"enabled"})


def _remedy(model: PlannedModel, refusal: Refusal) -> str:
    """The settings that help, the least intrusive first; else the way to do without the model."""
    alias = model.spec.alias
    ways = [
        " && ".join(f"pulumi config set {alias}:{setting} {value}" for setting, value in way.items())
        for way in refusal.settings
    ]
    if ways:
        return "   # or: ".join(ways)
    return (
        f"{set_command(alias, ('enabled',), value=False)}   # nothing that config can set makes it fit; its entry says "
        f"what it needs: ops fit {alias}"
    )


def claims(plan: Plan) -> Iterator[Problem]:
    for model in plan.models:
        if model.state is State.DISABLED or model.workload is None:
            continue
        alias = model.spec.alias
        needed = model.spec.engine.claim_gib(model.spec)
        if model.workload.claim_gib < needed:
            yield Problem(
                f"{alias}:claimGib is {model.workload.claim_gib}, below the {needed} GiB that its weights and a "
                "download in progress need; a claim also never shrinks",
                f"pulumi config rm {alias}:claimGib",
            )
        if model.replicas > 1:
            yield Problem(
                f"{alias}:replicas is {model.replicas}, but its weights are on a ReadWriteOnce claim, which one node "
                "mounts: the other replicas would wait for ever",
                f"pulumi config set {alias}:replicas 1",
            )
