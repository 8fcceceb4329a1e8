"""What was measured, as an entry's fields in `models.local.yaml`: the next plan prices with it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from models.catalog import CATALOG, GROUPS, SHIPPED
from models.catalog.overlay import lay_text
from models.facts import Evidence, Load, Slo, Source, Spec, Throughput
from ops.errors import OpsError
from ops.overlay_file import place, with_entry

Json = dict[str, Any]
RECORD_HELP = "write what was measured into the model's entry in models.local.yaml"


def measured(result: Json) -> dict[str, Spec]:
    """Throughput and targets that a result of `ops bench` gives an entry: of the first shape that it has.

    The throughput is the closed loop's; the targets are the 95th percentiles at the highest rate that the server kept
    up with, or of a request alone. Raises OpsError where a figure of one replica cannot be told.
    """
    context, shape = result["context"], result["shapes"][0]
    if context["replicas"] != 1:
        raise OpsError(
            f"{context['alias']} has {context['replicas']} replicas, and an entry has the figure of one",
            f"pulumi config set {context['alias']}:replicas 1 && pulumi up",
        )
    runs: list[Json] = shape["runs"]
    full = next((run for run in runs if run["strategy"] == "throughput"), runs[0])
    calm = next((run for run in reversed(runs) if run.get("saturated") is False), runs[0])
    if not full["tokens_per_second"]["total"] or not calm["e2e_ms"]:
        raise OpsError(
            f"no request of {context['alias']} ended within its run, so there is nothing to record",
            f"ops bench {context['alias']} --seconds 300 --record",
        )
    machine = ", ".join(filter(None, (context["gpu"], context["machine"], context["image"].partition("@")[0])))
    where = f"ops bench {context['date'].partition('T')[0]}: {machine}"
    load = f"{calm['rate']:g} requests/s" if "rate" in calm else "one request at a time"
    return {
        "throughput": Throughput(
            tokens_per_second=full["tokens_per_second"]["total"],
            at=Load(
                prompt_tokens=shape["prompt_tokens"], output_tokens=shape["output_tokens"], streams=full["streams"]
            ),
            source=Source(facts="throughput", where=where, evidence=Evidence.VERIFIED),
        ),
        "slo": Slo(
            ttft_p95_ms=_up(calm["ttft_ms"]["p95"]),
            itl_p95_ms=_up(calm["itl_ms"]["p95"]) if calm["itl_ms"] else None,
            e2e_p95_ms=_up(calm["e2e_ms"]["p95"]),
            output_tokens=shape["output_tokens"],
            note=f"measured at {load} of {shape['prompt_tokens']:,} tokens; {where}",
        ),
    }


def _up(value: float) -> int:
    """The next number of two digits and zeros: what was measured once is no promise to the millisecond."""
    step = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return max(1, math.ceil(value / step) * step)


def record(alias: str, fields: Mapping[str, Spec]) -> None:
    """Write fields of an entry into this checkout's overlay, beside what it has of that model, and show how.

    Raises OpsError where the file is in a form that is left to its author; it then tells the entry.
    """
    path = place()
    patch = {name: value.model_dump(mode="json") for name, value in fields.items()}
    # Whole, and null where nothing was measured: else what an older measurement has would be told as of this one.
    entry = {**_there(path, alias), **patch}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    now = lay_text(SHIPPED, GROUPS, text, path.name).catalog.get(alias, CATALOG[alias])
    edit = with_entry(path, entry, now.model_copy(update=dict(fields)))
    sys.stdout.write(f"{edit.diff}wrote {path.name}\n")
    edit.write()


def _there(path: Path, alias: str) -> Json:
    """What the overlay has of a model, or the beginning of an entry."""
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except yaml.YAMLError:
        document = None  # who writes it tells what is wrong
    items: Any = cast("Json", document).get("models") if isinstance(document, dict) else None
    listed = cast("list[object]", items if isinstance(items, list) else [])
    entries = [cast("Json", item) for item in listed if isinstance(item, dict)]
    return next((entry for entry in entries if entry.get("alias") == alias), {"alias": alias})
