"""Make the gateway's teams and keys what the config says, through LiteLLM's admin API. Safe to run at any time.

Runs as a job in the cluster, with the image's Python and nothing else. Environment:

    GATEWAY_URL         "http://litellm.<namespace>.svc.cluster.local:4000"
    LITELLM_MASTER_KEY  opens the admin API
    KEYS_FILE           what there shall be (see `Desired`), a mounted ConfigMap; holds no value of a key
    KEY_VALUES_DIR      the value of each key in a file named like its alias, a mounted Secret
    DEADLINE_SECONDS    how long the gateway may stay out of reach, default 300

Each pass reads what is there, works out the difference (`plan`, pure) and applies it, until a pass finds none. So
it ends in the same state however often it runs and wherever it was interrupted. What takes something away comes first:
keys that go, fewer models, lower limits. Then teams and keys are made and widened. What the gateway refuses is named in
the end, and stops nothing else. Only what changed is sent: LiteLLM starts a new budget period whenever a period is
sent, even the same one. What it made carries a mark in its metadata; anything else (keys made by hand, models
registered at run time) is listed and left alone.

A key whose value changes keeps its alias, limits and spend: the old one is blocked and set aside under another alias,
the new one starts with its spend, then the old one goes. Removing a key removes its budget's memory too. A key that had
no budget and is given one starts at nothing spent.

One writes at a time, and the newer desired state wins (see `Turn`).

Exit: 0 in sync; 1 something is refused, the rest is done; 2 the input is wrong, nothing is done; 3 out of reach;
4 a newer desired state than this one is in force.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

if not TYPE_CHECKING and __package__ is None:  # in the pod, where the two lie side by side
    from admin_api import (
        Actual,
        Gateway,
        Json,
        RefusedError,
        SupersededError,
        Turn,
        UnreachableError,
        Version,
        pause,
        say,
        stop_between_calls,
    )
else:
    from components.gateway.admin_api import (
        Actual,
        Gateway,
        Json,
        RefusedError,
        SupersededError,
        Turn,
        UnreachableError,
        Version,
        pause,
        say,
        stop_between_calls,
    )


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


OWNER = "ai-platform"
# LiteLLM reads an empty list as every model; this name stands for none.
NO_MODELS = ["no-default-models"]
# The only list that LiteLLM lets into any team. It is given to a key that is blocked meanwhile.
TEAMS_MODELS = ["all-team-models"]
# What a tenant may call: routes that are proven to be billed, and a look at its own budget.
ROUTES = [
    "/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions",
    "/v1/embeddings", "/embeddings", "/v1/rerank", "/rerank",
    "/v1/audio/transcriptions", "/audio/transcriptions", "/v1/audio/translations", "/audio/translations",
    "/v1/models", "/models", "/key/info",
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
    """The value of each key that has a good one, and what is wrong with the rest. No value is in a problem."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for alias in aliases:
        try:
            value = (directory / alias).read_text().strip()
        except (OSError, ValueError):
            problems.append(f"key '{alias}': it has no value; there is no file '{alias}' with one in {directory}")
            continue
        if VALUE.fullmatch(value):
            values[alias] = value
        else:
            problems.append(f"key '{alias}': its value must be 'sk-' and 16 or more letters, digits, '-' or '_'")
    twice = [alias for alias, value in values.items() if list(values.values()).count(value) > 1]
    if twice:
        problems.append(f"keys {', '.join(twice)}: they have the same value")
    return {alias: value for alias, value in values.items() if alias not in twice}, problems


def token_of(value: str) -> str:
    """LiteLLM's name for a key: what its database holds in place of the value."""
    return hashlib.sha256(value.encode()).hexdigest()


# --- the difference ----------------------------------------------------------------------------------------------


class Action(NamedTuple):
    """One call of the admin API."""

    text: str  # for the log
    route: str
    body: Json


@dataclass
class Plan:
    """What to do, what stands in the way, and what is none of our business."""

    restrictions: list[Action] = field(default_factory=list[Action])  # what takes something away
    grants: list[Action] = field(default_factory=list[Action])  # the rest: teams before the keys that are in them
    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def actions(self) -> list[Action]:
        """All that is to do, in its order."""
        return self.restrictions + self.grants


def plan(desired: Desired, values: Mapping[str, str], actual: Actual) -> Plan:
    """The difference. A key without a value is left as it is."""
    result = Plan()
    _plan_teams(desired, actual, result)
    kept = _plan_keys(desired, values, actual, result)
    _plan_removals(desired, values, actual, kept, result)
    result.notes += [
        f"model '{name}' was registered at run time; left alone" for name in sorted(set(actual.runtime_models))
    ]
    return result


def _owned(thing: Json) -> bool:
    return _metadata(thing).get("managed_by") == OWNER


def _metadata(thing: Json) -> Json:
    return thing.get("metadata") or {}


