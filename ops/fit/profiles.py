"""What GKE Inference Quickstart measured, as `gcloud container ai profiles list` and `... benchmarks list` print it.

Its figures are of conversations of ShareGPT at the point where throughput stops to grow. The columns are those of
gcloud's own printers ("Output Tokens/s", "NTPOT(ms)"); a table has them apart by two spaces or more, a CSV by commas.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.machines import G2_MACHINES
from ops.errors import OpsError

# Tokens read and written of a request of ShareGPT: 230,969 and 194,523 of 1,000 requests that vLLM's benchmark drew
# (substratusai/kubeai docs/benchmarks/llama-3.2-11b-vision.md).
_READ, _WRITTEN = 231, 195
_COLUMNS = ("instancetype", "outputtokenss", "ttftms", "ntpotms", "modelserver", "modelserverversion", "model")
_NEEDED = _COLUMNS[:2]
TO_COPY = " " * 6  # before what is not to be folded
_REMEDY = "gcloud container ai profiles list --model=MODEL --pricing-model=on-demand > profiles.txt"

# Of a row as --format=yaml, json or flattened prints it: a field, and its name before it.
_NAMED = re.compile(r"instance_?type[\"']?\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class Profile:
    """A row: a model on a machine."""

    machine: str  # "g2-standard-12"
    written_per_s: float
    first_token: str  # ms, as printed; empty where it is not
    ntpot: str  # ms a written token, the first one's share included
    server: str  # "vllm v0.9.1"
    model: str


def read_profiles(path: Path) -> list[Profile]:
    """Rows of a file, or of standard input for "-". Raises OpsError for anything else than such output."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(f"{path} cannot be read: {error}", _REMEDY) from error
    rows = list(_rows(text))
    header = next((i for i, row in enumerate(rows) if set(_NEEDED) <= {_plain(cell.text) for cell in row}), None)
    if header is None and _NAMED.search(text):
        raise OpsError(
            f"{path} names its fields as gcloud's --format=yaml or json does, and a table or a CSV is read",
            f"{_REMEDY}   # without --format",
        )
    if header is None:
        raise OpsError(f"{path} has no row of column names with Instance Type and Output Tokens/s", _REMEDY)
    return [profile for row in rows[header + 1 :] if (profile := _profile(_named(rows[header], row)))]


@dataclass(frozen=True)
class _Cell:
    """What stands in a row, and where: its column of a table, its number in what commas or tabs part."""

    at: int
    text: str


def _rows(text: str) -> Iterator[list[_Cell]]:
    for line in text.splitlines():
        if "\t" in line or ("," in line and "  " not in line.strip()):
            for cells in csv.reader([line], delimiter="\t" if "\t" in line else ","):
                yield [_Cell(at, cell.strip()) for at, cell in enumerate(cells)]
        elif line.strip():
            yield [_Cell(found.start(), found[0]) for found in re.finditer(r"\S+(?: \S+)*", line)]


def _named(header: Sequence[_Cell], row: Sequence[_Cell]) -> dict[str, str]:
    """A row's cells by their columns. An empty one has no text in a table, so that only its place tells the next."""
    if len(row) == len(header):
        return {_plain(name.text): cell.text for name, cell in zip(header, row, strict=True)}
    names = {name.at: _plain(name.text) for name in header}
    if any(cell.at not in names for cell in row):
        return {}
    return {names[cell.at]: cell.text for cell in row}


def _plain(name: str) -> str:
    """ "Output Tokens/s" and "output_tokens/s" alike: "outputtokenss"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _profile(cells: Mapping[str, str]) -> Profile | None:
    try:
        machine, written = cells["instancetype"], float(cells["outputtokenss"])
    except (KeyError, ValueError):
        return None
    if not 0 < written < float("inf"):
        return None
    server = " ".join(filter(None, (cells.get("modelserver"), cells.get("modelserverversion"))))
    return Profile(
        machine=machine,
        written_per_s=written,
        first_token=cells.get("ttftms", ""),
        ntpot=cells.get("ntpotms", ""),
        server=server,
        model=cells.get("model", ""),
    )


def profiles_here(
    path: Path, gpus: int, heads: int, command: Callable[[Mapping[str, str | None]], str]
) -> list[Profile]:
    """The rows of G2 machines with so many GPUs, fastest first. Raises OpsError where there is none.

    `command` is this command with other flags: to ask of as many GPUs as there are rows of, if the attention heads
    divide among them, or without the file.
    """
    found = read_profiles(path)
    here = [p for p in found if p.machine in G2_MACHINES and G2_MACHINES[p.machine].gpus == gpus]
    if not found:
        raise OpsError(f"{path} has no row with figures", _REMEDY)
    if not here:
        machines = ", ".join(dict.fromkeys(p.machine for p in found))
        counts = {G2_MACHINES[p.machine].gpus for p in found if p.machine in G2_MACHINES}
        others = sorted(n for n in counts if heads % n == 0)
        raise OpsError(
            f"{path} has no figures of a machine with {gpus} x L4, only of: {machines}",
            command({"--tensor-parallel": str(others[0]), "--machine": None} if others else {"--profiles": None}),
        )
    return sorted(here, key=lambda p: p.written_per_s, reverse=True)


def profile_lines(here: Sequence[Profile]) -> list[str]:
    """Each row in a line, and the first as an entry has it, to be pasted."""
    if not here:
        return []
    best = here[0]
    where = f"GKE Inference Quickstart: {', '.join(filter(None, (best.model, best.machine, best.server)))}"
    entry = f"""throughput=Throughput(
    tokens_per_second={best.written_per_s * (_READ + _WRITTEN) / _WRITTEN:.0f},
    at=Load(prompt_tokens={_READ}, output_tokens={_WRITTEN}),
    source=Source(
        facts="throughput",
        where={json.dumps(where)},
        evidence=Evidence.REPORTED,
    ),
),"""
    return [
        "  GKE Inference Quickstart, conversations of ShareGPT where throughput stops to grow:",
        *(f"    {_told(profile)}" for profile in here),
        "    the fastest, for the entry in models/catalog:",
        *(TO_COPY + line for line in entry.splitlines()),
    ]


def _told(profile: Profile) -> str:
    parts = [f"{profile.written_per_s:,.0f}/s written"]
    if profile.first_token:
        parts.append(f"the first after {profile.first_token} ms")
    if profile.ntpot:
        parts.append(f"{profile.ntpot} ms a token in all")
    of = ", ".join(filter(None, (profile.machine, profile.server, profile.model)))
    return f"{of}: {', '.join(parts)}"
