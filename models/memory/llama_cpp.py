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


_GGUF_PROCESS_GIB = 0.3  # program, HTTP server, vocabulary: 0.03 in the runs here, rounded up
UBATCH = 512  # tokens of one physical batch, by default
# What a layer holds of each token of a batch at once, in vectors of float32.
_FFN_VECTORS, _FFN_HIDDEN_VECTORS = 3, 4
_ATTENTION_HIDDEN_VECTORS = 5


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
    all_logits: bool = False,
) -> GgufMemory:
    """Memory of llama.cpp serving a GGUF file on CPU with an f16 KV cache, which it allocates in full.

    `--ctx-size` is what all slots share, so each of `slots` requests at once has a cache of its own `context`.
    `all_logits`: of builds of before mid-2026, and of programs that are no server: they reserve for the logits of every
    token of a batch, the server for those of one a slot.
    """
    cells = slot_context(context) * slots
    batch = min(batch_tokens, cells)
    layer = _layer_bytes(arch, slot_context(context), flash_attention=flash_attention)
    logits = (batch if all_logits else slots) * (arch.vocab + arch.hidden) * _FLOAT32
    return GgufMemory(
        file_gib=file_bytes / GIB,
        kv_cache_gib=kv_bytes_per_token(arch) * cells / GIB,
        compute_gib=max(batch * layer, logits) / GIB,
        prompt_cache_gib=prompt_cache_mib * _MIB / GIB,
        process_gib=_GGUF_PROCESS_GIB,
    )


def _layer_bytes(arch: DecoderArchitecture, context: int, *, flash_attention: bool) -> int:
    """What one layer holds of a token of a batch: the larger of its MLP and its attention.

    Without flash attention that is the scores of every head, and its mask in float32.
    """
    hidden = arch.hidden * _FLOAT32
    mlp = _FFN_VECTORS * arch.ffn * _FLOAT32 + _FFN_HIDDEN_VECTORS * hidden + context * _HALF
    keys_and_values = 2 * arch.kv_heads * arch.head_dim * _FLOAT32
    mask = context * (_HALF if flash_attention else _FLOAT32)
    scores = 0 if flash_attention else arch.heads * context * _FLOAT32
    return max(mlp, _ATTENTION_HIDDEN_VECTORS * hidden + keys_and_values + mask + scores)
