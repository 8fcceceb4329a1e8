"""Memory of llama.cpp on CPU."""

from __future__ import annotations

from dataclasses import dataclass

from models.facts import GIB
from models.memory.vllm import kv_bytes_per_token
from models.weights import DecoderArchitecture

_FLOAT32 = 4


@dataclass(frozen=True)
class GgufMemory:
    """Memory of llama.cpp on CPU."""

    file_gib: float  # mapped, and touched whole by the first token
    kv_cache_gib: float
    compute_gib: float
    process_gib: float

    @property
    def total_gib(self) -> float:
        """All of it."""
        return self.file_gib + self.kv_cache_gib + self.compute_gib + self.process_gib


_GGUF_PROCESS_GIB = 0.3  # HTTP server and Python around the library
_UBATCH = 512  # tokens of one physical batch
_GRAPH_HIDDEN_COPIES = 5


def gguf_memory(arch: DecoderArchitecture, *, file_bytes: int, context: int) -> GgufMemory:
    """Memory of llama.cpp serving a GGUF file on CPU with an f16 KV cache, which it allocates in full.

    The compute buffer is the larger of the logits of a batch and one layer's attention scores, as its log
    prints it: 296 MiB for Llama-2-7B at 4096 tokens, 70.5 MiB at 512.
    """
    hidden = _UBATCH * arch.hidden * _FLOAT32
    logits = _UBATCH * arch.vocab * _FLOAT32 + hidden
    scores = arch.heads * _UBATCH * context * _FLOAT32 + _GRAPH_HIDDEN_COPIES * hidden
    return GgufMemory(
        file_gib=file_bytes / GIB,
        kv_cache_gib=kv_bytes_per_token(arch) * context / GIB,
        compute_gib=max(logits, scores) / GIB,
        process_gib=_GGUF_PROCESS_GIB,
    )
