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

LOGS = (
    Log(
        "TinyLlama 1.1B at 512",
        TINYLLAMA,
        context=512,
        slots=1,
        flash_attention=False,
        kv_mib=11.00,
        compute_mib=70.50,
        where="a public notebook of April 2026: llama-cpp-python on Windows, tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf",
    ),
    Log(
        "Llama 3 8B at 4096",
        _arch(8_030_261_248, 32, 32, 8, 128, 4096, 14_336, 128_256),
        context=4096,
        slots=1,
        flash_attention=True,
        kv_mib=512.00,
        compute_mib=258.50,
        where="a public Ollama log of 2026-01-04, CPU",
    ),
    Log(
        "Qwen3 1.7B at 1024",
        _arch(1_720_574_976, 28, 16, 8, 128, 2048, 6144, 151_936),
        context=1024,
        slots=1,
        flash_attention=True,  # too short for the scores to be the larger part without it
        kv_mib=112.00,
        compute_mib=300.75,
        where="a public log of an iOS app, 2025, Q4_K_M, CPU",
    ),
    Log(
        "Llama 3.1 405B at 4096",
        _arch(405_853_388_800, 126, 128, 8, 128, 16_384, 53_248, 128_256),
        context=4096,
        slots=1,
        flash_attention=False,
        kv_mib=2016.00,
        compute_mib=1160.01,
        where="a public log of llama-cli over RPC on Arm, 2025: its CPU part",
    ),
)
