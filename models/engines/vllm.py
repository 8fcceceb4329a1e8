"""vLLM on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict

from pydantic import Field, model_validator

from models.cold_start import GPU_NODE_S, GPU_START_S, ColdStart, cold_start
from models.engines.base import Engine, Refusal, Share, Sizing
from models.facts import Image, Throughput
from models.images import VLLM
from models.machines import GPUS
from models.memory.gpus import Card
from models.memory.host import HostMemory, vllm_host_memory
from models.memory.remedies import Remedy, remedies
from models.memory.versions import VllmVersion, release, vllm_version
from models.memory.vllm import GpuFit, Knobs, Speculation, gpu_fit
from models.needs import LOGS_GIB, TMP_GIB, Needs
from models.tasks import TASKS, Task
from models.throughput import RATES, Machine, Work, assumed, most_streams, reading_per_s, speed, usual, work
from models.weights import DecoderArchitecture, Quantization, Weights

if TYPE_CHECKING:
    from models.spec import ModelSpec

# Tokenising and scheduling want two cores beside the GPU; more is used where it is free.
_CPU = 2.0
_FILES = "components/serving/files"
HOME_GIB = 4  # Triton and FlashInfer kernels, usage files
_MOST_A_CHUNK = 256
_STREAM_INTERVAL_SINCE = "0.11.1"  # the release whose arguments first have --stream-interval; 0.11.0 has not


class VllmEngine(Engine):
    """vLLM's OpenAI server on a GPU."""

    runs_here: ClassVar[bool] = True
    sizing: ClassVar[Sizing | None] = Sizing.VLLM
    health_route: ClassVar[str] = "/health"
    identity_route: ClassVar[str] = "/v1/models"
    metrics_route: ClassVar[str] = "/metrics"
    context_setting: ClassVar[str | None] = "max_model_len"
    settable: ClassVar[tuple[str, ...]] = (
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "stream_interval",
    )
    tasks: ClassVar[frozenset[Task]] = frozenset(
        {Task.CHAT, Task.FIM, Task.AGENT, Task.VISION, Task.EMBEDDING, Task.TRANSCRIPTION}
    )
    constrains: ClassVar[bool] = True

    kind: Literal["vllm"] = "vllm"
    image: Image = VLLM
    accelerator: Literal["nvidia-l4"] = "nvidia-l4"
    gpus: int = Field(default=1, ge=1, le=8)  # tensor parallel over this many
    gpu_memory_utilization: float = Field(default=0.90, gt=0, le=1)
    max_num_seqs: int = Field(default=64, ge=1)  # sequences in a batch; also what the sampler reserves for
    max_num_batched_tokens: int = Field(default=2048, ge=1)  # one prefill chunk; drives the activation peak
    kernel: Literal["awq_marlin", "gptq_marlin", "fp8"] | None = None  # --quantization, None for unquantised
    tool_call_parser: str | None = None  # set: tool calls are parsed and `tool_choice: auto` is allowed
    # Of components/serving/files, mounted: the parser of that name where vLLM has none, and how the model is asked.
    tool_parser_plugin: str | None = Field(default=None, pattern=r"^\w+\.py$")
    chat_template: str | None = Field(default=None, pattern=r"^\w+\.jinja$")
    reasoning_parser: str | None = None  # what a model thinks first is told apart from its answer
    dtype: Literal["float16", "bfloat16"] | None = None  # that it is served in; None: that of the weights
    language_model_only: bool = False  # an encoder of images is left out, and its memory is the KV cache's
    pooling: Literal["cls", "mean", "last"] | None = None  # of embeddings: of the vectors of tokens to one
    # Tokens a chunk of a stream, after the first token, which comes at once. The gateway works by the chunk
    # (models/gateway_streams.py), and so many tokens is what a client sees at a time.
    stream_interval: int = Field(default=1, ge=1, le=_MOST_A_CHUNK)
    prefix_caching: bool = True
    eager: bool = False  # no CUDA graphs: slower, frees their reserve
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"  # FP8 holds twice the tokens, less exactly
    max_loras: int = Field(default=0, ge=0)  # adapters at once; 0: none can be served
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    speculative_method: Literal["ngram", "mtp"] | None = None  # what guesses tokens ahead
    speculative_tokens: int = Field(default=1, ge=1)  # guessed a step

    @model_validator(mode="after")
    def _has_files(self) -> VllmEngine:
        folder = Path(__file__).parents[2] / _FILES
        if missing := [name for name in self.files if not (folder / name).is_file()]:
            raise ValueError(f"{_FILES} has no {missing[0]}, so the server would not start: put it there")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """What is mounted for the server to read at its start."""
        return tuple(name for name in (self.tool_parser_plugin, self.chat_template) if name)

    @property
    def gpus_held(self) -> int:
        return self.gpus

    @property
    def tokens_a_chunk(self) -> int:
        return self.stream_interval

    @property
    def most_tokens_a_chunk(self) -> int:
        try:
            known = release(self._release) >= release(_STREAM_INTERVAL_SINCE)
        except ValueError:  # no release: refused for what it is, where memory is judged
            known = True
        return _MOST_A_CHUNK if known else 1

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image,)  # which also stages

    @property
    def share(self) -> Share | None:
        return Share(self.gpu_memory_utilization, "gpuMemoryUtilization")

    @property
    def version(self) -> VllmVersion:
        """How the image's release accounts for memory."""
        return vllm_version(self._release)

    @property
    def _release(self) -> str:
        """Of the tag "v0.23.0-cu129": "v0.23.0"."""
        return self.image.tag.split("-")[0]

    def needs(self, spec: ModelSpec) -> Needs | None:
        self._serves(spec)
        host = self.host_memory(spec)
        return Needs(
            cpu=_CPU,
            gib=host.total_gib,
            ephemeral_gib=HOME_GIB + TMP_GIB + LOGS_GIB,
            gpus=self.gpus,
            shm_gib=host.shm_gib,
        )

    def _serves(self, spec: ModelSpec) -> None:
        """Raises ValueError for a task that these weights or fields are not for."""
        arch, answers = decoder(spec)[1], TASKS[spec.task]
        if answers.images and (arch.tower is None or self.language_model_only):
            raise ValueError(f"{spec.alias}: {spec.task} needs an encoder of images, and none of these is loaded")
        if (self.pooling is None) == answers.vectors:
            raise ValueError(f"{spec.alias}: pooling is for embeddings, which need one, and for nothing else")

    def host_memory(self, spec: ModelSpec) -> HostMemory:
        """Memory of the pod while it loads."""
        return vllm_host_memory(decoder(spec)[0].bytes_on_disk, self.gpus)

    def cold_start(self, spec: ModelSpec) -> ColdStart | None:
        weights, _ = decoder(spec)
        return cold_start(weights.bytes_on_disk, self.images, node_s=GPU_NODE_S, start_s=GPU_START_S)

    def assumed_throughput(self, spec: ModelSpec) -> Throughput | None:
        answers = TASKS[spec.task]
        if not answers.in_tokens:
            return None
        if not answers.generates:
            load = usual(spec.context, generates=False)
            rate = reading_per_s(*self._served_on(spec), load.prompt_tokens)
            return assumed(rate, load, "prompts computed, one after the other, host")
        load = usual(spec.context)
        streams = most_streams(load, self.fit(spec), max_num_seqs=self.max_num_seqs)
        full = speed(*self._served_on(spec), load, streams)
        return assumed(full.total_per_s, full.load, "a full batch: weights and KV cache read, prompts computed, host")

    def _served_on(self, spec: ModelSpec) -> tuple[Work, Machine]:
        weights, arch = decoder(spec)
        task = work(
            arch,
            weights.quantization,
            weights_gib=self.fit(spec).weights_gib * self.gpus,
            kv_element_bytes=self.knobs(spec).kv_element_bytes,
        )
        rates = RATES[self.accelerator.removeprefix("nvidia-")]
        return task, Machine(rates, gpus=self.gpus, chunk=self.max_num_batched_tokens)

    def refusals(self, spec: ModelSpec) -> Iterator[Refusal]:
        arch = decoder(spec)[1]
        if spec.context and spec.context > arch.max_positions:
            yield Refusal(
                f"{spec.alias}:maxModelLen is {spec.context}, and the model has {arch.max_positions} positions, so "
                "vLLM refuses to start",
                ({"maxModelLen": str(arch.max_positions)},),
            )
            return
        if self.stream_interval > self.most_tokens_a_chunk:
            yield Refusal(
                f"{spec.alias}:streamInterval is {self.stream_interval}, and vLLM {self._release} does not know "
                f"--stream-interval, which is of {_STREAM_INTERVAL_SINCE}, so it refuses to start",
                ({"streamInterval": "1"},),
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            seqs, tokens = self.max_num_seqs, self.max_num_batched_tokens
            yield Refusal(
                f"{spec.alias}:maxNumBatchedTokens is {tokens}, below maxNumSeqs ({seqs}), so vLLM refuses to start",
                ({"maxNumBatchedTokens": str(seqs)}, {"maxNumSeqs": str(tokens)}),
            )
            return
        try:
            fit = self.fit(spec)
        except ValueError as refused:
            # Only an entry of the catalog can be that wrong.
            yield Refusal(f"{spec.alias}: {refused}")
            return
        if not fit.fits:
            yield Refusal(
                f"{spec.alias} does not fit its GPU, so vLLM would refuse to start: {fit.reason}",
                tuple(
                    {_SETTINGS[flag]: value for flag, value in remedy.flags.items()}
                    for remedy in self.remedies(spec)
                    if remedy.flags.keys() <= _SETTINGS.keys()
                )[:1],
            )

    def knobs(self, spec: ModelSpec) -> Knobs:
        """The flags that an entry is served with."""
        return Knobs(
            max_model_len=spec.context,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            utilization=self.gpu_memory_utilization,
            tensor_parallel=self.gpus,
            eager=self.eager,
            prefix_caching=self.prefix_caching,
            kv_cache_dtype=self.kv_cache_dtype,
            max_loras=self.max_loras,
            max_lora_rank=self.max_lora_rank,
            speculation=self.speculation,
            language_only=self.language_model_only,
        )

    @property
    def speculation(self) -> Speculation | None:
        """What guesses ahead, as the memory model asks."""
        method = self.speculative_method
        return Speculation(method, self.speculative_tokens) if method else None

    def fit(self, spec: ModelSpec) -> GpuFit:
        arch, served = self._served(spec)
        return gpu_fit(arch, **served)

    def fits_card(self, spec: ModelSpec, card: Card) -> bool:
        arch, served = self._served(spec)
        served["gpu_gib"], served["capability"] = card.gib, card.capability
        try:
            return gpu_fit(arch, **served).fits
        except ValueError:  # its flags, or no kernel for such weights on that GPU
            return False

    def remedies(self, spec: ModelSpec) -> tuple[Remedy, ...]:
        arch, served = self._served(spec)
        return remedies(arch, **served)

    def flags(self, spec: ModelSpec) -> Mapping[str, int | float | bool | str]:
        return {
            "max_model_len": spec.context or decoder(spec)[1].max_positions,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "utilization": self.gpu_memory_utilization,
            "tensor_parallel": self.gpus,
            "eager": self.eager,
            "prefix_caching": self.prefix_caching,
            "kv_cache_dtype": self.kv_cache_dtype,
            "max_loras": self.max_loras,
            "max_lora_rank": self.max_lora_rank,
            **({"speculative_method": self.speculative_method} if self.speculative_method else {}),
            **({"language_model_only": True} if self.language_model_only else {}),
            "num_speculative_tokens": self.speculative_tokens,
            "vllm": self._release,
        }

    def _served(self, spec: ModelSpec) -> tuple[DecoderArchitecture, _Served]:
        weights, arch = decoder(spec)
        return arch, _Served(
            quantization=weights.quantization,
            weights_bytes=weights.bytes_on_disk,
            dtype=weights.dtype,
            served_dtype=self.dtype,
            gpu_gib=GPUS[self.accelerator].usable_gib,
            knobs=self.knobs(spec),
            version=self.version,
            capability=GPUS[self.accelerator].capability,
        )


class _Served(TypedDict):
    """What `gpu_fit` and `remedies` take of an entry."""

    quantization: Quantization
    weights_bytes: int | None
    gpu_gib: float
    knobs: Knobs
    dtype: str
    served_dtype: str | None
    version: VllmVersion
    capability: tuple[int, int]


# Flags of `ops fit` that a stack can set.
_SETTINGS = {
    "--max-model-len": "maxModelLen",
    "--max-num-seqs": "maxNumSeqs",
    "--max-num-batched-tokens": "maxNumBatchedTokens",
    "--utilization": "gpuMemoryUtilization",
}


def decoder(spec: ModelSpec) -> tuple[Weights, DecoderArchitecture]:
    """The weights of a decoder. Raises ValueError for an entry that is none."""
    weights = spec.weights
    if weights is None or not isinstance(weights.architecture, DecoderArchitecture):
        raise ValueError(f"{spec.alias} is no decoder, which is all that this engine serves here")
    return weights, weights.architecture
