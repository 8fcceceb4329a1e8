"""The question list: what everybody asks of an engine, and every engine answers for the entries that run on it.

An engine is a type of a catalog entry with its answers beside its fields. Nobody outside asks which engine it is: they
ask it. A type that lacks an answer cannot be made (`tests/models/test_questions.py` names it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Self

from models.cold_start import ColdStart
from models.facts import Image, Spec, Throughput
from models.memory.gpus import Card
from models.memory.host import disk_gib
from models.memory.remedies import Remedy
from models.memory.vllm import GpuFit
from models.needs import Needs
from models.tasks import Task

if TYPE_CHECKING:
    from models.spec import ModelSpec


class Sizing(StrEnum):
    """Which memory model sizes an engine: what `ops fit` computes for it."""

    VLLM = "vllm"
    TEI = "tei"
    LLAMA_CPP = "llama.cpp"


@dataclass(frozen=True)
class Refusal:
    """Why an entry can never run as it stands, whatever else is up.

    `settings` are the ways out, the least intrusive first: each a setting of the model to its value. Empty: nothing
    that config can set helps.
    """

    message: str
    settings: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Share:
    """What a replica claims of a GPU's memory, where several share one."""

    of_one: float
    setting: str  # in config, that changes it


class Engine(Spec, ABC):
    """What serves a model."""

    runs_here: ClassVar[bool]  # False: somebody else's machine, so nothing is deployed
    sizing: ClassVar[Sizing | None]
    health_route: ClassVar[str]  # answers 200 once it serves; the routes are empty where nothing runs here
    identity_route: ClassVar[str]  # says which model it serves
    metrics_route: ClassVar[str]  # Prometheus metrics, on the port of the API
    context_setting: ClassVar[str | None]  # name of the context in config; None: config cannot change it
    settable: ClassVar[tuple[str, ...]]  # own fields that config may override
    tasks: ClassVar[frozenset[Task]]  # what a model on it may be for
    constrains: ClassVar[bool]  # whether `response_format` makes it write JSON of a schema

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """This engine of an entry. Raises TypeError for an entry of another."""
        if not isinstance(spec.engine, cls):
            raise TypeError(f"{spec.alias} runs on {spec.engine.name()}, not on {cls.name()}")
        return spec.engine

    @classmethod
    def name(cls) -> str:
        """As config, plans and tables have it: "vllm"."""
        return str(cls.model_fields["kind"].default)

    @property
    @abstractmethod
    def gpus_held(self) -> int:
        """GPUs that one replica holds."""

    @property
    @abstractmethod
    def images(self) -> tuple[Image, ...]:
        """What a node pulls for it, the engine's own first; empty where nothing runs here."""

    @property
    @abstractmethod
    def share(self) -> Share | None:
        """What it claims of a GPU's memory; None without a GPU."""

    @abstractmethod
    def needs(self, spec: ModelSpec) -> Needs | None:
        """Requests of one replica; None where nothing runs here."""

    @abstractmethod
    def cold_start(self, spec: ModelSpec) -> ColdStart | None:
        """The budget from nothing to an answer; None where nothing runs here."""

    @abstractmethod
    def assumed_throughput(self, spec: ModelSpec) -> Throughput | None:
        """Tokens a second of one replica under load, estimated; None where nothing runs here.

        Raises ValueError for flags that make no sense, which `refusals` tells.
        """

    @abstractmethod
    def refusals(self, spec: ModelSpec) -> Iterator[Refusal]:
        """Why the entry could never run with these fields, whatever else is up."""

    @abstractmethod
    def fit(self, spec: ModelSpec) -> GpuFit | None:
        """Where its GPU's memory goes; None without a GPU. Raises ValueError for flags that the engine refuses."""

    @abstractmethod
    def remedies(self, spec: ModelSpec) -> tuple[Remedy, ...]:
        """What would make it fit its GPU, the least intrusive first."""

    @abstractmethod
    def flags(self, spec: ModelSpec) -> Mapping[str, int | float | bool | str]:
        """What it is served with, in the words of `ops fit` ("max_model_len"), for those of its flags that size it."""

    def fits_card(self, spec: ModelSpec, card: Card) -> bool:
        """Whether it fits another GPU than the one that its nodes have."""
        return False

    def adapted(self, spec: ModelSpec) -> ModelSpec:
        """An entry of the same engine served by this one, with what follows from its other fields."""
        return spec.model_copy(update={"engine": self})

    @property
    def tokens_a_chunk(self) -> int:
        """Tokens in a chunk of a stream."""
        return 1

    @property
    def most_tokens_a_chunk(self) -> int:
        """As many as config may ask for."""
        return 1

    def claim_gib(self, spec: ModelSpec) -> int:
        """Size of the claim that holds its weights, whole GiB; 0 where nothing is stored on one."""
        return disk_gib(spec.weights.bytes_on_disk) if spec.weights else 0


class CpuEngine(Engine):
    """What serves a model on the system pool: the questions about a GPU are answered."""

    runs_here: ClassVar[bool] = True

    @property
    def gpus_held(self) -> int:
        return 0

    @property
    def share(self) -> Share | None:
        return None

    def fit(self, spec: ModelSpec) -> GpuFit | None:
        return None

    def remedies(self, spec: ModelSpec) -> tuple[Remedy, ...]:
        return ()
