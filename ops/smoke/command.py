"""`ops smoke`: ask each model what it is for, directly and through the gateway, and see that it is billed."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.text import Text

from models.catalog import CATALOG
from models.spec import ModelSpec
from ops.console import Column, Row, output, print_table
from ops.console import errors as console_of_errors
from ops.endpoint import Endpoint, NoAnswerError, base_url, key_from_environment
from ops.errors import OpsError
from ops.findings.of_stack import ways_of
from ops.kube import add_arguments as add_cluster_arguments
from ops.kube import in_cluster, named_cluster, namespaces
from ops.smoke.checks import Check, Verdict, bring_up, exercise, price_usd, served_name, through_gateway
from ops.smoke.sites import Addresses, Cluster, Site
from ops.unknown_model import unknown
from ops.wrapping import wrapped

FAILED, UNUSABLE = 1, 2
_STYLE = {Verdict.OK: "green", Verdict.OFF: "yellow", Verdict.FAILED: "bold red", Verdict.UNREACHABLE: "bold red"}
_DIRECT, _GATEWAY = "direct", "gateway"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line. No key is ever part of it."""
    parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="models to check (default: every one that is up)")
    add_cluster_arguments(parser)
    parser.add_argument("--key", default="smoke", metavar="KEY", help="alias of the key to pay with (default: smoke)")
    parser.add_argument("--key-env", metavar="NAME", help="variable that holds the key to pay with, in place of --key")
    parser.add_argument("--gateway-url", metavar="URL", help="a gateway without a cluster; needs --key-env")
    parser.add_argument("--direct-url", metavar="URL", help="one model's server without a cluster")
    parser.add_argument("--direct-key-env", metavar="NAME", help="variable that holds the key for --direct-url")
    parser.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="of each request (default: 60)")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 3600")
    return value


def run(args: argparse.Namespace) -> int:
    """0 if all is well, 1 if a check failed or a model is off, 2 if something cannot be used or reached."""
    errors = console_of_errors()
    named = _known(args.aliases)
    site = _site(args)
    aliases = named or site.aliases()
    site.verify(aliases)
    if not aliases:
        errors.print(f"no model is up; to bring one up:\n  {bring_up(next(iter(CATALOG.values())))}")
        return FAILED
    console = output()
    with ExitStack() as stack:
        gateway = site.gateway(stack)
        before = _wallet(gateway)
        rows = [row for alias in aliases for row in _check_model(CATALOG[alias], site, gateway)]
        spend = _Spend.watch(gateway, before, rows, args.timeout)
    _print_table(console, rows)
    for line in _reasons(rows, console.width):
        console.print(line, soft_wrap=True)
    if spend:
        console.print()
        console.print(Text(wrapped(spend.told, console.width), style=_STYLE[spend.verdict]), soft_wrap=True)
    found = [row.check.verdict for row in rows] + ([spend.verdict] if spend else [])
    return exit_code(found, off_is_fine=not site.only_up and not args.aliases)


def exit_code(verdicts: Sequence[Verdict], *, off_is_fine: bool) -> int:
    """The worst of them. A model that is off is fine where nobody asked for it, if another one answered."""
    if Verdict.UNREACHABLE in verdicts:
        return UNUSABLE
    off = Verdict.OFF in verdicts and not (off_is_fine and Verdict.OK in verdicts)
    return FAILED if Verdict.FAILED in verdicts or off else 0


# --- what is checked -----------------------------------------------------------------------------------------


def _site(args: argparse.Namespace) -> Site:
    key = key_from_environment(args.key_env) if args.key_env else None
    if not args.gateway_url and not args.direct_url:
        if args.direct_key_env:
            raise OpsError(
                "--direct-key-env is for --direct-url only",
                f"ops smoke <alias> --direct-url <URL> --direct-key-env {args.direct_key_env}",
            )
        kube = named_cluster(args, "ops smoke")
        return Cluster(kube, args.timeout, args.key, key, namespaces(args), ways_of(kube, args))
    if args.context or args.kubeconfig:
        raise OpsError("a context and a plain address are two places", in_cluster("ops smoke", args))
    if args.gateway_url and key is None:
        raise OpsError(
            "--gateway-url needs a key, and a key is in no argument",
            "read -rs SMOKE_KEY && export SMOKE_KEY   # then add --key-env SMOKE_KEY",
        )
    direct_key = key_from_environment(args.direct_key_env) if args.direct_key_env else None
    return Addresses(
        Endpoint(base_url("ops smoke", "--direct-url", args.direct_url), args.timeout, direct_key)
        if args.direct_url
        else None,
        Endpoint(base_url("ops smoke", "--gateway-url", args.gateway_url), args.timeout, key)
        if args.gateway_url
        else None,
    )


def _known(named: Sequence[str]) -> Sequence[str]:
    for alias in named:
        if alias not in CATALOG:
            raise unknown(alias, "ops smoke")
    return list(dict.fromkeys(named))


@dataclass(frozen=True)
class _Row:
    spec: ModelSpec
    path: str
    check: Check


def _check_model(spec: ModelSpec, site: Site, gateway: Endpoint | Check | None) -> Iterator[_Row]:
    with ExitStack() as stack:
        direct = site.direct(spec, stack) if spec.engine.runs_here else None
        if isinstance(direct, Check):
            yield _Row(spec, _DIRECT, direct)
        elif direct:
            first = served_name(spec, direct)
            yield _Row(spec, _DIRECT, first)
            if first.verdict is Verdict.OK:
                for check in exercise(spec, spec.served_name, direct):
                    yield _Row(spec, _DIRECT, check)
    if isinstance(gateway, Check):
        yield _Row(spec, _GATEWAY, gateway)
    elif gateway:
        for check in exercise(spec, spec.alias, gateway):
            yield _Row(spec, _GATEWAY, _located(through_gateway(spec, check), spec, site))


