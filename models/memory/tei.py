"""Memory of text-embeddings-inference on CPU."""

from __future__ import annotations

from models.facts import GIB
from models.weights import EncoderArchitecture

_FLOAT32 = 4
_TEI_PROCESS_GIB = 0.35  # router, tokenizers of every worker
_SCORE_COPIES, _FFN_COPIES, _ENCODER_HIDDEN_COPIES = 3, 2, 8  # tensors of one layer alive at once
_TOKEN_BYTES, _VALUE_BYTES = 24, 16  # of an input: text and ids of a token; a value of its vector, and as JSON
CONCURRENT_INPUTS = 2048  # two batches of a thousand, and single questions beside them
_FRAGMENTATION = 1.25  # allocator arenas of a multi-threaded CPU backend


def encoder_gib(
    arch: EncoderArchitecture, *, max_batch_tokens: int, context: int, inputs: int = CONCURRENT_INPUTS
) -> float:
    """Memory of text-embeddings-inference on CPU, float32, after its warm-up.

    The warm-up runs one batch of `max_batch_tokens` in inputs as long as the context allows, so attention
    scores (tokens x context x heads) are allocated in full before the first request. A request's batch is cut to that
    size whatever it is, so its `inputs` cost what is held of each while it waits.
    """
    length = min(context, max_batch_tokens)
    width = _SCORE_COPIES * length * arch.heads + _FFN_COPIES * arch.ffn + _ENCODER_HIDDEN_COPIES * arch.hidden
    activation = max_batch_tokens * width * _FLOAT32
    weights = arch.parameters * _FLOAT32
    held = inputs * (context * _TOKEN_BYTES + arch.hidden * _VALUE_BYTES)
    return _TEI_PROCESS_GIB + (weights + activation + held) * _FRAGMENTATION / GIB
