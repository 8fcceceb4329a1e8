"""How fast a model is, where nobody has measured it: seconds of a decode step, of a prompt and of a request.

A figure holds for one `Load`: prompts and outputs of one length, so many requests at once, all of which start together
and are followed by the next when they end (a closed loop, as `vllm bench serve --max-concurrency` sends it). A token is
any token, read or written, so "Total Token throughput" of that command replaces an estimate as it stands:
`pulumi config set <alias>:tokensPerSecond N`.

The constants were read off published runs, and more such runs judge them: tests/models/vllm_speeds.py has the rows,
docs/costs.md the errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from models.facts import GIB, Evidence, Load, PerToken, Price, Source, Throughput
from models.memory.kv_cache import cache_layers, layer_token_bytes, state_bytes
from models.memory.vllm import GpuFit
from models.memory.weights import STORED_BYTES, shape
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 128  # what `vllm bench serve --dataset-name random` sends by default


def usual(context: int | None, *, generates: bool = True) -> Load:
    """The requests that a figure stands for where nobody says otherwise, shrunk where the context is shorter."""
    if not generates:
        return Load(prompt_tokens=context or PROMPT_TOKENS, output_tokens=0)
    shrunk = min(1, (context or math.inf) / (PROMPT_TOKENS + OUTPUT_TOKENS))
    return Load(
        prompt_tokens=max(1, int(PROMPT_TOKENS * shrunk)),
        output_tokens=max(1, int(OUTPUT_TOKENS * shrunk)),
    )


# --- GPU: what it offers, what a model takes ------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What a GPU reads and computes in a second."""

    memory_gb_s: float  # of its data sheet, 1e9 bytes
    tflops: float  # that long prompts reach in half precision, 1e12 operations; not the data sheet's
    fp8: float | None = None  # as many times that in 8 bits; None: it has no such units, and widens weights first


# L4: Qwen2.5-7B reads a prompt of 512 tokens in 157 ms (data sheet: 121 dense; it throttles at 72 W). A10G: Qwen2.5-7B,
# 512 + 128 tokens, 3,641 tokens/s in all. A GPU without a published run is not here, and has no speed.
RATES: Mapping[str, Rates] = {
    "l4": Rates(memory_gb_s=300, tflops=50, fp8=1.6),
    "a10g": Rates(memory_gb_s=600, tflops=60),
}

_BANDWIDTH_SHARE = 0.85  # of the data sheet's bandwidth
_FP8_READING = 0.9  # of that, where activations are quantised at each layer
_NOT_HIDDEN = 0.5  # of the shorter of reading and computing: the two overlap half
# The host: the engine for each step and each sequence in it, the API server for each request and each prompt.
_STEP_S, _SEQUENCE_S = 1.3e-3, 0.04e-3
_REQUEST_S, _PROMPT_S = 21e-3, 1.2e-3
_HALF = 2  # bytes


@dataclass(frozen=True)
class Experts:
    """Of a mixture of experts: each token takes `active` of `count` in every layer."""

    count: int
    active: int
    parameters: int  # of one of them, all layers together
    size: float  # of the same, bytes as loaded

    def touched(self, tokens: int) -> float:
        """How many different ones so many tokens take, on average."""
        return self.count * (1 - (1 - self.active / self.count) ** tokens)


@dataclass(frozen=True)
class Work:
    """What a decoder reads and computes, all GPUs together."""

    size: float  # bytes of weights that every step reads: all but the input embedding, an index, and the experts
    parameters: int  # that compute on every token, without embedding, lm_head and experts
    head: int  # of the lm_head, which computes where a token is written
    cache: tuple[tuple[float, int | None], ...]  # by kind of layer: bytes of a token, and a window of so many tokens
    attention: int  # layers x heads x head dim: operations a pair of tokens, by four
    fp8: bool
    experts: Experts | None = None
    state: float = 0  # bytes of a sequence in layers without a cache, read and written in each step

    def read(self, tokens: int) -> float:
        """Bytes of weights that a step with so many tokens reads."""
        return self.size + (self.experts.size * self.experts.touched(tokens) if self.experts else 0)

    def remembered(self, context: float) -> float:
        """Bytes of KV cache and states that a step reads for a sequence of so many tokens."""
        return 2 * self.state + sum(size * min(context, window or context) for size, window in self.cache)

    @property
    def active(self) -> int:
        """Parameters that compute on every token, without embedding and lm_head."""
        return self.parameters + (self.experts.parameters * self.experts.active if self.experts else 0)


