"""`ops keys`: teams and keys with what they have spent and have left, as the gateway has them. No value of a key."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from rich.console import Console

from components.gateway import litellm_gateway
from components.gateway.admin_api import Gateway, RefusedError, UnreachableError
from components.gateway.reconcile_keys import NO_MODELS, OWNER
from ops.console import Column, Row, output, print_table
from ops.endpoint import Endpoint, NoAnswerError, base_url, key_from_environment, readiness, usable_key
from ops.errors import OpsError
from ops.findings.finding import Finding
from ops.findings.of_stack import ways_of, why
from ops.kube import add_arguments as add_cluster_arguments
from ops.kube import in_cluster, named_cluster, namespaces, secret_value
from ops.wrapping import wrapped

_TIMEOUT_S = 30.0
_BY_HAND = "made by hand"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line. The admin key is never part of it."""
    add_cluster_arguments(parser)
    parser.add_argument("--gateway-url", metavar="URL", help="a gateway without a cluster")
    parser.add_argument(
        "--master-key-env",
        default="LITELLM_MASTER_KEY",
        metavar="NAME",
        help="variable that holds the admin key for --gateway-url (default: LITELLM_MASTER_KEY)",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """0 with the lists, 2 if the gateway cannot be reached or does not let us in."""
    with ExitStack() as stack:
        found = _read(_admin(args, stack))
    if args.format == "json":
        json.dump(found.model_dump(mode="json"), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(found)
    return 0


class Purse(BaseModel):
    """A team or a key. Amounts are US dollars of the running period; None is no limit."""

    alias: str
    models: list[str] | None  # None: every model
    spent_usd: float
    budget_usd: float | None
    left_usd: float | None
    period: str | None  # "30d"
    resets_at: datetime | None
    managed: bool  # False: made by hand, and left alone by the config
    blocked: bool


class KeyPurse(Purse):
    """A key."""

    team: str | None
    expires_at: datetime | None


class Purses(BaseModel):
    """What the gateway has."""

    teams: list[Purse]
    keys: list[KeyPurse]
    models_registered_at_run_time: list[str]


# --- the gateway ---------------------------------------------------------------------------------------------


class _Admin(Gateway):
    """The reconcile program's view of the admin API, over a client that keeps the key from proxies."""

    def __init__(self, endpoint: Endpoint, look: str, why: Callable[[], Finding | None] = lambda: None) -> None:
        super().__init__(endpoint.url, endpoint.key or "", ())
        self.look = look  # the command that shows why it does not answer
        self.why = why  # what its cluster says of that
        self._endpoint = endpoint

    def call(self, route: str, body: dict[str, Any] | None = None) -> Any:
        try:
            reply = self._endpoint.ask(route, body)
        except NoAnswerError as error:
            raise UnreachableError(error.problem.message) from None
        if reply.status != 200:
            kind, message = reply.error()
            failure = UnreachableError if reply.status >= 500 else RefusedError
            raise failure(f"{route.partition('?')[0]}: HTTP {reply.status} {kind}: {message}")
        return reply.json()


def _admin(args: argparse.Namespace, stack: ExitStack) -> _Admin:
    if args.gateway_url:
        if args.context or args.kubeconfig:
            raise OpsError("a context and a plain address are two places", in_cluster("ops keys", args))
        url = base_url("ops keys", "--gateway-url", args.gateway_url)
        return _Admin(Endpoint(url, _TIMEOUT_S, key_from_environment(args.master_key_env)), readiness(url))
    kube = named_cluster(args, "ops keys")
    spaces, name = namespaces(args), litellm_gateway.MASTER_SECRET
    namespace = spaces.gateway
    key = usable_key(secret_value(kube, namespace, name, litellm_gateway.SECRET_KEY), f"Secret {namespace}/{name}")
    ways = ways_of(kube, args)
    try:
        url = stack.enter_context(kube.forward(namespace, litellm_gateway.APP, litellm_gateway.PORT))
    except OpsError:
        if found := why(kube, ways, spaces, namespace):
            raise OpsError(f"the gateway is not up: {found.told}", found.command) from None
        raise
    look = kube.typed("-n", namespace, "get", "pods")
    return _Admin(Endpoint(url, _TIMEOUT_S, key), look, lambda: why(kube, ways, spaces, namespace))


def _read(gateway: _Admin) -> Purses:
    try:
        actual = gateway.actual()
        names = {str(team["team_id"]): str(team.get("team_alias") or team["team_id"]) for team in actual.teams}
        return Purses(
            teams=sorted((_team(team) for team in actual.teams), key=lambda team: team.alias),
            keys=sorted((_key(key, names) for key in actual.keys), key=lambda key: (key.team or "", key.alias)),
            models_registered_at_run_time=sorted(set(actual.runtime_models)),
        )
    except UnreachableError as error:
        found = gateway.why()
        told = f"; {found.told}" if found else ""
        raise OpsError(
            f"the gateway does not answer: {error}{told}", found.command if found else gateway.look
        ) from None
    except RefusedError as error:
        raise OpsError(f"the gateway refuses: {error}", "pulumi up   # puts the admin key in place") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, ValidationError) as error:
        raise OpsError(
            f"what answers is not LiteLLM's admin API ({type(error).__name__})", "ops keys --gateway-url <URL>"
        ) from None


def _team(team: Mapping[str, Any]) -> Purse:
    return Purse(alias=str(team.get("team_alias") or team["team_id"]), **_limits(team))


def _key(key: Mapping[str, Any], teams: Mapping[str, str]) -> KeyPurse:
    team = key.get("team_id")
    return KeyPurse(
        # A key without an alias goes by the start of its name in the database, which is no part of its value.
        alias=str(key.get("key_alias") or f"({str(key['token'])[:8]})"),
        team=teams.get(str(team), str(team)) if team else None,
        expires_at=key.get("expires"),
        **_limits(key),
    )


def _limits(entry: Mapping[str, Any]) -> dict[str, Any]:
    spent, budget = float(entry.get("spend") or 0), cast("float | None", entry.get("max_budget"))
    metadata: Mapping[str, Any] = entry.get("metadata") or {}
    models: list[str] = entry.get("models") or []
    return {
        "models": [name for name in models if name not in NO_MODELS] if models else None,
        "spent_usd": spent,
        "budget_usd": budget,
        "left_usd": None if budget is None else budget - spent,
        "period": entry.get("budget_duration"),
        "resets_at": entry.get("budget_reset_at"),
        "managed": metadata.get("managed_by") == OWNER,
        "blocked": bool(entry.get("blocked")),
    }


# --- for people ----------------------------------------------------------------------------------------------


def _print(found: Purses) -> None:
    console = output()
    if found.teams:
        _table(console, "TEAM", found.teams)
        console.print()
    if found.keys:
        _table(console, "KEY", found.keys)
    else:
        console.print("no keys")
    if found.models_registered_at_run_time:
        console.print()
        names = ", ".join(found.models_registered_at_run_time)
        told = f"registered at run time, not by the config: {names}"
        console.print(wrapped(told, console.width), soft_wrap=True)


def _table(console: Console, kind: str, purses: Sequence[Purse]) -> None:
    keys = kind == "KEY"
    columns = [
        *(Column(kind), *((Column("OF TEAM", spare=1),) if keys else ()), Column("MODELS")),
        *(
            Column("SPENT $", figure=True),
            Column("BUDGET $", figure=True),
            Column("PER"),
            Column("LEFT $", figure=True),
        ),
        *(Column("RESETS AT", spare=2), Column("NOTE")),
    ]
    rows: list[Row] = []
    for purse in purses:
        cells = (
            purse.alias,
            *(((purse.team or "-"),) if isinstance(purse, KeyPurse) else ()),
            _models(purse),
            f"{purse.spent_usd:,.4f}",
            "-" if purse.budget_usd is None else f"{purse.budget_usd:,.2f}",
            "-" if purse.budget_usd is None else purse.period or "ever",
            "-" if purse.left_usd is None else f"{purse.left_usd:,.4f}",
            f"{purse.resets_at:%Y-%m-%d %H:%M}Z" if purse.resets_at else "-",
            ", ".join(_notes(purse)),
        )
        rows.append(Row(cells, "" if purse.left_usd is None or purse.left_usd > 0 else "red"))
    print_table(console, columns, rows)


def _models(purse: Purse) -> str:
    return "every model" if purse.models is None else ", ".join(purse.models) or "none"


def _notes(purse: Purse) -> list[str]:
    notes = [] if purse.managed else [_BY_HAND]
    if purse.left_usd is not None and purse.left_usd <= 0:
        notes.append("over budget")
    if purse.blocked:
        notes.append("blocked")
    if isinstance(purse, KeyPurse) and purse.expires_at:
        notes.append(f"expires {purse.expires_at:%Y-%m-%d %H:%M}Z")
    return notes
