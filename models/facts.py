"""The facts that catalog entries are made of: sources and how far to trust them, images, prices, targets, results.

Units are part of the names: `gib` is 2**30 bytes, `bytes` is bytes, `usd_per_mtok` is US dollars per million
tokens, `_ms` is milliseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

GIB = 2**30

# RFC 1123 label with room for the longest suffix that a derived name carries (`-model-cache`).
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=50)]
# Of a repository on a hub, and what an engine answers to: both become part of command lines and addresses.
ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", max_length=200)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
HexDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]  # SHA-256 of a file
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=200)]  # of a repository's root
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Spec(BaseModel):
    """Base of every catalog type: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Defaults(Spec):
    """What a request generates by where it says nothing else; None is the engine's own, which is the model card's."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0)

    @property
    def asked(self) -> dict[str, float]:
        """Those that are set, by their name in a request."""
        return self.model_dump(exclude_none=True)


class Slo(Spec):
    """Latency targets at the 95th percentile; None is a target not set yet."""

    ttft_p95_ms: int | None = Field(default=None, gt=0)  # time to first token
    itl_p95_ms: int | None = Field(default=None, gt=0)  # inter-token latency
    e2e_p95_ms: int | None = Field(default=None, gt=0)  # whole request of at most `output_tokens`
    output_tokens: int | None = Field(default=None, gt=0)
    note: str


class Evaluation(Spec):
    """What has been proven, not what is planned."""

    status: Literal["benchmarked", "scored", "validated", "reported", "none"]  # reported: of others, not run here
    result: str  # "HumanEval 18/20 = 90 % (gate: 70 %)"


class Load(Spec):
    """Which requests a figure of speed holds for: their lengths, and how many at once."""

    prompt_tokens: int = Field(gt=0)
    output_tokens: int = Field(ge=0)  # 0: they are read only
    streams: int | None = Field(default=None, gt=0)  # requests at once; None: not said

    @property
    def told(self) -> str:
        """In a few words: "1,024 + 128 tokens, 64 at once"."""
        lengths = " + ".join(f"{n:,}" for n in (self.prompt_tokens, self.output_tokens) if n)
        return f"{lengths} tokens{f', {self.streams:,} at once' if self.streams else ''}"


class Throughput(Spec):
    """Tokens a second of one replica under a load, read and written together: see models/throughput.py."""

    tokens_per_second: float = Field(gt=0)
    at: Load
    source: Source

    @property
    def told(self) -> str:
        """How far it may be trusted, and what it holds for: "assumed; 1,024 + 128 tokens, 64 at once"."""
        return f"{self.source.evidence.value}; {self.at.told}"


class Licence(Spec):
    """Licence of the weights."""

    name: str  # SPDX id where one exists
    commercial_use: bool  # False: a plan that brings the model up says so
    terms: str | None = None  # what it asks for beyond the name, where that surprises
    source: Source
