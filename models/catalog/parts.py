"""What several entries have in common: groups, weights of one kind, licences, sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from models.architectures import ARCHITECTURES
from models.engines.llama_cpp import GgufFile, weights_of
from models.facts import Evaluation, Evidence, Licence, Slo, Source, Spec
from models.prices import list_prices
from models.weights import Quantization, Weights


class Group(Spec):
    """Models that a stack enables together."""

    summary: str
    unavailable: str | None = None  # why it cannot be enabled by this version


GROUPS: Mapping[str, Group] = {
    "baseline": Group(summary="the small model that benchmarks and smoke tests run on"),
    "coding-assistant": Group(summary="chat, fill-in-the-middle and tool-using models for editors and agents"),
    "retrieval": Group(summary="embeddings for @codebase and RAG"),
    "small-chat": Group(summary="chat models of 1 to 4 billion parameters"),
    "vision": Group(summary="chat models that read images"),
    "speech": Group(summary="what is said in recordings: Whisper in ten sizes and languages"),
    "search": Group(summary="embeddings of many languages, and a reranker"),
    "one-l4": Group(summary="what a team with one L4 runs today: agents, chat with thinking"),
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
    pickle: bool = False,
) -> Weights:
    """Weights with the numbers of `base`, a row of `models/architectures.py`. Raises ValueError if it has none."""
    if base not in ARCHITECTURES:
        raise ValueError(
            f"models/architectures.py has no row '{base}': add it, or take one of {', '.join(ARCHITECTURES)}"
        )
    return Weights(
        revision=revision,
        format="pickle" if pickle else "safetensors",
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


def onnx(base: str, *, revision: str | None, bytes_on_disk: int, beside: tuple[str, ...] = ("vocab.txt",)) -> Weights:
    """float32 weights for ONNX Runtime, which text-embeddings-inference starts on CPU where it finds them.

    `beside` are further files: a vocabulary, or what a model of more than 2 GiB keeps apart.
    """
    files = ("onnx/model.onnx", *beside, "*.json")
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


# An hour of a vCPU with 4 GiB, in the region that the reference runs in.
_PRICED = "e2-standard-4", "us-central1", 4
_BESIDE = 1.25  # of it: boot disk, NAT, and what a node keeps for itself


def at_cost(vcpus: float, tokens_per_second: float) -> float:
    """What a million tokens cost on the system pool where it is never idle, US dollars in whole cents, rounded up."""
    machine, region, of = _PRICED
    price = list_prices().find(machine, region)
    if price is None:
        raise ValueError(f"there is no price of {machine} in {region}")
    return math.ceil(price.usd / of * vcpus * _BESIDE / 3600 / tokens_per_second * 1e8) / 100


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


def pinned(seen: str, *, price: str = "set by this program") -> tuple[Source, ...]:
    """The sources of an entry that no document prices: where its commit was seen, and what its price rests on."""
    return (
        Source(facts="model", where=GUIDE, evidence=Evidence.REPORTED),
        Source(facts="context, price", where=price, evidence=Evidence.ASSUMED),
        Source(facts="revision", where=seen, evidence=Evidence.REPORTED),
    )


def config_json(model_id: str, evidence: Evidence, size: Evidence) -> tuple[Source, ...]:
    """The two sources that every open model has: its config.json and its file sizes."""
    return (
        Source(facts="architecture", where=f"config.json of {model_id}", evidence=evidence),
        Source(facts="bytes on disk", where=f"files of {model_id}", evidence=size),
    )


GUIDE = "reference deployment, models guide"
REFERENCE = "reference deployment, model catalog"
DAY_2 = "reference deployment, day-2 guide"
REPORTED = Source(facts="alias, context, price, target, evaluation", where=REFERENCE, evidence=Evidence.REPORTED)
PINNED = Source(
    facts="revision",
    where="6 to 10 public repositories pin this commit; `ops pin` compares it with the hub",
    evidence=Evidence.REPORTED,
)
UNTARGETED = Slo(note="none is set; nobody has measured it here")
UNSCORED = Evaluation(status="none", result="nobody has evaluated it here")
LLAMA_3_2 = licence(
    "llama3.2",
    "Llama 3.2 Community License Agreement",
    Evidence.MEMORY,
    terms="commercial use up to 700 million monthly users, its acceptable use policy, a notice with copies, and "
    "'Built with Llama' where its answers are shown",
)
