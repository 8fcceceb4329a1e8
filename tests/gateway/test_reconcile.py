"""Teams and keys follow the config: the job's own script, against the real admin API."""

from __future__ import annotations

import copy
import json
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from components.gateway.admin_api import Actual
from components.gateway.reconcile_keys import OWNER, Desired, main, parse, plan, read_values, token_of
from tests.gateway.conftest import Replicas
from tests.gateway.environment import Environment
from tests.gateway.postgres import Postgres
from tests.gateway.proxy import PROGRAMS, Proxy
from tests.gateway.rendered import SERVED, rendered
from tests.gateway.test_routes import USAGE, ask, price
from tests.gateway.upstream import Behaviour, Upstream
from tests.patience import at_least

Json = dict[str, Any]
ALIAS, OTHER = "coder-chat", "qwen-local"


def team(alias: str, *models: str, **limits: Any) -> Json:
    empty = dict.fromkeys(("max_budget", "budget_duration", "tpm_limit", "rpm_limit"))
    return {"alias": alias, "models": list(models), **empty, **limits}


def key(alias: str, *models: str, team_alias: str | None = None, **limits: Any) -> Json:
    return {**team(alias, *models, **limits), "team": team_alias}


def new_value() -> str:
    return "sk-" + secrets.token_hex(16)


# --- the difference, without a gateway ---------------------------------------------------------------------------


class Fake:
    """As much of the admin API as `plan` asks for, in memory."""

    def __init__(self) -> None:
        self.teams: dict[str, Json] = {}
        self.keys: dict[str, Json] = {}

    def apply(self, route: str, body: Json) -> None:
        body = copy.deepcopy(body)
        match route:
            case "/team/new":
                assert body["team_id"] not in self.teams
                self.teams[body["team_id"]] = body
            case "/team/update":
                self.teams[body["team_id"]].update(body)
            case "/team/delete":
                for gone in body["team_ids"]:
                    del self.teams[gone]
                    self.keys = {token: found for token, found in self.keys.items() if found["team_id"] != gone}
            case "/key/generate":
                token = token_of(body.pop("key"))
                assert token not in self.keys
                assert body["key_alias"] not in {found["key_alias"] for found in self.keys.values()}
                self.keys[token] = {"spend": 0.0, **body, "token": token}
            case "/key/update":
                self.keys[body.pop("key")].update(body)
            case "/key/delete":
                for gone in body["keys"]:
                    del self.keys[gone]
            case _:
                raise AssertionError(route)

    def actual(self) -> Actual:
        return Actual(list(self.teams.values()), list(self.keys.values()), [])

    def settle(self, desired: Desired, values: Mapping[str, str]) -> list[str]:
        """Reconcile to the end; the lines of its log."""
        log: list[str] = []
        for _ in range(4):
            actions = plan(desired, values, self.actual()).actions
            for action in actions:
                self.apply(action.route, action.body)
                log.append(action.text)
            if not actions:
                return log
        raise AssertionError(log)

    def state(self) -> Json:
        return copy.deepcopy({"teams": self.teams, "keys": self.keys})


def wanted(teams: Sequence[Json], keys: Sequence[Json]) -> Desired:
    desired, problems = parse(json.dumps({"teams": teams, "keys": keys}))
    assert not problems
    return desired


BEFORE = wanted(
    [team("eng", ALIAS, OTHER, max_budget=100), team("gone", OTHER)],
    [key("alice", ALIAS, team_alias="eng", max_budget=5, budget_duration="30d"), key("bob", OTHER), key("ci", OTHER)],
)
AFTER = wanted(
    [team("eng", ALIAS, max_budget=50), team("ops", OTHER, rpm_limit=60)],
    [key("alice", ALIAS, team_alias="eng", max_budget=7, budget_duration="30d"), key("bob", OTHER), key("dan", OTHER)],
)
OLD_VALUES = {alias: new_value() for alias in ("alice", "bob", "ci")}
NEW_VALUES = {"alice": OLD_VALUES["alice"], "bob": new_value(), "dan": new_value()}


def test_in_sync_there_is_nothing_to_do() -> None:
    fake = Fake()
    assert fake.settle(BEFORE, OLD_VALUES)
    assert fake.settle(BEFORE, OLD_VALUES) == []


