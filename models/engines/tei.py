"""Hugging Face text-embeddings-inference on CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from models.cold_start import CPU_NODE_S, ColdStart, cold_start
from models.engines.base import CpuEngine, Refusal, Sizing
from models.facts import Image, Throughput
from models.images import TEI_CPU
from models.memory.tei import CONCURRENT_INPUTS, encoder_gib
from models.needs import LOGS_GIB, TMP_GIB, Needs
from models.tasks import TASKS, Task
from models.throughput import assumed, cpu_tokens_per_second, usual
from models.weights import EncoderArchitecture, Weights

if TYPE_CHECKING:
    from models.spec import ModelSpec

_START_S = 120  # load and warm-up with an input of full length


class TeiEngine(CpuEngine):
    """text-embeddings-inference's router on CPU."""

    sizing: ClassVar[Sizing | None] = Sizing.TEI
    health_route: ClassVar[str] = "/health"
    identity_route: ClassVar[str] = "/info"  # it has no list of models
    metrics_route: ClassVar[str] = "/metrics"
    context_setting: ClassVar[str | None] = None
    settable: ClassVar[tuple[str, ...]] = ("max_batch_tokens", "max_client_batch_size")
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.EMBEDDING, Task.RERANK})
    constrains: ClassVar[bool] = False

    kind: Literal["tei"] = "tei"
    image: Image = TEI_CPU
    pooling: Literal["cls", "mean", "last-token"] | None  # of the vectors of tokens to one; None: nothing is embedded
    max_batch_tokens: int = Field(ge=1)  # tokens of one forward pass; warm-up allocates for all of them
    max_client_batch_size: int = Field(default=1000, ge=1)  # inputs of one request: what LangChain sends at most
    # It counts inputs, those of a batch too. While fewer than a batch has are let in, a single one is a 429.
    max_concurrent_requests: int = Field(default=CONCURRENT_INPUTS, ge=1)
    auto_truncate: bool = True  # longer inputs are cut at the context instead of refused
    cpu: float = Field(gt=0)  # cores requested

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image,)  # the staging image is the gateway's, which is on the node already

    def needs(self, spec: ModelSpec) -> Needs | None:
        _, arch = encoder(spec)
        if (self.pooling is None) == TASKS[spec.task].vectors:
            raise ValueError(f"{spec.alias}: pooling is for embeddings, which need one, and for nothing else")
        context = spec.context or arch.max_positions
        inputs = max(self.max_concurrent_requests, self.max_client_batch_size)
        gib = encoder_gib(arch, max_batch_tokens=self.max_batch_tokens, context=context, inputs=inputs)
        return Needs(cpu=self.cpu, gib=math.ceil(gib * 10) / 10, ephemeral_gib=TMP_GIB + LOGS_GIB)

    def cold_start(self, spec: ModelSpec) -> ColdStart | None:
        weights, _ = encoder(spec)
        return cold_start(weights.bytes_on_disk, self.images, node_s=CPU_NODE_S, start_s=_START_S)

    def assumed_throughput(self, spec: ModelSpec) -> Throughput | None:
        weights, arch = encoder(spec)
        onnx = weights.format == "onnx"
        rate = cpu_tokens_per_second(arch, self.cpu, onnx=onnx)
        how = f"operations a token on the cores requested, {'ONNX Runtime' if onnx else 'candle'}"
        return assumed(rate, usual(spec.context, generates=False), how)

    def refusals(self, spec: ModelSpec) -> Iterator[Refusal]:
        """It cuts what does not fit its batch, and says nothing (router/src/main.rs from 1.8.3)."""
        if spec.context and self.max_batch_tokens < spec.context:
            yield Refusal(
                f"{spec.alias}:maxBatchTokens is {self.max_batch_tokens}, below the context of {spec.context} "
                "tokens: longer inputs would lose their end without a word, and their embeddings mean something else",
                ({"maxBatchTokens": str(spec.context)},),
            )

    def flags(self, spec: ModelSpec) -> Mapping[str, int | float | bool | str]:
        context = spec.context or encoder(spec)[1].max_positions
        return {"max_model_len": context, "max_num_batched_tokens": self.max_batch_tokens}


def encoder(spec: ModelSpec) -> tuple[Weights, EncoderArchitecture]:
    """The weights of an encoder. Raises ValueError for an entry that is none."""
    weights = spec.weights
    if weights is None or not isinstance(weights.architecture, EncoderArchitecture):
        raise ValueError(f"{spec.alias} is no encoder, which is all that this engine serves here")
    return weights, weights.architecture
