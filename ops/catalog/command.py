"""`ops catalog`: lists what can be served, or says all that is known of one entry.

Reads the catalog and what `models.local.yaml` lays over it; needs no GPU, no account, and pulumi only for `--up`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.catalog import CATALOG, FLAWS, GROUPS, OVERLAID, PLACES
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from models.memory.gpus import CARDS
from models.spec import ModelSpec
from models.tasks import Task
from ops.entry_words import (
    MEMORY_LEGEND,
    backend,
    evaluation_words,
    fit_of,
    fit_words,
    gpu_words,
    licence_words,
    memory_bar,
    price_short,
    price_words,
    slo_words,
    stored,
    unknown,
)
from ops.errors import OpsError
from stacks.problems import Problem, did_you_mean, nearest

_MACHINES = {**G2_MACHINES, **SYSTEM_MACHINES}
_FITS, _NOTHING = 0, 1
_LABEL = 11  # columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("alias", nargs="?", help="say all that is known of one model (its model id does as well)")
    parser.add_argument(
        "--fits",
        nargs="?",
        const="l4",
        choices=[*CARDS, *_MACHINES],
        metavar="GPU|MACHINE",
        help="only those that fit: one L4, another GPU, or a machine type with what it holds",
    )
    parser.add_argument("--task", choices=[task.value for task in Task], help="only those of a task")
    parser.add_argument("--licence", choices=["commercial"], help="only those whose licence allows commercial use")
    parser.add_argument("--group", choices=list(GROUPS), help="only those of a group")
    parser.add_argument("--up", action="store_true", help="only those that are up by the stack's config")
    parser.add_argument("--stack", default="ai-dev", help="stack whose config says what is up (default: ai-dev)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 with what was asked for, 1 if nothing is so, 2 for a catalog that is wrong or has no such model."""
    if FLAWS:
        raise OpsError(FLAWS[0].message, FLAWS[0].remedy, *(Problem(f.message, f.remedy) for f in FLAWS[1:]))
    if args.alias is not None:
        spec = named(args.alias)
        text = json.dumps(as_data(spec, whole=True), indent=2) if args.json else "\n".join(explained(spec))
        sys.stdout.write(text + "\n")
        return _FITS
    found = [spec for spec in CATALOG.values() if all(test(spec) for test in _filters(args))]
    if args.json:
        sys.stdout.write(json.dumps([as_data(spec) for spec in found], indent=2) + "\n")
    elif found:
        _print_list(found)
    else:
        sys.stderr.write("no model of the catalog is so\n")
    return _FITS if found else _NOTHING


def named(name: str) -> ModelSpec:
    """An entry by its alias, or by a model id that one entry alone has. Raises OpsError."""
    if name in CATALOG:
        return CATALOG[name]
    same = [spec for spec in CATALOG.values() if spec.model_id.lower() == name.lower()]
    if len(same) == 1:
        return same[0]
    if same:
        aliases = [spec.alias for spec in same]
        raise OpsError(f"{name} is served as {', '.join(aliases)}", f"ops catalog {aliases[0]}")
    near = nearest(name, CATALOG)
    raise OpsError(
        f"no model '{name}' in the catalog; {did_you_mean(name, CATALOG)}",
        f"ops catalog {near}" if near else "ops catalog",
    )


# --- filters ---------------------------------------------------------------------------------------------------


def _filters(args: argparse.Namespace) -> list[Callable[[ModelSpec], bool]]:
    tests: list[Callable[[ModelSpec], bool]] = []
    if args.task:
        tests.append(lambda spec: spec.task.value == args.task)
    if args.licence:
        tests.append(lambda spec: spec.licence.commercial_use)
    if args.group:
        tests.append(lambda spec: spec.group == args.group)
    if args.up:
        up = _up(args.project_dir, args.stack)
        tests.append(lambda spec: spec.alias in up)
    if args.fits:
        tests.append(lambda spec: fits(spec, args.fits))
    return tests