def test_interrupted_after_any_step_it_ends_in_the_same_state() -> None:
    def started() -> Fake:
        fake = Fake()
        fake.settle(BEFORE, OLD_VALUES)
        for found in fake.keys.values():
            found["spend"] = 1.25
        return fake

    whole = started()
    steps = whole.settle(AFTER, NEW_VALUES)
    for count in range(len(steps)):
        fake = started()
        for action in plan(AFTER, NEW_VALUES, fake.actual()).actions[:count]:
            fake.apply(action.route, action.body)
        fake.settle(AFTER, NEW_VALUES)
        assert fake.state() == whole.state(), steps[:count]


def test_a_key_with_a_new_value_keeps_its_spend() -> None:
    fake = Fake()
    fake.settle(BEFORE, OLD_VALUES)
    fake.keys[token_of(OLD_VALUES["bob"])]["spend"] = 3.5
    fake.settle(BEFORE, {**OLD_VALUES, "bob": NEW_VALUES["bob"]})
    (bob,) = (found for found in fake.keys.values() if found["key_alias"].startswith("bob"))
    assert (bob["token"], bob["spend"]) == (token_of(NEW_VALUES["bob"]), 3.5)


def test_two_keys_that_swap_their_values_keep_their_limits() -> None:
    fake = Fake()
    fake.settle(BEFORE, OLD_VALUES)
    swapped = {**OLD_VALUES, "bob": OLD_VALUES["ci"], "ci": OLD_VALUES["bob"]}
    fake.settle(BEFORE, swapped)
    assert {found["key_alias"]: token for token, found in fake.keys.items()} == {
        alias: token_of(value) for alias, value in swapped.items()
    }


def test_only_what_changed_is_sent() -> None:
    fake = Fake()
    fake.settle(BEFORE, OLD_VALUES)
    raised = copy.deepcopy(BEFORE)
    raised["keys"][0]["max_budget"] = 6
    (action,) = plan(raised, OLD_VALUES, fake.actual()).actions
    assert set(action.body) == {"key", "max_budget", "metadata"}


@pytest.mark.parametrize(
    ("by_hand", "word"),
    [
        ({"max_budget": 1000.0}, "max_budget 1000.0 -> 5.0"),
        ({"models": [ALIAS, OTHER]}, "models"),
        ({"allowed_routes": []}, "allowed_routes"),
        ({"expires": "2030-01-01T00:00:00Z"}, "expiry"),
        ({"key_alias": "alicia"}, "key_alias 'alicia' -> 'alice'"),
    ],
)
def test_drift_by_hand_is_named_and_put_right(by_hand: Json, word: str) -> None:
    fake = Fake()
    fake.settle(BEFORE, OLD_VALUES)
    fake.keys[token_of(OLD_VALUES["alice"])].update(by_hand)
    actions = plan(BEFORE, OLD_VALUES, fake.actual()).actions
    assert len(actions) == 1
    assert "drift" in actions[0].text
    assert word in actions[0].text


def test_a_change_of_config_is_not_called_drift() -> None:
    fake = Fake()
    fake.settle(BEFORE, OLD_VALUES)
    assert not any("drift" in line for line in fake.settle(AFTER, NEW_VALUES))


def test_no_models_means_none_and_not_all() -> None:
    fake = Fake()
    fake.settle(wanted([], [key("idle")]), {"idle": new_value()})
    assert [found["models"] for found in fake.keys.values()] == [["no-default-models"]]


def test_what_was_made_by_hand_is_listed_and_left_alone() -> None:
    by_hand: list[Json] = [{"token": "ab" * 32, "key_alias": "guest", "metadata": {}, "team_id": "gone"}]
    mine = {"team_id": "gone", "team_alias": "gone", "metadata": {"managed_by": OWNER}}
    hers = {"team_id": "1", "team_alias": "hers", "metadata": None}
    result = plan(wanted([], []), {}, Actual([mine, hers], by_hand, ["experiment"]))
    assert result.actions == []
    text = "\n".join(result.notes)
    for name in ("'guest'", "'hers'", "'experiment'", "'gone' left the config but still has key 'guest'"):
        assert name in text


@pytest.mark.parametrize("field", ["key_alias", "token"])
def test_a_key_of_somebody_elses_is_not_taken_over(field: str) -> None:
    value = new_value()
    theirs: Json = {"token": "ab" * 32, "key_alias": "other", "metadata": {}, "team_id": None}
    theirs[field] = {"key_alias": "bob", "token": token_of(value)}[field]
    result = plan(wanted([], [key("bob", OTHER)]), {"bob": value}, Actual([], [theirs], []))
    assert result.actions == []
    assert "'bob'" in result.problems[0]


