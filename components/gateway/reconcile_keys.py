"""Make the gateway's teams and keys what the config says, through LiteLLM's admin API. Safe to run at any time.

Runs as a job in the cluster, with the image's Python and nothing else. Environment:

    GATEWAY_URL         "http://litellm.<namespace>.svc.cluster.local:4000"
    LITELLM_MASTER_KEY  opens the admin API
    KEYS_FILE           what there shall be (see `Desired`), a mounted ConfigMap; holds no value of a key
    KEY_VALUES_DIR      the value of each key in a file named like its alias, a mounted Secret
    DEADLINE_SECONDS    how long the gateway may stay out of reach, default 300

Each pass reads what is there, works out the difference (`plan`, pure) and applies it, until a pass finds none. So
it ends in the same state however often it runs and wherever it was interrupted. Only what changed is sent: LiteLLM
starts a new budget period whenever a period is sent, even the same one. What it made carries a mark in its
metadata; anything else (keys made by hand, models registered at run time) is listed and left alone.

A key whose value changes keeps its alias, limits and spend: the old one is set aside under another alias, the new
one starts with its spend, then the old one goes. Removing a key removes its budget's memory too.

Exit: 0 in sync; 1 something is refused, the rest is done; 2 the input is wrong, nothing is done; 3 out of reach.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast


class Limits(TypedDict):
    """What a team and a key have alike. None is no limit."""

    alias: str  # "platform-team", of a team or a key; unique among its kind
    models: list[str]  # aliases, groups already expanded; none means no model at all
    max_budget: float | None  # US dollars a period
    budget_duration: str | None  # "30d", "24h"; None: one budget for ever
    tpm_limit: int | None  # tokens a minute
    rpm_limit: int | None  # requests a minute


class DesiredKey(Limits):
    """One key."""

    team: str | None  # alias of one of the teams


class Desired(TypedDict):
    """KEYS_FILE."""

    teams: list[Limits]
    keys: list[DesiredKey]


Json = dict[str, Any]

OWNER = "ai-platform"
# LiteLLM reads an empty list as every model; this name stands for none.
NO_MODELS = ["no-default-models"]
# What a tenant may call: routes that are proven to be billed, and a look at its own budget.
ROUTES = [
    "/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions",
    "/v1/embeddings", "/embeddings", "/v1/models", "/models", "/key/info",
]  # fmt: skip
VALUE = re.compile(r"sk-[A-Za-z0-9_-]{16,}")
ALIAS = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PERIOD = re.compile(r"[1-9][0-9]*(s|m|h|d|mo)")
LIMITS: Mapping[str, type | tuple[type, ...]] = {
    "max_budget": (int, float),
    "tpm_limit": int,
    "rpm_limit": int,
}
PASSES = 6


class UnreachableError(Exception):
    """The gateway, or its database, does not answer now."""


class RefusedError(Exception):
    """The gateway answers, and says no."""


# --- input -------------------------------------------------------------------------------------------------------


def parse(text: str) -> tuple[Desired, list[str]]:
    """What there shall be, and everything that is wrong with it."""
    try:
        raw: object = json.loads(text)
    except json.JSONDecodeError as error:
        return {"teams": [], "keys": []}, [f"it is not JSON: {error}"]
    if not isinstance(raw, dict) or set(cast("Json", raw)) != {"teams", "keys"}:
        return {"teams": [], "keys": []}, ["it must be an object of two lists, 'teams' and 'keys'"]
    desired = cast("Desired", raw)
    problems: list[str] = []
    for kind, extra in (("teams", frozenset[str]()), ("keys", frozenset({"team"}))):
        problems += _entry_problems(kind, cast("object", raw[kind]), extra)
    if not problems:
        teams = {team["alias"] for team in desired["teams"]}
        problems += [
            f"key '{key['alias']}': there is no team '{key['team']}'"
            for key in desired["keys"]
            if key["team"] is not None and key["team"] not in teams
        ]
    return desired, problems


def _entry_problems(kind: str, entries: object, extra: frozenset[str]) -> Iterator[str]:
    if not isinstance(entries, list):
        yield f"'{kind}' must be a list"
        return
    fields = {*Limits.__required_keys__, *extra}
    seen: set[str] = set()
    for number, value in enumerate(cast("list[object]", entries)):
        entry = cast("Json", value) if isinstance(value, dict) else {}
        alias = entry.get("alias")
        where = f"{kind}[{number}] '{alias}'" if isinstance(alias, str) else f"{kind}[{number}]"
        if set(entry) != fields:
            yield f"{where}: must have exactly the fields {', '.join(sorted(fields))}"
            continue
        if not isinstance(alias, str) or not ALIAS.fullmatch(alias):
            yield f"{where}: an alias is lower-case letters, digits and dashes, at most 63"
        elif alias in seen:
            yield f"{where}: the alias is there twice"
        else:
            seen.add(alias)
        yield from (f"{where}: {problem}" for problem in _value_problems(entry))


def _value_problems(entry: Json) -> Iterator[str]:
    models: object = entry["models"]
    if not isinstance(models, list) or not all(isinstance(name, str) for name in cast("list[object]", models)):
        yield "models must be a list of aliases"
    period = entry["budget_duration"]
    if period is not None and not (isinstance(period, str) and PERIOD.fullmatch(period)):
        yield "budget_duration must be a period like '30d' or '24h', or null"
    for name, kind in LIMITS.items():
        value = entry[name]
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or value < 0):
            yield f"{name} must be a number that is not negative, or null"
    if not isinstance(entry.get("team"), str | None):
        yield "team must be the alias of a team, or null"


def read_values(directory: Path, aliases: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The value of each key, and a problem for each that is missing or no key. No value is in a problem."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for alias in aliases:
        try:
            value = (directory / alias).read_text().strip()
        except OSError:
            problems.append(f"key '{alias}': it has no value; there is no file '{alias}' in {directory}")
            continue
        if not VALUE.fullmatch(value):
            problems.append(f"key '{alias}': its value must be 'sk-' and 16 or more letters, digits, '-' or '_'")
        values[alias] = value
    twice = [alias for alias, value in values.items() if list(values.values()).count(value) > 1]
    if twice:
        problems.append(f"keys {', '.join(twice)}: they have the same value")
    return values, problems


def token_of(value: str) -> str:
    """LiteLLM's name for a key: what its database holds in place of the value."""
    return hashlib.sha256(value.encode()).hexdigest()