def work(
    arch: DecoderArchitecture,
    quantization: Quantization,
    *,
    weights_gib: float,
    kv_element_bytes: float = _HALF,
    language_only: bool = False,
) -> Work:
    """What a decoder takes of a GPU; `weights_gib` is what all GPUs together hold of its weights.

    Prompts are text: an encoder of images or sound is loaded and not run.
    """
    embedding, copies = arch.vocab * arch.hidden, shape(arch).embeddings
    tower = arch.tower.parameters if arch.tower and not language_only else 0
    experts = _experts(arch, quantization)
    routed = (experts.parameters * experts.count, experts.size * experts.count) if experts else (0, 0)
    layers = cache_layers(arch)
    return Work(
        size=weights_gib * GIB - ((copies - 1) * embedding + tower + arch.looked_up) * _HALF - routed[1],
        parameters=arch.parameters - copies * embedding - arch.looked_up - routed[0],
        head=embedding,
        cache=tuple((kind.layers * layer_token_bytes(kind, 1, kv_element_bytes), kind.window) for kind in layers),
        attention=sum(kind.layers for kind in layers) * arch.heads * arch.head_dim,
        fp8=quantization is Quantization.FP8,
        experts=experts,
        state=arch.states.layers * state_bytes(arch.states, 1) if arch.states else 0,
    )


def _experts(arch: DecoderArchitecture, quantization: Quantization) -> Experts | None:
    if arch.experts is None:
        return None
    one = arch.experts.layers * 3 * arch.hidden * arch.experts.ffn
    return Experts(
        count=arch.experts.count,
        active=arch.experts.per_token,
        parameters=one,
        size=one * STORED_BYTES.get(quantization, _HALF),
    )


# --- GPU: seconds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What serves: a GPU's rates, how many GPUs share the work, and the tokens of a prefill chunk."""

    rates: Rates
    gpus: int = 1
    chunk: int = 2048

    def reading_s(self, size: float, *, fp8: bool) -> float:
        """Seconds to read so many bytes once."""
        slower = _FP8_READING if fp8 and self.rates.fp8 else 1
        return size / (self.rates.memory_gb_s * 1e9 * _BANDWIDTH_SHARE * slower * self.gpus)

    def computing_s(self, operations: float, *, fp8: bool) -> float:
        """Seconds to compute so much."""
        faster = (self.rates.fp8 or 1) if fp8 else 1
        return operations / (self.rates.tflops * 1e12 * faster * self.gpus)


def decode_step_s(task: Work, machine: Machine, *, streams: int, context: float) -> float:
    """Seconds for one token of each of so many sequences that are `context` tokens long on average."""
    reading = machine.reading_s(task.read(streams), fp8=task.fp8)
    computing = machine.computing_s(streams * 2 * (task.active + task.head), fp8=task.fp8)
    cache = machine.reading_s(streams * task.remembered(context), fp8=False)
    weights = max(reading, computing) + _NOT_HIDDEN * min(reading, computing)
    return weights + cache + _STEP_S + streams * _SEQUENCE_S


def prefill_s(task: Work, machine: Machine, *, prompts: int, prompt_tokens: int) -> float:
    """Seconds to read so many prompts, in chunks that each read the weights once."""
    tokens = prompts * prompt_tokens
    pairs = prompts * prompt_tokens**2 / 2
    operations = 2 * task.active * tokens + 4 * task.attention * pairs + 2 * task.head * prompts
    chunks = math.ceil(tokens / machine.chunk)
    reading = chunks * machine.reading_s(task.read(min(tokens, machine.chunk)), fp8=task.fp8)
    return max(machine.computing_s(operations, fp8=task.fp8), reading)


@dataclass(frozen=True)
class Speed:
    """How fast a load goes."""

    load: Load
    streams: int
    first_token_s: float  # median
    token_s: float  # between two tokens of a stream
    request_s: float  # whole request

    @property
    def written_per_s(self) -> float:
        """Tokens of all streams."""
        return self.streams * self.load.output_tokens / self.request_s

    @property
    def total_per_s(self) -> float:
        """Tokens read and written."""
        return self.streams * (self.load.prompt_tokens + self.load.output_tokens) / self.request_s


