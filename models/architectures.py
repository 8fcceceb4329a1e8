"""Numbers of config.json, one row a base model: quantised variants have the numbers of their base.

`ops fit --config config.json` reads the same numbers from a file, to compare with or to add a row from.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.weights import Architecture, CacheLayers, DecoderArchitecture, EncoderArchitecture, Experts, Tower
from models.whisper import whisper

_DECODER = ("parameters", "layers", "heads", "kv_heads", "head_dim", "hidden", "ffn", "vocab", "max_positions")
_DECODERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (494_000_000, 24, 14, 2, 64, 896, 4864, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-1.5B": (1_543_700_000, 28, 12, 2, 128, 1536, 8960, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-3B-Instruct": (3_085_900_000, 36, 16, 2, 128, 2048, 11_008, 151_936, 32_768),
    "Qwen/Qwen2.5-Coder-7B-Instruct": (7_615_600_000, 28, 28, 4, 128, 3584, 18_944, 152_064, 32_768),
    "Qwen/Qwen2.5-Coder-14B-Instruct": (14_770_000_000, 48, 40, 8, 128, 5120, 13_824, 152_064, 32_768),
    "Qwen/Qwen3-4B-Instruct-2507": (4_022_458_880, 36, 32, 8, 128, 2560, 9728, 151_936, 262_144),
    "Qwen/Qwen3-8B": (8_190_726_144, 36, 32, 8, 128, 4096, 12_288, 151_936, 40_960),
    "Qwen/Qwen3-14B": (14_768_296_960, 40, 40, 8, 128, 5120, 17_408, 151_936, 40_960),
    "Qwen/Qwen3-Embedding-0.6B": (595_769_344, 28, 16, 8, 128, 1024, 3072, 151_669, 32_768),
    "Qwen/Qwen3-Embedding-4B": (4_021_765_120, 36, 32, 8, 128, 2560, 9728, 151_665, 40_960),
    "meta-llama/Llama-3.2-1B-Instruct": (1_235_814_400, 16, 32, 8, 64, 2048, 8192, 128_256, 131_072),
    "meta-llama/Llama-3.2-3B-Instruct": (3_212_749_824, 28, 24, 8, 128, 3072, 8192, 128_256, 131_072),
    "ibm-granite/granite-4.1-3b-base": (3_402_836_480, 40, 40, 8, 64, 2560, 8192, 100_352, 131_072),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (1_100_048_384, 22, 32, 4, 64, 2048, 5632, 32_000, 2048),
    "microsoft/Phi-3-mini-4k-instruct": (3_821_079_552, 32, 32, 32, 96, 3072, 8192, 32_064, 4096),
    "meta-llama/Llama-2-7b-chat-hf": (6_738_415_616, 32, 32, 32, 128, 4096, 11_008, 32_000, 4096),
}
_ENCODER = ("parameters", "layers", "heads", "hidden", "ffn", "vocab", "max_positions")
_ENCODERS = {
    "BAAI/bge-base-en-v1.5": (109_000_000, 12, 12, 768, 3072, 30_522, 512),
    "BAAI/bge-m3": (567_754_752, 24, 16, 1024, 4096, 250_002, 8194),
    "BAAI/bge-reranker-base": (278_044_417, 12, 12, 768, 3072, 250_002, 514),
    "BAAI/bge-reranker-v2-m3": (567_755_777, 24, 16, 1024, 4096, 250_002, 8194),
    "google/embeddinggemma-300m": (307_581_696, 24, 3, 768, 1152, 262_144, 2048),  # two dense layers behind it, too
}
_WHISPER = ("hidden", "layers", "heads", "ffn", "vocab", "mels")
_WHISPERS = {
    "openai/whisper-tiny": (384, 4, 6, 1536, 51_865, 80),
    "openai/whisper-tiny.en": (384, 4, 6, 1536, 51_864, 80),
    "openai/whisper-small": (768, 12, 12, 3072, 51_865, 80),
    "openai/whisper-small.en": (768, 12, 12, 3072, 51_864, 80),
    "openai/whisper-medium": (1024, 24, 16, 4096, 51_865, 80),
    "openai/whisper-medium.en": (1024, 24, 16, 4096, 51_864, 80),
    "openai/whisper-large-v2": (1280, 32, 20, 5120, 51_865, 80),
    "openai/whisper-large-v3": (1280, 32, 20, 5120, 51_866, 128),
}


def _qwen3_vl(row: tuple[int, ...], *, linear: int, encoder: int) -> DecoderArchitecture:
    """With its encoder of images, of so many parameters; the largest image and video are those of its processor."""
    return DecoderArchitecture.model_validate(
        {
            **dict(zip(_DECODER, row, strict=True)),
            "family": "qwen3_vl",
            "tied": True,
            "mlp_matrices": 3,
            "linear": linear,
            "tower": Tower(
                parameters=encoder,
                tokens=16_384,
                patches=65_536,
                width=2048,
                split=8192,
                embeddings=4,
                announced=153_600,
            ),
        }
    )


# Models with parts that a row does not tell. tests/models/test_architectures.py reads the same from a config.json.
_OTHERS: Mapping[str, DecoderArchitecture] = {
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3_vl(
        (1_720_567_808, 28, 16, 8, 128, 2048, 6144, 151_936, 262_144), linear=1_409_286_144, encoder=406_831_104
    ),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3_vl(
        (4_022_458_880, 36, 32, 8, 128, 2560, 9728, 151_936, 262_144), linear=3_633_315_840, encoder=415_219_712
    ),
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": DecoderArchitecture(
        parameters=30_532_110_336,
        layers=48,
        heads=32,
        kv_heads=4,
        head_dim=128,
        hidden=2048,
        ffn=5472,
        vocab=151_936,
        max_positions=262_144,
        family="qwen3_moe",
        tied=False,
        mlp_matrices=3,
        linear=29_896_998_912,
        experts=Experts(layers=48, count=128, per_token=8, ffn=768),
    ),
    "openai/gpt-oss-20b": DecoderArchitecture(
        parameters=20_914_562_880,
        layers=24,
        heads=64,
        kv_heads=8,
        head_dim=64,
        hidden=2880,
        ffn=2880,
        vocab=201_088,
        max_positions=131_072,
        family="gpt_oss",
        tied=False,
        mlp_matrices=3,
        linear=19_110_297_600,
        cache=(
            CacheLayers(attention="sliding", layers=12, kv_heads=8, head_dim=64, window=128),
            CacheLayers(attention="full", layers=12, kv_heads=8, head_dim=64),
        ),
        experts=Experts(layers=24, count=32, per_token=4, ffn=2880),
    ),
    "mistralai/Devstral-Small-2-24B-Instruct-2512": DecoderArchitecture(
        parameters=23_572_403_200,
        layers=40,
        heads=32,
        kv_heads=8,
        head_dim=128,
        hidden=5120,
        ffn=32_768,
        vocab=131_072,
        max_positions=393_216,
        family="ministral3",
        tied=False,
        mlp_matrices=3,
        linear=22_229_811_200,
        tower=Tower(parameters=438_550_528, tokens=3080, patches=12_100, width=2048, split=12_288),
    ),
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
    **{model: whisper(**dict(zip(_WHISPER, row, strict=True))) for model, row in _WHISPERS.items()},
    **_OTHERS,
}
