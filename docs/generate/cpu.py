"""Tables of docs/gguf.md: files, speeds and costs, and machine types, of the models on llama.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from models.cpu_registry import (
    MEASURED,
    MEASURED_THREADS,
    PRICED_ON_USD_PER_HOUR,
    RECOMMENDED,
    STATED,
    Recommended,
    Stated,
    longest_context,
)
from models.cpu_speed import cpu_speed, usd_per_thousand_tokens
from models.engines.llama_cpp import LlamaCppEngine, gguf
from models.facts import PerToken
from models.spec import ModelSpec

Catalog = Mapping[str, ModelSpec]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def files(catalog: Catalog) -> str:
    """What each repository has."""
    return _table(("alias", "quantization", "file", "bytes", "host memory", "SHA-256"), _file_rows(catalog))


def _file_rows(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    for spec in catalog.values():
        if spec.engine.name() != LlamaCppEngine.name():
            continue
        engine = LlamaCppEngine.of(spec)
        for file in engine.files:
            chosen = engine.model_copy(update={"quantization": file.quantization})
            needs = chosen.needs(chosen.adapted(spec))
            yield (
                f"`{spec.alias}`",
                f"`{file.quantization}`" + (", as it comes" if file == engine.file() else ""),
                f"`{file.file}`",
                f"{file.bytes_on_disk:,}",
                f"{needs.gib:.1f} GiB" if needs else "-",
                f"`{file.sha256[:12]}...`" if file.sha256 else "not on record; the hub's own is checked",
            )


def costs(catalog: Catalog) -> str:
    """What the document states, what was measured, and what is reckoned with."""
    head = (
        *("alias", "stated, tokens/s", "document, 1K tokens", f"computed at ${PRICED_ON_USD_PER_HOUR}/h"),
        *(f"measured, {MEASURED_THREADS} threads", "reckoned with, written", "1K written, sold at"),
    )
    return _table(head, [_cost_row(row, catalog[row.alias]) for row in STATED if row.alias in catalog])


def _cost_row(row: Stated, spec: ModelSpec) -> tuple[str, ...]:
    (weights, arch), engine = gguf(spec), LlamaCppEngine.of(spec)
    speed = cpu_speed(arch, file_bytes=weights.bytes_on_disk, threads=engine.threads)
    measured = next(found.written_per_s for found in MEASURED if found.alias == row.alias)
    price = f"${spec.price.output_usd_per_mtok / 1000:.4f}" if isinstance(spec.price, PerToken) else "-"
    return (
        f"`{row.alias}`",
        f"{row.slowest:g} to {row.fastest:g} on {row.vcpus} vCPU",
        f"${row.usd_per_thousand:.4f}",
        f"${usd_per_thousand_tokens(PRICED_ON_USD_PER_HOUR, row.priced):.4f} at {row.priced:g}/s",
        f"{measured:g}/s",
        f"{speed.written_per_s:.1f}/s on {engine.threads} threads",
        price,
    )


def machines(catalog: Catalog) -> str:
    """Each recommended machine type, judged."""
    rows = [_machine_row(row, catalog[alias]) for row in RECOMMENDED for alias in row.aliases if alias in catalog]
    return _table(("cloud", "machine", "vCPU, memory", "for pods", "alias", "needs", "holds it"), rows)


def _machine_row(row: Recommended, spec: ModelSpec) -> tuple[str, ...]:
    machine, needs = row.machine, spec.engine.needs(spec)
    if needs is None:
        raise ValueError(f"{spec.alias} runs elsewhere")
    lacking, longest = needs.lacking(machine), longest_context(spec, machine)
    shorter = f"; with a context of {longest:,} it does" if longest else ""
    return (
        row.cloud,
        machine.name,
        f"{machine.vcpus}, {machine.memory_gib:g} GiB",
        f"{machine.pod_cpu:g} CPU, {machine.pod_gib:.1f} GiB",
        f"`{spec.alias}`",
        f"{needs.cpu:g} CPU, {needs.gib:.1f} GiB",
        f"**no**: it needs {lacking}{shorter}" if lacking else "yes",
    )
