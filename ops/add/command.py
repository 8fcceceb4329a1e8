"""`ops add MODEL`: a model of the hub, a config.json or a GGUF file becomes an entry of `models.local.yaml`.

What is in the catalog is answered with the command that enables it. Everything that would be written is shown first.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from models.catalog import CATALOG, FLAWS, GROUPS, SHIPPED
from models.spec import ModelSpec
from models.tasks import TASKS, Task
from models.weights import HUB
from ops.add.propose import Proposal, Wanted, chosen_file, free_alias, propose, trimmed, usd_per_hour
from ops.add.repository import Hub, Repository, of_path
from ops.entry_words import (
    backend,
    fit_of,
    fit_words,
    gpu_words,
    licence_words,
    memory_bar,
    price_words,
    stored,
)
from ops.errors import OpsError
from ops.overlay_file import Edit, place, with_entry
from ops.wrapping import width, wrapped
from stacks.problems import Problem, near

_LABEL = 11  # columns
_WRITTEN, _NOT_WRITTEN = 0, 1


def _positive(text: str) -> int:
    value = int(text)
    if not 0 < value <= 10**9:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("model", metavar="MODEL", help="ORGANISATION/NAME, a folder, a config.json, a .gguf file")
    way = parser.add_argument_group("what becomes of it").add_mutually_exclusive_group()
    way.add_argument("--as", dest="as_alias", metavar="NEW", help="an endpoint of that alias (default: by its name)")
    way.add_argument("--replace", metavar="ALIAS", choices=list(CATALOG), help="the model of that endpoint")
    said = parser.add_argument_group("in place of what is proposed")
    said.add_argument("--task", choices=[task.value for task in Task])
    said.add_argument("--group", choices=[name for name, group in GROUPS.items() if not group.unavailable])
    said.add_argument("--context", type=_positive, metavar="N", help="tokens a request may span")
    said.add_argument("--gpus", type=_positive, default=1, metavar="N", help="GPUs that one replica holds")
    said.add_argument("--quantization", metavar="Q", help="of a GGUF repository: which file, as in Q5_K_M")
    parser.add_argument("--model-id", metavar="ID", help="of a folder or a file: the repository that it is of")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main); its commit is pinned")
    parser.add_argument("--hub", metavar="URL", help=f"default: HF_ENDPOINT, or {HUB}; HF_TOKEN is shown to it")
    parser.add_argument("--stack", default="ai-dev", help="stack that the entry is tried on (default: ai-dev)")
    write = parser.add_mutually_exclusive_group()
    write.add_argument("--yes", action="store_true", help="write without asking")
    write.add_argument("--dry-run", action="store_true", help="show, and write nothing")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 if it is in the catalog, was written, or was to be shown only; 1 if nobody agreed; 2 if it cannot be."""
    if FLAWS:
        raise OpsError(FLAWS[0].message, FLAWS[0].remedy, *(Problem(f.message, f.remedy) for f in FLAWS[1:]))
    known = _in_catalog(args)
    if known:
        _say(_known(known))
        return _WRITTEN
    path = place()
    wanted = Wanted(
        command=_command(args),
        alias=args.replace or args.as_alias,
        task=args.task or (CATALOG[args.replace].task.value if args.replace else None),
        group=args.group or (CATALOG[args.replace].group if args.replace else None),
        context=args.context,
        quantization=args.quantization,
        gpus=args.gpus,
    )
    if args.as_alias in CATALOG:
        raise OpsError(
            f"there is an endpoint {args.as_alias} already, of {CATALOG[args.as_alias].model_id}",
            f"{_command(args, without='--as')} --replace {args.as_alias}   # or --as another name",
        )
    proposal = propose(_repository(args, wanted), wanted)
    entry = trimmed(proposal.spec)
    if args.replace:
        proposal.spec, entry = _replacing(CATALOG[args.replace], proposal)
    edit = with_entry(path, entry, proposal.spec)
    _say(_shown(proposal, args.replace))
    sys.stdout.write("\n" + edit.diff + "\n")
    problems = _say_effect(args, proposal.spec)
    return _decide(args, edit, proposal.spec.alias, problems)


def _command(args: argparse.Namespace, without: str = "") -> str:
    """What was typed, for remedies."""
    flags = {
        "--as": args.as_alias,
        "--replace": args.replace,
        "--task": args.task,
        "--group": args.group,
        "--context": args.context,
        "--quantization": args.quantization,
        "--model-id": args.model_id,
        "--revision": args.revision,
        "--hub": args.hub,
    }
    words = ["ops", "add", args.model]
    for flag, value in flags.items():
        words += [flag, str(value)] if value is not None and flag != without else []
    return shlex.join(words)