def _digest(want: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(want, sort_keys=True).encode()).hexdigest()[:12]


def _differences(have: Json, want: Json) -> Json:
    """The wanted fields that are otherwise; the order of a list does not matter."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):  # the database keeps fifteen digits, and a budget may have seventeen
            return float(f"{value:.12g}")
        return sorted(cast("list[str]", value)) if isinstance(value, list) else value

    return {name: value for name, value in want.items() if plain(have.get(name)) != plain(value)}


def _narrower(have: Json, want: Json) -> Json:
    """The fields that have to become less, and what both sides allow of them."""
    less: Json = {}
    for name in ("models", "allowed_routes"):
        has: list[str] = have.get(name) or []  # which is everything
        if name in want and (not has or not set(has) <= set(want[name])):
            less[name] = [item for item in want[name] if not has or item in has] or NO_MODELS
    for name in LIMITS:
        limit, has_limit = want[name], have.get(name)
        if limit is not None and (has_limit is None or has_limit > limit):
            less[name] = limit
    return less


def _plan_update(kind: str, have: Json, want: Json, result: Plan) -> None:
    """What changes a team or a key into the wanted one. Says whether config or a hand made the difference."""
    alias, name = want[f"{kind}_alias"], "token" if kind == "key" else "team_id"
    metadata = {key: value for key, value in _metadata(have).items() if key not in ("retires", "held")}
    digest, held = _digest(want), bool(have.get("blocked") and _metadata(have).get("held"))
    changed, drift = _differences(have, want), metadata.get("config") == digest
    if not changed and not held and drift:
        return
    less = _narrower(have, want)
    less = {field: value for field, value in less.items() if value != have.get(field)}
    mark = {**metadata, "managed_by": OWNER, "config": digest}
    target = {"key" if kind == "key" else name: have[name]}
    what = f"{kind} '{alias}' {'drift, put right' if drift else 'changed'}"

    def act(actions: list[Action], body: Json, mark: Json) -> None:
        text = ", ".join(f"{field} {have.get(field)!r} -> {value!r}" for field, value in body.items())
        actions.append(Action(f"{what}: {text or 'mark'}", f"/{kind}/update", {**target, **body, "metadata": mark}))

    if "max_budget" in less and have.get("max_budget") is None and not drift:
        # What was spent while nothing was counted is no part of the budget. (LiteLLM cannot do that for a team.)
        less |= {"spend": 0.0} if kind == "key" else {}
        less |= {"budget_duration": want["budget_duration"]} if "budget_duration" in changed else {}
    joins = want.get("team_id") is not None and "team_id" in changed
    if joins and have.get("models") == TEAMS_MODELS and have.get("blocked"):
        less.pop("models", None)
    elif joins and (less.get("models") == NO_MODELS or have.get("models") == NO_MODELS):
        # LiteLLM asks whether the new team has the models that the key has now, and none is no model of any team.
        less |= {"models": TEAMS_MODELS, "blocked": True}
        held = held or not have.get("blocked")
    more = {field: want[field] for field in want if field in changed or field in less}
    more = {field: value for field, value in more.items() if field not in less or less[field] != value}
    if held:
        more["blocked"] = False
    if less:
        before = {**_metadata(have), **({"held": True} if held else {})}
        act(result.restrictions, less, before if more else mark)
    if more or not less:
        act(result.grants, more, mark)


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
    for team in desired["teams"]:
        alias = team["alias"]
        want: Json = {"team_alias": alias, **_limits(team)}
        have = by_id.get(alias)  # our teams have their alias for an id
        if have is None:
            mark = {"managed_by": OWNER, "config": _digest(want)}
            body = {"team_id": alias, **want, "metadata": mark}
            result.grants.append(Action(f"team '{alias}' created", "/team/new", body))
        elif not _owned(have):
            result.problems.append(f"team '{alias}' exists, and was not made by this platform; rename one of the two")
        else:
            _plan_update("team", have, want, result)
            _note_spent("team", alias, have, want, result)
    for alias, team in by_id.items():
        if not _owned(team):
            result.notes.append(f"team '{team.get('team_alias') or alias}' was made by hand; left alone")


def _note_spent(kind: str, alias: str, have: Json, want: Json, result: Plan) -> None:
    """A budget that is spent already refuses every call: said where it is seen first."""
    spent, budget = have.get("spend") or 0.0, want["max_budget"]
    if budget is not None and spent >= budget and have.get("max_budget") is not None:
        until = have.get("budget_reset_at") if want["budget_duration"] else None
        result.notes.append(
            f"{kind} '{alias}' has spent ${spent:.4f}, and its budget is ${budget:g}: its calls are refused "
            f"{f'until {until}' if until else 'until it is raised'}"
        )


def _plan_keys(desired: Desired, values: Mapping[str, str], actual: Actual, result: Plan) -> set[str]:
    """What makes and changes keys. Returns the tokens of those that stay."""
    by_token = {str(key["token"]): key for key in actual.keys}
    by_alias = {key["key_alias"]: key for key in actual.keys if key.get("key_alias")}
    retired = {_metadata(key).get("retires"): key for key in actual.keys if _owned(key)}
    tokens = {alias: token_of(value) for alias, value in values.items()}
    kept: set[str] = set()
    for key in desired["keys"]:
        alias, holder = key["alias"], by_alias.get(key["alias"])
        token = tokens.get(alias)
        if token is None:
            kept |= {str(found["token"]) for found in (holder, retired.get(alias)) if found}
            continue
        want: Json = {"key_alias": alias, "team_id": key["team"], "allowed_routes": ROUTES, **_limits(key)}
        have = by_token.get(token)
        foreign = next((found for found in (have, holder) if found is not None and not _owned(found)), None)
        if foreign is not None:
            kept.add(str(foreign["token"]))
            result.problems.append(
                f"key '{alias}': a key with its alias or value exists and was not made by this platform; "
                f"delete that one or rename this one"
            )
            continue
        if holder is not None and holder["token"] != token:
            result.restrictions.append(_set_aside(alias, holder, stays=str(holder["token"]) in tokens.values()))
            retired[alias] = holder
        if have is None:
            result.grants.append(_create(alias, values[alias], want, retired.get(alias)))
            continue
        kept.add(token)
        _plan_update("key", have, want, result)
        _note_spent("key", alias, have, want, result)
        if have.get("expires"):
            body = {"key": token, "duration": "-1"}
            result.grants.append(Action(f"key '{alias}' drift, put right: it had an expiry", "/key/update", body))
        if have.get("blocked") and not _metadata(have).get("held"):
            result.notes.append(f"key '{alias}' was blocked by hand, and stays so until /key/unblock")
    return kept


def _set_aside(alias: str, holder: Json, *, stays: bool) -> Action:
    """Closes a value that is no longer the key's. Not by deleting it: its spend is read from it, now or later."""
    token = str(holder["token"])
    mark = {**holder["metadata"], "retires": alias}
    body: Json = {"key": token, "key_alias": f"{alias}.retired.{token[:8]}"}
    if not stays and not holder.get("blocked"):  # else another key has it from now on
        body["blocked"], mark["held"] = True, True
    text = f"key '{alias}' has a new value, the old one is {'blocked' if 'blocked' in body else 'set aside'}"
    return Action(text, "/key/update", {**body, "metadata": mark})


