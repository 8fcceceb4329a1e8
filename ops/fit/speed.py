"""What `ops fit` says of speed: one stream, the knee, a full batch, and what a million tokens cost at the knee.

Computed for the GPUs that have a published run (`models/throughput.py`); beside it what was measured of an entry, and
what GKE Inference Quickstart measured (`ops/fit/profiles.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.facts import Load, Throughput
from models.machines import Machine as Node
from models.memory.vllm import GpuFit, Knobs
from models.prices import list_prices
from models.throughput import RATES, Machine, Speed, knee, most_streams, speed, usual, work
from models.weights import DecoderArchitecture, Quantization
from ops.errors import OpsError

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]

Command = Callable[
    [argparse.Namespace, Mapping[str, str | None]], str
]  # this command with flags replaced or taken away

REQUEST = ("--prompt-tokens", "--output-tokens")  # flags: of which request the speed is told
_REGION = "us-central1"  # of the price: the plan of a stack has its own


def add_arguments(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Which requests the speed is told for."""
    group = parser.add_argument_group("speed of these requests")
    group.add_argument(
        "--prompt-tokens", type=positive, metavar="N", help="default: 1024, or less of a shorter context"
    )
    group.add_argument("--output-tokens", type=positive, metavar="N", help="default: 128, likewise")
    group.add_argument("--profiles", type=Path, metavar="FILE", help="what `gcloud container ai profiles` prints, or -")


@dataclass(frozen=True)
class Told:
    """The answer, for programs and for people."""

    json: Json
    lines: tuple[str, ...]


def of_entry(found: Throughput | None) -> Told:
    """What an entry says itself: measured, or on CPU assumed; nothing where it is computed here."""
    if found is None:
        return Told(None, ())
    told: dict[str, Json] = {
        "tokens_per_second": found.tokens_per_second,
        "load": found.at.told,
        "evidence": found.source.evidence.value,
        "where": found.source.where,
    }
    return Told(told, (f"  throughput of the entry: {found.tokens_per_second:,.0f} tokens/s ({found.told})",))


def computed(
    args: argparse.Namespace,
    arch: DecoderArchitecture,
    quantization: Quantization,
    *,
    gpu: str | None,
    fit: GpuFit,
    knobs: Knobs,
    node: Node | None,
    command: Command,
) -> Told:
    """Speed of a model that fits; `gpu` is None for one that is given by its memory alone.

    Raises OpsError for requests longer than the context.
    """
    if not fit.fits:
        return Told(None, ())
    rates = RATES.get(gpu or "")
    if rates is None:
        known = " and ".join(name.upper() for name in RATES)
        return Told(None, (f"  speed: not known on this GPU; published runs were found of {known} only",))
    if without := "CUDA graphs" if knobs.eager else "knowing how many guesses are right" if knobs.speculation else "":
        return Told(None, (f"  speed: not told without {without}",))
    if arch.family == "whisper":
        return Told(None, ("  speed: not told of speech, whose prompt is sound",))
    load = _load(args, fit.requested_len, command)
    task = work(
        arch,
        quantization,
        weights_gib=fit.weights_gib * knobs.tensor_parallel,
        kv_element_bytes=knobs.kv_element_bytes,
        language_only=knobs.language_only,
    )
    machine = Machine(rates, gpus=knobs.tensor_parallel, chunk=knobs.max_num_batched_tokens)
    most = most_streams(load, fit, max_num_seqs=knobs.max_num_seqs)
    one, best, full = speed(task, machine, load), knee(task, machine, load, most), speed(task, machine, load, most)
    found = node and list_prices().find(node.name, _REGION)
    usd_per_mtok = found.usd / (best.total_per_s * 3600) * 1e6 if found else None
    lines = [
        f"  speed of {load.told}, computed:",
        f"    one stream    {1 / one.token_s:,.0f} tokens/s, the first after {_seconds(one.first_token_s)}",
        f"    at the knee   {_batch(best)}",
        f"    full          {_batch(full)}",
    ]
    if node and found:
        price = f"{node.name} in {_REGION}, {list_prices().as_of}, without disk and NAT"
        lines.append(
            f"    a million tokens at the knee, read and written: ${usd_per_mtok:.3f} (${found.usd:.4f}/h: {price})"
        )
    told: dict[str, Json] = {
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "one_stream": _json(one),
        "knee": _json(best),
        "full": _json(full),
        "usd_per_mtok_at_knee": usd_per_mtok and round(usd_per_mtok, 4),
    }
    return Told(told, tuple(lines))


def refuse_on_cpu(args: argparse.Namespace, command: Command) -> None:
    """Raise OpsError for flags of speed where no GPU serves, rather than pass over them."""
    given = [
        flag
        for flag in (*REQUEST, "--profiles")
        if getattr(args, flag.removeprefix("--").replace("-", "_")) is not None
    ]
    if given:
        raise OpsError(
            f"{' and '.join(given)}: speed is computed of models on a GPU, and this one is served on CPU",
            command(args, dict.fromkeys(given)),
        )


def _load(args: argparse.Namespace, context: int, command: Command) -> Load:
    default = usual(context)
    prompt = args.prompt_tokens or min(default.prompt_tokens, max(1, context - (args.output_tokens or 0)))
    output = args.output_tokens or min(default.output_tokens, max(1, context - prompt))
    if prompt + output > context:
        shorter: dict[str, str | None] = {"--prompt-tokens": str(max(1, context - output))}
        if output >= context:
            shorter = {"--prompt-tokens": None, "--output-tokens": None}
        raise OpsError(
            f"{prompt:,} + {output:,} tokens are more than the context of {context:,}, and vLLM refuses such a request",
            command(args, shorter),
        )
    return Load(prompt_tokens=prompt, output_tokens=output)


def _seconds(value: float) -> str:
    return f"{value * 1e3:,.0f} ms" if value < 1 else f"{value:,.1f} s"


def _batch(found: Speed) -> str:
    return (
        f"{found.streams} at once, {1 / found.token_s:,.0f} tokens/s each, the first after "
        f"{_seconds(found.first_token_s)}; {found.written_per_s:,.0f}/s written, {found.total_per_s:,.0f}/s in all"
    )


def _json(found: Speed) -> dict[str, Json]:
    return {
        "streams": found.streams,
        "stream_tokens_per_second": round(1 / found.token_s, 2),
        "first_token_ms": round(found.first_token_s * 1e3, 1),
        "request_ms": round(found.request_s * 1e3, 1),
        "written_tokens_per_second": round(found.written_per_s, 1),
        "total_tokens_per_second": round(found.total_per_s, 1),
    }