def test_every_bad_entry_is_named_at_once() -> None:
    bad = [
        *(key("Upper"), key("twice"), key("twice"), key("team", team_alias="none"), {**key("extra"), "spend": 0}),
        *(key("period", budget_duration="month"), key("minus", max_budget=-1), key("text", rpm_limit="10")),
        "not an entry",
    ]
    _, problems = parse(json.dumps({"teams": [], "keys": bad}))
    assert len(problems) == len(bad) - 2  # one of the two twins, and teams are looked at once the rest is right
    _, problems = parse(json.dumps({"teams": [], "keys": bad[3:4]}))
    assert problems == ["key 'team': there is no team 'none'"]


def test_a_value_that_is_missing_short_or_shared_is_named_without_being_shown(tmp_path: Path) -> None:
    shared = new_value()
    for alias, value in {"short": "sk-1", "one": shared, "two": shared}.items():
        (tmp_path / alias).write_text(value + "\n")
    _, problems = read_values(tmp_path, ["short", "one", "two", "absent"])
    text = "\n".join(problems)
    assert len(problems) == 3
    for word in ("'short'", "one, two", "'absent'"):
        assert word in text
    assert shared not in text


def test_any_bad_config_ends_in_clear_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand broken versions of a good file: each one refused in words, or as good as the original."""
    dice = random.Random(5)  # noqa: S311
    junk: list[Any] = [None, -1, 1e308, True, "", "x" * 70, [], {}, [None], "30d", "sk-" + "a" * 20]
    values = tmp_path / "values"
    values.mkdir()
    for _ in range(1000):
        config: Any = json.loads(json.dumps(BEFORE))
        for _ in range(dice.randint(1, 3)):
            entry: Json = dice.choice([*config["teams"], *config["keys"], config])
            name = dice.choice([*(name for name in entry if name not in {"teams", "keys"}), "unknown"])
            if dice.random() < 0.3:
                entry.pop(name, None)
            else:
                entry[name] = dice.choice(junk)
        if dice.random() < 0.1:
            config = dice.choice([[config], None, {**config, "keys": dice.choice(junk)}, {"teams": config["teams"]}])
        desired, problems = parse(json.dumps(config))
        if not problems:
            plan(desired, {entry["alias"]: new_value() for entry in desired["keys"]}, Actual([], [], []))
    (tmp_path / "keys.json").write_text("{")
    paths = {"KEYS_FILE": str(tmp_path / "keys.json"), "KEY_VALUES_DIR": str(values)}
    assert main({"GATEWAY_URL": "http://127.0.0.1:9", "LITELLM_MASTER_KEY": "x", **paths}) == 2
    assert "nothing was changed" in capsys.readouterr().out


# --- against the real gateway ------------------------------------------------------------------------------------


@dataclass
class Job:
    """The reconcile job as its pod runs it."""

    environment: Environment
    directory: Path
    proxy: Proxy
    values: dict[str, str] = field(default_factory=dict[str, str])

    def want(self, teams: Sequence[Json], keys: Sequence[Json]) -> None:
        directory = self.directory / "values"
        directory.mkdir(exist_ok=True)
        for entry in keys:
            value = self.values.setdefault(entry["alias"], new_value())
            (directory / entry["alias"]).write_text(value)
        (self.directory / "keys.json").write_text(json.dumps({"teams": teams, "keys": keys}))

    def start(self, proxy: Proxy | None = None) -> subprocess.Popen[str]:
        at = proxy or self.proxy
        return subprocess.Popen(
            [str(self.environment.python), str(PROGRAMS / "reconcile_keys.py")],
            env={
                "GATEWAY_URL": at.url,
                "LITELLM_MASTER_KEY": at.master_key,
                "KEYS_FILE": str(self.directory / "keys.json"),
                "KEY_VALUES_DIR": str(self.directory / "values"),
                "DEADLINE_SECONDS": f"{at_least(90):.0f}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> str:
        """Run it to the end; its log."""
        process = self.start()
        log, _ = process.communicate(timeout=at_least(120))
        assert process.returncode == 0, log
        for value in (*self.values.values(), self.proxy.master_key):
            assert value not in log
        return log

    def keys(self) -> dict[str, Json]:
        """The gateway's keys that the job made, by alias; an alias that is there twice fails."""
        listed = self.proxy.admin("/key/list?return_full_object=true&size=100")["keys"]
        found = [entry for entry in listed if cast("Json", entry["metadata"] or {}).get("managed_by") == OWNER]
        by_alias = {entry["key_alias"]: entry for entry in found}
        assert len(by_alias) == len(found)
        return by_alias


