"""Two runs of the reconcile program at once, and refusals in between: the program against the real admin API."""

from __future__ import annotations

import itertools
import json
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from components.gateway import admin_api
from components.gateway.admin_api import Gateway, Turn, Version
from components.gateway.reconcile_keys import OWNER, TEAMS_MODELS, main, parse, reconcile, token_of, version_of
from tests.gateway.conftest import Replicas
from tests.gateway.environment import Environment
from tests.gateway.proxy import Proxy
from tests.gateway.rendered import SERVED
from tests.gateway.test_reconcile import ALIAS, MANY, OTHER, Job, Json, first_line, key, new_value, team
from tests.gateway.test_routes import USAGE, ask, price
from tests.gateway.upstream import Behaviour, Upstream
from tests.patience import at_least

READS = ("/budget/", "/health/", "/v1/", "/v2/", "/key/list")
TRIALS = 12


@dataclass
class Recorded(Gateway):
    """The admin API, with when each write of whom was under way."""

    proxy: Proxy
    who: str
    writes: list[tuple[float, float, str]]
    before: Callable[[str, Json | None], None] = field(default=lambda route, body: None)

    def __post_init__(self) -> None:
        Gateway.__init__(self, self.proxy.url, self.proxy.master_key, ())

    def call(self, route: str, body: Json | None = None) -> Any:
        if route.startswith(READS):
            return super().call(route, body)
        self.before(route, body)
        begun = time.monotonic()
        try:
            return super().call(route, body)
        finally:
            self.writes.append((begun, time.monotonic(), self.who))


@dataclass(frozen=True)
class Wanted:
    """A desired state in files, as a pod finds it."""

    folder: Path
    teams: Sequence[Json]
    keys: Sequence[Json]
    values: Mapping[str, str]

    def write(self) -> Wanted:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "keys.json").write_text(json.dumps({"teams": self.teams, "keys": self.keys}))
        for alias, value in self.values.items():
            (self.folder / alias).write_text(value)
        return self

    def put(self, gateway: Gateway) -> int:
        """One run of the program; its exit code."""
        desired, problems = parse((self.folder / "keys.json").read_text())
        assert not problems
        version = version_of(desired, self.values, [self.folder / name for name in ("keys.json", *self.values)])
        return reconcile(gateway, desired, self.values, version, time.monotonic() + at_least(120))


@pytest.fixture(scope="module")
def replica(replicas: Replicas) -> Proxy:
    """A proxy on a database that no other test of this worker is at work on meanwhile."""
    return replicas.first


@pytest.fixture(autouse=True)
def nothing_left(replica: Proxy, tmp_path: Path) -> Iterator[None]:
    yield
    assert Wanted(tmp_path / "nothing", [], [], {}).write().put(Recorded(replica, "last", [])) == 0


def ours(proxy: Proxy) -> dict[str, Json]:
    """The keys that the program made, by token."""
    listed = proxy.admin("/key/list?return_full_object=true&include_team_keys=true&size=100")["keys"]
    return {
        entry["token"]: entry for entry in listed if cast("Json", entry["metadata"] or {}).get("managed_by") == OWNER
    }


def interleaved(proxy: Proxy, folder: Path, dice: random.Random) -> None:
    """The leaked value of a key and its replacement, put in force by two runs at once, in any order of start."""
    leaked, value, other = new_value(), new_value(), new_value()
    old_team, new_team = team("eng", ALIAS, OTHER, max_budget=50), team("eng", ALIAS, max_budget=5)
    before = Wanted(
        folder / "old",
        [old_team],
        [key("a", OTHER, team_alias="eng"), key("gone", ALIAS)],
        {"a": leaked, "gone": other},
    ).write()
    after = Wanted(folder / "new", [new_team], [key("a", ALIAS, team_alias="eng")], {"a": value}).write()
    if dice.random() < 0.7:  # else nothing is there yet
        assert before.put(Recorded(proxy, "first", [])) == 0
    writes: list[tuple[float, float, str]] = []
    starts = {"old": dice.uniform(0, 0.4), "new": dice.uniform(0, 0.4)}

    def run(who: str, wanted: Wanted) -> int:
        time.sleep(starts[who])
        return wanted.put(Recorded(proxy, who, writes))

    with ThreadPoolExecutor(2) as pool:
        old, new = pool.submit(run, "old", before), pool.submit(run, "new", after)
        assert new.result() == 0
        assert old.result() in (0, 4)
    assert set(ours(proxy)) == {token_of(value)}
    assert ours(proxy)[token_of(value)]["models"] == [ALIAS]
    assert proxy.admin("/team/info?team_id=eng")["team_info"]["max_budget"] == 5.0
    writes.sort()
    for (_, ended, one), (begun, _, another) in itertools.pairwise(writes):
        assert one == another or ended <= begun, writes
    turns = [who for n, (_, _, who) in enumerate(writes) if n == 0 or writes[n - 1][2] != who]
    assert turns in ([], ["new"], ["old"], ["old", "new"])


