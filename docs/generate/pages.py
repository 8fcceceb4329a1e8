"""Pages and pictures of docs/ as the program has them now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from components.gateway.config import PROVIDERS
from docs.generate import cpu
from docs.generate.diagrams import data_path, states
from docs.generate.pictures import cost_rows, cost_words, memory, money
from docs.generate.shown import Shown
from models.engines import ENGINES
from models.machines import G2_MACHINES
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from ops.entry_words import (
    MEMORY_LEGEND,
    backend,
    evaluation_words,
    fit_of,
    fit_words,
    gpu_words,
    licence_words,
    memory_bar,
    price_words,
    slo_words,
)
from ops.findings.causes import CAUSES
from ops.findings.ways import Ways
from stacks.sections import overrides_of

DOCS = Path(__file__).parents[1]
_MADE = "<!-- Made by `make docs` from the program; what is edited here is lost. -->"
_MARK = re.compile(r"<!-- shows ([0-9a-f]{12}) -->")
_BLOCK = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def made(shown: Shown, docs: Path) -> Mapping[str, str]:
    """Every page and picture by its path in `docs`: whole ones, and those with marked blocks in between."""
    blocks = {
        "data-path": _fenced(data_path(shown)),
        "states": _fenced(states(shown)),
        "costs": _costs(shown),
        "causes": _causes(),
        "gguf-files": cpu.files(shown.catalog),
        "gguf-costs": cpu.costs(shown.catalog),
        "gguf-machines": cpu.machines(shown.catalog),
    }
    pages = {
        "engines.md": _engines(),
        "catalog.md": _catalog(shown),
        "pictures/memory.svg": memory(shown.catalog),
    }
    if picture := money(shown):
        pages["pictures/costs.svg"] = picture
    for page in sorted(docs.glob("*.md")):
        text = page.read_text()
        if page.name not in pages and _BLOCK.search(text):
            pages[page.name] = _BLOCK.sub(lambda m: f"{m[1]}{blocks[m['name']]}\n{m[3]}", text)
    return pages


def mark_of(docs: Path) -> str | None:
    """What the pages that lie there show: `Shown.mark` of the time they were made."""
    page = docs / "catalog.md"
    found = _MARK.search(page.read_text()) if page.exists() else None
    return found[1] if found else None


def _fenced(diagram: str) -> str:
    return f"```mermaid\n{diagram}\n```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else "-"


# --- engines and tasks -----------------------------------------------------------------------------------------


def _engines() -> str:
    tasks = [
        (
            _code(task.value),
            answers.summary,
            _code(answers.route),
            _code(answers.mode),
            _code(PROVIDERS[task]),
            " or ".join(kind.__name__ for kind in answers.prices),
            _stand_ins(task),
        )
        for task, answers in TASKS.items()
    ]
    lines = [
        "# Engines and tasks",
        "",
        _MADE,
        "",
        "What an engine answers: [`models/engines/base.py`](../models/engines/base.py). What a task answers:",
        "[`models/tasks.py`](../models/tasks.py). How one is added: [design](design.md).",
        "",
        "## Engines",
        "",
        *_table(
            ("engine", "what it is", "sized by", "healthy", "which model", "metrics"),
            [
                (
                    _code(engine.name()),
                    (engine.__doc__ or "").splitlines()[0].rstrip("."),
                    engine.sizing.value if engine.sizing else "-",
                    _code(engine.health_route),
                    _code(engine.identity_route),
                    _code(engine.metrics_route),
                )
                for engine in ENGINES
            ],
        ),
        "",
        "## What a stack may change of a model",
        "",
        "`pulumi config set ALIAS:SETTING VALUE`, for one stack; without it the entry of the catalog holds.",
        "",
        *_table(("engine", "setting", "takes"), _settings()),
        "",
        "## Tasks",
        "",
        "The gateway registers a model under the mode and client of its task. While a model is off, one of those tasks",
        "may stand in for it (`pulumi config set ALIAS:fallback OTHER`).",
        "",
        *_table(("task", "is", "route", "mode", "client", "sold", "stood in for by"), tasks),
    ]
    return "\n".join(lines) + "\n"


def _stand_ins(task: Task) -> str:
    """The question list says whom a task stands in for; a reader asks who stands in."""
    found = ", ".join(_code(other.value) for other, its in TASKS.items() if task in its.stands_in_for)
    return f"{found}, the same model" if TASKS[task].same_model else found


def _settings() -> Iterator[tuple[str, str, str]]:
    for engine in ENGINES:
        fields = overrides_of(engine).model_fields
        for name, field in fields.items():
            yield _code(engine.name()), _code(field.alias or name), _takes(field.annotation, field.metadata)
        if not fields:
            yield _code(engine.name()), "-", "nothing"


_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _takes(annotation: Any, metadata: Sequence[Any]) -> str:
    """Type and bounds of a setting."""
    constraints = list(metadata)
    while not isinstance(annotation, type):
        arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
        annotation, *more = arguments
        constraints += more
    flat = [inner for one in constraints for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]
    bounds = [f"{words} {getattr(one, key):g}" for one in flat for key, words in _BOUNDS.items() if hasattr(one, key)]
    return ", ".join([_TYPES[annotation], *bounds])


# --- the catalog -----------------------------------------------------------------------------------------------


def _catalog(shown: Shown) -> str:
    return (
        "\n".join(
            [
                "# The catalog",
                "",
                _MADE,
                f"<!-- shows {shown.mark} -->",
                "",
                "The entries of [`models/catalog/`](../models/catalog) with what follows from them. How a figure is",
                "computed: [memory](memory.md), [costs](costs.md). On the screen, with filters and all that is known",
                "of one: `ops catalog`, `ops catalog coder-chat`. Entries of your own: [entries](entries.md).",
                "",
                "![GPU memory of each model on one L4](pictures/memory.svg)",
                "",
                "## What is served",
                "",
                "Costs are US dollars as registered at the gateway, targets and results as each entry has them.",
                "",
                *_table(
                    ("alias", "model", "backend", "GPU", "context", "cost", "SLO target", "evaluated"),
                    [_served(spec) for spec in shown.catalog.values()],
                ),
                "",
                "## What it takes",
                "",
                "On a GPU: how many requests of the whole context the KV cache holds. The first start is a budget,",
                "which a healthy start beats: node, image, weights from the hub, load.",
                f"Memory of the GPU: {MEMORY_LEGEND}.",
                "",
                *_table(
                    ("alias", "GPU memory", "holds", "host memory", "smallest machine", "claim", "first start"),
                    [row for spec in shown.catalog.values() if (row := _taken(spec))],
                ),
                "",
                "## What it is, and under which licence",
                "",
                *_table(
                    ("alias", "task", "group", "licence", "revision"),
                    [_licensed(spec) for spec in shown.catalog.values()],
                ),
                "",
                "## Groups",
                "",
                *_table(
                    ("group", "models", "is"),
                    [
                        (
                            _code(name),
                            ", ".join(_code(s.alias) for s in shown.catalog.values() if s.group == name) or "-",
                            group.summary + (f"; cannot be enabled: {group.unavailable}" if group.unavailable else ""),
                        )
                        for name, group in shown.groups.items()
                    ],
                ),
            ]
        )
        + "\n"
    )


def _served(spec: ModelSpec) -> tuple[str, ...]:
    return (
        _code(spec.alias),
        spec.model_id + (", gated" if spec.weights and spec.weights.gated else ""),
        backend(spec),
        gpu_words(spec),
        f"{spec.context:,}" if spec.context else "the provider's",
        price_words(spec.price),
        slo_words(spec),
        evaluation_words(spec),
    )


def _licensed(spec: ModelSpec) -> tuple[str, ...]:
    revision = "-"
    if spec.weights:
        revision = _code(spec.weights.revision[:12]) if spec.weights.revision else "not pinned"
    licence = licence_words(spec).replace(", no commercial use", ", **no commercial use**")
    return _code(spec.alias), spec.task.value, spec.group, licence, revision


def _taken(spec: ModelSpec) -> tuple[str, ...] | None:
    needs, start = spec.engine.needs(spec), spec.engine.cold_start(spec)
    if needs is None or start is None:
        return None
    fit = fit_of(spec)
    smallest = next((machine.name for machine in G2_MACHINES.values() if needs.lacking(machine) is None), "none")
    return (
        _code(spec.alias),
        _code(memory_bar(fit)) if fit else "none",
        fit_words(fit) if fit else f"{spec.context:,} tokens",
        f"{needs.gib:.1f} GiB",
        smallest if spec.gpus else "the system pool's",
        f"{spec.engine.claim_gib(spec)} GiB",
        f"{start.progress_deadline / 60:.0f} min at most",
    )


# --- costs -----------------------------------------------------------------------------------------------------


def _costs(shown: Shown) -> str:
    rows = list(cost_rows(shown))
    if not rows:
        return "This stack runs on no cloud that the program pays for."
    told = [
        (f"{label}, {bought}" if bought else label, cost_words(bill, worst=worst))
        for label, bought, bill, worst in rows
    ]
    bill, gpu = rows[0][2], shown.plan({}).gpu
    on = f", GPU nodes of {gpu.machine.name}" if gpu else ""
    return "\n".join(
        [
            f"`{shown.raw.stack}` as it comes, {bill.region}{on}, prices of {bill.dated}:",
            "",
            *_table(("when", "costs"), told),
            "",
            "![Idle, now and at worst](pictures/costs.svg)",
        ]
    )


# --- causes ----------------------------------------------------------------------------------------------------

# What a reader fills in; `ops doctor` does it for him.
_BLANKS = {
    "namespace": "NAMESPACE",
    "pod": "POD",
    "container": "CONTAINER",
    "node": "NODE",
    "claim": "CLAIM",
    "kind": "KIND",
    "name": "NAME",
    "alias": "ALIAS",
    "holder": "OTHER",
    "gib": "GIB",
    "storage_class": "CLASS",
}


def _causes() -> str:
    """Symptom, cause and command of everything that `ops doctor` knows."""
    ways = Ways(
        lambda *words: shlex.join(["kubectl", *words]), "gke_PROJECT_us-central1-a_NAME", models=_BLANKS.values()
    )
    return "\n".join(
        _table(
            ("one sees", "cause", "command"),
            [
                (cause.symptom, f"{cause.means} (`{cause.name}`)", f"`{ways.command(cause.command, _BLANKS)}`")
                for cause in CAUSES.values()
            ],
        )
    )
