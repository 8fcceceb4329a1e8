"""The head of a GGUF file: what its metadata says of the model, in the words of a config.json.

Layout: docs/gguf.md of ggml-org/ggml, versions 2 and 3. The head comes first, so that a part of a file is enough; what
is cut off after the keys that are needed is not missed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ops.errors import OpsError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST, _MOST_KEYS = 1_000_000, 100_000  # bytes of a text, keys and values: more is no head
# Families of llama.cpp by the model_type that their tensors have in a config.json.
_FAMILIES = {
    **{name: name for name in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "starcoder2", "granite", "olmo2")},
    "gemma3": "gemma3_text",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "command-r": "cohere",
    "gpt-oss": "gpt_oss",
    "mistral3": "mistral",
}
# By the names of a config.json.
_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "sliding_window": "attention.sliding_window",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}


@dataclass(frozen=True)
class Header:
    """Metadata of a GGUF file."""

    values: Mapping[str, Any]  # scalars and texts
    lengths: Mapping[str, int]  # of arrays
    whole: bool  # False: cut off, so that what is not there may be behind

    @property
    def repository(self) -> str | None:
        """The repository on the hub that it says to be of: "Qwen/Qwen3-8B-GGUF"."""
        said = str(
            self.values.get("general.source.huggingface.repository") or self.values.get("general.repo_url") or ""
        )
        found = re.search(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)/?$", said)
        return found[1] if found else None

    @property
    def licence(self) -> str | None:
        """As the hub names it."""
        return str(self.values["general.license"]) if self.values.get("general.license") else None

    @property
    def template(self) -> str | None:
        """How the model is asked."""
        return str(self.values["tokenizer.chat_template"]) if "tokenizer.chat_template" in self.values else None

    def config(self) -> dict[str, Any]:
        """The same in the words of a config.json. Raises ValueError for a family that is not known here."""
        arch = str(self.values.get("general.architecture", ""))
        if arch not in _FAMILIES:
            known = ", ".join(_FAMILIES)
            raise ValueError(f"the architecture of this GGUF file is '{arch:.40}', and none of {known}")
        found = {name: self.values[key] for name, end in _KEYS.items() if (key := f"{arch}.{end}") in self.values}
        vocabulary = self.lengths.get("tokenizer.ggml.tokens")
        if "vocab_size" not in found and vocabulary:
            found["vocab_size"] = vocabulary
        return {"model_type": _FAMILIES[arch], "torch_dtype": "float16", **found}


def read_header(body: bytes, name: str) -> Header:
    """Read what is there of a head. Raises OpsError for what is no GGUF file."""
    if len(body) < 24 or body[:4] != b"GGUF" or struct.unpack_from("<I", body, 4)[0] not in (2, 3):
        raise OpsError(f"{name} does not begin as a GGUF file of version 2 or 3 does", "ops add --help")
    reader = _Reader(body, 24)
    values: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    try:
        for _ in range(min(struct.unpack_from("<Q", body, 16)[0], _MOST_KEYS)):
            key = reader.text()
            kind = reader.number("<I")
            if kind == _ARRAY:
                lengths[key] = reader.array()
            else:
                values[key] = reader.value(kind)
        whole = True
    except struct.error:
        whole = False
    except ValueError as error:
        raise OpsError(f"{name} is no GGUF file that can be read: {error}", "ops add --help") from None
    return Header(values, lengths, whole)


@dataclass
class _Reader:
    body: bytes
    at: int

    def number(self, form: str) -> Any:
        (found,) = struct.unpack_from(form, self.body, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        length = self.number("<Q")
        if length > _LONGEST:
            raise ValueError(f"a text of {length} bytes")
        if self.at + length > len(self.body):
            raise struct.error
        self.at += length
        return self.body[self.at - length : self.at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise ValueError(f"a value of kind {kind}")
        return self.number(_SCALARS[kind])

    def array(self) -> int:
        """Its length; what is in it is passed over, as far as it is there."""
        kind, length = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            self.at += struct.calcsize(_SCALARS[kind]) * length
            return length
        if kind != _STRING:
            raise ValueError(f"an array of kind {kind}")
        for _ in range(length):
            if self.at >= len(self.body):
                break
            size = struct.unpack_from("<Q", self.body, self.at)[0] if self.at + 8 <= len(self.body) else len(self.body)
            self.at += 8 + size
        return length