@pytest.mark.parametrize("seed", range(TRIALS))
def test_of_two_runs_at_once_one_writes_at_a_time_and_the_newer_state_wins(
    seed: int, replica: Proxy, tmp_path: Path
) -> None:
    interleaved(replica, tmp_path, random.Random(seed))  # noqa: S311


def test_two_runs_of_the_same_state_both_end_in_it(replica: Proxy, tmp_path: Path) -> None:
    keys = [key(f"k{number}", ALIAS) for number in range(10)]
    wanted = Wanted(tmp_path, [], keys, {entry["alias"]: new_value() for entry in keys}).write()
    gateways = [Recorded(replica, who, []) for who in ("job", "tick")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wanted.put, gateways)) == [0, 0]
    assert len(ours(replica)) == len(keys)


def test_of_a_run_that_stood_still_the_call_under_way_lands_at_most_and_the_next_run_mends_that(
    environment: Environment, replica: Proxy, tmp_path: Path
) -> None:
    old = Job(environment, tmp_path, replica)
    old.want([], MANY)
    process = old.start()
    first_line(process, "created")
    process.send_signal(signal.SIGSTOP)
    value = new_value()
    new = Wanted(tmp_path / "new", [], [key("a", ALIAS)], {"a": value}).write()
    assert new.put(Recorded(replica, "new", [])) == 0
    process.send_signal(signal.SIGCONT)
    log, _ = process.communicate(timeout=at_least(120))
    assert process.returncode == 4, log
    assert "the newer is in force" in log
    assert len(set(ours(replica)) - {token_of(value)}) <= 1
    assert new.put(Recorded(replica, "new", [])) == 0  # as the CronJob does
    assert set(ours(replica)) == {token_of(value)}


def test_a_run_that_is_told_to_stop_gives_its_turn_back(
    environment: Environment, replica: Proxy, tmp_path: Path
) -> None:
    job = Job(environment, tmp_path, replica)
    job.want([], MANY)
    process = job.start()
    first_line(process, "created")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=at_least(30))
    assert process.returncode == 128 + signal.SIGTERM
    rows = [row["budget_id"] for row in replica.admin("/budget/list")]
    assert [row for row in rows if row.startswith(Turn.TICKET)] == []
    assert len([row for row in rows if row.startswith(Turn.MARK)]) == 1


# --- refusals ----------------------------------------------------------------------------------------------------


