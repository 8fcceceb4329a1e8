"""Every refusal and notice of a config, and what becomes of it when its remedy is typed as it is printed."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from ops.config_files import load
from stacks.admission import admit
from stacks.problems import Notice, Problem, did_you_mean, nearest
from stacks.secrets import KEY_VALUES
from stacks.settings import RawConfig
from tests.ops.typed import parses_as_ops
from tests.stacks import test_access, test_admission, test_settings
from tests.stacks.remedies import BASE, alternatives, filled, follow, raw, with_values

P = "ai-platform:"
PROJECT = Path(__file__).parents[2]
Json = dict[str, Any]


def own(**settings: Any) -> RawConfig:
    """A config with settings of the platform, and a value for each key that is one."""
    values = {f"{P}{key}": value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    keys = settings.get("keys")
    aliases = list(cast("Json", keys)) if isinstance(keys, dict) else []
    named = {alias: f"sk-0123456789abcdef{n}" for n, alias in enumerate(aliases)}
    config = with_values(values)
    return replace(
        config, secrets={**config.secrets, f"{P}{KEY_VALUES}": json.dumps(named)} if named else config.secrets
    )


def encrypted(**secrets: str | None) -> RawConfig:
    config = raw()
    return replace(config, secrets={**config.secrets, **{key.replace("__", ":"): v for key, v in secrets.items()}})


def unpriced(**settings: Any) -> RawConfig:
    """A config of a region in which the price list has a gap."""
    config = own(gateway={"database": "cloud-sql"}, **settings)
    return replace(config, values={**config.values, "gcp:zone": "europe-west4-a"})


LOCAL: Json = {"target": "kubernetes", "kubeconfig": "k", "kubeContext": "c"}
TEAM: Json = {"models": ["baseline"], "maxBudgetUsd": 5}

# What an operator types at two in the morning, by what it was meant to be.
TYPOS: dict[str, RawConfig] = {
    "models given a string": own(keys={"a": {**TEAM, "models": "coder-chat"}}),
    "models given a list as text, as --path stores it": own(
        keys={"a": {**TEAM, "models": '["coder-chat", "embeddings"]'}}
    ),
    "models separated by commas": own(teams={"t": {"models": "coder-chat,retrieval"}}),
    "models given an object": own(keys={"a": {**TEAM, "models": {"coder-chat": True}}}),
    "models given a number": own(keys={"a": {**TEAM, "models": 3}}),
    "model for models": own(keys={"a": {"model": ["baseline"], "maxBudgetUsd": 5}}),
    "a number among models": own(keys={"a": {**TEAM, "models": [1, "baseline", 2]}}),
    "two names that are none": own(keys={"a": {**TEAM, "models": ["nothing-1", "baseline", "nothing-two"]}}),
    "only names that are none": own(teams={"t": {**TEAM, "models": ["nothing-1", "nothing-two"]}}),
    "a group that is none": own(groups={"baseline": True, "my-team": True}),
    "a group that is none, of everything": own(groups={"baseline": True, "my-team": "all"}),
    "a group that is cut short": own(groups={"baseline": True, "retriev": True}),
    "a group twice": own(groups={"baseline": True, "base-line": False}),
    "a group as an object": own(groups={"baseline": {"enabled": True}}),
    "groups as a list": own(groups=["baseline", "retrieval"]),
    "a group near one that cannot be": own(groups={"provider": True}),
    "another cache": own(gateway={"redis": "redis:6379"}),
    "a namespace in capitals": own(namespaces={"gateway": "Team A"}),
    "a namespace of the cluster": own(namespaces={"models": "kube-system"}),
    "one namespace for both": own(namespaces={"gateway": "ai", "models": "ai"}),
    "the other's namespace": own(namespaces={"models": "gateway"}),
    "namespaces as text": own(namespaces="ai"),
    "a namespace without --path": own(**{"namespaces.gateway": "team-gateway"}),
    "taints": own(nodeTaints="gpu=true:NoSchedule"),
    "a team of everything": own(teams={"research": "all"}),
    "a team of nothing": own(teams={"research": None}),
    "a team of a list": own(teams={"research": ["baseline", "retrieval"]}),
    "a team as text, as --path stores it": own(teams={"research": json.dumps(TEAM)}),
    "a team without --path": own(**{"teams.research": "baseline"}),
    "a budget without --path": own(keys={"a": {"models": ["baseline"]}}, **{"keys.a.maxBudgetUsd": "20"}),
    "a setting without --path": own(**{"gateway.replicas": "2"}),
    "a setting without --path that is set with it": own(gateway={"replicas": 1}, **{"gateway.replicas": "2"}),
    "a word without --path": own(**{"gateway.replicas": "two"}),
    "a dot that leads nowhere": own(**{"what.ever": "2"}),
    "keys as text": own(keys="editor"),
    "keys as a list": own(keys=["editor"]),
    "a key that is none": own(keys={"editor": None}),
    "capitals": own(keys={"Editor": TEAM}),
    "a name that is an address": own(keys={"me@example.org": TEAM}, teams={"it's": TEAM}),
    "a name of nothing": own(teams={"": TEAM}),
    "a budget misspelt": own(keys={"a": {"models": ["baseline"], "maxBudget": 3}}),
    "a team that is wrong, and its key": own(
        teams={"core": "all"}, keys={"a": {"models": ["baseline"], "team": "core"}}
    ),
    "g2-standard-3": own(machineType="g2-standard-3"),
    "a shape in capitals": own(machineType="G2-Standard-8"),
    "a shape that is an object": own(machineType={"name": "g2-standard-8"}),
    "no": own(deletionProtection="no"),
    "yes": own(spot="yes"),
    "True": own(retainWeights="True"),
    "maybe": own(spot="maybe"),
    "dollars": own(maxHourlyUsd="$3"),
    "USD": own(maxMonthlyUsd="900 USD"),
    "thousands": own(maxMonthlyUsd="1,500"),
    "quotes": own(gpuQuota="'1'"),
    "a fraction of nothing": own(gpuQuota="1.0"),
    "a unit": own(gpuBootDiskGib="100GiB"),
    "a price of nothing known": own(prices={"onDemand": {"g2-standard-99": 1}, "asOf": "2026-01-01"}),
    "a price misspelt": own(prices={"onDemand": {"g2_standard_8": 1}}),
    "a price that is text": own(prices={"spot": {"g2-standard-8": "cheap"}}),
    "a day that is none": own(prices={"asOf": "yesterday"}),
    "a target that is none": own(target="aks"),
    "a database misspelt": own(gateway={"database": "cloudsql"}),
    "a database that is none": own(gateway={"database": "mysql"}),
    "8k": with_values({"coder-chat:maxModelLen": "8k"}),
    "underscores": with_values({"coder_chat:replicas": "1"}),
    "a model misspelt that is set": with_values({"coder-chatt:replicas": "1", "coder-chat:replicas": "0"}),
    "a value that does not fit the model meant": with_values({"coder-chatt:replicas": "many"}),
    "a setting misspelt that is set": with_values({f"{P}gpu_quota": "2", f"{P}gpuQuota": "1"}),
    "a region": with_values({"gcp:region": "us-central1"}),
    "a region for a zone": with_values({"gcp:zone": "us-central1"}),
    "a project by its name": with_values({"gcp:project": "My Project"}),
    "a cluster for a stack that makes its own": own(kubeconfig="k", kubeContext="c"),
    "another cloud": with_values({"aws:region": "us-east-1"}),
    "nothing at all": replace(raw(), values={}),
    "an object that is cut off": with_values({f"{P}groups": '{"baseline": '}),
    "a fallback that is none": with_values({"coder-chat:fallback": "gpt"}),
    "a setting of an external model": with_values({"claude-haiku:replicas": "1"}),
    "a secret in clear text": own(litellmMasterKey="sk-0123456789abcdef"),
    "a secret misspelt in clear text": own(databasePasword="a-very-secret-password"),
    "values of keys in clear text": own(keyValues={"a": "sk-0123456789abcdef"}),
    "a secret misspelt": encrypted(**{f"{P}litelmMasterKey": "sk-0123456789abcdef"}),
    "a setting that is encrypted": encrypted(**{"coder-chat:replicas": "1"}),
    "a secret of the wrong shape": encrypted(**{f"{P}litellmMasterKey": "short"}),
    "values of keys that are no object": encrypted(**{f"{P}{KEY_VALUES}": "sk-0123456789abcdef"}),
    "a value of the wrong shape": replace(
        (key := own(keys={"a": TEAM})), secrets={**key.secrets, f"{P}{KEY_VALUES}": '{"a": "short"}'}
    ),
    "a value of a key that is gone": encrypted(**{f"{P}{KEY_VALUES}": '{"gone": "sk-0123456789abcdef"}'}),
    "a key without its value": replace(key, secrets=raw().secrets),
    "a part of keys that is encrypted": replace(key, values=BASE, secrets={**key.secrets, f"{P}keys": '{"a": null}'}),
    "no secrets": replace(raw(), secrets={}),
    "the example's project": with_values({"gcp:project": "your-gcp-project"}),
}
# What is right each for itself, and not together.
REFUSED: dict[str, RawConfig] = {
    "a managed database without a cloud": own(gateway={"database": "cloud-sql"}, **LOCAL),
    "a former database without a cloud": own(gateway={"formerDatabase": "in-cluster"}, **LOCAL),
    "a former database that is the one used": own(gateway={"database": "cloud-sql", "formerDatabase": "cloud-sql"}),
    "more replicas than the quota": with_values({"coder-chat:replicas": "2"}),
    "two replicas": with_values({"coder-chat:replicas": "2", f"{P}gpuQuota": "2"}),
    "a budget that is passed now": with_values({f"{P}maxHourlyUsd": "0.9", "coder-chat:replicas": "1"}),
    "a budget that may be passed": own(maxMonthlyUsd="500"),
    "a budget that cannot be kept": own(maxHourlyUsd="0.01"),
    "a budget without a price": unpriced(maxMonthlyUsd="2000"),
    "addresses of a proxy that there is not": own(hub={"cidr": "10.0.0.0/8"}),
    "labels of nodes that the program makes": own(gpuNodeLabels={"nvidia.com/gpu.product": "NVIDIA-L4"}),
    "a stack that Google has no name for": replace(raw(), stack="My_Stack.of-a-name-that-goes-on-and-on"),
}
# What is only worth knowing.
NOTED: dict[str, RawConfig] = {
    "no price": unpriced(),
    "at a loss": with_values({"coder-chat:tokensPerSecond": "1", "coder-chat:replicas": "1"}),
    "no commercial use": with_values({"coder-mini:replicas": "1"}),
    "cramped": own(machineType="g2-standard-4"),
    "a model that no key lists": own(keys={"a": TEAM}),
    "a model that the team does not list": own(
        teams={"t": TEAM}, keys={"a": {"models": ["baseline", "embeddings"], "team": "t", "maxBudgetUsd": 1}}
    ),
    "a fallback that no key lists": replace(
        (listed := own(keys={"a": {"models": ["coder-chat"], "maxBudgetUsd": 1}})),
        values={**listed.values, "coder-chat:fallback": "qwen-local"},
    ),
    "a key to a group that is off": own(groups={"baseline": True}, keys={"a": {**TEAM, "models": ["retrieval"]}}),
    "adopting": own(adopt=True),
    "a budget of a few calls": own(keys={"a": {"models": ["coder-chat"], "maxBudgetUsd": 0.01}}),
    "a budget and a rate above the team's": own(
        teams={"t": {**TEAM, "requestsPerMinute": 5}},
        keys={"a": {**TEAM, "team": "t", "maxBudgetUsd": 50, "requestsPerMinute": 9}},
    ),
    "rates with two gateways": own(gateway={"replicas": 2}, keys={"a": {**TEAM, "requestsPerMinute": 60}}),
}
CORPUS: dict[str, RawConfig] = {
    **TYPOS,
    **REFUSED,
    **NOTED,
    **{f"settings {n}": with_values(values) for n, (values, _, _) in enumerate(test_settings.MISTAKES)},
    **{f"access: {name}": config for name, (config, _) in test_access.REFUSED.items()},
    **{f"admission: {name}": with_values(values) for name, values in test_admission.REFUSED.items()},
}


def subject(message: str) -> str:
    """The key that a message is about."""
    return re.split(r"[ ,]|: ", message.removeprefix("the secret "))[0]


def mended(config: RawConfig) -> RawConfig:
    """The config after every first remedy, one after the other. Fails where that does not end."""
    for _ in range(12):
        problems = admit(config).problems
        if not problems:
            return config
        config = follow(config, alternatives(problems[0].remedy)[0])
    raise AssertionError([str(problem) for problem in admit(config).problems])


def check(config: RawConfig) -> None:
    """Follow every way out of every problem of a config."""
    found = admit(config).problems
    before = {problem.message for problem in found}
    for problem in found:
        for line in alternatives(problem.remedy):
            changed = follow(config, line)
            after = {p.message for p in admit(changed).problems}
            assert problem.message not in after, line
            again = [m for m in after - before if subject(m) == subject(problem.message)]
            assert not again, (problem.message, line, again)
            mended(changed)
    typed = config
    for problem in found:
        typed = follow(typed, alternatives(problem.remedy)[0])
    assert not before & {problem.message for problem in admit(typed).problems}


@pytest.mark.parametrize("config", CORPUS.values(), ids=list(CORPUS))
def test_a_remedy_typed_as_printed_removes_its_error_and_leads_to_success(config: RawConfig) -> None:
    check(config)


@pytest.mark.parametrize("name", [*TYPOS, *REFUSED])
def test_what_is_in_the_corpus_is_refused(name: str) -> None:
    assert admit({**TYPOS, **REFUSED}[name]).problems


@pytest.mark.parametrize("config", CORPUS.values(), ids=list(CORPUS))
def test_the_remedy_of_a_notice_does_what_it_says(config: RawConfig) -> None:
    for rehearsal in (True, False):
        before = admit(config, rehearsal=rehearsal)
        for notice in before.notices:
            for line in alternatives(notice.remedy) if notice.remedy else ():
                if line.startswith("ops "):
                    assert parses_as_ops(line)
                    continue
                after = admit(follow(config, line), rehearsal=rehearsal)
                assert notice.message not in [n.message for n in after.notices], line
                assert {p.message for p in after.problems} <= {p.message for p in before.problems}, line


# --- of every refusal, and of whatever is typed ----------------------------------------------------------------------


# What an entry, or the project's name, is refused for, whatever config says; and consent to pickle files, which no
# entry of the tests' catalog has: tests/stacks/test_guide.py follows its remedies.
_OF_THE_CHECKOUT = r"models/catalog|flaw\.|\^name:|allowPickle"


def _sites() -> Iterator[tuple[str, int, int]]:
    """Every place in `stacks/` that makes a problem or a notice: file, first and last line."""
    for path in sorted((PROJECT / "stacks").rglob("*.py")):
        if path.name == "ownership.py":  # of a cluster, not of config: tests/cluster/test_ours.py
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("Problem", "Notice") and not re.search(_OF_THE_CHECKOUT, ast.unparse(node)):
                yield str(path), node.lineno, node.end_lineno or node.lineno


def test_every_refusal_and_notice_that_config_can_meet_is_in_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[str, int]] = set()
    for cls in (Problem, Notice):
        real = cls.__post_init__

        def recorded(self: Any, real: Any = real) -> None:
            frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  of whoever called the class
            made.add((frame.f_code.co_filename, frame.f_lineno))
            real(self)

        monkeypatch.setattr(cls, "__post_init__", recorded)
    for config in CORPUS.values():
        for rehearsal in (True, False):
            _ = admit(config, rehearsal=rehearsal).notices  # made when they are asked for
    missing = [
        f"{file}:{first}"
        for file, first, last in _sites()
        if not any((file, n) in made for n in range(first, last + 1))
    ]
    assert not missing


def test_a_shell_takes_every_remedy_as_it_is_printed() -> None:
    lines = {
        filled(line)
        for config in CORPUS.values()
        for rehearsal in (True, False)
        for verdict in [admit(config, rehearsal=rehearsal)]
        for told in (*verdict.problems, *verdict.notices)
        if told.remedy
        for line in (*alternatives(told.remedy), told.remedy.split("   # ")[0])
        if "; to keep " not in line
    }
    assert len(lines) > 100
    done = subprocess.run(["bash", "-n"], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_remedy_never_shows_what_looks_like_a_key() -> None:
    key = "sk-0123456789abcdef"
    for wrong in (own(keys={key: TEAM}, teams={"T": {"models": key}}, **{key: key}), replace(raw(), values={key: key})):
        admission = admit(wrong)
        assert admission.problems
        assert key not in " ".join(map(str, (*admission.problems, *admission.notices)))


PIECES: list[Any] = [
    *("", " ", "0", "-1", "1", "1.5", "NaN", "true", "no", "null", "auto", "g2-standard-4", "coder-chat", "baseline"),
    *({}, [], ["baseline"], ["nothing"], {"a": {"b": [1, None]}}, {"replicas": -3}, {"baseline": True}, "it's", 'a"b'),
    *({"a": TEAM}, {"A b": TEAM}, {"a": {**TEAM, "team": "core"}}, {"core": TEAM}, {"a": ["baseline", 3]}, "gke"),
    *({"onDemand": {"e2-standard-4": 1}}, {"onDemand": {"e2-standard": "x"}}, {"database": "cloudsql", "x.y": 1}),
]
FIELDS = [
    *("replicas", "claimGib", "maxModelLen", "gpuMemoryUtilization", "maxNumSeqs", "maxNumBatchedTokens", "fallback"),
    *(
        "streamInterval",
        "maxBatchTokens",
        "tokensPerSecond",
        "target",
        "groups",
        "gpuQuota",
        "machineType",
        "spot",
        "gpuSharingClients",
    ),
    *(
        "systemNodes",
        "gateway",
        "namespaces",
        "teams",
        "keys",
        "prices",
        "maxHourlyUsd",
        "deletionProtection",
        "kubeconfig",
    ),
    *("project", "zone", "a.b", "teams.a", "keys.a.models[0]", "gateway.replicas", "replcas", "machinetype", "spott"),
]
NAMESPACES = ["ai-platform", "gcp", "aws", "coder-chatt", "coder-chat", "coder-fim", "embeddings", "claude-haiku"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_typed_its_remedies_remove_it_and_lead_to_success(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    for _ in range(8):
        values = dict(BASE)
        for _ in range(dice.randrange(1, 5)):
            piece = dice.choice(PIECES)
            namespace = dice.choice([*NAMESPACES, "ai-platform", "ai-platform", "ai-platform"])
            values[f"{namespace}:{dice.choice(FIELDS)}"] = piece if isinstance(piece, str) else json.dumps(piece)
        try:
            check(replace(raw(), values=values))
        except Exception as error:
            raise AssertionError(f"{error}\n{values}") from error


# --- the names that are proposed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("gpuQouta", ["gpuQuota", "groups"], "gpuQuota"),
        ("gpu_quota", ["gpuQuota"], "gpuQuota"),
        ("codingassistant", ["coding-assistant"], "coding-assistant"),
        ("maxBudget", ["maxBudgetUsd", "budgetPeriod"], "maxBudgetUsd"),
        ("redis", ["replicas", "database", "databaseGib"], None),
        ("nodeTaints", ["retainWeights", "systemNodes"], None),
        ("my-team", ["baseline", "retrieval"], None),
        ("g2-standard-3", ["g2-standard-4", "g2-standard-32"], None),
        ("qwen3-8b", ["qwen2-8b"], None),
        ("us-central1", ["us-central1-a", "us-central1-b"], None),
        ("aws", ["gcp"], None),
        ("a", ["b"], None),
        ("", ["a"], None),
    ],
)
def test_a_name_is_proposed_only_when_it_is_near_enough(word: str, known: list[str], meant: str | None) -> None:
    assert nearest(word, known) == meant


def test_names_that_are_equally_near_are_all_named() -> None:
    known = ["us-central1-a", "us-central1-b", "europe-west4-a"]
    assert did_you_mean("us-central1", known) == "did you mean 'us-central1-a' or 'us-central1-b'?"
    assert did_you_mean("mars", known) == "known: us-central1-a, us-central1-b, europe-west4-a"


# --- held to the real CLI --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a stack `test` of the real CLI, in a home and state of its own."""
    if shutil.which("pulumi") is None:
        pytest.skip("no `pulumi` on PATH: nothing ran on the real CLI")
    folder = tmp_path_factory.mktemp("cli")
    (folder / "state").mkdir()
    (folder / "Pulumi.yaml").write_text("name: ai-platform\nruntime: python\n")
    typed(folder, "pulumi stack init test --non-interactive")
    return folder


def typed(folder: Path, line: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PULUMI_HOME": str(folder / "home"),
        "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "x",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    done = subprocess.run(
        ["bash", "-ec", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("name", [name for name in TYPOS if not TYPOS[name].secrets.keys() - raw().secrets.keys()])
def test_the_real_cli_makes_of_a_remedy_what_these_tests_make_of_it(name: str, cli: Path) -> None:
    config = TYPOS[name]
    problems = [p for p in admit(config).problems if "--secret" not in p.remedy]
    file = cli / "Pulumi.test.yaml"
    salt = yaml.safe_load(file.read_text())["encryptionsalt"]
    content = {key: _as_in_a_file(value) for key, value in config.values.items()}
    for line in [alternatives(problem.remedy)[0] for problem in problems]:
        file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": content}))
        typed(cli, filled(line))
        expected = follow(config, line).values
        assert {k: _as_in_a_file(v) for k, v in load(cli, "test").values.items()} == {
            k: _as_in_a_file(v) for k, v in expected.items()
        }


def _as_in_a_file(text: str) -> Any:
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
