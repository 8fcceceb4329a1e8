"""A catalog entry: everything that is known about one model, and nothing that follows from it.

An entry reads like a data sheet: which model, which engine with which arguments, what its weights are, what a
token costs, what was measured, and where each fact was read. Everything else (command line, Service, claim
size, gateway registration, probes, tables in the docs) is derived from it elsewhere.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from models.engines import AnyEngine
from models.facts import Alias, Defaults, Evaluation, Licence, ModelId, Price, Slo, Source, Spec, Throughput
from models.tasks import TASKS, Task
from models.weights import Weights


class ModelSpec(Spec):
    """One model of the catalog."""

    alias: Alias  # what tenants call it, and the name of its objects in the cluster
    group: str  # enabled together, `ai-platform:groups.<group>`, unless `<alias>:enabled` says otherwise
    summary: str
    task: Task
    model_id: ModelId  # "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
    served_name: ModelId  # what the engine answers to; never the alias, so that a bypass of the gateway shows
    engine: AnyEngine
    context: int | None = Field(gt=0)  # tokens a request may span; None: the provider's own limit
    weights: Weights | None  # None: nothing of it is stored here
    price: Price
    defaults: Defaults = Defaults()  # what a request generates by where it says nothing else
    max_parallel: int | None = Field(default=None, ge=1)  # requests at once of each gateway replica; others get a 429
    shortest_vector: int | None = Field(default=None, ge=1)  # that clients may ask for; None: whole vectors only
    throughput: Throughput | None = None  # measured on this engine and GPU; None: nobody did, so it is assumed
    slo: Slo = Slo(note="none is set")
    evaluation: Evaluation = Evaluation(status="none", result="nobody has evaluated it here")
    licence: Licence
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.served_name == self.alias:
            raise ValueError(f"{self.alias}: served_name equals the alias; give the engine's own name")
        if self.engine.runs_here != (self.weights is not None):
            raise ValueError(f"{self.alias}: weights are for engines that run here, and only for them")
        if self.engine.runs_here and self.context is None:
            raise ValueError(f"{self.alias}: context is required for an engine that runs here")
        if self.task not in self.engine.tasks:
            raise ValueError(f"{self.alias}: {self.engine.name()} serves {', '.join(sorted(self.engine.tasks))}")
        if self.defaults.asked and not TASKS[self.task].generates:
            raise ValueError(f"{self.alias}: defaults are for what generates, and {self.task} does not")
        if self.shortest_vector and not TASKS[self.task].vectors:
            raise ValueError(f"{self.alias}: shortest_vector is for embeddings, not for {self.task}")
        if self.weights and self.context and self.context > self.weights.architecture.max_positions:
            raise ValueError(
                f"{self.alias}: context {self.context} exceeds the model's "
                f"{self.weights.architecture.max_positions} positions"
            )
        # An engine that does not serve such weights says so here, and not in the middle of a plan.
        self.engine.needs(self)
        if not isinstance(self.price, TASKS[self.task].prices):
            kinds = " or ".join(kind.__name__ for kind in TASKS[self.task].prices)
            raise ValueError(f"{self.alias}: {self.task} is sold {kinds}, not {type(self.price).__name__}")
        return self

    @property
    def gpus(self) -> int:
        """GPUs that one replica holds."""
        return self.engine.gpus_held

    @property
    def expected_throughput(self) -> Throughput | None:
        """Tokens a second of one replica: measured, else assumed. Raises ValueError as `assumed_throughput` does."""
        return self.throughput or self.engine.assumed_throughput(self)
