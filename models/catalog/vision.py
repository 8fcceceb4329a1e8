"""Chat models that read images. Images come in the request: nothing is fetched from an address (docs/gateway.md)."""

from __future__ import annotations

from models.catalog.parts import UNSCORED, UNTARGETED, config_json, licence, pinned, safetensors
from models.engines.vllm import VllmEngine
from models.facts import Defaults, Evidence, PerToken
from models.images import VLLM
from models.spec import ModelSpec
from models.tasks import Task
from models.weights import Quantization


def _qwen3_vl(
    *,
    alias: str,
    size: str,
    revision: str | None,
    bytes_on_disk: int,
    seen: str,
    quantization: Quantization = Quantization.NONE,
) -> ModelSpec:
    """Qwen3-VL of a size ("2B"), in half precision or 8 bits, which its encoder of images and lm_head keep out of."""
    base = f"Qwen/Qwen3-VL-{size}-Instruct"
    fp8 = quantization is Quantization.FP8
    model_id = f"{base}-FP8" if fp8 else base
    return ModelSpec(
        alias=alias,
        group="vision",
        summary=f"Qwen3-VL {size} Instruct{' in 8 bits' if fp8 else ''}: chat about images",
        task=Task.VISION,
        model_id=model_id,
        served_name=model_id.partition("/")[2].lower(),
        engine=VllmEngine(image=VLLM, max_num_seqs=32, stream_interval=2),
        context=16_384,
        weights=safetensors(base, revision=revision, bytes_on_disk=bytes_on_disk, quantization=quantization),
        price=PerToken(input_usd_per_mtok=0.2, output_usd_per_mtok=0.6),
        defaults=Defaults(temperature=0.7, top_p=0.8),
        slo=UNTARGETED,
        evaluation=UNSCORED,
        licence=licence("Apache-2.0", "model card", Evidence.REPORTED),
        sources=(*pinned(seen), *config_json(model_id, Evidence.REPORTED, Evidence.DERIVED)),
    )


ENTRIES = (
    _qwen3_vl(
        alias="qwen3-vl-2b",
        size="2B",
        revision="89644892e4d85e24eaac8bacfd4f463576704203",
        bytes_on_disk=4_254_797_824,
        seen="9 public repositories pin this commit",
    ),
    _qwen3_vl(
        alias="qwen3-vl-2b-fp8",
        size="2B",
        revision="46485250d8854c0a9be4f1adbc67ca47e5bb6fa5",
        bytes_on_disk=3_240_000_000,
        seen="10 public repositories pin this commit, one tells the size",
        quantization=Quantization.FP8,
    ),
    _qwen3_vl(
        alias="qwen3-vl-4b",
        size="4B",
        revision="ebb281ec70b05090aa6165b016eac8ec08e71b17",
        bytes_on_disk=8_875_357_184,
        seen="10 public repositories pin this commit",
    ),
    _qwen3_vl(
        alias="qwen3-vl-4b-fp8",
        size="4B",
        revision=None,
        bytes_on_disk=5_242_041_344,
        seen="no public repository pins one: `ops pin`",
        quantization=Quantization.FP8,
    ),
)