# --- the difference ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Actual:
    """What the gateway has."""

    teams: Sequence[Json]
    keys: Sequence[Json]
    runtime_models: Sequence[str]  # registered by the admin API, not by config


class Action(NamedTuple):
    """One call of the admin API."""

    text: str  # for the log
    route: str
    body: Json


@dataclass
class Plan:
    """What to do, what stands in the way, and what is none of our business."""

    actions: list[Action] = field(default_factory=list[Action])
    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def plan(desired: Desired, values: Mapping[str, str], actual: Actual) -> Plan:
    """The difference, in an order in which each step is allowed: teams, keys, then what goes."""
    result = Plan()
    _plan_teams(desired, actual, result)
    _plan_keys(desired, values, actual, result)
    result.notes += [
        f"model '{name}' was registered at run time; left alone" for name in sorted(set(actual.runtime_models))
    ]
    return result


def _owned(thing: Json) -> bool:
    metadata: Json = thing.get("metadata") or {}
    return metadata.get("managed_by") == OWNER


def _digest(want: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(want, sort_keys=True).encode()).hexdigest()[:12]


def _differences(have: Json, want: Json) -> Json:
    """The wanted fields that are otherwise; the order of a list does not matter."""

    def plain(value: Any) -> Any:
        return sorted(cast("list[str]", value)) if isinstance(value, list) else value

    return {name: value for name, value in want.items() if plain(have.get(name)) != plain(value)}


def _update(kind: str, alias: str, have: Json, want: Json) -> tuple[str, Json] | None:
    """The log line and the changed fields, or None. Says whether config or a hand made the difference."""
    changed = _differences(have, want)
    metadata: Json = dict(have.get("metadata") or {})
    digest = _digest(want)
    if not changed and metadata.get("config") == digest:
        return None
    cause = "drift, put right" if metadata.get("config") == digest else "changed"
    text = ", ".join(f"{name} {have.get(name)!r} -> {value!r}" for name, value in changed.items())
    changed["metadata"] = {**metadata, "managed_by": OWNER, "config": digest}
    return f"{kind} '{alias}' {cause}: {text or 'mark'}", changed


def _limits(entry: Limits) -> Json:
    return {
        "models": entry["models"] or NO_MODELS,
        "max_budget": None if entry["max_budget"] is None else float(entry["max_budget"]),
        "budget_duration": entry["budget_duration"],
        "tpm_limit": entry["tpm_limit"],
        "rpm_limit": entry["rpm_limit"],
    }


