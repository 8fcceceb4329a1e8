"""The plan: what a stack will run, with everything decided that follows from settings and catalog. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from components.gateway import litellm_gateway, postgres
from models.cold_start import ColdStart
from models.gateway_streams import Streams, proxy_cpu
from models.images import LITELLM, POSTGRES, VLLM
from models.machines import CLUSTER_AGENTS, G2_MACHINES, SYSTEM_MACHINES, Machine
from models.needs import Needs
from models.spec import ModelSpec
from models.tasks import TASKS
from stacks.secrets import (
    DATABASE_PASSWORD,
    HUGGING_FACE_TOKEN,
    MASTER_KEY,
    REGISTRY_LOGIN,
    SALT_KEY,
    SERVING_API_KEY,
    SecretKey,
)
from stacks.sections import Overrides
from stacks.settings import Settings

if TYPE_CHECKING:
    from models.catalog.overlay import Overlaid


class State(StrEnum):
    """Where a model of the catalog stands in a plan."""

    UP = "up"
    OFF = "off"  # deployed at zero replicas, costs its claim
    DISABLED = "disabled"  # neither it nor its group is enabled: nothing of it exists but a kept claim
    EXTERNAL = "external"  # registered, runs elsewhere


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a model that runs here is deployed with."""

    needs: Needs
    cold_start: ColdStart
    claim_gib: int


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A catalog entry as this stack runs it, overrides applied."""

    spec: ModelSpec
    replicas: int
    state: State
    workload: Workload | None  # None: nothing of it runs here
    fallback: str | None = None  # alias that serves in its place while it is off
    pickle_allowed: bool = False  # config takes weights that are a program

    @property
    def gpus(self) -> int:
        """GPUs that its replicas hold."""
        return self.replicas * self.spec.gpus

    @cached_property
    def streams(self) -> Streams | None:
        """What one replica writes under load; None where it writes nothing here, or nobody can say how much."""
        if not TASKS[self.spec.task].generates or not self.workload:
            return None
        try:
            rate = self.spec.expected_throughput
        except ValueError:  # of flags that are refused anyway
            return None
        if rate is None or not rate.at.output_tokens:
            return None
        written = rate.at.output_tokens / (rate.at.prompt_tokens + rate.at.output_tokens)
        return Streams(rate.tokens_per_second * written, self.spec.engine.tokens_a_chunk, rate.at.output_tokens)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A machine type, and why it is this one."""

    machine: Machine
    reason: str
    asked: bool = False  # config names it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be deployed. `gpu` is None where the quota is zero."""

    settings: Settings
    models: tuple[PlannedModel, ...]  # the whole catalog, disabled ones too
    gpu: Choice | None
    system: Choice
    secrets: tuple[SecretKey, ...]  # those that this plan needs
    overlaid: Mapping[str, Overlaid] = field(default_factory=dict[str, "Overlaid"])  # what this checkout has for itself

    @property
    def max_gpu_nodes(self) -> int:
        """Nodes that the GPU pool may grow to: the quota in machines."""
        return self.settings.platform.gpu_quota // self.gpu.machine.gpus if self.gpu else 0

    @property
    def gpu_slots(self) -> int:
        """GPUs that models may hold at once; one that is shared counts for each that shares it."""
        return self.settings.platform.gpu_quota * self.settings.platform.gpu_sharing_clients

    @property
    def holds_two_gpu_nodes(self) -> bool:
        """Whether the quota has room for as many GPUs again as models hold: a move to other nodes needs both."""
        held = sum(model.gpus for model in self.models if model.state is State.UP)
        gpus = math.ceil(held / self.settings.platform.gpu_sharing_clients)
        return self.gpu is not None and self.settings.platform.gpu_quota >= 2 * max(gpus, self.gpu.machine.gpus)

    @property
    def deployed(self) -> tuple[PlannedModel, ...]:
        """Enabled models: one by one, or with their group."""
        return tuple(model for model in self.models if model.state is not State.DISABLED)

    @property
    def local(self) -> str | None:
        """Enabled models that are otherwise here than in the catalog: "models.local.yaml: coder-chat (context)"."""
        told = [(m.spec.alias, self.overlaid[m.spec.alias]) for m in self.deployed if m.spec.alias in self.overlaid]
        if not told:
            return None
        return f"{told[0][1].file}: {', '.join(f'{alias} ({found.what})' for alias, found in told)}"

    @property
    def registries(self) -> tuple[str, ...]:
        """Host names of the public registries that have its images, but for those that config names a mirror of."""
        images = (LITELLM, POSTGRES, VLLM, *(image for m in self.deployed for image in m.spec.engine.images))
        return tuple(sorted({image.registry for image in images} - self.settings.platform.images.mirrors.keys()))


