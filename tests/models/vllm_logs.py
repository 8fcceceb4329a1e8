"""Start-up logs of real vLLM servers, to calibrate the memory model on and to judge it by.

Every row was read in a public source: a GitHub issue or pull request, or a log in a public repository found
by the index number given (a number of the code index that the project searches). `kv_gib` and `tokens` are the
logged KV cache of one GPU; None is a figure the log does not show. `max_model_len` and `seqs` stay None where
the server took its defaults. Left out: logs whose GPU, utilization or model cannot be told. Multimodal, hybrid
and mixture-of-experts models are in `vllm_new_logs.py`.

`python -m tests.models.vllm_logs` prints the tables of docs/memory.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import replace

from models.hf_config import parse_config
from models.memory.gpus import CARDS
from models.memory.versions import vllm_version
from models.memory.vllm import GpuFit, default_knobs, gpu_fit
from models.weights import DecoderArchitecture
from tests.models.hf_configs import CONFIGS
from tests.models.vllm_held_out import DENSE
from tests.models.vllm_log import AWQ, BNB, FP8, GPTQ, NONE, Log
from tests.models.vllm_new_logs import NEW_LOGS


def _arch(  # noqa: PLR0917  a row of a table
    millions: float,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    hidden: int,
    ffn: int,
    vocab: int,
    max_positions: int,
    family: str = "",
) -> DecoderArchitecture:
    return DecoderArchitecture(
        parameters=int(millions * 1e6),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        ffn=ffn,
        vocab=vocab,
        max_positions=max_positions,
        family=family,
    )


# From each model's config.json.
ARCHITECTURES = {
    "CodeLlama-13b": _arch(13016, 40, 40, 40, 128, 5120, 13824, 32016, 16384, "llama"),
    "Llama-2-7b": _arch(6738.4, 32, 32, 32, 128, 4096, 11008, 32000, 4096, "llama"),
    "Llama-3-8B": _arch(8030.3, 32, 32, 8, 128, 4096, 14336, 128256, 8192, "llama"),
    "Llama-3-70B": _arch(70553.7, 80, 64, 8, 128, 8192, 28672, 128256, 8192, "llama"),
    "Llama-3.1-8B": _arch(8030.3, 32, 32, 8, 128, 4096, 14336, 128256, 131072, "llama"),
    "Phi-4": _arch(14659.5, 40, 40, 10, 128, 5120, 17920, 100352, 16384, "phi3"),
    "Qwen2.5-0.5B": _arch(494.0, 24, 14, 2, 64, 896, 4864, 151936, 32768, "qwen2"),
    "Qwen2.5-1.5B": _arch(1543.7, 28, 12, 2, 128, 1536, 8960, 151936, 32768, "qwen2"),
    "Qwen2.5-Math-1.5B": _arch(1543.7, 28, 12, 2, 128, 1536, 8960, 151936, 4096, "qwen2"),
    "Qwen2.5-7B": _arch(7615.6, 28, 28, 4, 128, 3584, 18944, 152064, 32768, "qwen2"),
    "R1-Distill-Qwen-7B": _arch(7615.6, 28, 28, 4, 128, 3584, 18944, 152064, 131072, "qwen2"),
    "Qwen2.5-14B": _arch(14770.0, 48, 40, 8, 128, 5120, 13824, 152064, 32768, "qwen2"),
    "R1-Distill-Qwen-14B": _arch(14770.0, 48, 40, 8, 128, 5120, 13824, 152064, 131072, "qwen2"),
    "Qwen2.5-72B": _arch(72706.2, 80, 64, 8, 128, 8192, 29568, 152064, 32768, "qwen2"),
    "R1-Distill-Qwen-32B": _arch(32763.9, 64, 40, 8, 128, 5120, 27648, 152064, 131072, "qwen2"),
    "Qwen3-4B": _arch(4022.5, 36, 32, 8, 128, 2560, 9728, 151936, 40960, "qwen3"),
    "Qwen3-8B": _arch(8190.7, 36, 32, 8, 128, 4096, 12288, 151936, 40960, "qwen3"),
    "Qwen3-14B": _arch(14768.3, 40, 40, 8, 128, 5120, 17408, 151936, 40960, "qwen3"),
    "Qwen3-32B": _arch(32762.1, 64, 64, 8, 128, 5120, 25600, 151936, 40960, "qwen3"),
}


LOGS = (
    Log("vllm#10517", "0.6.4", "Llama-3.1-8B", "RTX 3090", 23.58, 0.90, 3.81, 31232, max_model_len=20000),
    Log("vllm PR#10511", "0.6.4", "Llama-3-8B", "H100", 79.22, 0.90, 53.29),
    Log("vllm PR#2031", "0.2.6", "Llama-2-7b", "A100-80GB", 79.15, 0.90, None, 117616),
    Log(
        "vLLM 0.22.1 log, by the project",
        "0.22.1",
        "Qwen2.5-7B",
        "RTX 3090",
        23.57,
        0.90,
        14.43,
        270144,
        quantization=AWQ,
        max_model_len=4096,
        seqs=8,
    ),
    Log("index 60663571995", "0.7.2", "Qwen2.5-Math-1.5B", "22 GiB card", 22.06, 0.90, 15.52, 581312),
    Log("index 60430572081", "0.7.2", "Qwen2.5-Math-1.5B", "L40S", 44.39, 0.85, 33.37, 1249840),
    Log("llm-d-benchmark config_explorer", "0.11", "Qwen3-32B", "H100", 79.18, 0.90, 4.45, None, max_model_len=16000),
    Log(
        "vllm#3358",
        "0.3.3",
        "CodeLlama-13b",
        "L4",
        22.03,
        0.90,
        None,
        14528,
        max_model_len=16384,
        tp=2,
        starts=False,
    ),
    Log(
        "index 62352993850",
        "0.7",
        "Qwen2.5-7B",
        "24 GB card",
        23.57,
        0.90,
        5.77,
        107984,
        max_model_len=8192,
        seqs=16,
    ),
    Log("index 33435952071", "0.8.5", "Qwen2.5-7B", "V100", 31.74, 0.90, 9.88, None),
    Log("index 4922787267", "0.7", "R1-Distill-Qwen-7B", "V100", 31.74, 0.90, 12.80, 14984 * 16, max_model_len=2048),
    Log("index 55740737586", "0.7", "Qwen2.5-1.5B", "T4", 14.56, 0.50, 2.36, 5519 * 16),
    Log(
        "index 5773335890",
        "0.6.5",
        "Phi-4",
        "A100-80GB",
        79.25,
        0.15,
        2.18,
        715 * 16,
        quantization=GPTQ,
        max_model_len=2048,
    ),
    Log(
        "index 40791855483",
        "0.8.5",
        "Qwen3-4B",
        "RTX 2060",
        12.0,
        0.95,
        3.06,
        1394 * 16,
        max_model_len=10000,
        seqs=1,
    ),
    Log("index 69421856836", "0.6.5", "Qwen2.5-0.5B", "T4", 14.56, 0.90, 10.63, 58059 * 16),
    Log("index 21130996930", "0.8.4", "R1-Distill-Qwen-32B", "H20", 95.6, 0.90, 53.19, None, tp=2),
    Log("index 66080606939", "0.15", "Qwen3-8B", "RTX 4090 48G", 47.37, 0.90, 25.94),
    Log("index 57978845466", "0.19.1", "Qwen3-8B", "A100-40GB", 39.49, 0.90, 19.36, 140960),
    Log("index 46454478915", "0.10.1.1", "Llama-3.1-8B", "A100-40GB", 39.49, 0.90, 19.25, 157648),
    Log("index 70682754770", "0.31", "Llama-3.1-8B", "A100-80GB", 79.25, 0.92, 56.21, 460496, seqs=256),
    Log("index 61815222665", "0.27", "Qwen2.5-0.5B", "24 GB card", 23.99, 0.92, 20.52, 1793232, eager=True),
    Log("index 61918553602", "0.27", "Qwen2.5-0.5B", "24 GB card", 23.99, 0.85, 18.65, 1629520),
    Log(
        "index 67144197265",
        "0.22.1",
        "Qwen2.5-7B",
        "48 GB card",
        44.4,
        0.95,
        26.32,
        492912,
        max_model_len=4096,
        seqs=128,
        note="total derived from the logged utilization that the graph estimate is worth",
    ),
    Log("index 62071304591", "0.21.0", "Qwen2.5-14B", "H100", 79.18, 0.90, 41.43, 226240, max_model_len=4096, seqs=256),
    Log(
        "index 66305487638",
        "0.27.1",
        "Qwen3-8B",
        "L4",
        22.03,
        0.90,
        3.14,
        22880,
        max_model_len=8192,
        weights_gib=15.27,
        note="on GKE; image and flags in vfarcic/inference-demo, demo/vllm-16bit.yaml, which its page deploys",
    ),
    Log(
        "index 66305487638",
        "0.27.1",
        "Qwen3-8B",
        "L4",
        22.03,
        0.90,
        9.26,
        67424,
        quantization=FP8,
        max_model_len=8192,
        weights_gib=9.06,
        note="on GKE, quantised while loading; image and flags in demo/vllm-8bit.yaml, as above",
    ),
    Log(
        "index 69428649752",
        "0.23",
        "Qwen2.5-7B",
        "12 GB card",
        12.0,
        0.85,
        3.71,
        69488,
        quantization=AWQ,
        max_model_len=4096,
        seqs=16,
        note="version not logged, dated 2026-08",
    ),
    Log("index 57908690698", "0.6.5", "Llama-3.1-8B", "A100-80GB", 79.14, 0.90, 54.93),
    Log("vllm#13061", "0.7.2", "R1-Distill-Qwen-14B", "RTX 4090", 23.55, 0.98, None, 81536, tp=2, starts=False),
    Log("index 14319663172", "0.7.3", "Llama-3.1-8B", "A10", 22.07, 0.90, 4.60, 37696, seqs=8, starts=False),
    Log("index 59762440098", "0.8.5", "Qwen2.5-7B", "L40S", 44.39, 0.90, None, 444_592),
    Log("index 59762440098", "0.8.5", "Qwen2.5-7B", "L40S", 44.39, 0.90, None, 553_216, quantization=FP8),
    Log("index 59762440098", "0.8.5", "Qwen2.5-7B", "L40S", 44.39, 0.90, None, 611_248, quantization=GPTQ),
    Log("index 7256429456", "0.11.2", "Qwen2.5-1.5B", "16 GB card", 15.59, 0.60, 5.03, 188512, trial=True),
    *DENSE,
)


def architecture(model: str) -> DecoderArchitecture:
    """Of a row's model."""
    if model in ARCHITECTURES:
        return ARCHITECTURES[model]
    found = parse_config(CONFIGS[model]).architecture
    assert isinstance(found, DecoderArchitecture)
    return found