def speed(task: Work, machine: Machine, load: Load, streams: int = 1) -> Speed:
    """So many requests that start together, their prompts read one after the other."""
    prompt, output = load.prompt_tokens, load.output_tokens
    step = decode_step_s(task, machine, streams=streams, context=prompt + output / 2)
    prefill = prefill_s(task, machine, prompts=streams, prompt_tokens=prompt)
    host = _REQUEST_S + streams * _PROMPT_S
    waiting = step if streams > 1 else 0  # for the step that is in progress

    def first_token(rank: int) -> float:
        """Of the prompt that is read as the `rank`th; chunks are read whole."""
        read = min(math.ceil(rank * prompt / machine.chunk) * machine.chunk, streams * prompt)
        return host + waiting + prefill * read / (streams * prompt)

    middle = (streams + 1) // 2, streams // 2 + 1
    return Speed(
        load=load.model_copy(update={"streams": streams}),
        streams=streams,
        first_token_s=sum(map(first_token, middle)) / 2,
        token_s=step,
        request_s=host + prefill + (output - 1) * step,
    )


def reading_per_s(task: Work, machine: Machine, prompt_tokens: int) -> float:
    """Tokens a second where prompts are read only, in batches of a chunk."""
    prompts = max(1, machine.chunk // prompt_tokens)
    seconds = prefill_s(task, machine, prompts=prompts, prompt_tokens=prompt_tokens) + _STEP_S + prompts * _PROMPT_S
    return prompts * prompt_tokens / seconds


def most_streams(load: Load, fit: GpuFit, *, max_num_seqs: int) -> int:
    """Requests of a load that flags and KV cache hold at once; at least 1."""
    return max(1, min(max_num_seqs, fit.at_once(load.prompt_tokens + load.output_tokens)))


def knee(task: Work, machine: Machine, load: Load, most: int) -> Speed:
    """As many requests at once as take at most twice as long as one alone: beyond, each waits more than all gain."""
    alone = speed(task, machine, load).request_s
    fitting = 1
    while fitting < most and speed(task, machine, load, fitting + 1).request_s <= 2 * alone:
        fitting += 1
    return speed(task, machine, load, fitting)


# --- CPU ------------------------------------------------------------------------------------------------------

# float32 on one vCPU, of 16 that read 1,150,000 tokens with bge-small (infinity's published comparison, GCP
# g2-standard-16). ONNX Runtime took 125.8 s (fastembed); candle, which text-embeddings-inference falls back to without
# ONNX weights, 1,104 s (release 0.6). One thread of ONNX Runtime 1.32 reached 44 to 61 GFLOPS here, in CPU time.
_ONNX_VCPU_FLOPS, _CANDLE_VCPU_FLOPS = 24e9, 2.8e9


def cpu_tokens_per_second(arch: EncoderArchitecture, cpu: float, *, onnx: bool) -> float:
    """Encoders read only, and every parameter but the embedding computes."""
    body = arch.layers * (4 * arch.hidden**2 + 2 * arch.hidden * arch.ffn)
    return cpu * (_ONNX_VCPU_FLOPS if onnx else _CANDLE_VCPU_FLOPS) / (2 * body)


# --- what a figure is worth -----------------------------------------------------------------------------------


def assumed(tokens_per_second: float, at: Load, how: str) -> Throughput:
    """An estimate, marked as one."""
    return Throughput(
        tokens_per_second=tokens_per_second,
        at=at,
        source=Source(facts="throughput", where=f"models/throughput.py: {how}", evidence=Evidence.ASSUMED),
    )


def price_per_mtok(price: Price, load: Load) -> float | None:
    """What a million tokens of such requests bring in; None where tokens are not what is paid for."""
    if not isinstance(price, PerToken):
        return None
    read, written = price.input_usd_per_mtok, price.output_usd_per_mtok
    tokens = load.prompt_tokens + load.output_tokens
    return (load.prompt_tokens * read + load.output_tokens * written) / tokens