def make_plan(
    settings: Settings, catalog: Mapping[str, ModelSpec], overlaid: Mapping[str, Overlaid] | None = None
) -> Plan:
    """What these settings ask for, whether or not it can be had."""
    models = tuple(_planned(spec, settings) for spec in catalog.values())
    return Plan(
        settings=settings,
        models=models,
        gpu=_gpu_machine(settings, models),
        system=_system_machine(settings, models),
        secrets=_needed_secrets(settings, models),
        overlaid=overlaid or {},
    )


def _planned(entry: ModelSpec, settings: Settings) -> PlannedModel:
    overrides = settings.models.get(entry.alias, Overrides())
    spec = overrides.apply(entry)
    own = overrides.asked_enabled
    enabled = settings.platform.groups.get(spec.group, False) if own is None else own
    replicas = overrides.asked_replicas
    if not enabled:
        state = State.DISABLED
    elif not spec.engine.runs_here:
        state = State.EXTERNAL
    else:
        state = State.UP if replicas else State.OFF
    return PlannedModel(
        spec=spec,
        replicas=replicas,
        state=state,
        workload=_workload(spec, overrides),
        fallback=overrides.asked_fallback,
        pickle_allowed=overrides.asked_pickle,
    )


def _workload(spec: ModelSpec, overrides: Overrides) -> Workload | None:
    """None where nothing of it runs here."""
    needs, cold_start = spec.engine.needs(spec), spec.engine.cold_start(spec)
    if needs is None or cold_start is None:
        return None
    claim = overrides.asked_claim_gib or spec.engine.claim_gib(spec)
    return Workload(needs=needs, cold_start=cold_start, claim_gib=claim)


def on_gpu(models: tuple[PlannedModel, ...]) -> list[tuple[PlannedModel, Workload]]:
    """Enabled models that need a GPU, up or not."""
    return [(m, m.workload) for m in models if m.state in (State.UP, State.OFF) and m.workload and m.spec.gpus]


def on_cpu(models: tuple[PlannedModel, ...]) -> list[tuple[PlannedModel, Workload]]:
    """Enabled models that run on the system pool, up or not."""
    return [(m, m.workload) for m in models if m.state in (State.UP, State.OFF) and m.workload and not m.spec.gpus]


def _gpu_machine(settings: Settings, models: tuple[PlannedModel, ...]) -> Choice | None:
    """The shape from config, or the smallest that holds every enabled GPU model."""
    if settings.platform.gpu_quota == 0:
        return None
    asked = settings.platform.machine_type
    if asked != "auto":
        return Choice(machine=G2_MACHINES[asked], reason="set by machineType", asked=True)
    shapes = list(G2_MACHINES.values())
    gpu_models = on_gpu(models)
    reason = "the smallest with an L4"
    for machine in shapes:
        lacking = [(m, found) for m, load in gpu_models if (found := load.needs.lacking(machine))]
        if not lacking:
            return Choice(machine=machine, reason=reason)
        model, found = lacking[-1]
        reason = f"the smallest that holds every enabled model: {model.spec.alias} needs {found}"
    return Choice(machine=shapes[-1], reason=f"the largest there is, and still too small: {reason}")


