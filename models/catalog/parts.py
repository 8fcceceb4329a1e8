"""What several entries have in common: groups, weights of one kind, licences, sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from models.architectures import ARCHITECTURES
from models.engines.llama_cpp import GgufFile, weights_of
from models.facts import Evidence, Licence, Source, Spec
from models.weights import Quantization, Weights


class Group(Spec):
    """Models that a stack enables together."""

    summary: str
    unavailable: str | None = None  # why it cannot be enabled by this version


GROUPS: Mapping[str, Group] = {
    "baseline": Group(summary="the small model that benchmarks and smoke tests run on"),
    "coding-assistant": Group(summary="chat, fill-in-the-middle and tool-using models for editors and agents"),
    "retrieval": Group(summary="embeddings for @codebase and RAG"),
    "gguf": Group(summary="small chat models on CPU, no GPU needed: development, tests, light use"),
    "local": Group(summary="entries that a checkout adds for itself, in models.local.yaml"),
    "providers": Group(
        summary="external providers behind the same keys and budgets",
        unavailable="its egress gateway, which holds the provider's key, is not part of this version",
    ),
}

# What vLLM reads of a repository of Qwen's; README, LICENSE and .gitattributes stay behind.
QWEN_FILES = ("*.safetensors", "*.json", "merges.txt")


def safetensors(
    base: str,
    *,
    revision: str | None,
    bytes_on_disk: int,
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16",
    quantization: Quantization = Quantization.NONE,
    files: tuple[str, ...] = QWEN_FILES,
    gated: bool = False,
) -> Weights:
    """Weights with the numbers of `base`, a row of `models/architectures.py`. Raises ValueError if it has none."""
    if base not in ARCHITECTURES:
        raise ValueError(
            f"models/architectures.py has no row '{base}': add it, or take one of {', '.join(ARCHITECTURES)}"
        )
    return Weights(
        revision=revision,
        format="safetensors",
        quantization=quantization,
        dtype=dtype,
        files=files,
        bytes_on_disk=bytes_on_disk,
        architecture=ARCHITECTURES[base],
        gated=gated,
    )


def awq(base: str, *, revision: str | None, bytes_on_disk: int) -> Weights:
    """4-bit weights of `base`: the rest of them, and the KV cache, are float16."""
    return safetensors(
        base, revision=revision, bytes_on_disk=bytes_on_disk, dtype="float16", quantization=Quantization.AWQ
    )


def onnx(base: str, *, revision: str | None, bytes_on_disk: int) -> Weights:
    """float32 weights for ONNX Runtime, which text-embeddings-inference starts on CPU where it finds them."""
    files = ("onnx/model.onnx", "*.json", "vocab.txt")
    stored = safetensors(base, revision=revision, bytes_on_disk=bytes_on_disk, dtype="float32", files=files)
    return stored.model_copy(update={"format": "onnx"})


def gguf(base: str, *, revision: str | None, file: GgufFile) -> Weights:
    """One file of a GGUF repository of `base`; its KV cache is float16."""
    stored = safetensors(
        base,
        revision=revision,
        bytes_on_disk=file.bytes_on_disk,
        dtype="float16",
        quantization=Quantization.GGUF,
        files=(file.file,),
    )
    return weights_of(stored.model_copy(update={"format": "gguf"}), file)


def licence(
    name: str, where: str, evidence: Evidence, *, commercial_use: bool = True, terms: str | None = None
) -> Licence:
    """A licence, read at `where`."""
    return Licence(
        name=name,
        commercial_use=commercial_use,
        terms=terms,
        source=Source(facts="licence", where=where, evidence=evidence),
    )


def config_json(model_id: str, evidence: Evidence, size: Evidence) -> tuple[Source, ...]:
    """The two sources that every open model has: its config.json and its file sizes."""
    return (
        Source(facts="architecture", where=f"config.json of {model_id}", evidence=evidence),
        Source(facts="bytes on disk", where=f"files of {model_id}", evidence=size),
    )


REFERENCE = "reference deployment, model catalog"
DAY_2 = "reference deployment, day-2 guide"
REPORTED = Source(facts="alias, context, price, target, evaluation", where=REFERENCE, evidence=Evidence.REPORTED)
PINNED = Source(
    facts="revision",
    where="6 to 10 public repositories pin this commit; `ops pin` compares it with the hub",
    evidence=Evidence.REPORTED,
)