@pytest.fixture
def job(environment: Environment, replicas: Replicas, tmp_path: Path) -> Iterator[Job]:
    job = Job(environment, tmp_path, replicas.first)
    yield job
    job.want([], [])
    job.run()


def test_keys_and_teams_are_created_changed_and_removed_and_a_second_run_does_nothing(job: Job) -> None:
    job.want(
        [team("eng", ALIAS, OTHER, max_budget=100, budget_duration="30d", rpm_limit=600)],
        [
            key("alice", ALIAS, team_alias="eng", max_budget=5, budget_duration="30d", tpm_limit=10_000),
            key("bob", OTHER),
        ],
    )
    assert "key 'alice' created" in job.run()
    first = job.keys()
    assert {alias: (found["models"], found["max_budget"], found["team_id"]) for alias, found in first.items()} == {
        "alice": ([ALIAS], 5.0, "eng"),
        "bob": ([OTHER], None, None),
    }
    again = job.run()
    assert again.strip().endswith("1 teams and 2 keys in sync")
    assert "created" not in again
    assert job.keys() == first

    job.want([], [key("alice", ALIAS, OTHER, max_budget=7, budget_duration="30d")])
    log = job.run()
    for line in ("key 'bob' removed", "team 'eng' removed", "key 'alice' changed"):
        assert line in log
    assert {alias: (found["models"], found["max_budget"]) for alias, found in job.keys().items()} == {
        "alice": ([ALIAS, OTHER], 7.0)
    }
    assert "changed" not in job.run()


def test_a_removed_key_is_refused_and_a_new_alias_reaches_a_key_only_when_config_says_so(job: Job) -> None:
    job.want([], [key("alice", ALIAS)])
    job.run()
    client = job.proxy.client(job.values["alice"])
    ask(client, SERVED[ALIAS])
    with pytest.raises(openai.PermissionDeniedError):
        ask(client, SERVED[OTHER])
    job.want([], [key("alice", ALIAS, OTHER)])
    job.run()
    ask(client, SERVED[OTHER])
    job.want([], [])
    job.run()
    with pytest.raises(openai.AuthenticationError):
        ask(client, SERVED[ALIAS])


def test_the_teams_and_keys_of_the_example_stack_are_made(job: Job) -> None:
    desired, problems = parse(rendered().keys)
    assert not problems
    job.want([cast("Json", entry) for entry in desired["teams"]], [cast("Json", entry) for entry in desired["keys"]])
    job.run()
    assert set(job.keys()) == {entry["alias"] for entry in desired["keys"]}
    for entry in desired["keys"]:
        listed = [model.id for model in job.proxy.client(job.values[entry["alias"]]).models.list()]
        assert sorted(listed) == sorted(entry["models"])


def test_a_key_without_models_may_use_none(job: Job) -> None:
    job.want([], [key("idle")])
    job.run()
    for alias in (ALIAS, OTHER):
        with pytest.raises(openai.PermissionDeniedError):
            ask(job.proxy.client(job.values["idle"]), SERVED[alias])


@pytest.mark.parametrize("alias", SERVED)
def test_a_managed_key_may_call_the_route_of_every_model(alias: str, job: Job) -> None:
    job.want([], [key("alice", alias)])
    job.run()
    ask(job.proxy.client(job.values["alice"]), SERVED[alias])
    assert [model.id for model in job.proxy.client(job.values["alice"]).models.list()] == [alias]


def test_a_changed_budget_or_value_keeps_spend_and_period(job: Job, upstream: Upstream) -> None:
    job.want([], [key("alice", ALIAS, max_budget=50, budget_duration="30d")])
    job.run()
    cost = price(SERVED[ALIAS], USAGE)
    with upstream.behaving(SERVED[ALIAS].served_name, Behaviour(usage=USAGE)):
        ask(job.proxy.client(job.values["alice"]), SERVED[ALIAS])
    assert job.proxy.spend(job.values["alice"], cost) == pytest.approx(cost)
    before = job.keys()["alice"]

    job.want([], [key("alice", ALIAS, OTHER, max_budget=60, budget_duration="30d", rpm_limit=100)])
    job.run()
    after = job.keys()["alice"]
    assert (after["spend"], after["budget_reset_at"]) == (before["spend"], before["budget_reset_at"])
    assert (after["max_budget"], after["rpm_limit"]) == (60.0, 100)

    old = job.values.pop("alice")
    job.want([], [key("alice", ALIAS, OTHER, max_budget=60, budget_duration="30d", rpm_limit=100)])
    log = job.run()
    assert old not in log
    rotated = job.keys()
    assert set(rotated) == {"alice"}
    assert (rotated["alice"]["spend"], rotated["alice"]["max_budget"]) == (pytest.approx(cost), 60.0)
    ask(job.proxy.client(job.values["alice"]), SERVED[ALIAS])
    with pytest.raises(openai.AuthenticationError):
        ask(job.proxy.client(old), SERVED[ALIAS])