def _plan_teams(desired: Desired, actual: Actual, result: Plan) -> None:
    by_id = {str(team["team_id"]): team for team in actual.teams}
    wanted: set[str] = set()
    for team in desired["teams"]:
        alias = team["alias"]
        wanted.add(alias)
        want: Json = {"team_alias": alias, **_limits(team)}
        have = by_id.get(alias)  # our teams have their alias for an id
        if have is None:
            mark = {"managed_by": OWNER, "config": _digest(want)}
            body = {"team_id": alias, **want, "metadata": mark}
            result.actions.append(Action(f"team '{alias}' created", "/team/new", body))
        elif not _owned(have):
            result.problems.append(f"team '{alias}' exists, and was not made by this platform; rename one of the two")
        elif found := _update("team", alias, have, want):
            text, body = found
            result.actions.append(Action(text, "/team/update", {"team_id": alias, **body}))
    for alias, team in by_id.items():
        if not _owned(team):
            result.notes.append(f"team '{team.get('team_alias') or alias}' was made by hand; left alone")


def _plan_keys(desired: Desired, values: Mapping[str, str], actual: Actual, result: Plan) -> None:
    by_token = {str(key["token"]): key for key in actual.keys}
    by_alias = {key["key_alias"]: key for key in actual.keys if key.get("key_alias")}
    retired = {key["metadata"].get("retires"): key for key in actual.keys if _owned(key)}
    kept: set[str] = set()
    for key in desired["keys"]:
        alias, token = key["alias"], token_of(values[key["alias"]])
        want: Json = {"key_alias": alias, "team_id": key["team"], "allowed_routes": ROUTES, **_limits(key)}
        have, holder = by_token.get(token), by_alias.get(alias)
        foreign = next((found for found in (have, holder) if found is not None and not _owned(found)), None)
        if foreign is not None:
            kept.add(str(foreign["token"]))
            result.problems.append(
                f"key '{alias}': a key with its alias or value exists and was not made by this platform; "
                f"delete that one or rename this one"
            )
            continue
        if holder is not None and holder["token"] != token:
            # Set aside, not deleted: its spend is read from it, in this pass or after an interruption.
            aside = f"{alias}.retired.{str(holder['token'])[:8]}"
            body = {"key": holder["token"], "key_alias": aside}
            body["metadata"] = {**holder["metadata"], "retires": alias}
            result.actions.append(
                Action(f"key '{alias}' has a new value, the old one is set aside", "/key/update", body)
            )
            retired[alias] = holder
        if have is None:
            mark = {"managed_by": OWNER, "config": _digest(want)}
            body = {**want, "key": values[alias], "metadata": mark}
            if alias in retired:
                body["spend"] = retired[alias].get("spend") or 0.0
            result.actions.append(Action(f"key '{alias}' created", "/key/generate", body))
            continue
        kept.add(token)
        have = {**have, "metadata": {k: v for k, v in have["metadata"].items() if k != "retires"}}
        if found := _update("key", alias, have, want):
            text, body = found
            result.actions.append(Action(text, "/key/update", {"key": token, **body}))
        if have.get("expires"):
            body = {"key": token, "duration": "-1"}
            result.actions.append(Action(f"key '{alias}' drift, put right: it had an expiry", "/key/update", body))
        if have.get("blocked"):
            result.notes.append(f"key '{alias}' was blocked by hand, and stays so until /key/unblock")
    _plan_removals(desired, actual, kept, result)


def _plan_removals(desired: Desired, actual: Actual, kept: set[str], result: Plan) -> None:
    wanted_teams = {team["alias"] for team in desired["teams"]}
    leaving = {
        str(team["team_id"]) for team in actual.teams if _owned(team) and str(team["team_id"]) not in wanted_teams
    }
    for key in actual.keys:
        token, name = str(key["token"]), key.get("key_alias") or str(key["token"])[:8]
        if token in kept:
            continue
        if _owned(key):
            result.actions.append(Action(f"key '{name}' removed", "/key/delete", {"keys": [token]}))
        else:
            result.notes.append(f"key '{name}' was made by hand; left alone")
            if key.get("team_id") in leaving:
                # LiteLLM deletes the keys of a team with it.
                leaving.discard(key["team_id"])
                result.notes.append(f"team '{key['team_id']}' left the config but still has key '{name}'; left alone")
    for team in sorted(leaving):
        result.actions.append(Action(f"team '{team}' removed", "/team/delete", {"team_ids": [team]}))


