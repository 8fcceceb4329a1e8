"""Weights: what is stored of a model, and the shape of what is computed with it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.facts import Commit, FileName, HexDigest, Spec

HUB = "https://huggingface.co"  # where weights are published
MOST_LAYERS = 1000  # lists as long as this are made of them; the deepest published models have some 130
_Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]


class CacheLayers(Spec):
    """Layers of one kind of attention, whose KV cache grows with the tokens of a request."""

    attention: Literal["full", "sliding", "latent", "cross"]  # latent: MLA keeps one vector in place of keys and values
    layers: _Layers  # that keep a cache: layers that read another one's do not count
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    window: int | None = Field(default=None, gt=0)  # of sliding attention, or encoder positions of cross attention
    expanded: int = 0  # elements of keys and values that prefill makes of one latent vector


class StateLayers(Spec):
    """Layers that keep a state of fixed size a sequence in place of a KV cache: linear attention, Mamba."""

    layers: _Layers
    heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    state_dim: int = Field(gt=0)  # the state has heads x head_dim x state_dim elements
    state_bytes: int = 4  # of one of them
    conv_dim: int = Field(gt=0)  # channels of the short convolution in front, kept in the model's dtype
    conv_width: int = Field(gt=1)


class Experts(Spec):
    """The mixture-of-experts MLPs of a decoder."""

    layers: _Layers  # that have them; the others have one MLP
    count: int = Field(gt=1)  # routed experts of a layer, all of them resident
    per_token: int = Field(gt=0)
    ffn: int = Field(gt=0)  # width of one
    shared_ffn: int = 0  # summed width of those that every token passes


class Tower(Spec):
    """An encoder of images or sound in front of the decoder, loaded in half precision, and its profiling run."""

    parameters: int = Field(gt=0)
    tokens: int = Field(gt=0)  # embeddings that the largest item becomes: of images, where a video may be larger
    patches: int = Field(gt=0)  # rows that the encoder works on for them
    width: int = Field(gt=0)  # elements of one row alive at once in a layer, on every GPU
    split: int = 0  # further ones that several GPUs share
    embeddings: int = 1  # vectors of the decoder's width that one token becomes (deepstack: more than one)
    frame_tokens: int = 0  # embeddings of two frames of a video, as many of which as the context holds are one item
    announced: int = 0  # embeddings that some versions keep room for beside it, though no video becomes as many
    whole: int = 0  # embeddings of the largest item, where attention within one goes both ways: a batch holds all of it
    whole_image: int = 0  # the same of the largest that is no video

    @property
    def films(self) -> bool:
        """Whether a video takes more memory than an image."""
        return bool(self.frame_tokens or self.announced)


class DecoderArchitecture(Spec):
    """A decoder-only transformer, in the words of its config.json; without the optional parts a dense one."""

    kind: Literal["decoder"] = "decoder"
    parameters: int = Field(gt=0)
    layers: _Layers  # num_hidden_layers
    heads: int = Field(gt=0)  # num_attention_heads
    kv_heads: int = Field(gt=0)  # num_key_value_heads
    head_dim: int = Field(gt=0)
    hidden: int = Field(gt=0)  # hidden_size
    ffn: int = Field(gt=0)  # intermediate_size
    vocab: int = Field(gt=0)  # vocab_size
    max_positions: int = Field(gt=0)  # max_position_embeddings
    family: str = ""  # model_type, where vLLM treats it apart
    tied: bool | None = None  # whether lm_head is the embedding; None: what the parameter count says
    mlp_matrices: Literal[2, 3] | None = None  # 3: gated; None: what the parameter count says
    linear: int | None = None  # parameters of the matrices that a quantised file stores small; None: all of the layers
    cache: tuple[CacheLayers, ...] = ()  # none: every layer has full attention of `kv_heads` heads
    states: StateLayers | None = None
    experts: Experts | None = None
    tower: Tower | None = None
    looked_up: int = 0  # parameters of further tables, of which a token takes a row: loaded, never read whole
    unloaded: int = 0  # parameters in the files that vLLM leaves there: a prediction head that nobody asked for
    rotary_tables: int = 1  # tables of all positions that vLLM keeps

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes: of the routed experts its share."""
        if self.experts is None:
            return self.parameters
        idle = self.experts.count - self.experts.per_token
        return self.parameters - self.experts.layers * idle * 3 * self.hidden * self.experts.ffn


class EncoderArchitecture(Spec):
    """A BERT-like encoder: no KV cache, memory goes with the batch."""

    kind: Literal["encoder"] = "encoder"
    parameters: int = Field(gt=0)
    layers: _Layers
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    ffn: int = Field(gt=0)
    vocab: int = Field(gt=0)
    max_positions: int = Field(gt=0)


Architecture = Annotated[DecoderArchitecture | EncoderArchitecture, Field(discriminator="kind")]


_PICKLE = re.compile(r"\.(bin|pt|pth|ckpt)$|^\*$")


class Quantization(StrEnum):
    """How linear weights are stored."""

    NONE = "none"
    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"
    INT8 = "int8"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"
    BITSANDBYTES = "bitsandbytes"
    GGUF = "gguf"


class Weights(Spec):
    """What has to be on the claim before the engine starts."""

    revision: Commit | None  # commit on the hub; None is flagged in the plan, `ops pin` resolves it
    format: Literal["safetensors", "onnx", "gguf", "pickle"]  # pickle: loading it runs what its author wrote
    quantization: Quantization
    dtype: Literal["float32", "float16", "bfloat16"]  # of what is not quantised, and of the KV cache
    files: tuple[str, ...]  # patterns of the files that the engine reads; nothing else is downloaded
    digests: tuple[tuple[FileName, HexDigest], ...] = ()  # of files, where on record: a hub that has others is refused
    bytes_on_disk: int = Field(gt=0)
    architecture: Architecture
    gated: bool = False  # the hub wants an accepted licence and a token

    @model_validator(mode="after")
    def _says_that_it_runs_code(self) -> Weights:
        """A pickle is a program, so whoever brings it up is asked first (stacks/rules/pins.py)."""
        pickles = [pattern for pattern in self.files if _PICKLE.search(pattern)]
        if pickles and self.format != "pickle":
            raise ValueError(
                f"{', '.join(pickles)} may be pickles, which run code as they are loaded: say format pickle"
            )
        return self

    @property
    def parameters(self) -> int:
        """All that is stored: those of an encoder in front of a decoder, too."""
        arch = self.architecture
        tower = arch.tower if isinstance(arch, DecoderArchitecture) else None
        return arch.parameters + (tower.parameters if tower else 0)
