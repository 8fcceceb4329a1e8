"""How many tokens a second a model serves under load, where nobody has measured it: a roofline estimate.

A token here is any token, read or written, in requests of 1,024 prompt tokens and 128 output tokens. That is what
`vllm bench serve --dataset-name random` sends by default, so its "Total Token throughput" replaces the estimate as
it stands: `pulumi config set <alias>:tokensPerSecond N`.

The decode step reproduces twelve published runs on an L4 within 7 % (docs/costs.md). Prefill and large batches rest
on a recalled compute efficiency, so the whole is an assumption and is shown as one.
"""

from __future__ import annotations

from models.facts import GIB, Evidence, PerToken, Price, Source, Throughput
from models.machines import Gpu
from models.memory.vllm import kv_bytes_per_token
from models.weights import DecoderArchitecture, EncoderArchitecture

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


def assumed(tokens_per_second: float, how: str) -> Throughput:
    """An estimate, marked as one."""
    return Throughput(
        tokens_per_second=tokens_per_second,
        source=Source(facts="throughput", where=f"models/throughput.py: {how}", evidence=Evidence.ASSUMED),
    )


def gpu_tokens_per_second(
    arch: DecoderArchitecture,
    gpu: Gpu,
    *,
    weights_gib: float,
    kv_cache_tokens: int,
    max_num_seqs: int,
    context: int | None,
    gpus: int,
) -> float:
    """A batch as large as flags and KV cache allow: its prompts are read, then its outputs written.

    `weights_gib` is what each of `gpus` holds. Several share weights, cache and work; what they tell each other is left
    out.
    """
    whole = PROMPT_TOKENS + OUTPUT_TOKENS
    shrunk = min(1, (context or whole) / whole)
    prompt, output = PROMPT_TOKENS * shrunk, OUTPUT_TOKENS * shrunk
    batch = int(max(1, min(max_num_seqs, kv_cache_tokens // (prompt + output))))
    step = decode_step_s(arch, gpu, weight_bytes=weights_gib * GIB * gpus, batch=batch, context=prompt + output / 2)
    seconds = (batch * prompt * _token_s(arch, gpu) + output * step) / gpus
    return batch * (prompt + output) / seconds


def cpu_tokens_per_second(arch: EncoderArchitecture, cpu: float) -> float:
    """Encoders read only, and every parameter but the embedding computes."""
    body = arch.layers * (4 * arch.hidden**2 + 2 * arch.hidden * arch.ffn)
    return cpu * _VCPU_FLOPS / (2 * body)


def price_per_mtok(price: Price, *, generates: bool) -> float | None:
    """What a million tokens of the requests above bring in; None where tokens are not what is paid for."""
    if not isinstance(price, PerToken):
        return None
    if not generates:
        return price.input_usd_per_mtok
    read, written = price.input_usd_per_mtok, price.output_usd_per_mtok
    return (PROMPT_TOKENS * read + OUTPUT_TOKENS * written) / (PROMPT_TOKENS + OUTPUT_TOKENS)
