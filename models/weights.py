"""Weights: what is stored of a model, and the shape of what is computed with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from models.facts import Commit, Spec


class DecoderArchitecture(Spec):
    """A dense decoder-only transformer, in the words of its config.json."""

    kind: Literal["decoder"] = "decoder"
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)  # num_hidden_layers
    heads: int = Field(gt=0)  # num_attention_heads
    kv_heads: int = Field(gt=0)  # num_key_value_heads
    head_dim: int = Field(gt=0)
    hidden: int = Field(gt=0)  # hidden_size
    ffn: int = Field(gt=0)  # intermediate_size
    vocab: int = Field(gt=0)  # vocab_size
    max_positions: int = Field(gt=0)  # max_position_embeddings


class EncoderArchitecture(Spec):
    """A BERT-like encoder: no KV cache, memory goes with the batch."""

    kind: Literal["encoder"] = "encoder"
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    ffn: int = Field(gt=0)
    vocab: int = Field(gt=0)
    max_positions: int = Field(gt=0)


Architecture = Annotated[DecoderArchitecture | EncoderArchitecture, Field(discriminator="kind")]


class Quantization(StrEnum):
    """How linear weights are stored."""

    NONE = "none"
    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"


class Weights(Spec):
    """What has to be on the claim before the engine starts."""

    revision: Commit | None  # commit on the hub; None is flagged in the plan, `ops pin` resolves it
    format: Literal["safetensors", "onnx", "gguf"]
    quantization: Quantization
    dtype: Literal["float32", "float16", "bfloat16"]  # of what is not quantised, and of the KV cache
    files: tuple[str, ...]  # patterns of the files that the engine reads; nothing else is downloaded
    bytes_on_disk: int = Field(gt=0)
    architecture: Architecture
    gated: bool = False  # the hub wants an accepted licence and a token
