"""One logged start of vLLM, as the rows of `vllm_logs.py` and `vllm_new_logs.py` tell it."""

from __future__ import annotations

from dataclasses import dataclass

from models.memory.vllm import Speculation
from models.weights import Quantization

AWQ, GPTQ, FP8, NONE = Quantization.AWQ, Quantization.GPTQ, Quantization.FP8, Quantization.NONE
MXFP4, NVFP4, BNB = Quantization.MXFP4, Quantization.NVFP4, Quantization.BITSANDBYTES


@dataclass(frozen=True)
class Log:
    """One logged start."""

    source: str
    version: str
    model: str  # key of ARCHITECTURES
    gpu: str
    gpu_gib: float  # total memory as vLLM prints it
    utilization: float
    kv_gib: float | None = None
    tokens: int | None = None
    quantization: Quantization = NONE
    max_model_len: int | None = None
    seqs: int | None = None
    tp: int = 1
    eager: bool = False
    starts: bool = True
    batched: int | None = None
    kv_dtype: str = "auto"
    prefix_caching: bool | None = None
    speculation: Speculation | None = None
    weights_gib: float | None = None  # "Model loading took"
    trial: bool = False  # read when every constant had been chosen, and none was chosen for it
    compiled: bool = False  # a later start, of which its source says or shows that it found compiled code
    loras: int = 0
    lora_rank: int = 16
    language_only: bool = False
    dtype: str | None = None  # --dtype, where the card takes no bfloat16
    note: str = ""
