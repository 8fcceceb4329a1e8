"""Which component serves the models of an engine: the one place where the two meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pulumi

from components.serving.llama_cpp import LlamaCppModel
from components.serving.model_workload import ModelArgs
from components.serving.registration import Registration
from components.serving.tei_embeddings import TeiEmbeddings
from components.serving.vllm_model import VllmModel, VllmModelArgs
from models.engines.base import Engine
from models.engines.llama_cpp import LlamaCppEngine
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The GPU that a model may hold: the shape of its node, and the Deployments that have to let go of it first."""

    machine_type: str
    after: Sequence[pulumi.Resource]
    node_labels: Mapping[str, str] = field(default_factory=dict[str, str])  # of its node, in place of GKE's
    asked: bool = True  # config names the machine
    waits: bool = False  # the quota does not hold another node beside its own


class Served(Protocol):
    """What every component that serves a model has."""

    @property
    def registration(self) -> Registration:
        """Its entry in the gateway."""
        ...

    @property
    def deployment(self) -> pulumi.Resource:
        """What the slot is held by."""
        ...


def _vllm(args: ModelArgs, slot: Slot, opts: pulumi.ResourceOptions) -> Served:
    gpu = VllmModelArgs(
        model=args,
        machine_type=slot.machine_type,
        after=slot.after,
        node_labels=slot.node_labels,
        asked=slot.asked,
        waits=slot.waits,
    )
    return VllmModel(args.spec.alias, gpu, opts=opts)


def _tei(args: ModelArgs, slot: Slot, opts: pulumi.ResourceOptions) -> Served:
    return TeiEmbeddings(args.spec.alias, args, opts=opts)


def _llama_cpp(args: ModelArgs, slot: Slot, opts: pulumi.ResourceOptions) -> Served:
    return LlamaCppModel(args.spec.alias, args, opts=opts)


COMPONENTS: Mapping[type[Engine], Callable[[ModelArgs, Slot, pulumi.ResourceOptions], Served]] = {
    VllmEngine: _vllm,
    TeiEngine: _tei,
    LlamaCppEngine: _llama_cpp,
}
