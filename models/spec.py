"""The types a catalog entry is made of.

An entry reads like a data sheet: which model, which engine with which arguments, what its weights are, what a
token costs, what was measured, and where each fact was read. Everything else (command line, Service, claim
size, gateway registration, probes, tables in the docs) is derived from it elsewhere.

Units are part of the names: `gib` is 2**30 bytes, `bytes` is bytes, `usd_per_mtok` is US dollars per million
tokens, `_ms` is milliseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

GIB = 2**30

# RFC 1123 label with room for the longest suffix that a derived name carries (`-model-cache`).
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=50)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Spec(BaseModel):
    """Base of every catalog type: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(StrEnum):
    """What a client asks of the model; decides the gateway route and the smoke request."""

    CHAT = "chat"  # /v1/chat/completions
    FIM = "fim"  # /v1/completions with fill-in-the-middle control tokens
    AGENT = "agent"  # /v1/chat/completions with tools
    EMBEDDING = "embedding"  # /v1/embeddings


class Evidence(StrEnum):
    """How far a fact may be trusted."""

    VERIFIED = "verified"  # read in a public source, or run
    DERIVED = "derived"  # computed from verified facts
    REPORTED = "reported"  # stated by the reference deployment, not checked again
    MEMORY = "memory"  # recalled; check before you depend on it
    ASSUMED = "assumed"  # estimated by a formula of this program; measure it


class Source(Spec):
    """Where facts of an entry come from."""

    facts: str  # "architecture, context"
    where: str  # "config.json of Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
    evidence: Evidence


class Image(Spec):
    """A container image, pinned by tag and, where it could be looked up, by digest.

    A digest that nobody looked up is None: the plan flags it and `ops pin` resolves it.
    """

    registry: str  # "docker.io"
    repository: str  # "vllm/vllm-openai"
    tag: str  # "v0.23.0"
    digest: Sha256 | None
    uid: int  # numeric user the image runs as; Pod Security "restricted" wants it explicit
    gid: int
    home: str  # writable at run time; the root filesystem is not
    min_driver: str | None = None  # oldest NVIDIA driver that its CUDA runs on, "580.65"
    compressed_gib: float = Field(gt=0)  # what a node pulls; drives the cold-start budget
    source: Source

    def reference(self, *, mirror: str | None = None) -> str:
        """The pullable reference, through a `mirror` prefix in place of the registry if one is given."""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{mirror or self.registry}/{self.repository}:{self.tag}{digest}"


# --- weights -----------------------------------------------------------------------------------------------


class DecoderArchitecture(Spec):
    """A dense decoder-only transformer, in the words of its config.json."""

    kind: Literal["decoder"] = "decoder"
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)  # num_hidden_layers
    heads: int = Field(gt=0)  # num_attention_heads
    kv_heads: int = Field(gt=0)  # num_key_value_heads
    head_dim: int = Field(gt=0)
    hidden: int = Field(gt=0)  # hidden_size
    ffn: int = Field(gt=0)  # intermediate_size
    vocab: int = Field(gt=0)  # vocab_size
    max_positions: int = Field(gt=0)  # max_position_embeddings


class EncoderArchitecture(Spec):
    """A BERT-like encoder: no KV cache, memory goes with the batch."""

    kind: Literal["encoder"] = "encoder"
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    ffn: int = Field(gt=0)
    vocab: int = Field(gt=0)
    max_positions: int = Field(gt=0)


Architecture = Annotated[DecoderArchitecture | EncoderArchitecture, Field(discriminator="kind")]


class Quantization(StrEnum):
    """How linear weights are stored."""

    NONE = "none"
    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"


class Weights(Spec):
    """What has to be on the claim before the engine starts."""

    revision: Commit | None  # commit on the hub; None is flagged in the plan, `ops pin` resolves it
    format: Literal["safetensors", "gguf"]
    quantization: Quantization
    dtype: Literal["float32", "float16", "bfloat16"]  # of what is not quantised, and of the KV cache
    files: tuple[str, ...]  # patterns of the files that the engine reads; nothing else is downloaded
    bytes_on_disk: int = Field(gt=0)
    architecture: Architecture
    gated: bool = False  # the hub wants an accepted licence and a token


# --- engines -----------------------------------------------------------------------------------------------


class VllmEngine(Spec):
    """vLLM's OpenAI server on a GPU."""

    kind: Literal["vllm"] = "vllm"
    image: Image
    accelerator: Literal["nvidia-l4"] = "nvidia-l4"
    gpus: int = Field(default=1, ge=1, le=8)  # tensor parallel over this many
    gpu_memory_utilization: float = Field(default=0.90, gt=0, le=1)
    max_num_seqs: int = Field(default=64, ge=1)  # sequences in a batch; also what the sampler reserves for
    max_num_batched_tokens: int = Field(default=2048, ge=1)  # one prefill chunk; drives the activation peak
    kernel: Literal["awq_marlin", "gptq_marlin", "fp8"] | None = None  # --quantization, None for unquantised
    tool_call_parser: str | None = None  # set: tool calls are parsed and `tool_choice: auto` is allowed
    prefix_caching: bool = True
    eager: bool = False  # no CUDA graphs: slower, frees their reserve


