"""A model's entry in the gateway: the fifth part of what every served model wires."""

from __future__ import annotations

from dataclasses import dataclass

from models.facts import Defaults, Price
from models.spec import ModelSpec
from models.tasks import TASKS, Task

PORT = 8000  # of every model's Service


@dataclass(frozen=True)
class Registration:
    """What the gateway has to know of a model. It does not say whether the model is up."""

    alias: str
    served_name: str
    task: Task
    api_base: str  # "http://coder-chat.serving.svc.cluster.local:8000/v1"
    price: Price
    context: int | None
    tools: bool
    images: bool
    constrains: bool  # `response_format` makes it write JSON of a schema
    shorter_vectors: bool  # `dimensions` is heard
    defaults: Defaults
    max_parallel: int | None
    owner: str  # who serves it, as a list of models has it: "vllm"


def registration(spec: ModelSpec, namespace: str) -> Registration:
    """The entry of a model that is served in `namespace`."""
    answers = TASKS[spec.task]
    return Registration(
        alias=spec.alias,
        served_name=spec.served_name,
        task=spec.task,
        api_base=f"http://{spec.alias}.{namespace}.svc.cluster.local:{PORT}/v1",
        price=spec.price,
        context=spec.context,
        tools=answers.tools,
        images=answers.images,
        constrains=answers.generates and spec.engine.constrains,
        shorter_vectors=spec.shortest_vector is not None,
        defaults=spec.defaults,
        max_parallel=spec.max_parallel,
        owner=spec.engine.name(),
    )
