"""How many tokens a second a model serves under load, where nobody has measured it: a roofline estimate.

A token here is any token, read or written, in requests of 1,024 prompt tokens and 128 output tokens. That is what
`vllm bench serve --dataset-name random` sends by default, so its "Total Token throughput" replaces the estimate as
it stands: `pulumi config set <alias>:tokensPerSecond N`.

The decode step reproduces twelve published runs on an L4 within 7 % (docs/costs.md). Prefill and large batches rest
on a recalled compute efficiency, so the whole is an assumption and is shown as one.
"""

from __future__ import annotations

from models.machines import GPUS, Gpu
from models.memory import decoder, fit_model, kv_bytes_per_token
from models.spec import (
    GIB,
    DecoderArchitecture,
    EncoderArchitecture,
    Evidence,
    ModelSpec,
    PerToken,
    Source,
    TeiEngine,
    Throughput,
    VllmEngine,
)

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 128

# Of the data sheet's bandwidth: Mistral-7B at batch 1 on an L4, vLLM 0.16, 17.9 tokens/s at 16 bits and 61.4 at 4.
_BANDWIDTH_SHARE = 0.85
# Of the data sheet's dense half-precision rate, in prefill and large batches; recalled, an L4 throttles at 72 W.
_COMPUTE_SHARE = 0.40
# float32 on one vCPU under text-embeddings-inference without ONNX weights: bge-small read 1,150,000 tokens in
# 1,104 s on 16 vCPUs (infinity's published comparison, TEI 0.6). With ONNX weights others read 9 times as many.
_VCPU_FLOPS = 2.8e9


def decode_step_s(arch: DecoderArchitecture, gpu: Gpu, *, weight_bytes: float, batch: int, context: float) -> float:
    """Seconds for one token of each of `batch` sequences that are `context` tokens long on average.

    Every weight and every KV entry is read once; reading and computing are taken not to overlap.
    """
    bytes_read = weight_bytes + batch * context * kv_bytes_per_token(arch)
    reading = bytes_read / (gpu.bandwidth_gb_s * 1e9 * _BANDWIDTH_SHARE)
    return reading + batch * _token_s(arch, gpu)


def _token_s(arch: DecoderArchitecture, gpu: Gpu) -> float:
    """Seconds of computing for one token: two operations a parameter."""
    return 2 * arch.parameters / (gpu.half_tflops * 1e12 * _COMPUTE_SHARE)


def assumed(spec: ModelSpec) -> Throughput:
    """Tokens a second of one replica that always has enough to do.

    Raises ValueError for an entry that runs elsewhere, and whatever `fit_model` raises.
    """
    match spec.engine:
        case VllmEngine():
            rate, how = _vllm(spec), "roofline of memory bandwidth and compute, full batch"
        case TeiEngine():
            rate, how = _tei(spec, spec.engine), "operations a token on the cores requested"
        case _:
            raise ValueError(f"{spec.alias} runs elsewhere, so its throughput is its provider's")
    return Throughput(
        tokens_per_second=rate,
        source=Source(facts="throughput", where=f"models/throughput.py: {how}", evidence=Evidence.ASSUMED),
    )


def _vllm(spec: ModelSpec) -> float:
    """A batch as large as flags and KV cache allow: its prompts are read, then its outputs written."""
    engine, _, arch = decoder(spec)
    gpu, fit = GPUS[engine.accelerator], fit_model(spec)
    whole = PROMPT_TOKENS + OUTPUT_TOKENS
    shrunk = min(1, (spec.context or whole) / whole)
    prompt, output = PROMPT_TOKENS * shrunk, OUTPUT_TOKENS * shrunk
    batch = int(max(1, min(engine.max_num_seqs, fit.kv_cache_tokens // (prompt + output))))
    # Several GPUs share weights, cache and work; what they tell each other is left out.
    step = decode_step_s(
        arch, gpu, weight_bytes=fit.weights_gib * GIB * engine.gpus, batch=batch, context=prompt + output / 2
    )
    seconds = (batch * prompt * _token_s(arch, gpu) + output * step) / engine.gpus
    return batch * (prompt + output) / seconds


def _tei(spec: ModelSpec, engine: TeiEngine) -> float:
    """Encoders read only, and every parameter but the embedding computes."""
    arch = spec.weights.architecture if spec.weights else None
    if not isinstance(arch, EncoderArchitecture):
        raise ValueError(f"{spec.alias} is no encoder")
    body = arch.layers * (4 * arch.hidden**2 + 2 * arch.hidden * arch.ffn)
    return engine.cpu * _VCPU_FLOPS / (2 * body)


def throughput(spec: ModelSpec) -> Throughput:
    """What was measured, else what is assumed. Raises as `assumed` does."""
    return spec.throughput or assumed(spec)


def price_per_mtok(spec: ModelSpec) -> float | None:
    """What a million tokens of the requests above bring in; None where tokens are not what is paid for."""
    if not isinstance(spec.price, PerToken):
        return None
    if isinstance(spec.engine, TeiEngine):
        return spec.price.input_usd_per_mtok
    read, written = spec.price.input_usd_per_mtok, spec.price.output_usd_per_mtok
    return (PROMPT_TOKENS * read + OUTPUT_TOKENS * written) / (PROMPT_TOKENS + OUTPUT_TOKENS)