def test_drift_made_by_hand_is_reported_and_put_right(job: Job) -> None:
    job.want([team("eng", ALIAS, max_budget=10)], [key("alice", ALIAS, team_alias="eng", max_budget=5)])
    job.run()
    token = token_of(job.values["alice"])
    job.proxy.admin("/key/update", {"key": token, "max_budget": 500, "models": [ALIAS, OTHER]})
    job.proxy.admin("/team/update", {"team_id": "eng", "max_budget": 1000})
    log = job.run()
    assert "key 'alice' drift, put right" in log
    assert "max_budget 500.0 -> 5.0" in log
    assert "team 'eng' drift, put right: max_budget 1000.0 -> 10.0" in log
    alice = job.keys()["alice"]
    assert (alice["max_budget"], alice["models"]) == (5.0, [ALIAS])
    assert "drift" not in job.run()


def test_what_was_made_at_run_time_is_listed_and_kept(job: Job, upstream: Upstream) -> None:
    guest = job.proxy.make_key([OTHER], key_alias=f"guest-{secrets.token_hex(3)}")
    entry = {"model": "openai/experiment", "api_base": f"{upstream.url}/v1", "api_key": "sk-experiment"}
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    job.proxy.admin(
        "/model/new",
        {"model_name": "experiment", "litellm_params": {**entry, **prices}, "model_info": {"mode": "chat"}},
    )
    job.want([], [key("alice", ALIAS)])
    for _ in range(2):
        log = job.run()
        assert "model 'experiment' was registered at run time; left alone" in log
        assert "was made by hand; left alone" in log
    assert job.proxy.make_key(["experiment"])
    client = job.proxy.client(job.proxy.make_key(["experiment"]))
    client.chat.completions.create(model="experiment", messages=[{"role": "user", "content": "hi"}])
    ask(job.proxy.client(guest), SERVED[OTHER])


MANY = [key(f"k{number:02}", ALIAS, max_budget=number + 1) for number in range(40)]


def first_line(process: subprocess.Popen[str], word: str) -> None:
    """Wait until the job has done its first step."""
    assert process.stdout
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError("it ended before")


def test_killed_in_between_the_next_run_finishes_and_doubles_nothing(job: Job) -> None:
    job.want([], MANY)
    process = job.start()
    first_line(process, "created")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < len(job.keys()) < len(MANY)
    job.run()
    assert {alias: found["max_budget"] for alias, found in job.keys().items()} == {
        entry["alias"]: float(entry["max_budget"]) for entry in MANY
    }


def test_the_database_killed_in_between_only_delays_it(job: Job, postgres: Postgres) -> None:
    job.want([], MANY)
    process = job.start()
    first_line(process, "created")
    postgres.kill()
    time.sleep(1)
    postgres.start()
    log, _ = process.communicate(timeout=at_least(120))
    assert process.returncode == 0, log
    assert "trying again" in log
    assert set(job.keys()) == {entry["alias"] for entry in MANY}


def test_a_proxy_killed_in_between_only_delays_it_and_comes_back_with_its_keys_and_spend(
    job: Job, replicas: Replicas, upstream: Upstream
) -> None:
    twin, cost = replicas.second, price(SERVED[ALIAS], USAGE)
    tenant = twin.make_key([ALIAS], max_budget=cost * 1.5)
    with upstream.behaving(SERVED[ALIAS].served_name, Behaviour(usage=USAGE)):
        ask(twin.client(tenant), SERVED[ALIAS])
        assert twin.spend(tenant, cost) == pytest.approx(cost)
        job.want([], MANY)
        process = job.start(twin)
        first_line(process, "created")
        twin.kill()
        twin.launch()
        log, _ = process.communicate(timeout=at_least(120))
        assert process.returncode == 0, log
        assert "trying again" in log
        assert set(job.keys()) == {entry["alias"] for entry in MANY}
        ask(twin.client(tenant), SERVED[ALIAS])
        # Spend is counted after the answer: the next call is judged by it once it is written.
        assert twin.spend(tenant, 2 * cost) == pytest.approx(2 * cost)
        with pytest.raises(openai.UnprocessableEntityError):
            ask(twin.client(tenant), SERVED[ALIAS])
