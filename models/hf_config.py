"""Reads a Hugging Face config.json into an architecture, its quantisation and what the estimate leaves out.

Only families that the memory model knows are accepted (models/hf_families.py). Everything else is refused by name, with
the reason and what to do, because a number for it would be a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from models.hf_families import DECODERS, ENCODERS, GATED_ENCODERS, TEXT_OF, WITH_SOUND, decoder
from models.hf_fields import (
    EXPERTS,
    FFN,
    HEADS,
    HIDDEN,
    LAYERS,
    POSITIONS,
    VOCAB,
    UnsupportedModelError,
    count,
    optional,
    part,
)
from models.hf_quantization import Stored, fp8_cache, stored
from models.hf_towers import tower
from models.hf_understood import MEASURE, alike, understood
from models.memory.weights import HALF
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization, Tower
from models.whisper import FRAMES, MELS, whisper
from models.whisper import POSITIONS as POSITIONS_OF_WHISPER

__all__ = ["HfModel", "UnsupportedModelError", "parse_config", "read_config"]

# Parts of a config that only a model of images or sound has, and the names that its language model hides under.
_SENSES = (
    *("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "visual", "img_processor", "audio_processor"),
    *("vision_model", "audio_encoder_config", "sound_config"),
)
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "language_model_config")
_DTYPES = {"float32", "float16", "bfloat16"}
_LANGUAGE_ONLY = "without its encoder of images or sound: start vLLM with --language-model-only"


@dataclass(frozen=True)
class HfModel:
    """What a config.json says."""

    architecture: DecoderArchitecture | EncoderArchitecture
    quantization: Quantization
    dtype: str  # of the files
    weights_bytes: int | None  # size of the files; None: the config does not tell
    notes: tuple[str, ...] = ()  # what the estimate leaves out
    lowest: tuple[int, int] = (0, 0)  # compute capability that its way of storing weights needs
    fp8_cache: bool = False  # whether its files ask for a KV cache in 8 bits

    @property
    def size_known(self) -> bool:
        """Whether the config gives the size of the files."""
        return self.weights_bytes is not None


def read_config(
    path: Path, *, quantization: Quantization | None = None, like: str | None = None, language_only: bool = False
) -> HfModel:
    """Read a config.json, or the one in a directory; the keywords as those of `parse_config`.

    Raises ValueError with the remedy for a file that cannot be read and a config that lacks or breaks a key,
    and UnsupportedModelError for a model that the memory model does not cover.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config: object = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}; give the path of a model's config.json") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{file} is no JSON; download the model's config.json again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no JSON object; give a model's config.json")
    config = _modelopt(file.with_name("hf_quant_config.json")) | cast("dict[str, Any]", config)
    try:
        return parse_config(config, quantization=quantization, like=like, language_only=language_only)
    except RecursionError:
        raise ValueError(f"{file} nests too deep; download the model's config.json again") from None


def _modelopt(file: Path) -> dict[str, Any]:
    """What ModelOpt says of the weights in a file of its own, beside the configs of older checkpoints."""
    try:
        found: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    said = part(cast("dict[str, Any]", found), "quantization") if isinstance(found, dict) else None
    return {"quantization_config": {"quant_method": "modelopt", **said}} if said else {}


def parse_config(
    config: Mapping[str, Any],
    *,
    quantization: Quantization | None = None,
    like: str | None = None,
    language_only: bool = False,
) -> HfModel:
    """What a config says. Raises as `read_config` does.

    `quantization` is how the files store the weights, in place of what the config says; `like` is the family whose
    tensors the model has, in place of its own; `language_only` leaves out an encoder of images or sound.
    """
    family = str(config.get("model_type", ""))
    files = stored(config, quantization)
    dtype = _dtype(config)
    if family == "whisper" and like is None:
        return _sized(_whisper(config), files, dtype)
    text, nested = _text_of(config)
    if nested:
        files = stored(text, quantization)
        dtype = _dtype(text)
    senses = next((name for name in _SENSES if config.get(name) not in (None, False)), None)
    front: Tower | None = None
    notes: tuple[str, ...] = ()
    if language_only and (nested or senses):
        notes = (_LANGUAGE_ONLY,)
        text = {key: value for key, value in text.items() if key not in _SENSES}
    elif nested or senses or family in TEXT_OF:
        try:
            front = _front(config, family, text, nested=nested, senses=senses)
        except UnsupportedModelError as refused:
            raise _without_encoder(config, refused, quantization, like) from None
    named = like or _text_family(family, str(text.get("model_type", "")))
    if like:
        notes += (f"judged as a {like}, on your word",)
    if named in ENCODERS:
        return _sized(_encoder(text, named), files, dtype, notes)
    _known(named, text, nested, files)
    understood(text, named)
    arch = decoder(text, named, files, front)
    model = _sized(_both_ways(arch) if _looks_back_and_ahead(text) else arch, files, dtype, notes)
    return replace(model, fp8_cache=fp8_cache(text if nested else config))


