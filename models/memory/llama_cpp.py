"""Memory of llama.cpp on CPU, as its start-up log adds it up: weights, KV cache, compute buffer, and the process.

Source (build 11181): `llama_context::llama_context` and `graph_reserve` of src/llama-context.cpp, the slots and the
prompt cache of tools/server/server-context.cpp. Logs that hold it: tests/models/llama_cpp_logs.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.facts import GIB
from models.memory.vllm import kv_bytes_per_token
from models.weights import DecoderArchitecture

_FLOAT32, _HALF = 4, 2
_MIB = 2**20
_CELLS = 256  # a slot's context is rounded up to a multiple


@dataclass(frozen=True)
class GgufMemory:
    """Memory of llama.cpp on CPU."""

    file_gib: float  # mapped, and touched whole by the first token
    kv_cache_gib: float  # of all slots, allocated at start
    compute_gib: float  # one physical batch on its way through the graph
    prompt_cache_gib: float  # prompts of idle slots, kept to be taken up again
    process_gib: float

    @property
    def total_gib(self) -> float:
        """All of it."""
        return self.file_gib + self.kv_cache_gib + self.compute_gib + self.prompt_cache_gib + self.process_gib


_GGUF_PROCESS_GIB = 0.3  # HTTP server, vocabulary, threads' work buffers
UBATCH = 512  # tokens of one physical batch, by default
_GRAPH_HIDDEN_COPIES = 5  # of attention without flash attention
# Flash attention on CPU: the mask of a batch in float32 and float16, alive with these of each layer.
_MASK_BYTES = _FLOAT32 + _HALF


def slot_context(context: int) -> int:
    """Tokens that a slot gets where a request may span `context`."""
    return math.ceil(context / _CELLS) * _CELLS


def gguf_memory(
    arch: DecoderArchitecture,
    *,
    file_bytes: int,
    context: int,
    slots: int = 1,
    batch_tokens: int = UBATCH,
    prompt_cache_mib: int = 0,
    flash_attention: bool = True,
) -> GgufMemory:
    """Memory of llama.cpp serving a GGUF file on CPU with an f16 KV cache, which it allocates in full.

    `--ctx-size` is what all slots share, so each of `slots` requests at once has a cache of its own `context`.
    """
    cells = slot_context(context) * slots
    batch = min(batch_tokens, cells)
    return GgufMemory(
        file_gib=file_bytes / GIB,
        kv_cache_gib=kv_bytes_per_token(arch) * cells / GIB,
        compute_gib=_compute_bytes(arch, batch, slot_context(context), flash_attention=flash_attention) / GIB,
        prompt_cache_gib=prompt_cache_mib * _MIB / GIB,
        process_gib=_GGUF_PROCESS_GIB,
    )


def _compute_bytes(arch: DecoderArchitecture, batch: int, context: int, *, flash_attention: bool) -> int:
    """The compute buffer: the larger of the logits of a batch, and what one layer holds at once.

    Without flash attention a layer holds the scores of every head: 296 MiB for Llama-2-7B at 4096 tokens.
    """
    hidden = batch * arch.hidden * _FLOAT32
    logits = batch * arch.vocab * _FLOAT32 + hidden
    if not flash_attention:
        return max(logits, arch.heads * batch * context * _FLOAT32 + _GRAPH_HIDDEN_COPIES * hidden)
    return max(logits, 2 * batch * arch.ffn * _FLOAT32 + 2 * hidden + batch * context * _MASK_BYTES)
