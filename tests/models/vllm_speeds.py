"""Published speeds of real vLLM servers, to calibrate `models/throughput.py` on and to judge it by.

Every row is a closed loop: so many requests of one length at once, the next as soon as one ends. `calibration` rows
were looked at while the constants were chosen; all others only judge them. Left out: runs whose GPU, lengths or
concurrency cannot be told, runs through another server, runs before vLLM's V1 engine, and open loops, whose concurrency
nobody set.

`python -m tests.models.vllm_speeds` prints the table of docs/costs.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from models.architectures import ARCHITECTURES
from models.facts import Load
from models.memory.weights import gpu_weights_gib
from models.throughput import RATES, Machine, Rates, Speed, speed, work
from models.weights import DecoderArchitecture, Quantization

AWQ, GPTQ, FP8, NONE = Quantization.AWQ, Quantization.GPTQ, Quantization.FP8, Quantization.NONE

MISTRAL = DecoderArchitecture(
    parameters=7_241_732_096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    hidden=4096,
    ffn=14_336,
    vocab=32_000,
    max_positions=32_768,
)
# A GPU that the product does not offer, to see whether the host's constants hold elsewhere: 696 GB/s by its data sheet,
# the rate of computing from its first row here.
A40 = Rates(memory_gb_s=696, tflops=66)

REFERENCE = "k8s-llm-inference-platform, docs/public/benchmarks.md @ 441dd0a3 (vLLM 0.23.0)"
MISTRALS = "bereketlemma/llm-inference-bench, README (vLLM 0.16.0)"
POLYSERVE = "Aagam-Bothara/polyserve, benchmarks/strategies/ablation-l4 (vLLM 0.11.0)"
POLYSERVE_A40 = "Aagam-Bothara/polyserve, benchmarks/strategies/ablation (vLLM 0.11.0)"
TRACKER = "issue 16 of this project; where it was published is not said"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured point. Of four figures, those that were published; None is one that was not."""

    model: str
    gpu: str
    quantization: Quantization = NONE
    streams: int
    prompt: int
    output: int
    written: float | None = None  # tokens a second, all streams
    token_ms: float | None = None  # between two tokens of a stream
    first_token_ms: float | None = None  # median
    request_ms: float | None = None  # median
    source: str
    calibration: bool = False

    @property
    def what(self) -> str:
        """For tables and test names."""
        weights = f" {self.quantization.upper()}" if self.quantization is not NONE else ""
        return f"{self.model}{weights}, {self.gpu.upper()}, {self.prompt} + {self.output} x {self.streams}"


def _reference() -> Iterator[Run]:
    rows = (
        (1, 168, 5.1, 27.0, 679),
        (2, 367, 5.2, 37.8, 698),
        (4, 698, 5.3, 50.1, 722),
        (8, 1312, 5.5, 60.9, 772),
        (16, 2277, 6.0, 103.8, 880),
        (32, 3773, 7.1, 135.3, 1082),
    )
    for streams, written, token_ms, first_token_ms, request_ms in rows:
        yield Run(
            model="Qwen2.5-0.5B",
            gpu="l4",
            streams=streams,
            prompt=256,
            output=128,
            written=written,
            token_ms=token_ms,
            first_token_ms=first_token_ms,
            request_ms=request_ms,
            source=REFERENCE,
            calibration=streams in (1, 8, 32),
        )


def _mistral() -> Iterator[Run]:
    """Offline, prompts of a few words."""
    rows = {
        NONE: ((1, 128, 17.9), (1, 512, 17.8), (4, 128, 68.5), (4, 512, 68.0), (8, 128, 133.9), (8, 512, 133.9)),
        AWQ: ((1, 128, 61.4), (1, 512, 60.5), (4, 128, 234.9), (4, 512, 227.8), (8, 128, 452.3), (8, 512, 429.1)),
    }
    for quantization, runs in rows.items():
        for streams, output, written in runs:
            yield Run(
                model="Mistral-7B",
                gpu="l4",
                quantization=quantization,
                streams=streams,
                prompt=8,
                output=output,
                written=written,
                source=MISTRALS,
                calibration=streams == 1 and output == 128,
            )


