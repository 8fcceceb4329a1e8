"""Small chat models in GGUF files, on llama.cpp and CPU: the registry of the reference's CPU document.

File names are as the repositories spell them: the document has TheBloke's in lower case, which the hub does not know,
and calls Phi-3's file Q4_K_M, where its repository has two, q4 and fp16. What the document says of speed and cost, and
why it is not what these are sold at: docs/gguf.md.
"""

from __future__ import annotations

from models.catalog.parts import at_cost, config_json, gguf, licence
from models.cpu_speed import cpu_speed
from models.engines.llama_cpp import GgufFile, LlamaCppEngine
from models.facts import Evaluation, Evidence, Licence, PerToken, Slo, Source
from models.images import LLAMA_CPP
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import DecoderArchitecture, Weights

_REGISTRY = "reference deployment, CPU registry"
_NO_TARGET = Slo(note="none: a development model")
_NOT_EVALUATED = Evaluation(status="none", result="nobody has evaluated it here")


def _at_cost(weights: Weights, threads: int) -> PerToken:
    """What a token costs on the system pool where it is never idle, in cents of a million, rounded up.

    A token that is read is cheaper than one that is written, as many are read together.
    """
    arch = weights.architecture
    if not isinstance(arch, DecoderArchitecture):
        raise ValueError("this is no decoder")
    speed = cpu_speed(arch, file_bytes=weights.bytes_on_disk, threads=threads)
    read, written = (at_cost(threads, rate) for rate in (speed.read_per_s, speed.written_per_s))
    return PerToken(input_usd_per_mtok=read, output_usd_per_mtok=written)


def _sources(repository: str, base: str, *, seen: str) -> tuple[Source, ...]:
    return (
        Source(facts="model, context, quantisations", where=_REGISTRY, evidence=Evidence.REPORTED),
        Source(facts="price", where="its cost: models/cpu_speed.py, models/prices.csv", evidence=Evidence.DERIVED),
        Source(facts="revision, file names, sizes, SHA-256", where=seen, evidence=Evidence.REPORTED),
        Source(facts="bytes on disk", where=f"files of {repository}", evidence=Evidence.REPORTED),
        config_json(base, Evidence.VERIFIED, Evidence.REPORTED)[0],
    )


_TINYLLAMA = (
    GgufFile(
        quantization="Q4_K_M",
        file="tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf",
        bytes_on_disk=668_788_096,
        sha256="9fecc3b3cd76bba89d504f29b616eedf7da85b96540e490ca5824d3f7d2776a0",
    ),
    GgufFile(
        quantization="Q5_K_M",
        file="tinyllama-1.1b-chat-v1.0.Q5_K_M.gguf",
        bytes_on_disk=783_017_344,
        sha256="aa54a5fb99ace5b964859cf072346631b2da6109715a805d07161d157c66ce7f",
    ),
    GgufFile(
        quantization="Q8_0",
        file="tinyllama-1.1b-chat-v1.0.Q8_0.gguf",
        bytes_on_disk=1_170_781_568,
        sha256="a4c9bb1dbaa372f6381a035fa5c02ef087aaa1ff1f843a56a22328114f03fc59",
    ),
)
_PHI_3 = (
    GgufFile(
        quantization="q4",
        file="Phi-3-mini-4k-instruct-q4.gguf",
        bytes_on_disk=2_393_231_072,
        sha256="8a83c7fb9049a9b2e92266fa7ad04933bb53aa1e85136b7b30f1b8000ff2edef",
    ),
    GgufFile(
        quantization="fp16",
        file="Phi-3-mini-4k-instruct-fp16.gguf",
        bytes_on_disk=7_643_295_904,
        sha256="5d99003e395775659b0dde3f941d88ff378b2837a8dc3a2ea94222ab1420fad3",
    ),
)
_LLAMA_2 = (
    GgufFile(
        quantization="Q4_K_M",
        file="llama-2-7b-chat.Q4_K_M.gguf",
        bytes_on_disk=4_081_004_224,
        sha256="08a5566d61d7cb6b420c3e4387a39e0078e1f2fe5f055f3a03887385304d4bfa",
    ),
    GgufFile(
        quantization="Q5_K_M",
        file="llama-2-7b-chat.Q5_K_M.gguf",
        bytes_on_disk=4_783_156_928,
        sha256="e0b99920cf47b94c78d2fb06a1eceb9ed795176dfa3f7feac64629f1b52b997f",
    ),
    GgufFile(quantization="Q8_0", file="llama-2-7b-chat.Q8_0.gguf", bytes_on_disk=7_161_089_728, sha256=None),
)


def _chat(
    alias: str,
    summary: str,
    *,
    repository: str,
    base: str,
    revision: str,
    files: tuple[GgufFile, ...],
    served_name: str,
    context: int,
    threads: int,
    parallel: int = 1,
    terms: Licence,
    seen: str,
) -> ModelSpec:
    """An entry that serves the first of its files, sold at what it costs; `seen` is where others pin it."""
    weights = gguf(base, revision=revision, file=files[0])
    return ModelSpec(
        alias=alias,
        group="gguf",
        summary=summary,
        task=Task.CHAT,
        model_id=repository,
        served_name=served_name,
        engine=LlamaCppEngine(
            image=LLAMA_CPP, files=files, quantization=files[0].quantization, threads=threads, parallel=parallel
        ),
        context=context,
        weights=weights,
        price=_at_cost(weights, threads),
        slo=_NO_TARGET,
        evaluation=_NOT_EVALUATED,
        licence=terms,
        sources=_sources(repository, base, seen=seen),
    )


ENTRIES = (
    _chat(
        "tinyllama",
        "TinyLlama 1.1B Chat on CPU: development, tests, light workloads",
        repository="TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
        base="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        revision="52e7645ba7c309695bec7ac98f4f005b139cf465",
        files=_TINYLLAMA,
        served_name="tinyllama-1.1b-chat-v1.0",
        context=2048,
        threads=2,
        parallel=4,
        terms=licence("Apache-2.0", "model card", Evidence.REPORTED),
        seen="10 public repositories pin this commit or this Q4_K_M file, 5 the Q5_K_M, 4 the Q8_0",
    ),
    _chat(
        "phi-3-mini",
        "Phi-3 Mini 4k Instruct on CPU: better answers for its size",
        repository="microsoft/Phi-3-mini-4k-instruct-gguf",
        base="microsoft/Phi-3-mini-4k-instruct",
        revision="a64113399c2f6b8ad3e11c394733a2ddadaa7f33",
        files=_PHI_3,
        served_name="phi-3-mini-4k-instruct",
        context=4096,
        threads=2,
        terms=licence("MIT", "model card", Evidence.REPORTED),
        seen="10 public repositories pin this commit or the q4 file, 2 have the fp16's SHA-256, 2 its size",
    ),
    _chat(
        "llama-2-7b",
        "Llama 2 7B Chat on CPU",
        repository="TheBloke/Llama-2-7B-Chat-GGUF",
        base="meta-llama/Llama-2-7b-chat-hf",
        revision="191239b3e26b2882fb562ffccdd1cf0f65402adb",
        files=_LLAMA_2,
        served_name="llama-2-7b-chat",
        context=4096,
        threads=4,
        terms=licence(
            "llama2",
            "Llama 2 Community License Agreement",
            Evidence.MEMORY,
            terms="commercial use up to 700 million monthly users, its acceptable use policy, a notice with copies, "
            "and no use to improve other language models",
        ),
        seen="10 public repositories pin this commit or the Q4_K_M file, 10 the Q5_K_M, 4 have the Q8_0's size",
    ),
)