def _text_family(family: str, text: str) -> str:
    """The language model's family: what it calls itself, or what the whole is known to have."""
    return text if text in DECODERS and text != family else TEXT_OF.get(family, text)


def _text_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The language model's own keys over those around it, and the name that it is nested under, if it is."""
    text, path = dict(config), list[str]()
    while (name := next((n for n in _NESTED if isinstance(text.get(n), dict)), None)) is not None:
        inner = part(text, name) or {}
        del text[name]
        text |= inner
        path.append(name)
    return text, ".".join(path) or None


def _dtype(config: Mapping[str, Any]) -> str:
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ValueError(f"torch_dtype '{dtype}' is none of {', '.join(sorted(_DTYPES))}")
    return dtype


def _sized(
    arch: DecoderArchitecture | EncoderArchitecture, files: Stored, dtype: str, notes: tuple[str, ...] = ()
) -> HfModel:
    """With the size of the files, where the config tells it."""
    if isinstance(arch, EncoderArchitecture):
        size = arch.parameters * (4 if dtype == "float32" else HALF)
        known = size if files.quantization is Quantization.NONE else None
        return HfModel(arch, files.quantization, dtype, known, notes)
    front = arch.tower.parameters if arch.tower else 0
    total = arch.parameters + front + arch.unloaded
    if files.quantization is Quantization.NONE:
        return HfModel(arch, files.quantization, dtype, total * (4 if dtype == "float32" else HALF), notes)
    if files.weight_bytes is None:
        return HfModel(arch, files.quantization, dtype, None, notes, files.lowest)
    small = arch.linear or 0
    # Quantisers of AWQ and GPTQ write lm_head apart even where the model ties it.
    apart = arch.vocab * arch.hidden if arch.tied and files.quantization in (Quantization.AWQ, Quantization.GPTQ) else 0
    size = int(small * files.weight_bytes) + (total - small + apart) * HALF
    return HfModel(arch, files.quantization, dtype, size, notes, files.lowest)


def _front(
    config: Mapping[str, Any], family: str, text: Mapping[str, Any], *, nested: str | None, senses: str | None
) -> Tower | None:
    """The encoder in front of the decoder, None where a config of a family that may have one has none."""
    if family in TEXT_OF and not isinstance(config.get("vision_config"), dict):
        return None  # the text model alone
    audio = next((name for name in ("audio_config", "sound_config") if config.get(name)), None)
    if family not in TEXT_OF or (audio and family not in WITH_SOUND):
        where = f"nests its language model in '{nested}'" if nested else f"has '{senses}' beside its language model"
        raise UnsupportedModelError(
            f"this config (model_type '{family or 'unnamed'}') {where}, and the memory model knows no encoder of "
            f"{'sound ' if audio else ''}that family, only those of {', '.join(sorted({*TEXT_OF, 'whisper'}))}; give "
            "--language-model-only, as vLLM takes it, to judge it without the encoder",
            {"--language-model-only": ""},
        )
    return tower(config, family, count(text, HIDDEN))


def _without_encoder(
    config: Mapping[str, Any], refused: UnsupportedModelError, quantization: Quantization | None, like: str | None
) -> UnsupportedModelError:
    """The refusal of an encoder with all that its language model needs besides, or that one's where no flag helps.

    Raises ValueError for a key that the language model lacks.
    """
    try:
        parse_config(config, quantization=quantization, like=like, language_only=True)
    except UnsupportedModelError as further:
        if not further.flags:
            return further
        encoder, model = str(refused).partition("; ")[0], str(further).partition("; ")[0]
        flags = {**refused.flags, **further.flags}
        names = " and ".join(f"{flag} {value}".strip() for flag, value in flags.items())
        return UnsupportedModelError(f"{encoder}, and {model}; give {names}", flags)
    return refused


