"""Whisper: recordings to text, in their language or in English. The ten of the reference's models guide.

vLLM serves them on its routes of transcription and translation. Files are float32 and served in half precision. What
was tuned on one language translates badly, and what was tuned without times writes no segments.
"""

from __future__ import annotations

from typing import Literal

from models.catalog.parts import UNSCORED, UNTARGETED, config_json, licence, pinned, safetensors
from models.engines.vllm import VllmEngine
from models.facts import Evidence, Licence, PerAudioSecond
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task

_APACHE = licence("Apache-2.0", "model card", Evidence.REPORTED)
_SEEN = "public repositories pin this commit, one with the size of the file"
_NOBODY = "no public repository pins one: `ops pin`"


def _whisper(
    *,
    alias: str,
    summary: str,
    model_id: str,
    revision: str | None,
    bytes_on_disk: int,
    usd_per_second: float,
    base: str = "",
    files: tuple[str, ...] = ("model.safetensors", "*.json", "merges.txt"),
    pickle: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    terms: Licence = _APACHE,
) -> ModelSpec:
    """An entry; `base` is the model whose numbers it has, where it was tuned from one."""
    size = Evidence.REPORTED if revision else Evidence.DERIVED
    return ModelSpec(
        alias=alias,
        group="speech",
        summary=summary,
        task=Task.TRANSCRIPTION,
        model_id=model_id,
        served_name=model_id.replace("/", "-").lower(),
        # The encoder's 1,500 positions are one batch; what was said before is no part of a request.
        engine=VllmEngine(image=VLLM, dtype="float16", max_num_batched_tokens=4096, prefix_caching=False),
        context=448,
        weights=safetensors(
            base or model_id,
            revision=revision,
            bytes_on_disk=bytes_on_disk,
            dtype=dtype,
            files=files,
            pickle=pickle,
        ),
        price=PerAudioSecond(usd_per_second=usd_per_second),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=terms,
        sources=(
            *pinned(_SEEN if revision else _NOBODY),
            *config_json(base or model_id, Evidence.REPORTED, size),
        ),
    )


ENTRIES = (
    _whisper(
        alias="whisper-tiny",
        summary="Whisper tiny: the fastest, and the least exact",
        model_id="openai/whisper-tiny",
        revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        bytes_on_disk=151_061_672,
        usd_per_second=5e-6,
    ),
    _whisper(
        alias="whisper-tiny-en",
        summary="Whisper tiny for English",
        model_id="openai/whisper-tiny.en",
        revision="87c7102498dcde7456f24cfd30239ca606ed9063",
        bytes_on_disk=151_060_136,
        usd_per_second=5e-6,
    ),
    _whisper(
        alias="whisper-small",
        summary="Whisper small: a balance of both",
        model_id="openai/whisper-small",
        revision="973afd24965f72e36ca33b3055d56a652f456b4d",
        bytes_on_disk=966_995_080,
        usd_per_second=1e-5,
    ),
    _whisper(
        alias="whisper-small-en",
        summary="Whisper small for English",
        model_id="openai/whisper-small.en",
        revision="e8727524f962ee844a7319d92be39ac1bd25655a",
        bytes_on_disk=966_992_008,
        usd_per_second=1e-5,
    ),
    _whisper(
        alias="whisper-medium",
        summary="Whisper medium: more exact",
        model_id="openai/whisper-medium",
        revision="abdf7c39ab9d0397620ccaea8974cc764cd0953e",
        bytes_on_disk=3_055_544_304,
        usd_per_second=2e-5,
    ),
    _whisper(
        alias="whisper-medium-en",
        summary="Whisper medium for English",
        model_id="openai/whisper-medium.en",
        revision="2e98eb6279edf5095af0c8dedb36bdec0acd172b",
        bytes_on_disk=3_055_540_208,
        usd_per_second=2e-5,
    ),
    _whisper(
        alias="whisper-large-v2",
        summary="Whisper large v2: the most exact of these",
        model_id="openai/whisper-large-v2",
        revision="ae4642769ce2ad8fc292556ccea8e901f1530655",
        bytes_on_disk=6_173_370_152,
        usd_per_second=3e-5,
    ),
    _whisper(
        alias="whisper-tiny-chinese",
        summary="Whisper tiny, tuned on Chinese",
        model_id="jethrowang/whisper-tiny-chinese",
        revision=None,
        bytes_on_disk=151_000_000,
        usd_per_second=5e-6,
        base="openai/whisper-tiny",
        files=("pytorch_model.bin", "*.json"),
        pickle=True,
        terms=licence("unknown", "nobody here has seen its model card", Evidence.MEMORY, commercial_use=False),
    ),
    _whisper(
        alias="whisper-small-japanese",
        summary="Whisper small, tuned on Japanese",
        model_id="Ivydata/whisper-small-japanese",
        revision=None,
        bytes_on_disk=967_000_000,
        usd_per_second=1e-5,
        base="openai/whisper-small",
        files=("pytorch_model.bin", "*.json"),
        pickle=True,
        terms=licence("Apache-2.0", "recalled", Evidence.MEMORY),
    ),
    _whisper(
        alias="whisper-large-v3-zh",
        summary="Whisper large v3, tuned on Chinese by BELLE",
        model_id="BELLE-2/Belle-whisper-large-v3-zh",
        revision=None,
        bytes_on_disk=3_090_000_000,
        usd_per_second=3e-5,
        base="openai/whisper-large-v3",
        files=("*.safetensors", "*.json"),
        dtype="float16",
        terms=licence("Apache-2.0", "recalled", Evidence.MEMORY),
    ),
)
