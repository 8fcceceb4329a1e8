"""llama.cpp on CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from models.cold_start import CPU_NODE_S, ColdStart, cold_start
from models.cpu_speed import cpu_throughput
from models.engines.base import CpuEngine, Refusal, Sizing
from models.facts import FileName, HexDigest, Image, Spec, Throughput
from models.images import LLAMA_CPP
from models.memory.llama_cpp import UBATCH, GgufMemory, gguf_memory
from models.needs import LOGS_GIB, TMP_GIB, Needs
from models.tasks import Task
from models.throughput import usual
from models.weights import DecoderArchitecture, Weights

if TYPE_CHECKING:
    from models.spec import ModelSpec

_START_S = 120  # the file read once more while its tensors are laid out for the CPU, and a first pass
# Of a core, requested for each thread: a machine with as many vCPUs keeps a part for itself, and what is idle is taken.
_CPU_A_THREAD = 0.7


class GgufFile(Spec):
    """One file of a repository: the whole model at one quantisation."""

    quantization: str = Field(pattern=r"^\w+$", max_length=40)  # "Q4_K_M"
    file: FileName  # as the repository spells it: another case is another file
    bytes_on_disk: int = Field(gt=0)
    sha256: HexDigest | None  # None: no public source had it; the hub's own is checked all the same


class LlamaCppEngine(CpuEngine):
    """llama.cpp's server on CPU."""

    sizing: ClassVar[Sizing | None] = Sizing.LLAMA_CPP
    health_route: ClassVar[str] = "/health"
    identity_route: ClassVar[str] = "/v1/models"
    metrics_route: ClassVar[str] = "/metrics"  # which wants the key, as all but the health does
    context_setting: ClassVar[str | None] = "context"
    settable: ClassVar[tuple[str, ...]] = ("quantization", "threads", "parallel", "batch_tokens", "prompt_cache_mib")
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHAT, Task.FIM})
    constrains: ClassVar[bool] = True

    kind: Literal["llama-cpp"] = "llama-cpp"
    image: Image = LLAMA_CPP
    files: tuple[GgufFile, ...] = Field(min_length=1)  # what its repository has, the recommended one first
    quantization: str = Field(pattern=r"^\w+$", max_length=40)  # of the file that is served
    threads: int = Field(ge=1, le=256)  # of computing; as many vCPUs are kept busy
    parallel: int = Field(default=1, ge=1, le=64)  # requests at once, each with a context of its own; others wait
    batch_tokens: int = Field(default=UBATCH, ge=1, le=8192)  # of one forward pass
    prompt_cache_mib: int = Field(default=0, ge=0, le=65_536)  # its own default is 8192, which no pod here has

    @model_validator(mode="after")
    def _quantizations_differ(self) -> LlamaCppEngine:
        if len(set(self.quantizations)) < len(self.files):
            raise ValueError(f"two files of one quantisation: {', '.join(self.quantizations)}")
        return self

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Those that there are files of."""
        return tuple(file.quantization for file in self.files)

    def file(self) -> GgufFile | None:
        """The file that is served; None where there is none of that quantisation, which `refusals` tells."""
        return next((file for file in self.files if file.quantization == self.quantization), None)

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image,)  # the staging image is the gateway's, which is on the node already

    def adapted(self, spec: ModelSpec) -> ModelSpec:
        """Another quantisation is another file."""
        chosen = self.file()
        weights = weights_of(spec.weights, chosen) if spec.weights and chosen else spec.weights
        changed: dict[str, object] = {"engine": self, "weights": weights}
        before = LlamaCppEngine.of(spec)
        if (self.quantization, self.threads) != (before.quantization, before.threads):
            changed["throughput"] = None  # what was measured held for the other one
        return spec.model_copy(update=changed)

    def needs(self, spec: ModelSpec) -> Needs | None:
        gib = math.ceil(round(self.memory(spec).total_gib * 10, 6)) / 10
        return Needs(cpu=round(self.threads * _CPU_A_THREAD, 2), gib=gib, ephemeral_gib=TMP_GIB + LOGS_GIB)

    def memory(self, spec: ModelSpec) -> GgufMemory:
        """Where the memory of its pod goes."""
        weights, arch = gguf(spec)
        return gguf_memory(
            arch,
            file_bytes=weights.bytes_on_disk,
            context=spec.context or arch.max_positions,
            slots=self.parallel,
            batch_tokens=self.batch_tokens,
            prompt_cache_mib=self.prompt_cache_mib,
        )

    def cold_start(self, spec: ModelSpec) -> ColdStart | None:
        return cold_start(gguf(spec)[0].bytes_on_disk, self.images, node_s=CPU_NODE_S, start_s=_START_S)

    def assumed_throughput(self, spec: ModelSpec) -> Throughput | None:
        weights, arch = gguf(spec)
        load = usual(spec.context)
        return cpu_throughput(arch, file_bytes=weights.bytes_on_disk, threads=self.threads, load=load)

    def refusals(self, spec: ModelSpec) -> Iterator[Refusal]:
        arch = gguf(spec)[1]
        if self.file() is None:
            has = sorted(self.quantizations, key=lambda name: name.lower() != self.quantization.lower())
            yield Refusal(
                f"{spec.alias}:quantization is {self.quantization}, and {spec.model_id} has "
                f"{', '.join(self.quantizations)}: staging would find no such file",
                tuple({"quantization": name} for name in has),
            )
        if spec.context and spec.context > arch.max_positions:
            yield Refusal(
                f"{spec.alias}:context is {spec.context}, and the model has {arch.max_positions} positions, so "
                "llama.cpp would cut it to them, and the gateway promise more than is served",
                ({"context": str(arch.max_positions)},),
            )
        if self.batch_tokens < self.parallel:
            yield Refusal(
                f"{spec.alias}:batchTokens is {self.batch_tokens}, below parallel ({self.parallel}): one pass writes a "
                "token of every request, so some would always wait",
                ({"batchTokens": str(self.parallel)}, {"parallel": str(self.batch_tokens)}),
            )

    def flags(self, spec: ModelSpec) -> Mapping[str, int | float | bool | str]:
        return {
            "max_model_len": spec.context or gguf(spec)[1].max_positions,
            "parallel": self.parallel,
            "batch_tokens": self.batch_tokens,
            "prompt_cache_mib": self.prompt_cache_mib,
        }


def weights_of(weights: Weights, file: GgufFile) -> Weights:
    """The weights of an entry as one of its files."""
    return weights.model_copy(
        update={
            "files": (file.file,),
            "bytes_on_disk": file.bytes_on_disk,
            "digests": ((file.file, file.sha256),) if file.sha256 else (),
        }
    )


def gguf(spec: ModelSpec) -> tuple[Weights, DecoderArchitecture]:
    """The weights of a decoder in a GGUF file. Raises ValueError for an entry that is none."""
    weights = spec.weights
    if weights is None or weights.format != "gguf" or not isinstance(weights.architecture, DecoderArchitecture):
        raise ValueError(f"{spec.alias} is no decoder in a GGUF file, which is all that this engine serves here")
    return weights, weights.architecture