def _looks_back_and_ahead(text: Mapping[str, Any]) -> bool:
    """Whether attention goes both ways in a decoder's tensors: an embedding model, which keeps no KV cache."""
    return text.get("is_causal") is False or text.get("use_bidirectional_attention") in (True, "all")


def _both_ways(arch: DecoderArchitecture) -> EncoderArchitecture:
    return EncoderArchitecture(
        parameters=arch.parameters,
        layers=arch.layers,
        heads=arch.heads,
        hidden=arch.hidden,
        ffn=arch.ffn,
        vocab=arch.vocab,
        max_positions=arch.max_positions,
    )


def _known(family: str, text: Mapping[str, Any], nested: str | None, files: Stored) -> None:
    if family in DECODERS:
        return
    if not family and not any(text.get(name) for name in LAYERS):
        raise ValueError(
            "config.json has neither model_type nor num_hidden_layers; give the config.json of the model itself, not "
            "of an adapter or a tokenizer"
        )
    where = f" in '{nested}'" if nested else ""
    what = f"model_type '{family}'{where}" if family else f"a config without model_type{where}"
    names = next((str(name) for name in cast("list[object]", text.get("architectures") or [])), "")
    of = f" ({names})" if names and isinstance(text.get("architectures"), list) else ""
    near = alike(text, family, files)
    if near is None:
        raise UnsupportedModelError(f"{what}{of} is none that the memory model knows, nor like one; {MEASURE}")
    raise UnsupportedModelError(
        f"{what}{of} is none that the memory model knows; if its layers are those of a model it knows, give --like "
        f"with that one's model_type, as in --like {near}",
        {"--like": near},
    )


def _encoder(config: Mapping[str, Any], family: str) -> EncoderArchitecture:
    layers, heads = count(config, LAYERS), count(config, HEADS)
    hidden = count(config, (*HIDDEN, "dim"))
    ffn = count(config, (*FFN, "hidden_dim"), 4 * hidden if family == "nomic_bert" else None)
    vocab, positions = count(config, VOCAB), count(config, POSITIONS)
    gated = family in GATED_ENCODERS
    rotary = gated or config.get("position_embedding_type") == "alibi"
    # Jina's BERT and Nomic's say themselves whether their MLP has a gate.
    if activation := config.get("feed_forward_type") or (family == "nomic_bert" and config.get("activation_function")):
        gated = str(activation).lower().endswith("glu")
    mlp = (3 if gated else 2) * hidden * ffn
    body = layers * (4 * hidden * hidden + mlp + 9 * hidden + ffn) + _more_experts(config, family, layers) * mlp
    learned = 0 if rotary or family in ("deberta", "deberta-v2") else positions
    return EncoderArchitecture(
        parameters=body + (vocab + learned + 4) * hidden + hidden * hidden,
        layers=layers,
        heads=heads,
        hidden=hidden,
        ffn=ffn,
        vocab=vocab,
        max_positions=positions,
    )


def _more_experts(config: Mapping[str, Any], family: str, layers: int) -> int:
    """MLPs of an encoder beyond one a layer."""
    experts = optional(config, *EXPERTS)
    if experts <= 1:
        return 0
    if family != "nomic_bert":
        raise UnsupportedModelError(
            f"this is an encoder with a mixture of experts, which the memory model does not know of model_type "
            f"'{family}'; ops fit --help"
        )
    return layers // count(config, ("moe_every_n_layers",), 2) * (experts - 1)


def _whisper(config: Mapping[str, Any]) -> DecoderArchitecture:
    ffn = count(config, ("decoder_ffn_dim",))
    return whisper(
        hidden=count(config, ("d_model",)),
        layers=count(config, ("decoder_layers",)),
        heads=count(config, ("decoder_attention_heads",)),
        ffn=ffn,
        vocab=count(config, VOCAB),
        positions=count(config, ("max_target_positions",), POSITIONS_OF_WHISPER),
        frames=count(config, ("max_source_positions",), FRAMES),
        mels=count(config, ("num_mel_bins",), MELS),
        encoder_layers=count(config, ("encoder_layers",)),
        encoder_ffn=count(config, ("encoder_ffn_dim",), ffn),
    )