def run(gateway: Gateway, wanted: Wanted, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = wanted.write().put(gateway)
    log = capsys.readouterr().out
    assert not any(value in log for value in wanted.values.values())
    return code, log


def test_a_refusal_keeps_no_removed_key_and_no_high_budget_and_is_named_in_the_end(
    replica: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, values = Recorded(replica, "", []), {alias: new_value() for alias in ("alice", "leaked", "carol", "dan")}
    wide, narrow = team("wide", ALIAS, OTHER), team("narrow", ALIAS)
    alice = key("alice", ALIAS, OTHER, team_alias="wide", rpm_limit=5)
    before = [alice, key("leaked", ALIAS), key("carol", ALIAS, max_budget=100)]
    assert run(gateway, Wanted(tmp_path, [wide], before, values), capsys)[0] == 0

    teams = [wide, narrow]
    after = [{**alice, "team": "narrow", "rpm_limit": 3}, key("carol", ALIAS, max_budget=1), key("dan", OTHER)]
    for _ in range(2):
        code, log = run(gateway, Wanted(tmp_path, teams, after, values), capsys)
        assert code == 1
        assert "not done: key 'alice' changed: team_id 'wide' -> 'narrow'" in log
        there = {entry["key_alias"]: entry for entry in ours(replica).values()}
        assert there.keys() == {"alice", "carol", "dan"}
        assert (there["carol"]["max_budget"], there["alice"]["rpm_limit"]) == (1.0, 3)

    mended = [{**after[0], "models": [ALIAS]}, *after[1:]]
    assert run(gateway, Wanted(tmp_path, teams, mended, values), capsys)[0] == 0
    assert ours(replica)[token_of(values["alice"])]["team_id"] == "narrow"


@pytest.mark.parametrize(("had", "has"), [([ALIAS], [OTHER]), ([ALIAS], []), ([], [OTHER]), ([], [])])
def test_a_key_moves_to_a_team_with_which_it_has_nothing_in_common(
    had: list[str], has: list[str], replica: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, values = Recorded(replica, "", []), {"a": new_value()}
    before = Wanted(tmp_path, [team("one", ALIAS)], [key("a", *had, team_alias="one")], values)
    after = Wanted(tmp_path, [team("two", OTHER)], [key("a", *has, team_alias="two")], values)
    assert run(gateway, before, capsys)[0] == 0

    def see(route: str, body: Json | None) -> None:
        """What lets it into any team is never in force."""
        if body and body.get("models") == TEAMS_MODELS:
            assert body["blocked"] is True

    gateway.before = see
    assert run(gateway, after, capsys)[0] == 0
    (moved,) = ours(replica).values()
    assert (moved["team_id"], moved["models"], bool(moved["blocked"])) == ("two", has or ["no-default-models"], False)
    assert "one" not in [found["team_id"] for found in replica.admin("/v2/team/list?page_size=100")["teams"]]
    if has:
        ask(replica.client(values["a"]), SERVED[OTHER])


def test_what_another_has_made_meanwhile_is_no_refusal(
    replica: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_by_another(route: str, body: Json | None) -> None:
        if route in ("/team/new", "/key/generate"):
            replica.admin(route, body)

    gateway = Recorded(replica, "", [], first_by_another)
    wanted = Wanted(tmp_path, [team("eng", ALIAS)], [key("a", ALIAS, team_alias="eng")], {"a": new_value()})
    code, log = run(gateway, wanted, capsys)
    assert "refused, going on with the rest: team 'eng' created" in log
    assert code == 0, log


def test_a_key_without_a_good_value_keeps_no_other_one_open(
    replica: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, values = Recorded(replica, "", []), {alias: new_value() for alias in ("a", "leaked")}
    assert run(gateway, Wanted(tmp_path, [], [key("a", ALIAS), key("leaked", ALIAS)], values), capsys)[0] == 0
    Wanted(tmp_path, [], [key("a", ALIAS)], {"a": "sk-short"}).write()
    paths = {"KEYS_FILE": str(tmp_path / "keys.json"), "KEY_VALUES_DIR": str(tmp_path)}
    assert main({"GATEWAY_URL": replica.url, "LITELLM_MASTER_KEY": replica.master_key, **paths}) == 1
    log = capsys.readouterr().out
    assert "the key is left as it is: key 'a'" in log
    assert "sk-short" not in log
    assert set(ours(replica)) == {token_of(values["a"])}


def test_a_budget_that_is_given_later_counts_from_then_on(
    replica: Proxy, upstream: Upstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, values, cost = Recorded(replica, "", []), {"a": new_value()}, price(SERVED[ALIAS], USAGE)
    assert run(gateway, Wanted(tmp_path, [], [key("a", ALIAS)], values), capsys)[0] == 0
    client = replica.client(values["a"])
    with upstream.behaving(SERVED[ALIAS].served_name, Behaviour(usage=USAGE)):
        for _ in range(2):
            ask(client, SERVED[ALIAS])
        assert replica.spend(values["a"], 2 * cost) == pytest.approx(2 * cost)
        given = key("a", ALIAS, max_budget=cost * 1.5, budget_duration="30d")
        code, log = run(gateway, Wanted(tmp_path, [], [given], values), capsys)
        assert code == 0, log
        ask(client, SERVED[ALIAS])
        assert replica.spend(values["a"], cost) == pytest.approx(cost)
        # Lowered below what is spent, it refuses, and the run says so.
        lower = {**given, "max_budget": cost / 2}
        code, log = run(gateway, Wanted(tmp_path, [], [lower], values), capsys)
    assert code == 0
    assert f"key 'a' has spent ${cost:.4f}, and its budget is" in log


# --- whose turn it is, without a gateway -------------------------------------------------------------------------


def test_a_state_that_was_laid_down_later_is_newer_and_a_clock_that_is_ahead_counts_for_nothing() -> None:
    now = time.time_ns()
    old, new = Version((now - 9, now - 1), "old"), Version((now - 8, now - 8), "new")
    assert new.supersedes(old)
    assert not old.supersedes(new)
    assert not Version((now, now), "old").supersedes(old)  # the same one
    assert Version((now - 9, now), "values").supersedes(old)  # another Secret beside the same ConfigMap
    assert not Version((now + 10**12, now + 10**12), "future").supersedes(old)
    assert Version.parse(f"{new}.{secrets.token_hex(8)}") == new


def test_nothing_that_a_run_says_looks_like_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    value = new_value()
    admin_api.say(f"key '{value}' was made by hand")
    assert value[5:] not in capsys.readouterr().out