# --- the gateway -------------------------------------------------------------------------------------------------


class Gateway:
    """LiteLLM's admin API. No error text that leaves it holds a secret."""

    def __init__(self, url: str, master_key: str, secrets: Sequence[str]) -> None:
        self._url = url.rstrip("/")
        self._master_key = master_key
        self._secrets = (master_key, *secrets)

    def call(self, route: str, body: Json | None = None) -> Any:
        """POST a body, or GET. Raises UnreachableError or RefusedError."""
        request = urllib.request.Request(  # noqa: S310  the URL is the operator's
            self._url + route,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self._master_key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            text = self._masked(
                f"{route.partition('?')[0]}: {error.code} {error.read().decode(errors='replace')[:500]}"
            )
            if error.code >= 500 or error.code == 429:
                raise UnreachableError(text) from None
            raise RefusedError(text) from None
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise UnreachableError(self._masked(f"{route.partition('?')[0]}: {error!r}")) from None

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def check_ready(self) -> None:
        """Raises UnreachableError unless the proxy and its database answer."""
        if self.call("/health/readiness").get("db") != "connected":
            raise UnreachableError("the proxy answers, its database does not")

    def actual(self) -> Actual:
        """Everything it has, by the page."""
        models = self.call("/v1/model/info")["data"]
        return Actual(
            teams=list(self._pages("/v2/team/list", "teams", "page_size")),
            keys=list(self._pages("/key/list?return_full_object=true&include_team_keys=true", "keys", "size")),
            runtime_models=[model["model_name"] for model in models if model["model_info"].get("db_model")],
        )

    def _pages(self, route: str, name: str, size: str) -> Iterator[Json]:
        number, total = 1, 1
        while number <= total:
            query = urllib.parse.urlencode({"page": number, size: 100})
            answer = self.call(f"{route}{'&' if '?' in route else '?'}{query}")
            yield from answer[name]
            total = answer["total_pages"]
            number += 1


def reconcile(gateway: Gateway, desired: Desired, values: Mapping[str, str], deadline: float) -> int:
    """Apply the difference until there is none. Returns the exit code."""
    wait, passes, last = 0.5, 0, Plan()
    while passes < PASSES:
        try:
            gateway.check_ready()
            last = plan(desired, values, gateway.actual())
            if not last.actions:
                break
            passes += 1
            for action in last.actions:
                gateway.call(action.route, action.body)
                say(action.text)
            wait = 0.5
        except UnreachableError as reason:
            if time.monotonic() + wait > deadline:
                say(f"giving up, the gateway stays out of reach: {reason}")
                return 3
            say(f"trying again in {wait:.1f} s: {reason}")
            time.sleep(wait)
            wait = min(wait * 2, 5)
        except RefusedError as reason:
            say(f"refused: {reason}")
            return 1
    else:
        say(f"not in sync after {PASSES} passes; something else changes: {', '.join(a.text for a in last.actions)}")
        return 1
    for note in last.notes:
        say(note)
    for problem in last.problems:
        say(f"problem: {problem}")
    say(
        f"{len(desired['teams'])} teams and {len(desired['keys'])} keys in sync" if not last.problems else "not in sync"
    )
    return 1 if last.problems else 0


def say(text: str) -> None:
    """One line of the job's log."""
    print(text, flush=True)  # noqa: T201


def main(environ: Mapping[str, str] = os.environ) -> int:
    """The job. Returns the exit code."""
    missing = [
        name for name in ("GATEWAY_URL", "LITELLM_MASTER_KEY", "KEYS_FILE", "KEY_VALUES_DIR") if name not in environ
    ]
    if missing:
        say(f"not set in the environment: {', '.join(missing)}")
        return 2
    try:
        text = Path(environ["KEYS_FILE"]).read_text()
    except OSError as error:
        say(f"KEYS_FILE cannot be read: {error}")
        return 2
    desired, problems = parse(text)
    values: dict[str, str] = {}
    if not problems:
        values, problems = read_values(Path(environ["KEY_VALUES_DIR"]), [key["alias"] for key in desired["keys"]])
    if problems:
        for problem in problems:
            say(f"wrong input: {problem}")
        say("nothing was changed")
        return 2
    gateway = Gateway(environ["GATEWAY_URL"], environ["LITELLM_MASTER_KEY"], list(values.values()))
    return reconcile(gateway, desired, values, time.monotonic() + float(environ.get("DEADLINE_SECONDS", "300")))


if __name__ == "__main__":
    sys.exit(main())
