"""What is known of an entry in words: for the screen and for the pages of docs/."""

from __future__ import annotations

from models.facts import Evidence, PerToken, Price
from models.memory.vllm import GpuFit
from models.spec import ModelSpec
from models.weights import Quantization

_UNITS = {"mtok": "a million", "second": "a second of audio", "query": "a request"}
_TARGETS = (("ttft_p95_ms", "TTFT"), ("itl_p95_ms", "ITL"), ("e2e_p95_ms", "E2E"))
_CELLS = 16


def fit_of(spec: ModelSpec) -> GpuFit | None:
    """Where its GPU's memory goes; None without a GPU, or with flags that are refused."""
    try:
        return spec.engine.fit(spec)
    except ValueError:
        return None


def fit_words(fit: GpuFit) -> str:
    """The verdict."""
    if not fit.fits:
        return f"does not fit {fit.requested_len:,} tokens"
    return f"{fit.requested_len:,} tokens, {int(fit.concurrency):,} at once"


def memory_bar(fit: GpuFit) -> str:
    """A GPU's memory in a few cells: weights, what the engine works with, the cache, and what is left alone."""
    shares = (
        ("█", fit.weights_gib),
        ("▓", fit.non_torch_gib + fit.activation_gib + fit.cuda_graph_gib),
        ("▒", max(fit.kv_cache_gib, 0)),
    )
    drawn, until = "", 0.0
    for letter, gib in shares:
        until += gib
        drawn += letter * (min(_CELLS, round(until / fit.total_gib * _CELLS)) - len(drawn))
    return drawn.ljust(_CELLS, "░")


MEMORY_LEGEND = "█ weights, ▓ what the engine works with, ▒ KV cache, ░ left alone"


def stored(spec: ModelSpec) -> str:
    """How its weights are stored: "awq", or the type of their numbers."""
    if spec.weights is None:
        return "-"
    quantization = spec.weights.quantization
    return spec.weights.dtype if quantization is Quantization.NONE else quantization.value


def backend(spec: ModelSpec) -> str:
    """Engine and release: "vllm v0.23.0"."""
    images = spec.engine.images
    return f"{spec.engine.name()} {images[0].tag}" if images else spec.engine.name()


def gpu_words(spec: ModelSpec) -> str:
    """What one replica holds: "1 x L4"."""
    return f"{spec.gpus} x L4" if spec.gpus else "none"


def price_words(price: Price) -> str:
    """Its fields in words: "$0.5 input, $1.5 output, a million tokens"."""
    told = [
        (name.partition("usd_per_")[0].strip("_").replace("_", " "), name.rpartition("_")[2], value)
        for name, value in price.model_dump().items()
        if "usd_per_" in name and value is not None
    ]
    return ", ".join(
        f"${_digits(value)} {_UNITS[unit]}{f' {what} tokens' if what else ''}" for what, unit, value in told
    )


def _digits(value: float) -> str:
    """0.000005 rather than 5e-06."""
    return f"{value:.9f}".rstrip("0").removesuffix(".")


def price_short(price: Price) -> str:
    """In a cell: "0.5 / 1.5" of a million tokens in and out; else what is counted, "0.0002 a query"."""
    if not isinstance(price, PerToken):
        counted = {name.rpartition("_")[2]: usd for name, usd in price.model_dump().items() if "usd_per_" in name}
        return ", ".join(f"{usd:g} a {unit}" for unit, usd in counted.items())
    written = f"{price.output_usd_per_mtok:g}" if price.output_usd_per_mtok else "n/a"
    return f"{price.input_usd_per_mtok:g} / {written}"


def slo_words(spec: ModelSpec) -> str:
    """Targets at the 95th percentile; its note where none is set."""
    set_ones = [f"{name} < {value} ms" for field, name in _TARGETS if (value := getattr(spec.slo, field)) is not None]
    if not set_ones:
        return spec.slo.note
    lengths = f" (at most {spec.slo.output_tokens} out)" if spec.slo.output_tokens else ""
    return f"p95: {', '.join(set_ones)}{lengths}"


def licence_words(spec: ModelSpec) -> str:
    """Its name, and what surprises about it."""
    told = spec.licence.name + ("" if spec.licence.commercial_use else ", no commercial use")
    return f"{told}: {spec.licence.terms}" if spec.licence.terms else told


def evaluation_words(spec: ModelSpec) -> str:
    """What has been proven: "scored: HumanEval 18/20 = 90 %"."""
    status = spec.evaluation.status
    return spec.evaluation.result if status == "none" else f"{status}: {spec.evaluation.result}"


_WEAK = (Evidence.MEMORY, Evidence.ASSUMED)


def unknown(spec: ModelSpec) -> list[str]:
    """What nobody has looked up, measured or decided."""
    sources = (*spec.sources, spec.licence.source)
    found = [f"{s.facts}: {s.evidence.value} ({s.where})" for s in sources if s.evidence in _WEAK]
    if spec.weights and spec.weights.revision is None:
        found.append("revision: not pinned, so the default branch is served (ops pin)")
    found += [
        f"digest of {i.reference()}: its tag may be pointed elsewhere" for i in spec.engine.images if not i.digest
    ]
    if spec.engine.runs_here and spec.throughput is None:
        found.append("throughput: nobody measured it here, so it is computed (ops fit says how)")
    if spec.evaluation.status == "none":
        found.append(f"evaluation: {spec.evaluation.result}")
    return found