class TeiEngine(Spec):
    """Hugging Face text-embeddings-inference on CPU."""

    kind: Literal["tei"] = "tei"
    image: Image
    pooling: Literal["cls", "mean", "last-token"]
    max_batch_tokens: int = Field(ge=1)  # tokens of one forward pass; warm-up allocates for all of them
    max_client_batch_size: int = Field(ge=1)  # inputs of one request
    max_concurrent_requests: int = Field(default=64, ge=1)
    auto_truncate: bool = True  # longer inputs are cut at the context instead of refused
    cpu: float = Field(gt=0)  # cores requested


class ExternalProvider(Spec):
    """A model somebody else serves, reached through the egress gateway, which holds the provider's key."""

    kind: Literal["external"] = "external"
    provider: Literal["anthropic"]


Engine = Annotated[VllmEngine | TeiEngine | ExternalProvider, Field(discriminator="kind")]


# --- price, objectives, evidence ----------------------------------------------------------------------------


class PerToken(Spec):
    """Price of tokens, in US dollars per million."""

    kind: Literal["per_token"] = "per_token"
    input_usd_per_mtok: float = Field(gt=0)  # zero would mean that budgets never bind
    output_usd_per_mtok: float = Field(ge=0)  # zero where nothing is generated (embeddings)
    cached_input_usd_per_mtok: float | None = Field(default=None, gt=0)


class PerAudioSecond(Spec):
    """Price of transcription, in US dollars per second of audio."""

    kind: Literal["per_audio_second"] = "per_audio_second"
    usd_per_second: float = Field(gt=0)


class PerQuery(Spec):
    """Price of a request whatever its size (rerank), in US dollars."""

    kind: Literal["per_query"] = "per_query"
    usd_per_query: float = Field(gt=0)


Price = Annotated[PerToken | PerAudioSecond | PerQuery, Field(discriminator="kind")]


class Slo(Spec):
    """Latency targets at the 95th percentile; None is a target not set yet."""

    ttft_p95_ms: int | None = Field(default=None, gt=0)  # time to first token
    itl_p95_ms: int | None = Field(default=None, gt=0)  # inter-token latency
    e2e_p95_ms: int | None = Field(default=None, gt=0)  # whole request of at most `output_tokens`
    output_tokens: int | None = Field(default=None, gt=0)
    note: str


class Evaluation(Spec):
    """What has been proven, not what is planned."""

    status: Literal["benchmarked", "scored", "validated", "none"]
    result: str  # "HumanEval 18/20 = 90 % (gate: 70 %)"


class Throughput(Spec):
    """Tokens a second of one replica under load, read and written together: see models/throughput.py."""

    tokens_per_second: float = Field(gt=0)
    source: Source


class Licence(Spec):
    """Licence of the weights."""

    name: str  # SPDX id where one exists
    commercial_use: bool  # False: a plan that brings the model up says so
    source: Source


# --- the entry ---------------------------------------------------------------------------------------------


class ModelSpec(Spec):
    """One model of the catalog: everything that is known about it, and nothing that follows from it."""

    alias: Alias  # what tenants call it, and the name of its objects in the cluster
    group: str  # enabled and disabled together, `ai-platform:groups.<group>`
    summary: str
    task: Task
    model_id: str  # "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
    served_name: str  # what the engine answers to; never the alias, so that a bypass of the gateway shows
    engine: Engine
    context: int | None = Field(gt=0)  # tokens a request may span; None: the provider's own limit
    weights: Weights | None  # None: nothing of it is stored here
    price: Price
    throughput: Throughput | None = None  # measured on this engine and GPU; None: nobody did, so it is assumed
    slo: Slo
    evaluation: Evaluation
    licence: Licence
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.served_name == self.alias:
            raise ValueError(f"{self.alias}: served_name equals the alias; give the engine's own name")
        external = isinstance(self.engine, ExternalProvider)
        if external != (self.weights is None):
            raise ValueError(f"{self.alias}: weights are for engines that run here, and only for them")
        if not external and self.context is None:
            raise ValueError(f"{self.alias}: context is required for an engine that runs here")
        if self.weights and self.context and self.context > self.weights.architecture.max_positions:
            raise ValueError(
                f"{self.alias}: context {self.context} exceeds the model's "
                f"{self.weights.architecture.max_positions} positions"
            )
        return self

    @property
    def gpus(self) -> int:
        """GPUs that one replica holds."""
        return self.engine.gpus if isinstance(self.engine, VllmEngine) else 0