def _up(project_dir: Path, stack: str) -> set[str]:
    from ops.config_files import load  # noqa: PLC0415  these bring pulumi
    from stacks.admission import admit  # noqa: PLC0415
    from stacks.plan import State  # noqa: PLC0415

    plan = admit(load(project_dir, stack), rehearsal=True).plan
    return {model.spec.alias for model in plan.models if model.state is State.UP}


def fits(spec: ModelSpec, where: str) -> bool:
    """Whether one replica fits a GPU or a machine type, what needs no GPU fits no GPU."""
    if where in CARDS:
        return spec.engine.fits_card(spec, CARDS[where])
    needs, fit = spec.engine.needs(spec), fit_of(spec)
    of_its_pool = bool(spec.gpus) is (where in G2_MACHINES)
    holds = needs is not None and needs.lacking(_MACHINES[where]) is None
    return of_its_pool and holds and (fit is None or fit.fits)


# --- the list ----------------------------------------------------------------------------------------------------


def _print_list(found: list[ModelSpec]) -> None:
    from ops.console import Column, Row, output, print_table  # noqa: PLC0415  rich, which JSON does without

    columns = [
        *(Column("ALIAS"), Column("TASK"), Column("ENGINE", spare=2), Column("GPU", figure=True)),
        *(Column("CONTEXT", figure=True), Column("AT ONCE", figure=True), Column("GIB", figure=True, spare=3)),
        *(Column("$/MTOK", figure=True), Column("EVALUATED", spare=4), Column("LICENCE", spare=1)),
        Column("MODEL", spare=5),
    ]
    rows = [
        Row(
            (
                spec.alias + ("*" if spec.alias in OVERLAID else ""),
                spec.task.value,
                spec.engine.name(),
                str(spec.gpus or "-"),
                f"{spec.context:,}" if spec.context else "-",
                _at_once(spec),
                f"{needs.gib:.1f}" if (needs := spec.engine.needs(spec)) else "-",
                price_short(spec.price),
                spec.evaluation.status,
                spec.licence.name + ("" if spec.licence.commercial_use else ", no commercial use"),
                spec.model_id,
            )
        )
        for spec in found
    ]
    console = output()
    print_table(console, columns, rows)
    console.print()
    own = [spec.alias for spec in found if spec.alias in OVERLAID]
    if own:
        file = OVERLAID[own[0]].file
        console.print(f"* of this checkout alone, or changed by it: {file}", soft_wrap=True)
    console.print("AT ONCE: requests of the whole context that its GPU holds; GIB: host memory; $/MTOK: in / out")
    console.print("all of one: ops catalog ALIAS; to serve one: pulumi config set ALIAS:enabled true", soft_wrap=True)


def _at_once(spec: ModelSpec) -> str:
    """Requests of the whole context that its GPU holds; "no" where it does not fit."""
    fit = fit_of(spec)
    if fit is None:
        return "-"
    return f"{int(fit.concurrency):,}" if fit.fits else "no"


def origin(spec: ModelSpec) -> str:
    """Where an entry stands: "models/catalog/coding.py:18, models.local.yaml:3 (context)"."""
    own, place = OVERLAID.get(spec.alias), PLACES.get(spec.alias)
    told = [str(place)] if place else []
    return ", ".join([*told, *([f"{own} ({own.what})"] if own else [])]) or "-"


def as_data(spec: ModelSpec, *, whole: bool = False) -> dict[str, Any]:
    """An entry for programs, and all that it says where asked."""
    fit, needs = fit_of(spec), spec.engine.needs(spec)
    data: dict[str, Any] = {
        "alias": spec.alias,
        "group": spec.group,
        "task": spec.task.value,
        "modelId": spec.model_id,
        "engine": spec.engine.name(),
        "gpus": spec.gpus,
        "context": spec.context,
        "fits": fit.fits if fit else None,
        "memoryGib": needs.gib if needs else None,
        "price": spec.price.model_dump(),
        "licence": spec.licence.name,
        "commercialUse": spec.licence.commercial_use,
        "evaluation": spec.evaluation.status,
        "from": origin(spec),
    }
    if whole:
        data |= {"unknown": unknown(spec), "entry": spec.model_dump(mode="json")}
    return data


