"""Images and videos that a batch of vLLM has to hold whole, because attention within one goes both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.hf_config import parse_config
from models.memory.remedies import remedies
from models.memory.versions import vllm_version
from models.memory.vllm import GpuFit, Knobs, default_knobs, gpu_fit
from models.weights import DecoderArchitecture, Quantization
from tests.models.vllm_logs import architecture

KNOBS = Knobs(max_model_len=16_384, max_num_seqs=64, max_num_batched_tokens=2048, utilization=0.90)


@pytest.mark.parametrize(
    ("version", "defaults"), [("0.19.2", 2048), ("0.20.0", 2048), ("0.22.0", 2496), ("0.25.1", 2496)]
)
def test_the_default_batch_holds_the_largest_item_of_what_attends_both_ways(version: str, defaults: int) -> None:
    tower = architecture("gemma-4-31B").tower
    knobs = default_knobs(39.49, 32_768, version=vllm_version(version), tower=tower)
    assert knobs.max_num_batched_tokens == defaults
    of_text = default_knobs(39.49, 32_768, version=vllm_version(version), tower=architecture("gemma-4-E4B").tower)
    assert of_text.max_num_batched_tokens == 2048  # whose vision attends as text does


_GEMMA_ON_H100 = replace(KNOBS, max_model_len=8192, max_num_batched_tokens=1024)


@pytest.mark.parametrize(
    ("model", "knobs", "version", "least"),
    [
        ("gemma-4-31B", _GEMMA_ON_H100, "0.23.0", 2496),
        ("gemma-4-31B", _GEMMA_ON_H100, "0.20.0", 2496),
        ("gemma-4-31B", _GEMMA_ON_H100, "0.19.2", None),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, max_num_batched_tokens=2496), "0.23.0", None),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, max_num_seqs=5000), "0.23.0", 5000),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, max_num_batched_tokens=16), "0.23.0", 2496),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, language_only=True), "0.23.0", None),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, videos=False), "0.23.0", None),
        ("gemma-4-31B", replace(_GEMMA_ON_H100, videos=False, max_num_batched_tokens=256), "0.23.0", 280),
        ("gemma-4-E4B", _GEMMA_ON_H100, "0.23.0", None),
    ],
)
def test_a_batch_below_an_item_that_is_taken_whole_is_refused_and_the_least_one_is_not(
    model: str, knobs: Knobs, version: str, least: int | None
) -> None:
    def judged(knobs: Knobs) -> GpuFit:
        return gpu_fit(
            architecture(model),
            quantization=Quantization.NONE,
            weights_bytes=None,
            gpu_gib=79.18,
            knobs=knobs,
            version=vllm_version(version),
        )

    if least is None:
        assert judged(knobs)
        return
    with pytest.raises(ValueError, match=f"give --max-num-batched-tokens {least} or more"):
        judged(knobs)
    assert judged(replace(knobs, max_num_batched_tokens=least))


def test_gemma_3_takes_an_image_whole() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34}
    arch = parse_config({"model_type": "gemma3", "text_config": text, "vision_config": {}}).architecture
    assert isinstance(arch, DecoderArchitecture)
    assert arch.tower is not None
    assert (arch.tower.whole, arch.tower.whole_image) == (256, 256)


@pytest.mark.parametrize(("gpu_gib", "context"), [(66.0, 2048), (70.0, 65_536), (76.0, 8192)])
def test_no_remedy_has_a_batch_below_an_item_that_is_taken_whole(gpu_gib: float, context: int) -> None:
    arch = architecture("gemma-4-31B")
    found = remedies(
        arch,
        quantization=Quantization.NONE,
        weights_bytes=None,
        gpu_gib=gpu_gib,
        knobs=replace(KNOBS, max_num_seqs=1024, max_num_batched_tokens=8192, max_model_len=context),
    )
    chunks = [int(r.flags["--max-num-batched-tokens"]) for r in found if "--max-num-batched-tokens" in r.flags]
    assert chunks
    assert min(chunks) >= 2496