def file_bytes(model: str) -> int | None:
    """Size of a model's files, where its config.json is kept."""
    return parse_config(CONFIGS[model]).weights_bytes if model in CONFIGS else None


def capability(log: Log) -> tuple[int, int]:
    """Of a row's card: of Ada where the log names only its size."""
    name = log.gpu.lower().replace(" ", "")
    return next(
        (card.capability for key, card in CARDS.items() if name.startswith(key.split("-")[0])), _OTHER.get(name, (8, 9))
    )


_OTHER = {
    "rtxpro6000": (12, 0),
    "rtx5070ti": (12, 0),
    "rtx2060": (7, 5),
    "h20": (9, 0),
    "a10": (8, 6),
    "16gbcard": (8, 6),
}


def predict(log: Log) -> GpuFit:
    """What the memory model says of a logged start, from what the log says of its flags."""
    arch = architecture(log.model)
    version = vllm_version(log.version)
    knobs = default_knobs(
        log.gpu_gib,
        log.max_model_len or arch.max_positions,
        version=version,
        max_num_seqs=log.seqs,
        large=log.gpu_gib >= 70 and "A100" not in log.gpu,
        capability=capability(log),
        tower=None if log.language_only else arch.tower,
    )
    knobs = replace(
        knobs,
        max_model_len=log.max_model_len,
        utilization=log.utilization,
        tensor_parallel=log.tp,
        eager=log.eager,
        compiled=log.compiled,
        max_num_batched_tokens=log.batched or knobs.max_num_batched_tokens,
        kv_cache_dtype=log.kv_dtype,
        prefix_caching=log.prefix_caching,
        speculation=log.speculation,
        max_loras=log.loras,
        max_lora_rank=log.lora_rank,
        language_only=log.language_only,
    )
    return gpu_fit(
        arch,
        quantization=log.quantization,
        weights_bytes=file_bytes(log.model) if log.quantization is not BNB else None,
        gpu_gib=log.gpu_gib,
        knobs=knobs,
        version=version,
        capability=capability(log),
        served_dtype=log.dtype or ("float16" if capability(log) < (8, 0) else None),
    )