# --- one entry ---------------------------------------------------------------------------------------------------


def explained(spec: ModelSpec) -> list[str]:
    """All that is known of an entry, a line each, as wide as the terminal."""
    from ops.wrapping import width, wrapped  # noqa: PLC0415

    columns = width()
    lines = [f"{spec.alias}: {spec.summary}"]
    for label, texts in _facts(spec).items():
        for number, text in enumerate(texts):
            first = f"  {'' if number else label:{_LABEL}}"
            lines.append(wrapped(text, columns, first, " " * (_LABEL + 4)) if text else "")
    lines += ["", *_commands(spec)]
    return lines


def _facts(spec: ModelSpec) -> Mapping[str, list[str]]:
    weights, fit = spec.weights, fit_of(spec)
    found = {"from": [origin(spec)], "model": [spec.model_id]}
    if weights:
        gated = ", gated: the hub wants a token" if weights.gated else ""
        found["weights"] = [
            f"{weights.format}, {stored(spec)}, {weights.bytes_on_disk / 1e9:.2f} GB{gated}",
            f"revision {weights.revision}" if weights.revision else "no revision pinned",
        ]
    context = f", context {spec.context:,} tokens" if spec.context else ""
    found["served"] = [f"{spec.task.value} on {backend(spec)}, as {spec.served_name}{context}, GPU: {gpu_words(spec)}"]
    if fit:
        found["memory"] = [f"{memory_bar(fit)}  {fit.total_gib:g} GiB: {fit_words(fit)}", MEMORY_LEGEND]
    found["node"] = _node(spec)
    found["price"] = [price_words(spec.price)]
    if speed := _speed(spec):
        found["speed"] = [speed]
    found |= {"target": [slo_words(spec)], "evaluated": [evaluation_words(spec)], "licence": [licence_words(spec)]}
    found["sources"] = [f"{s.facts}: {s.evidence.value}, {s.where}" for s in (*spec.sources, spec.licence.source)]
    found["unknown"] = unknown(spec) or ["nothing that is asked here"]
    return {label: texts for label, texts in found.items() if texts}


def _node(spec: ModelSpec) -> list[str]:
    needs, start = spec.engine.needs(spec), spec.engine.cold_start(spec)
    if needs is None or start is None:
        return ["runs at its provider"]
    machines = G2_MACHINES if spec.gpus else SYSTEM_MACHINES
    smallest = next((m.name for m in machines.values() if needs.lacking(m) is None), "none")
    told = (
        f"{needs.gib:.1f} GiB of memory and {needs.cpu:g} CPU; smallest machine {smallest}; claim "
        f"{spec.engine.claim_gib(spec)} GiB; first start {start.progress_deadline / 60:.0f} min at most"
    )
    return [told]


def _speed(spec: ModelSpec) -> str | None:
    try:
        rate = spec.expected_throughput
    except ValueError:
        return None
    return f"{rate.tokens_per_second:,.0f} tokens a second ({rate.told})" if rate else None


def _commands(spec: ModelSpec) -> list[str]:
    if reason := GROUPS[spec.group].unavailable:
        return [f"  it cannot be enabled: {reason}"]
    commands = {
        "what if": f"ops plan --set {spec.alias}:enabled=true",
        "enable": f"pulumi config set {spec.alias}:enabled true",
        "whole group": f"pulumi config set --path 'ai-platform:groups.{spec.group}' true",
        **({"GPU memory": f"ops fit {spec.alias}"} if spec.gpus else {}),
    }
    return [f"  {what:{_LABEL}}  {command}" for what, command in commands.items()]