def _create(alias: str, value: str, want: Json, before: Json | None) -> Action:
    body = {**want, "key": value, "metadata": {"managed_by": OWNER, "config": _digest(want)}}
    if before is not None:
        counted = before.get("max_budget") is not None or want["max_budget"] is None
        body["spend"] = (before.get("spend") or 0.0) if counted else 0.0
    return Action(f"key '{alias}' created", "/key/generate", body)


def _plan_removals(desired: Desired, values: Mapping[str, str], actual: Actual, kept: set[str], result: Plan) -> None:
    wanted_teams = {team["alias"] for team in desired["teams"]}
    leaving = {
        str(team["team_id"]) for team in actual.teams if _owned(team) and str(team["team_id"]) not in wanted_teams
    }
    there = {str(key["token"]) for key in actual.keys}
    awaited = {key["alias"] for key in desired["keys"] if token_of(values.get(key["alias"], "")) not in there}
    for key in actual.keys:
        token, name = str(key["token"]), key.get("key_alias") or str(key["token"])[:8]
        if token in kept:
            # LiteLLM deletes the keys of a team with it: one that moves has to have moved.
            leaving.discard(str(key.get("team_id")))
        elif not _owned(key):
            result.notes.append(f"key '{name}' was made by hand; left alone")
            if key.get("team_id") in leaving:
                leaving.discard(key["team_id"])
                result.notes.append(f"team '{key['team_id']}' left the config but still has key '{name}'; left alone")
        elif _metadata(key).get("retires") in awaited or key.get("key_alias") in awaited:
            leaving.discard(str(key.get("team_id")))  # its spend is needed until the new value is there
        else:
            result.restrictions.append(Action(f"key '{name}' removed", "/key/delete", {"keys": [token]}))
    for team in sorted(leaving):
        result.grants.append(Action(f"team '{team}' removed", "/team/delete", {"team_ids": [team]}))


# --- doing it ----------------------------------------------------------------------------------------------------


def version_of(desired: Desired, values: Mapping[str, str], files: Sequence[Path]) -> Version:
    """The version of a desired state that was read from these files: kubelet writes them as it starts the pod."""
    tokens = {alias: token_of(value) for alias, value in values.items()}
    text = json.dumps([desired, tokens], sort_keys=True)
    written = [file.stat().st_mtime_ns for file in files]
    return Version((min(written), max(written)), hashlib.sha256(text.encode()).hexdigest()[:16])


