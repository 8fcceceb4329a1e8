"""How fast llama.cpp is on CPU, where nobody has measured it: tokens a second of one request at a time.

A token that is written reads all of the file once; one that is read computes on every parameter, and many at once read
the file together. Constants were read off published runs; docs/gguf.md has them beside what this gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.facts import Evidence, Load, Source, Throughput
from models.weights import DecoderArchitecture

# Q4_K_M on 4 threads of an Azure Standard_D4s_v3 (Xeon 8171M): TinyLlama 24.88, Phi-3 Mini 6.37 and Llama 2 7B 4.06
# tokens a second, which read 16.6, 15.2 and 16.6 GB a second (nandan2003/edge-cpu-inference README.md @ 2eaa504a).
_VCPU_BYTES_PER_S = 4.0e9
# Qwen2.5-3B Q4_K_M read a prompt of 2,571 tokens in 173 s on the 4 cores of an Ampere A1 (quartoblog-52a.pages.dev,
# "Benchmarking CPU-only LLM Inference"): 2 operations a parameter and token. x86 with AVX2 and repacked weights is
# faster; nobody published a vCPU's figure.
_VCPU_FLOPS = 23e9


@dataclass(frozen=True)
class CpuSpeed:
    """Tokens a second of one request alone."""

    read_per_s: float
    written_per_s: float

    def throughput(self, load: Load) -> float:
        """Tokens a second, read and written together, of requests of a load one after the other."""
        seconds = load.prompt_tokens / self.read_per_s + load.output_tokens / self.written_per_s
        return (load.prompt_tokens + load.output_tokens) / seconds


def cpu_speed(arch: DecoderArchitecture, *, file_bytes: int, threads: int) -> CpuSpeed:
    """What so many threads, each on a vCPU of its own, make of a GGUF file."""
    written = threads * _VCPU_BYTES_PER_S / file_bytes
    read = threads * _VCPU_FLOPS / (2 * (arch.active_parameters - arch.vocab * arch.hidden))
    return CpuSpeed(read_per_s=max(read, written), written_per_s=written)


def cpu_throughput(arch: DecoderArchitecture, *, file_bytes: int, threads: int, load: Load) -> Throughput:
    """The estimate for a load, marked as one."""
    speed = cpu_speed(arch, file_bytes=file_bytes, threads=threads)
    return Throughput(
        tokens_per_second=speed.throughput(load),
        at=load.model_copy(update={"streams": 1}),
        source=Source(
            facts="throughput",
            where=f"models/cpu_speed.py: the file read once a token, operations a token of a prompt, {threads} threads",
            evidence=Evidence.ASSUMED,
        ),
    )


def usd_per_thousand_tokens(usd_per_hour: float, tokens_per_second: float) -> float:
    """What a thousand tokens cost on a machine that is never idle."""
    return usd_per_hour / (tokens_per_second * 3600) * 1000
