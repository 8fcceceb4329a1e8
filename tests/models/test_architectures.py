"""Rows of models/architectures.py that have more than numbers, against the reader of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from models.architectures import ARCHITECTURES
from models.hf_config import parse_config
from models.weights import DecoderArchitecture
from tests.models.hf_configs import CONFIGS

_WHISPER = CONFIGS["whisper-large-v3"]


def _whisper(hidden: int, layers: int, heads: int, ffn: int, vocab: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {"d_model": hidden, "vocab_size": vocab, "num_mel_bins": 80}
    for part in ("encoder", "decoder"):
        numbers |= {f"{part}_layers": layers, f"{part}_attention_heads": heads, f"{part}_ffn_dim": ffn}
    return _WHISPER | numbers


_MISTRAL = CONFIGS["Mistral-Small-3.2"]
READ: Mapping[str, Mapping[str, Any]] = {
    "openai/gpt-oss-20b": CONFIGS["gpt-oss-20b"],
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": CONFIGS["Qwen3-30B-A3B"]
    | {"intermediate_size": 5472, "max_position_embeddings": 262_144},
    "Qwen/Qwen3-VL-2B-Instruct": CONFIGS["Qwen3-VL-2B"],
    "Qwen/Qwen3-VL-4B-Instruct": CONFIGS["Qwen3-VL-2B"]
    | {
        "text_config": CONFIGS["Qwen3-VL-2B"]["text_config"]
        | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
        "vision_config": CONFIGS["Qwen3-VL-2B"]["vision_config"] | {"out_hidden_size": 2560},
    },
    "mistralai/Devstral-Small-2-24B-Instruct-2512": _MISTRAL
    | {"text_config": _MISTRAL["text_config"] | {"model_type": "ministral3", "max_position_embeddings": 393_216}},
    "openai/whisper-large-v3": _WHISPER,
    "openai/whisper-tiny": _whisper(384, 4, 6, 1536, 51_865),
    "openai/whisper-medium.en": _whisper(1024, 24, 16, 4096, 51_864),
}


@pytest.mark.parametrize("model", READ)
def test_a_row_is_what_the_model_s_config_says(model: str) -> None:
    assert parse_config(READ[model]).architecture == ARCHITECTURES[model]


def test_every_row_that_is_more_than_numbers_is_read_here() -> None:
    more = {
        model
        for model, arch in ARCHITECTURES.items()
        if isinstance(arch, DecoderArchitecture) and (arch.tower or arch.experts) and arch.family != "whisper"
    }
    assert more <= set(READ)