def _located(check: Check, spec: ModelSpec, site: Site) -> Check:
    """A check whose remedy says where the gateway is; without one, what to look at where nothing is behind it."""
    if check.remedy:
        return replace(check, remedy=check.remedy.replace("{place}", site.place).replace("{alias}", spec.alias))
    lost = check.verdict is Verdict.UNREACHABLE or check.status == HTTPStatus.SERVICE_UNAVAILABLE
    if not lost or check.verdict is Verdict.OFF:
        return check
    if found := site.why_gateway():
        return replace(check, detail=f"{check.detail}; {found.told}", remedy=found.command)
    return replace(check, remedy=site.look)


# --- spend ---------------------------------------------------------------------------------------------------


class _Wallet(BaseModel):
    """What the gateway says of the key that asks."""

    key_alias: str | None = None
    spend: float
    max_budget: float | None = None
    budget_duration: str | None = None
    budget_reset_at: str | None = None


class _Info(BaseModel):
    info: _Wallet


def _wallet(gateway: Endpoint | Check | None) -> _Wallet | None:
    """None where there is no gateway, or it does not tell; the requests then say why."""
    if not isinstance(gateway, Endpoint):
        return None
    try:
        reply = gateway.ask("/key/info")
        return _Info.model_validate(reply.json()).info if reply.status == 200 else None
    except (NoAnswerError, ValidationError, ValueError):
        return None


@dataclass(frozen=True)
class _Spend:
    verdict: Verdict
    told: str

    @classmethod
    def watch(
        cls, gateway: Endpoint | Check | None, before: _Wallet | None, rows: Sequence[_Row], patience: float
    ) -> _Spend | None:
        """Wait until what was asked is charged to the key: LiteLLM writes it every ten seconds."""
        billed = [row.check for row in rows if row.path == _GATEWAY and row.check.usage]
        if not billed or not isinstance(gateway, Endpoint):
            return None
        if before is None:
            return cls(Verdict.OK, "the key may not read its own spend (/key/info), so that it rises was not checked")
        due = sum(_due(row) for row in rows if row.path == _GATEWAY)
        deadline = time.monotonic() + patience
        while True:
            after = _wallet(gateway) or before
            if after.budget_reset_at != before.budget_reset_at:
                return cls(Verdict.OK, f"{_owner(after)}: its budget started again meanwhile; {_left(after)}")
            # Others may use the key at the same time, so it may well be more.
            if after.spend - before.spend >= due * (1 - 1e-6):
                charged = after.spend - before.spend
                break
            if time.monotonic() > deadline:
                return cls(
                    Verdict.FAILED,
                    f"{_owner(after)}: spent ${before.spend:.6f} before and ${after.spend:.6f} {patience:g} s after, "
                    f"but these requests cost ${due:.6f}: budgets do not bind",
                )
            time.sleep(min(0.3, patience / 10))
        return cls(
            Verdict.OK,
            f"{_owner(after)}: spent ${before.spend:.6f} before, ${after.spend:.6f} after (+${charged:.6f}; "
            f"these requests: ${due:.6f}); {_left(after)}",
        )


def _due(row: _Row) -> float:
    """US dollars of a request as the gateway told them, or else by the catalog."""
    check = row.check
    if check.usage is None or check.cost_usd is not None:
        return check.cost_usd or 0.0
    return price_usd(CATALOG.get(check.served_by or "", row.spec).price, check.usage) or 0.0


def _owner(wallet: _Wallet) -> str:
    return f"key {wallet.key_alias}" if wallet.key_alias else "the key"


def _left(wallet: _Wallet) -> str:
    if wallet.max_budget is None:
        return "no budget of its own"
    left = wallet.max_budget - wallet.spend
    period = f" per {wallet.budget_duration}" if wallet.budget_duration else ""
    return f"budget ${wallet.max_budget:g}{period}, ${left:.6f} left"


# --- what is printed -----------------------------------------------------------------------------------------


def _print_table(console: Console, rows: Sequence[_Row]) -> None:
    columns = [
        *(Column("MODEL"), Column("PATH"), Column("REQUEST"), Column("HTTP", figure=True)),
        *(Column("TTFT MS", figure=True, spare=1), Column("TOTAL MS", figure=True)),
        *(Column("IN", figure=True), Column("OUT", figure=True), Column("COST $", figure=True), Column("VERDICT")),
    ]
    print_table(console, columns, [Row(_cells(row)) for row in rows])


def _cells(row: _Row) -> tuple[str | Text, ...]:
    check = row.check
    return (
        row.spec.alias,
        row.path,
        check.request,
        str(check.status or "-"),
        _ms(check.first_token_s),
        _ms(check.total_s),
        f"{check.usage.prompt_tokens:,}" if check.usage else "-",
        f"{check.usage.completion_tokens:,}" if check.usage else "-",
        "-" if check.cost_usd is None else f"{check.cost_usd:.9f}",
        Text(check.verdict, style=_STYLE[check.verdict]),
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None or not math.isfinite(seconds) else f"{seconds * 1000:,.0f}"


def _reasons(rows: Sequence[_Row], columns: int) -> Iterator[Text]:
    """Why a check is not ok, and what mends it; the same reason once a model and path."""
    told: set[tuple[str, str]] = set()
    for row in rows:
        check = row.check
        if not check.detail or (row.spec.alias, check.detail) in told:
            continue
        told.add((row.spec.alias, check.detail))
        yield Text(wrapped(f"{row.spec.alias}, {row.path}: {check.detail}", columns, "- "))
        if check.remedy:
            yield Text(f"    {check.remedy}", style="bold")
