"""The first screen of a plan: what was asked, what is up, what it costs, what is wrong, and where the rest is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from models.memory.vllm import GpuFit
from ops.console import Column, Row, print_table
from ops.engine import Registered
from ops.plan.data import fit_of
from ops.plan.diff.lines import listed
from ops.plan.text import STATE_STYLE, created, gpu_pool, money, slots, spend_log
from ops.wrapping import wrapped
from stacks.admission import Admission
from stacks.costs import CENTS, HOURLY_DIGITS, Costs, costs
from stacks.plan import Plan, PlannedModel, State

_MODELS = 12  # rows of models that are off; those that are up are all shown
_NOTICES = 2
_CHANGES = 6
_LABEL = 8  # columns


@dataclass(frozen=True)
class Asked:
    """What `--set` changed."""

    assignments: Sequence[str]  # as they may be printed
    file: str  # "Pulumi.ai-dev.yaml"
    before: Admission  # of the file alone


def first_screen(
    console: Console, admission: Admission, resources: Sequence[Registered], asked: Asked | None = None
) -> None:
    """Print an admitted plan on one screen, of eighty columns if need be."""
    plan, bill = admission.plan, costs(admission.plan)
    again = _again(plan, asked)
    settings = plan.settings
    _say(console, f"{settings.project} / {settings.stack}: {_standing(plan)}", "bold")
    console.print()
    _models(console, plan, bill)
    console.print()
    if plan.local:
        _section(console, "local", [plan.local])
    _section(console, "costs", money(bill))
    pool = f"; {gpu_pool(plan)}" if settings.platform.target == "gke" else ""
    _section(console, "data", [spend_log(plan)])
    _section(console, "new", [created(resources) + pool])
    _todo(console, admission, again)
    _wrong(console, admission)
    _more(console, plan, asked, again)


def print_asked(console: Console, asked: Asked, plan: Plan) -> None:
    """What was asked for, and what it changes beside the stack file alone."""
    changed = "; ".join(_changes(asked.before.plan, plan)) or "no model, machine, cost, team or key differs"
    alone = ", which is refused" if asked.before.problems else ""
    _say(console, f"asked: {', '.join(asked.assignments)}", "bold")
    _say(console, f"beside {asked.file} alone{alone}: {changed}")


def _again(plan: Plan, asked: Asked | None) -> str:
    """The command that printed this."""
    words = ["ops", "plan", "--stack", plan.settings.stack]
    for assignment in asked.assignments if asked else ():
        words += ["--set", assignment]
    return shlex.join(words)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(wrapped(text, console.width, rest="  "), style=style), soft_wrap=True)


def _section(console: Console, label: str, lines: Iterable[str]) -> None:
    for number, line in enumerate(lines):
        first = f"{'' if number else label:{_LABEL}}"
        console.print(Text(wrapped(line, console.width, first)), soft_wrap=True)


def _command(console: Console, command: str) -> None:
    """On a line of its own, however long, to be copied."""
    console.print(Text(f"{'':{_LABEL}}  {command}", style="bold"), soft_wrap=True)


# --- what was asked ------------------------------------------------------------------------------------------


def _changes(before: Plan, after: Plan) -> Iterator[str]:
    changed = [text for old, new in zip(before.models, after.models, strict=True) if (text := _change(old, new))]
    yield from changed[:_CHANGES]
    if rest := len(changed[_CHANGES:]):
        yield f"and {rest} more models"
    machines = (
        ("GPU pool", before.gpu and before.gpu.machine.name, after.gpu and after.gpu.machine.name),
        ("system pool", before.system.machine.name, after.system.machine.name),
    )
    if after.settings.platform.target == "gke":  # elsewhere nobody makes them
        yield from (f"{what} {old or 'none'} -> {new or 'none'}" for what, old, new in machines if old != new)
    if access := list(_access(before, after)):
        yield f"access differs: {listed(access)}"
    old_bill, new_bill = costs(before), costs(after)
    if old_bill is None or new_bill is None:
        return
    totals = (
        (old_bill.usd_per_hour_now, new_bill.usd_per_hour_now, HOURLY_DIGITS, "an hour now"),
        (old_bill.idle_usd_per_month, new_bill.idle_usd_per_month, CENTS, "a month idle"),
        (old_bill.worst_case_usd_per_month, new_bill.worst_case_usd_per_month, CENTS, "a month at worst"),
    )
    for old, new, digits, per in totals:
        if old != new:
            sign = "+" if new > old else "-"
            yield f"${old:,.{digits}f} -> ${new:,.{digits}f} {per} ({sign}${abs(new - old):,.{digits}f})"


def _access(before: Plan, after: Plan) -> Iterator[str]:
    """Teams and keys that come, go or are given something else by config; what groups let them use is told above."""
    old, new = before.settings.platform, after.settings.platform
    for kind, one, other in (("team", old.teams, new.teams), ("key", old.keys, new.keys)):
        yield from (f"{kind} {a}" for a in dict.fromkeys([*other, *one]) if one.get(a) != other.get(a))


def _change(old: PlannedModel, new: PlannedModel) -> str:
    told: list[str] = []
    if old.state is not new.state:
        told.append(f"{old.state.value} -> {new.state.value}")
    elif old.replicas != new.replicas:
        told.append(f"{old.replicas} -> {new.replicas} replicas")
    if old.spec.context != new.spec.context:
        told.append(f"context {old.spec.context or 0:,} -> {new.spec.context or 0:,}")
    return f"{new.spec.alias} {', '.join(told)}" if told else ""


# --- what is up ----------------------------------------------------------------------------------------------


def _standing(plan: Plan) -> str:
    up = [model for model in plan.models if model.state is State.UP]
    names = ", ".join(m.spec.alias + (f" x {m.replicas}" if m.replicas > 1 else "") for m in up)
    off = sum(model.state is State.OFF for model in plan.models)
    return f"{f'{names} up' if up else 'nothing is up'}, {off} off; {slots(plan)}"


def _models(console: Console, plan: Plan, bill: Costs | None) -> None:
    """Enabled models, those that are up first."""
    hourly = {cost.alias: cost.usd_per_hour for cost in bill.models} if bill else {}
    models = _up_first(plan)
    up = sum(model.state is State.UP for model in models)
    listed = models[: max(up, _MODELS)]
    columns = [
        Column("MODEL"),
        Column("TASK", spare=1),
        Column("ENGINE", spare=2),
        Column("STATE"),
        Column("GPU FIT"),
        *([Column("$/H UP", figure=True)] if bill else []),
    ]
    rows = [
        Row(
            (
                model.spec.alias,
                model.spec.task.value,
                model.spec.engine.kind,
                model.state.value,
                _fit(plan, model),
                "-" if (usd := hourly.get(model.spec.alias)) is None else f"{usd:.{HOURLY_DIGITS}f}",
            ),
            STATE_STYLE[model.state],
        )
        for model in listed
    ]
    if rows:
        print_table(console, columns, rows)
    else:
        _say(console, "no group of models is enabled, so the gateway has nothing to serve")
    if rest := len(models) - len(listed):
        _say(console, f"and {rest} more that are not up: --full")


def _up_first(plan: Plan) -> list[PlannedModel]:
    return sorted(plan.deployed, key=lambda model: model.state is not State.UP)


def _fit(plan: Plan, model: PlannedModel) -> str:
    """Whether one replica fits its GPU and node, and how many requests of the whole context it holds at once."""
    load = model.workload
    if load is None:
        return "runs elsewhere"
    if not model.spec.gpus:
        return "on CPU"
    if plan.gpu is None:
        return "no GPU: gpuQuota is 0"
    if lacking := load.needs.lacking(plan.gpu.machine):
        return f"no: needs {lacking}"
    return _gpu_fit(fit_of(model))


def _gpu_fit(fit: GpuFit | None) -> str:
    if fit is None:
        return "no: its flags are refused"
    if not fit.fits:
        longest = f", at most {fit.max_model_len:,}" if fit.max_model_len else ""
        return f"no: {fit.requested_len:,} tokens are too many{longest}"
    return f"fits {fit.requested_len:,} tokens, {int(fit.concurrency):,} at once"


# --- what is wrong -------------------------------------------------------------------------------------------


def _todo(console: Console, admission: Admission, again: str) -> None:
    todo = admission.unprepared
    if len(todo) == 1:
        _section(console, "to do", [f"before `pulumi up`: {todo[0].message}"])
        _command(console, todo[0].remedy)
    elif todo:
        _section(console, "to do", [f"{len(todo)} settings and secrets before `pulumi up`, each with its command:"])
        _command(console, f"{again} --full")


def _wrong(console: Console, admission: Admission) -> None:
    remarks = admission.remarks
    for number, remark in enumerate(remarks[:_NOTICES]):
        _section(console, "" if number else "wrong", [remark.message])
        if remark.remedy:
            _command(console, remark.remedy)
    if rest := len(remarks[_NOTICES:]):
        _section(console, "", [f"and {rest} more, less grave: --full"])
    if not remarks:
        _section(console, "wrong", ["nothing"])


def _more(console: Console, plan: Plan, asked: Asked | None, again: str) -> None:
    on_gpu = next((model.spec.alias for model in _up_first(plan) if model.spec.gpus), None)
    lines = {
        "everything": f"{again} --full",
        **({"what differs": f"{again} --against {asked.file}"} if asked else {}),
        **({"GPU memory": f"ops fit {on_gpu}"} if on_gpu else {}),
        "for programs": f"{again} --format json",
    }
    width = max(map(len, lines))
    for number, (what, command) in enumerate(lines.items()):
        console.print(Text(f"{'' if number else 'more':{_LABEL}}{what:{width}}  {command}"), soft_wrap=True)