# --- what is there already ---------------------------------------------------------------------------------------


def _in_catalog(args: argparse.Namespace) -> list[ModelSpec]:
    """The entries of that model, where nothing else is asked for than to have it."""
    if args.as_alias or args.replace or os.path.lexists(args.model):
        return []
    name = args.model.lower()
    same = [s for s in CATALOG.values() if name in (s.alias, s.model_id.lower())]
    return same or [s for s in CATALOG.values() if "/" not in name and s.model_id.lower().endswith(f"/{name}")]


def _known(specs: Sequence[ModelSpec]) -> list[str]:
    lines: list[str] = []
    for spec in specs:
        fit, reason = fit_of(spec), GROUPS[spec.group].unavailable
        told = f"{fit_words(fit)} on {gpu_words(spec)}" if fit else backend(spec)
        lines.append(f"{spec.model_id} is in the catalog as {spec.alias}: {TASKS[spec.task].summary}, {told}")
        if reason:
            lines.append(f"  it cannot be enabled: {reason}")
            continue
        lines += [
            f"  {'what if':{_LABEL}}ops plan --set {spec.alias}:enabled=true",
            f"  {'enable':{_LABEL}}pulumi config set {spec.alias}:enabled true && pulumi up",
            f"  {'more':{_LABEL}}ops catalog {spec.alias}",
        ]
    return lines


def _repository(args: argparse.Namespace, wanted: Wanted) -> Repository:
    path = Path(args.model)
    if os.path.lexists(args.model):
        return of_path(path, args.model_id)
    if args.model.endswith((".json", ".gguf")) or args.model.startswith((".", "/", "~")):
        raise OpsError(f"there is no {args.model}", f"ls -l {shlex.quote(str(path.parent))}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", args.model, re.ASCII):
        close = near(args.model, [spec.model_id.rpartition("/")[2] for spec in CATALOG.values()])
        meant = next((s.model_id for s in CATALOG.values() if close and s.model_id.endswith(f"/{close[0]}")), None)
        raise OpsError(
            f"{args.model!r:.100} is no file, no entry of the catalog, and of the hub a model is ORGANISATION/NAME",
            f"ops add {meant or 'Qwen/Qwen3-8B-AWQ'}",
        )
    hub = Hub.of_environment(args.hub)
    found = hub.repository(args.model, args.revision)
    if found.config is None:
        found = hub.with_header(found, chosen_file(found, wanted))
    return found


# --- another model under an alias ------------------------------------------------------------------------------------


def _replacing(before: ModelSpec, proposal: Proposal) -> tuple[ModelSpec, dict[str, Any]]:
    """The endpoint with another model: what clients know of it stays, its alias, task, group and price."""
    new = proposal.spec
    if type(new.engine) is not type(before.engine):
        raise OpsError(
            f"{before.alias} is on {before.engine.name()}, and {new.model_id} would be on {new.engine.name()}: its "
            "claim and its Service would not be those of the endpoint that there is",
            f"ops add {new.model_id} --as {free_alias(new.model_id)}",
        )
    if new.task is not before.task:
        raise OpsError(
            f"{before.alias} is for {before.task.value}, and {new.model_id} would be for {new.task.value}",
            f"ops add {new.model_id} --as {free_alias(new.model_id)}",
        )
    if type(new.price) is type(before.price):
        new = new.model_copy(update={"price": before.price})
        proposal.notes.append(f"price: that of {before.alias} before, {price_words(before.price)}")
    base = SHIPPED.get(before.alias)
    return new, _patch(base, new) if base else trimmed(new)


def _patch(base: ModelSpec, new: ModelSpec) -> dict[str, Any]:
    """Every field that differs, whole: what another version of the catalog has in it then mixes with none of it."""
    was, full, short = base.model_dump(mode="json"), new.model_dump(mode="json"), trimmed(new)
    entry: dict[str, Any] = {"alias": base.alias}
    for name, value in full.items():
        if value != was[name] or name in ("weights", "licence", "sources"):
            entry[name] = _whole(was[name], value, short.get(name, value))
    return entry


def _whole(was: object, value: object, short: object) -> Any:
    """What makes of the one the other when it is merged into it, without what has its default in both."""
    old, new, kept = (cast("dict[str, Any]", one) if isinstance(one, dict) else None for one in (was, value, short))
    if new is None or old is None or old.get("kind") != new.get("kind"):
        return value if kept is None else kept
    kept = kept or {}
    return {
        key: _whole(old.get(key), inner, kept.get(key, inner))
        for key, inner in new.items()
        if key in kept or old.get(key) != inner
    }


