"""Numbers of config.json, one row a base model: quantised variants have the numbers of their base.

`ops fit --config config.json` reads the same numbers from a file, to compare with or to add a row from.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.weights import Architecture, DecoderArchitecture, EncoderArchitecture

_DECODER = ("parameters", "layers", "heads", "kv_heads", "head_dim", "hidden", "ffn", "vocab", "max_positions")
_DECODERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (494_000_000, 24, 14, 2, 64, 896, 4864, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-1.5B": (1_543_700_000, 28, 12, 2, 128, 1536, 8960, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-3B-Instruct": (3_085_900_000, 36, 16, 2, 128, 2048, 11_008, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-7B-Instruct": (7_615_600_000, 28, 28, 4, 128, 3584, 18_944, 152_064, 32_768),
    "Qwen/Qwen2.5-Coder-14B-Instruct": (14_770_000_000, 48, 40, 8, 128, 5120, 13_824, 152_064, 32_768),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (1_100_048_384, 22, 32, 4, 64, 2048, 5632, 32_000, 2048),
    "microsoft/Phi-3-mini-4k-instruct": (3_821_079_552, 32, 32, 32, 96, 3072, 8192, 32_064, 4096),
    "meta-llama/Llama-2-7b-chat-hf": (6_738_415_616, 32, 32, 32, 128, 4096, 11_008, 32_000, 4096),
}
_ENCODER = ("parameters", "layers", "heads", "hidden", "ffn", "vocab", "max_positions")
_ENCODERS = {
    "BAAI/bge-base-en-v1.5": (109_000_000, 12, 12, 768, 3072, 30_522, 512),
}

ARCHITECTURES: Mapping[str, Architecture] = {
    **{
        model: DecoderArchitecture.model_validate(dict(zip(_DECODER, row, strict=True)))
        for model, row in _DECODERS.items()
    },
    **{
        model: EncoderArchitecture.model_validate(dict(zip(_ENCODER, row, strict=True)))
        for model, row in _ENCODERS.items()
    },
}