def error(log: Log) -> float:
    """Relative error of the predicted KV cache: of its GiB where they were logged, else of its tokens."""
    fit = predict(log)
    if log.kv_gib is not None:
        return fit.kv_cache_gib / log.kv_gib - 1
    assert log.tokens is not None
    return fit.kv_cache_tokens / log.tokens - 1


def table() -> str:
    """Predicted against logged, as the table of docs/memory.md."""
    lines = [
        "| model | GPU | vLLM | logged KV cache | predicted | error | starts, predicted | used for | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for log in sorted((*LOGS, *NEW_LOGS), key=lambda log: (log in NEW_LOGS, log.model, log.gpu_gib)):
        fit = predict(log)
        logged = f"{log.kv_gib:.2f} GiB" if log.kv_gib is not None else f"{log.tokens:,} tokens"
        predicted = f"{fit.kv_cache_gib:.2f} GiB" if log.kv_gib is not None else f"{fit.kv_cache_tokens:,} tokens"
        stored = "" if log.quantization is NONE else log.quantization.upper()
        model = log.model if stored in log.model else f"{log.model} {stored}"
        gpu = (f"{log.tp} x " if log.tp > 1 else "") + log.gpu
        verdict = f"{'yes' if log.starts else 'no'}, {'yes' if fit.fits else 'no'}"
        use = "trial" if log.trial else "calibration"
        lines.append(
            f"| {model} | {gpu} at {log.utilization:g} | {log.version} | {logged} | {predicted} "
            f"| {error(log):+.1%} | {verdict} | {use} | {log.source} |"
        )
    return "\n".join(lines)


def summary() -> str:
    """Medians and largest errors, calibration and trial apart, as docs/memory.md has them."""
    lines = ["| rows | logs | median error | largest |", "| --- | --- | --- | --- |"]
    for name, logs in (("dense", LOGS), ("other architectures", NEW_LOGS)):
        for use, trial in (("calibration", False), ("trial", True)):
            lines.append(_errors(f"{name}, {use}", [log for log in logs if log.trial is trial]))
    return "\n".join(lines)


def _errors(name: str, logs: Iterable[Log]) -> str:
    errors = [abs(error(log)) for log in logs]
    return f"| {name} | {len(errors)} | {statistics.median(errors):.1%} | {max(errors):.1%} |"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n\n{summary()}\n")
