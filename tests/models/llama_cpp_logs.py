"""What llama.cpp printed while it started, on CPU or for its CPU part, with where it was read.

KV cache: `llama_kv_cache: size =`. Compute buffer: `CPU compute buffer size =`. MiB as printed; None where the line is
another device's, or not of one kind of layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.weights import DecoderArchitecture


@dataclass(frozen=True)
class Log:
    """One start."""

    what: str
    architecture: DecoderArchitecture
    context: int  # n_ctx_seq: of one slot
    slots: int  # n_seq_max
    flash_attention: bool
    batch: int
    all_logits: bool  # reserves for the logits of the whole batch
    kv_mib: float
    compute_mib: float
    where: str

    def __str__(self) -> str:
        return self.what


_FIELDS = ("parameters", "layers", "heads", "kv_heads", "head_dim", "hidden", "ffn", "vocab")


def _arch(*numbers: int) -> DecoderArchitecture:
    named = dict(zip(_FIELDS, numbers, strict=True))
    return DecoderArchitecture.model_validate({**named, "max_positions": 131_072})


TINYLLAMA = _arch(1_100_048_384, 22, 32, 4, 64, 2048, 5632, 32_000)
PHI_3 = _arch(3_821_079_552, 32, 32, 32, 96, 3072, 8192, 32_064)
LLAMA_2 = _arch(6_738_415_616, 32, 32, 32, 128, 4096, 11_008, 32_000)
LLAMA_3 = _arch(8_030_261_248, 32, 32, 8, 128, 4096, 14_336, 128_256)
QWEN_3 = _arch(1_720_574_976, 28, 16, 8, 128, 2048, 6144, 151_936)
LLAMA_405B = _arch(405_853_388_800, 126, 128, 8, 128, 16_384, 53_248, 128_256)

# Build 11063's server (xllamacpp 2026.9.11063) on files of these shapes with zeros for weights, run here in November
# 2026. Phi-3's warns that its sliding window is disabled there, so every layer keeps every token.
_HERE = "run here"
_NOTEBOOK = "a public notebook of April 2026: llama-cpp-python on Windows, tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
_OLLAMA = "a public Ollama log of 2026-01-04, CPU"
_PHONE = "a public log of an iOS app, 2025, Q4_K_M, its CPU part"
_RPC = "a public log of llama-cli over RPC on Arm, 2025: its CPU part"

# what, architecture, context, slots, flash attention, batch, all logits, KV cache, compute buffer, where
LOGS = tuple(
    Log(*row)
    for row in (
        ("TinyLlama, 4 slots of 2048", TINYLLAMA, 2048, 4, True, 512, False, 176.00, 51.01, _HERE),
        ("TinyLlama, 4 slots of 2048, batches of 128", TINYLLAMA, 2048, 4, True, 128, False, 176.00, 12.75, _HERE),
        ("TinyLlama at 2048", TINYLLAMA, 2048, 1, True, 512, False, 44.00, 51.01, _HERE),
        ("TinyLlama at 2048, no flash attention", TINYLLAMA, 2048, 1, False, 512, False, 44.00, 153.01, _HERE),
        ("TinyLlama at 512, no flash attention", TINYLLAMA, 512, 1, False, 512, False, 11.00, 54.01, _HERE),
        ("Phi-3 Mini at 4096", PHI_3, 4096, 1, True, 512, False, 1536.00, 70.01, _HERE),
        ("Llama 2 7B at 4096", LLAMA_2, 4096, 1, True, 512, False, 2048.00, 100.51, _HERE),
        ("Llama 2 7B at 4096, no flash attention", LLAMA_2, 4096, 1, False, 512, False, 2048.00, 320.01, _HERE),
        ("TinyLlama at 512, all logits", TINYLLAMA, 512, 1, False, 512, True, 11.00, 70.50, _NOTEBOOK),
        ("Llama 3 8B at 4096, all logits", LLAMA_3, 4096, 1, True, 512, True, 512.00, 258.50, _OLLAMA),
        ("Qwen3 1.7B at 1024, all logits", QWEN_3, 1024, 1, True, 512, True, 112.00, 300.75, _PHONE),
        ("Llama 3.1 405B at 4096", LLAMA_405B, 4096, 1, False, 512, True, 2016.00, 1160.01, _RPC),
    )
)