class _Refused(NamedTuple):
    action: Action
    reason: str
    again: bool  # it failed, and may not fail the next time


def reconcile(gateway: Gateway, desired: Desired, values: Mapping[str, str], version: Version, deadline: float) -> int:
    """Apply the difference until there is none, or none that the gateway lets us do. Returns the exit code."""
    turn, wait, passes = Turn(gateway, version), _Wait(deadline), 0
    last, refused = Plan(), list[_Refused]()
    while True:
        try:
            gateway.check_ready()
            turn.take(deadline)
            last = plan(desired, values, gateway.actual(turn.keep))
            # Read again after refusals: what another made meanwhile, and was refused as being there, is no difference.
            refused = [each for each in refused if each.action in last.actions]
            again = any(each.again for each in refused) and not wait.over
            if (len(refused) == len(last.actions) and not again) or passes == PASSES:
                break
            passes += not again
            refused = _apply(gateway, turn, last.actions)
            if any(each.again for each in refused):
                turn.release()
                wait("some of it failed")
            else:
                wait.restart()
        except UnreachableError as reason:
            if wait.over:
                say(f"giving up, the gateway stays out of reach: {reason}")
                return 3
            turn.release()
            wait(str(reason))
        except RefusedError as reason:
            say(f"refused: {reason}")
            return 1
        except SupersededError:
            say("what shall be has changed since this run was started, and the newer is in force: nothing is done")
            return 4
        finally:
            turn.release()
    return _report(desired, last, refused)


class _Wait:
    """Longer and longer, up to the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.restart()

    def restart(self) -> None:
        self._seconds = 0.5

    @property
    def over(self) -> bool:
        return time.monotonic() + self._seconds > self._deadline

    def __call__(self, reason: str) -> None:
        say(f"trying again in {self._seconds:.1f} s: {reason}")
        pause(self._seconds)
        self._seconds = min(self._seconds * 2, 5)


def _apply(gateway: Gateway, turn: Turn, actions: Sequence[Action]) -> list[_Refused]:
    """Do them one after the other, and go on past what is refused or fails while the gateway is there."""
    refused: list[_Refused] = []
    for action in actions:
        turn.keep()
        try:
            gateway.call(action.route, action.body)
        except RefusedError as reason:
            refused.append(_Refused(action, str(reason), again=False))
            say(f"refused, going on with the rest: {action.text}: {reason}")
        except UnreachableError as reason:
            gateway.check_ready()  # else it is all of it that is out of reach
            refused.append(_Refused(action, str(reason), again=True))
            say(f"failed, going on with the rest: {action.text}: {reason}")
        else:
            say(action.text)
    return refused


def _report(desired: Desired, last: Plan, refused: Sequence[_Refused]) -> int:
    for note in last.notes:
        say(note)
    for problem in last.problems:
        say(f"problem: {problem}")
    for each in refused:
        say(f"not done: {each.action.text}: {each.reason}")
    if changing := [a.text for a in last.actions if a not in [each.action for each in refused]]:
        say(f"not in sync after {PASSES} passes; something else changes: {', '.join(changing)}")
    if changing or refused or last.problems:
        say("not in sync: the lines above name what is not, the rest is done")
        return 1
    say(f"{len(desired['teams'])} teams and {len(desired['keys'])} keys in sync")
    return 0


def main(environ: Mapping[str, str] = os.environ) -> int:
    """The job. Returns the exit code."""
    missing = [
        name for name in ("GATEWAY_URL", "LITELLM_MASTER_KEY", "KEYS_FILE", "KEY_VALUES_DIR") if name not in environ
    ]
    if missing:
        say(f"not set in the environment: {', '.join(missing)}")
        return 2
    file, directory = Path(environ["KEYS_FILE"]), Path(environ["KEY_VALUES_DIR"])
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        say(f"KEYS_FILE cannot be read: {error}")
        return 2
    desired, problems = parse(text)
    if problems:
        for problem in problems:
            say(f"wrong input: {problem}")
        say("nothing was changed")
        return 2
    values, problems = read_values(directory, [key["alias"] for key in desired["keys"]])
    for problem in problems:
        say(f"wrong input, the key is left as it is: {problem}")
    gateway = Gateway(environ["GATEWAY_URL"], environ["LITELLM_MASTER_KEY"], list(values.values()))
    version = version_of(desired, values, [file, *(directory / alias for alias in values)])
    deadline = time.monotonic() + float(environ.get("DEADLINE_SECONDS", "300"))
    return reconcile(gateway, desired, values, version, deadline) or (1 if problems else 0)


if __name__ == "__main__":
    stop_between_calls()
    sys.exit(main())
