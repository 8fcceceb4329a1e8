"""The rules of admission: each yields what stands against a plan, and none stops another. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.access import access_notices
from stacks.plan import Plan
from stacks.problems import Notice, Problem
from stacks.rules import budgets, databases, fit, names, nodes, pins, purses, slots, streams, weights

RULES = (
    names.named_cluster,
    names.cloud_names,
    names.namespaces,
    names.aliases,
    databases.databases,
    slots.idle_replicas,
    slots.quota,
    slots.shared_gpu,
    weights.hub,
    weights.node_labels,
    fit.claims,
    fit.refusals,
    pins.pickles,
    nodes.gpu_node,
    nodes.shared_node,
    nodes.system_pool,
)
REMARKS = (  # the gravest first
    names.adopting,
    pins.licences,
    budgets.prices,
    nodes.cramped,
    streams.carries,
    purses.above_the_team,
    purses.small_budgets,
    access_notices,
    pins.unpinned,
)


def problems(plan: Plan) -> Iterator[Problem]:
    """Everything that stands against a plan, but for what is not prepared yet."""
    yield from _technical(plan)
    yield from budgets.budgets(plan, _technical)


def _technical(plan: Plan) -> Iterator[Problem]:
    for rule in RULES:
        yield from rule(plan)


def notices(plan: Plan) -> Iterator[Notice]:
    """What is worth knowing about a plan and does not stop it."""
    for remark in REMARKS:
        yield from remark(plan)