def gateway_needs(settings: Settings, models: tuple[PlannedModel, ...]) -> Needs:
    """Requests of a replica of the gateway, by what the enabled models write that the GPUs hold at once.

    By enabled and not by up: a model that is scaled does not roll the gateway. Those that share a GPU take turns.
    """
    platform = settings.platform
    written = [m.streams for m in models if m.state in (State.UP, State.OFF) and m.streams]
    cpu = proxy_cpu(written, max(1, platform.gpu_quota), platform.gateway.replicas)
    return replace(litellm_gateway.NEEDS, cpu=cpu)


def system_needs(settings: Settings, models: tuple[PlannedModel, ...], *, all_on: bool) -> list[tuple[str, Needs]]:
    """Pods of the system pool at their busiest: one more gateway while it rolls."""
    gateway = [(litellm_gateway.APP, gateway_needs(settings, models))] * (settings.platform.gateway.replicas + 1)
    database = [(postgres.APP, postgres.NEEDS)] if settings.platform.gateway.database == "in-cluster" else []
    cpu_models = [
        (model.spec.alias, load.needs)
        for model, load in on_cpu(models)
        for _ in range(model.replicas or (1 if all_on else 0))
    ]
    return [*gateway, *database, *cpu_models]


def system_fits(machine: Machine, nodes: int, pods: list[tuple[str, Needs]]) -> bool:
    """Whether the pods fit, largest first, each on the first node with room (as the scheduler can always do)."""
    free = [[machine.pod_cpu, machine.pod_gib] for _ in range(nodes)]
    free[0][0] -= CLUSTER_AGENTS.cpu
    free[0][1] -= CLUSTER_AGENTS.gib
    for _, pod in sorted(pods, key=lambda pair: pair[1].gib, reverse=True):
        node = next((n for n in free if n[0] >= pod.cpu and n[1] >= pod.gib), None)
        if node is None:
            return False
        node[0] -= pod.cpu
        node[1] -= pod.gib
    return True


def system_holds(plan: Plan, machine: str) -> bool:
    """Whether a system pool of such machines holds what is up."""
    pods = system_needs(plan.settings, plan.models, all_on=False)
    return machine in SYSTEM_MACHINES and system_fits(
        SYSTEM_MACHINES[machine], plan.settings.platform.system_nodes, pods
    )


def gpu_holds(plan: Plan, machine: str) -> bool:
    """Whether a GPU pool of such machines holds each model that is up."""
    up = (load for model, load in on_gpu(plan.models) if model.state is State.UP)
    return machine in G2_MACHINES and not any(load.needs.lacking(G2_MACHINES[machine]) for load in up)


def _system_machine(settings: Settings, models: tuple[PlannedModel, ...]) -> Choice:
    """The shape from config, or the smallest that holds the gateway and every enabled CPU model."""
    asked, nodes = settings.platform.system_machine_type, settings.platform.system_nodes
    if asked != "auto":
        return Choice(machine=SYSTEM_MACHINES[asked], reason="set by systemMachineType", asked=True)
    pods = system_needs(settings, models, all_on=True)
    shapes = list(SYSTEM_MACHINES.values())
    machine = next((m for m in shapes if system_fits(m, nodes, pods)), shapes[-1])
    return Choice(machine=machine, reason=f"the smallest that holds the gateway and {_names(on_cpu(models))}")


def _names(models: list[tuple[PlannedModel, Workload]]) -> str:
    return ", ".join(model.spec.alias for model, _ in models) or "no CPU model"


def _needed_secrets(settings: Settings, models: tuple[PlannedModel, ...]) -> tuple[SecretKey, ...]:
    gated = any(m.spec.weights and m.spec.weights.gated for m in models if m.state is not State.DISABLED)
    asked = [*((HUGGING_FACE_TOKEN,) if gated else ()), *((REGISTRY_LOGIN,) if settings.platform.images.login else ())]
    return (MASTER_KEY, SALT_KEY, DATABASE_PASSWORD, SERVING_API_KEY, *asked)
