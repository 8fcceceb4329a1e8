"""A model that somebody else serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from models.cold_start import ColdStart
from models.engines.base import Engine, Refusal, Share, Sizing
from models.facts import Image, Throughput
from models.memory.remedies import Remedy
from models.memory.vllm import GpuFit
from models.needs import Needs
from models.tasks import Task

if TYPE_CHECKING:
    from models.spec import ModelSpec


class ExternalProvider(Engine):
    """Reached through the egress gateway, which holds the provider's key."""

    runs_here: ClassVar[bool] = False
    sizing: ClassVar[Sizing | None] = None
    health_route: ClassVar[str] = ""
    identity_route: ClassVar[str] = ""
    metrics_route: ClassVar[str] = ""
    context_setting: ClassVar[str | None] = None
    settable: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHAT, Task.AGENT, Task.VISION})
    constrains: ClassVar[bool] = False

    kind: Literal["external"] = "external"
    provider: Literal["anthropic"]

    @property
    def gpus_held(self) -> int:
        return 0

    @property
    def images(self) -> tuple[Image, ...]:
        return ()

    @property
    def share(self) -> Share | None:
        return None

    def needs(self, spec: ModelSpec) -> Needs | None:
        return None

    def cold_start(self, spec: ModelSpec) -> ColdStart | None:
        return None

    def assumed_throughput(self, spec: ModelSpec) -> Throughput | None:
        return None

    def refusals(self, spec: ModelSpec) -> Iterator[Refusal]:
        yield from ()

    def fit(self, spec: ModelSpec) -> GpuFit | None:
        return None

    def remedies(self, spec: ModelSpec) -> tuple[Remedy, ...]:
        return ()

    def flags(self, spec: ModelSpec) -> Mapping[str, int | float | bool | str]:
        return {}