# --- what is told -----------------------------------------------------------------------------------------------


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _shown(proposal: Proposal, replaced: str | None) -> list[str]:
    spec, columns = proposal.spec, width()
    title = f"{spec.model_id} in place of {CATALOG[replaced].model_id} as" if replaced else f"{spec.model_id} as"
    weights, fit, hourly = spec.weights, fit_of(spec), usd_per_hour(spec)
    facts: dict[str, list[str]] = {
        "serves": [f"{TASKS[spec.task].summary} on {backend(spec)}, GPU: {gpu_words(spec)}, {spec.context:,} tokens"],
        "memory": [f"{memory_bar(fit)}  {fit_words(fit)}"] if fit else [],
        "weights": [f"{stored(spec)}, {weights.bytes_on_disk / 1e9:.2f} GB, {weights.revision or 'no revision'}"]
        if weights
        else [],
        "node": [_node(spec, hourly)],
        "price": [price_words(spec.price)],
        "licence": [licence_words(spec)],
        "not known": [*proposal.notes, "speed: nobody measured it, so it is computed; answers: nobody evaluated them"],
    }
    lines = [f"{title} {spec.alias}"]
    for label, texts in facts.items():
        for number, text in enumerate(texts):
            first = f"  {'' if number else label:{_LABEL}}"
            lines.append(wrapped(text, columns, first, " " * (_LABEL + 4)))
    return lines


def _node(spec: ModelSpec, hourly: float | None) -> str:
    from models.machines import G2_MACHINES  # noqa: PLC0415

    needs = spec.engine.needs(spec)
    if needs is None:
        return "elsewhere"
    machine = next((m.name for m in G2_MACHINES.values() if spec.gpus and needs.lacking(m) is None), None)
    where = f"smallest machine {machine}" if machine else "on the system pool"
    cost = f", ${hourly:.2f} an hour while it is up" if hourly else ""
    return f"{needs.gib:.1f} GiB of memory, {where}, claim {spec.engine.claim_gib(spec)} GiB{cost}"


def _say_effect(args: argparse.Namespace, spec: ModelSpec) -> list[Problem]:
    """What the stack makes of it, enabled; its problems that are not there without it."""
    from ops.config_files import load  # noqa: PLC0415  these bring pulumi
    from stacks.admission import admit  # noqa: PLC0415
    from stacks.costs import costs  # noqa: PLC0415

    try:
        raw = load(args.project_dir, args.stack)
    except OpsError as error:
        _say([f"not tried on a stack: {error.problem.message}"])
        return []
    enabled = replace(raw, values={**raw.values, f"{spec.alias}:enabled": "true"})
    before = admit(raw, rehearsal=True)
    after = admit(enabled, {**CATALOG, spec.alias: spec}, GROUPS, rehearsal=True)
    there = {problem.message for problem in before.problems}
    new = [problem for problem in after.problems if problem.message not in there]
    bills = costs(before.plan), costs(after.plan)
    money = ""
    if bills[0] and bills[1]:
        old, now = bills[0].idle_usd_per_month, bills[1].idle_usd_per_month
        money = f": ${old:,.2f} -> ${now:,.2f} a month idle"
    if new:
        _say([f"stack {args.stack} with it enabled is refused:", *(f"- {p.message}\n    {p.remedy}" for p in new)])
    else:
        _say([f"stack {args.stack} with it enabled plans{money}"])
    return new


def _decide(args: argparse.Namespace, edit: Edit, alias: str, problems: Sequence[Problem]) -> int:
    name = edit.path.name
    if args.dry_run:
        _say([f"nothing is written: --dry-run; to write it: {_command(args)} --yes"])
        return _WRITTEN
    if not args.yes:
        if not sys.stdin.isatty():
            _say([f"nothing is written, since nobody is here to ask; to write it: {_command(args)} --yes"])
            return _NOT_WRITTEN
        sys.stdout.write(f"write {name}? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            _say(["nothing is written"])
            return _NOT_WRITTEN
    edit.write()
    _say([f"wrote {name}"])
    if not problems:
        _say(
            [
                f"  {'what if':{_LABEL}}ops plan --set {alias}:enabled=true",
                f"  {'enable':{_LABEL}}pulumi config set {alias}:enabled true && pulumi up",
                f"  {'undo':{_LABEL}}${{EDITOR:-vi}} {name}   # take its entry out",
            ]
        )
    return _WRITTEN