def _polyserve() -> Iterator[Run]:
    """512 + 128 tokens; the last figure is the median of the first token."""
    rows = {
        NONE: ((1, 17.14, 156.5), (4, 63.32, 427.1), (8, 117.2, 599.7)),
        FP8: ((1, 28.78, 102.2), (4, 106.8, 369.8), (8, 194.3, 490.6)),
        AWQ: ((1, 48.40, 155.8), (4, 158.7, 509.4), (8, 255.4, 857.5)),
        GPTQ: ((1, 48.90, 152.8), (4, 159.8, 636.9), (8, 259.5, 841.4)),
    }
    for quantization, runs in rows.items():
        for streams, written, first_token_ms in runs:
            yield Run(
                model="Qwen2.5-7B",
                gpu="l4",
                quantization=quantization,
                streams=streams,
                prompt=512,
                output=128,
                written=written,
                first_token_ms=first_token_ms,
                source=POLYSERVE,
                calibration=(quantization, streams) in ((NONE, 1), (NONE, 8), (AWQ, 1), (AWQ, 8), (FP8, 1)),
            )


def _natural() -> Iterator[Run]:
    """Conversations of ShareGPT, stopped where the model stops: about 200 + 440 tokens, by the latencies."""
    rows = {NONE: (57.43, 60.00, 69.29), FP8: (34.10, 35.50, 40.66)}
    for quantization, steps in rows.items():
        for streams, token_ms in zip((1, 8, 32), steps, strict=True):
            yield Run(
                model="Qwen2.5-7B",
                gpu="l4",
                quantization=quantization,
                streams=streams,
                prompt=200,
                output=440,
                token_ms=token_ms,
                source=POLYSERVE,
            )


def _a40() -> Iterator[Run]:
    """The same tool on another GPU, to see whether the host's constants hold there."""
    rows = {
        ("Qwen2.5-7B", 512, 128): {
            NONE: ((1, 34.28), (4, 127.1), (8, 232.2)),
            FP8: ((1, 60.52), (4, 204.5), (8, 332.6)),
            GPTQ: ((1, 96.92), (4, 315.6), (8, 497.1)),
        },
        ("Qwen2.5-3B", 256, 64): {
            NONE: ((128, 1775), (32, 1214), (64, 1632)),
            AWQ: ((32, 1507), (64, 1735), (128, 1641)),
        },
    }
    for (model, prompt, output), by_quantization in rows.items():
        for quantization, runs in by_quantization.items():
            for streams, written in runs:
                yield Run(
                    model=model,
                    gpu="a40",
                    quantization=quantization,
                    streams=streams,
                    prompt=prompt,
                    output=output,
                    written=written,
                    source=POLYSERVE_A40,
                    calibration=(quantization, streams) == (NONE, 128),
                )


RUNS = (
    *_reference(),
    *_mistral(),
    *_polyserve(),
    *_natural(),
    # 3,641 tokens/s read and written; as many at once as the KV cache of 0.22 holds at 0.90 of 22.06 GiB.
    Run(
        model="Qwen2.5-7B",
        gpu="a10g",
        streams=116,
        prompt=512,
        output=128,
        written=3641 / 5,
        source=TRACKER,
        calibration=True,
    ),
    *_a40(),
)

_MODELS = {
    "Mistral-7B": MISTRAL,
    "Qwen2.5-0.5B": ARCHITECTURES["Qwen/Qwen2.5-0.5B-Instruct"],
    "Qwen2.5-3B": ARCHITECTURES["Qwen/Qwen2.5-Coder-3B-Instruct"],
    "Qwen2.5-7B": ARCHITECTURES["Qwen/Qwen2.5-Coder-7B-Instruct"],
}


def predict(run: Run) -> Speed:
    """From architecture, quantization, GPU and load alone."""
    arch = _MODELS[run.model]
    assert isinstance(arch, DecoderArchitecture)
    task = work(arch, run.quantization, weights_gib=gpu_weights_gib(arch, run.quantization))
    rates = RATES.get(run.gpu) or {"a40": A40}[run.gpu]
    load = Load(prompt_tokens=run.prompt, output_tokens=run.output)
    return speed(task, Machine(rates), load, run.streams)


def errors(run: Run) -> dict[str, tuple[float, float]]:
    """Measured and predicted, of what was published."""
    found = predict(run)
    both = {
        "tokens/s": (run.written, found.written_per_s),
        "ms a token": (run.token_ms, found.token_s * 1e3),
        "ms to the first": (run.first_token_ms, found.first_token_s * 1e3),
        "ms a request": (run.request_ms, found.request_s * 1e3),
    }
    return {what: (measured, predicted) for what, (measured, predicted) in both.items() if measured is not None}


def table() -> str:
    """Predicted against measured, as the table of docs/costs.md."""
    lines = [
        "| model, GPU, tokens in + out x streams | measured | predicted | error | used for |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in RUNS:
        what, (measured, predicted) = next(iter(errors(run).items()))
        use = "calibration" if run.calibration else "trial"
        error = predicted / measured - 1
        lines.append(f"| {run.what} | {measured:,.4g} {what} | {predicted:,.4g} | {error:+.1%} | {use} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
