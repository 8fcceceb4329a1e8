"""What start-up logs of vLLM say of single parts: how many tokens a cache of so many GiB holds, and loaded weights.

Sources as in `vllm_logs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.memory.vllm import Speculation
from models.weights import Quantization

AWQ, GPTQ, FP8, NONE = Quantization.AWQ, Quantization.GPTQ, Quantization.FP8, Quantization.NONE
MXFP4, NVFP4, BNB = Quantization.MXFP4, Quantization.NVFP4, Quantization.BITSANDBYTES


@dataclass(frozen=True)
class CacheLog:
    """What a logged KV cache holds in tokens: how vLLM cut it, whatever the rest of the start took."""

    source: str
    version: str
    model: str  # key of CONFIGS
    kv_gib: float
    tokens: int
    max_model_len: int
    kv_dtype: str = "auto"
    tp: int = 1
    prefix_caching: bool | None = None
    speculation: Speculation | None = None
    batched: int = 8192


CACHES = (
    CacheLog("index 45665312624", "0.13.0", "gemma-3-1b", 25.39, 950_864, 2048),
    CacheLog("index 60541554332", "0.11", "gpt-oss-20b", 35.64, 3_114_144, 131_072, tp=4),
    CacheLog("index 55770092662", "0.22.0", "Qwen3.5-4B", 11.11, 141_107, 1024),
    CacheLog("index 54540076871", "0.23.0", "Qwen3.5-4B", 10.21, 235_706, 4096),
    CacheLog("index 51781852921", "0.19.0", "Qwen3.5-9B", 20.27, 165_792, 262_144),
    CacheLog("index 60434605882", "0.19.0", "Qwen3.6-27B", 48.8, 199_136, 65_536),
    CacheLog("index 55002292133", "0.19.0", "Qwen3.5-9B", 6.56, 53_328, 4096),
    CacheLog("index 52377383460", "0.20.0", "Qwen3.6-35B-A3B", 2.95, 75_456, 65_536, "fp8_e4m3"),
    CacheLog("club-3090#612", "0.24.0", "Qwen3.6-35B-A3B", 5.98, 567_978, 131_072, "fp8", prefix_caching=True),
    CacheLog("club-3090#652", "0.24.0", "Qwen3.6-35B-A3B", 6.01, 569_878, 131_072, "fp8", prefix_caching=True),
    CacheLog(
        "club-3090#142",
        "0.21.0",
        "Qwen3.6-27B",
        11.08,
        623_873,
        262_144,
        "fp8_e5m2",
        tp=2,
        prefix_caching=True,
        speculation=Speculation("mtp", 3),
    ),
    CacheLog("index 69561739248", "0.29.0", "Qwen3-30B-A3B-FP8", 9.2, 401_776, 8192, tp=4),
    CacheLog("index 63102470423", "0.23.0", "gemma-4-31B", 28.41, 97_541, 32_768),
    CacheLog("index 60491628666", "0.25.1", "gemma-4-26B-A4B FP8", 12.75, 321_600, 32_768, batched=2496),
    CacheLog("index 55764159779", "0.23.0", "gemma-4-E2B", 9.92, 1_062_157, 8192, batched=2048),
    CacheLog("index 66157793608", "0.18.0", "Mistral-Small-4", 1.63, 75_776, 32_768, tp=2, batched=4096),
    CacheLog("vllm PR#20665", "0.9.2", "DeepSeek-V2-Lite, a stage", 12.13, 807_792, 1024, tp=2),
    CacheLog("index 54492899325", "0.22.1", "gemma-4-E4B", 4.1, 224_353, 32_768, batched=2048),
    CacheLog("index 52357383609", "0.19.0", "gemma-4-26B-A4B NVFP4", 7.15, 62_496, 256_000, "fp8", batched=16_384),
    CacheLog("index 42514581982", "0.11.0", "Qwen3-VL-30B-A3B", 2.31, 100_752, 65_536, tp=4),
    CacheLog("index 63574967224", "0.17.0", "Qwen3.6-35B-A3B", 5.69, 148_816, 32_768, "fp8"),
    CacheLog("index 66581250172", "0.22", "whisper-large-v3", 16.9, 19_881, 448, batched=2048),
    CacheLog("index 4172099314", "0.15", "whisper-large-v3", 10.14, 33_216, 448, batched=2048),
    CacheLog("index 57978845466", "0.19.1", "Qwen3-8B", 19.36, 140_960, 40_960),
)


@dataclass(frozen=True)
class WeightLog:
    """Weights of a whole model on one GPU, or its share of a tensor-parallel group."""

    source: str
    model: str
    gib: float
    quantization: Quantization = NONE
    tp: int = 1


WEIGHTS = (
    WeightLog("index 66581250172", "whisper-large-v3", 2.88),
    WeightLog("index 59866590576", "Qwen3-30B-A3B", 56.93),
    WeightLog("index 24380635241", "gpt-oss-20b", 13.715, MXFP4),
    WeightLog("index 45665312624", "gemma-3-1b", 1.915),
    WeightLog("index 55770092662", "Qwen3.5-4B", 8.61),
    WeightLog("index 51781852921", "Qwen3.5-9B", 17.66),
    WeightLog("index 69561739248", "Qwen3-30B-A3B-FP8", 7.4, FP8, tp=4),
    WeightLog("index 63102470423", "gemma-4-31B", 58.99),
    WeightLog("index 54492899325", "gemma-4-E4B", 15.18),
    WeightLog("index 60491628666", "gemma-4-26B-A4B FP8", 25.8, FP8),
    WeightLog("index 52357383609", "gemma-4-26B-A4B NVFP4", 15.67, NVFP4),
    WeightLog("index 55021192520", "Qwen2.5-VL-7B", 15.67),
    WeightLog("index 42514581982", "Qwen3-VL-30B-A3B", 14.77, tp=4),
    WeightLog("index 61972307986", "Qwen3.6-27B-FP8", 28.51, FP8),
    WeightLog("vllm#10517", "Llama-3.1-8B", 14.99),
    WeightLog("vllm PR#10511", "Llama-3-8B", 14.96),
    WeightLog("vLLM 0.22.1 log, by the project", "Qwen2.5-7B", 5.29, AWQ),
    WeightLog("public repository log, by the project", "Qwen3-14B", 9.36, AWQ),
    WeightLog("llm-d-benchmark config_explorer", "Qwen3-32B", 61.03),
    WeightLog("index 62352993850", "Qwen2.5-7B", 14.25),
    WeightLog("index 67144197265", "Qwen2.5-7B", 14.29),
    WeightLog("index 55740737586", "Qwen2.5-1.5B", 2.89),
    WeightLog("index 5773335890", "Phi-4", 8.51, GPTQ),
    WeightLog("index 40791855483", "Qwen3-4B", 7.56),
    WeightLog("index 57978845466", "Qwen3-8B", 15.27),
    WeightLog("index 66305487638", "Qwen3-8B", 9.06, FP8),
    WeightLog("index 21130996930", "R1-Distill-Qwen-32B", 30.73, tp=2),
    WeightLog("vllm#13061", "R1-Distill-Qwen-14B", 13.95, tp=2),
)
