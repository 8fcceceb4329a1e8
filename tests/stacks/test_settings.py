"""Config as an operator gets it wrong: one clear error for each mistake, all at once, with a remedy that works."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from models.machines import L4_ZONES
from stacks.admission import admit
from stacks.plan import State
from stacks.secrets import SECRETS
from stacks.settings import RawConfig, parse
from tests.catalog import CATALOG, GROUPS
from tests.stacks.remedies import BASE, follow, judge, raw, with_values

P = "ai-platform:"


def groups(**changes: Any) -> dict[str, str]:
    return {f"{P}groups": json.dumps({**json.loads(BASE[f"{P}groups"]), **changes})}


# Config that is wrong in one way; what has to be said; the key that has to be named.
MISTAKES: list[tuple[dict[str, str], str, str]] = [
    # unknown names, with the nearest known one
    ({"coder-chatt:replicas": "1"}, "did you mean 'coder-chat'?", "coder-chatt:replicas"),
    ({"nothing-like-it:replicas": "1"}, "known: ", "nothing-like-it:replicas"),
    ({"coder-chat:replcas": "1"}, "did you mean 'replicas'?", "coder-chat:replcas"),
    ({"embeddings:maxModelLen": "512"}, "is not a setting", "embeddings:maxModelLen"),
    ({f"{P}gpuQouta": "1"}, "did you mean 'gpuQuota'?", f"{P}gpuQouta"),
    ({f"{P}gpu_quota": "1"}, "did you mean 'gpuQuota'?", f"{P}gpu_quota"),
    ({f"{P}gateway": '{"replica": 2}'}, "did you mean 'replicas'?", f"{P}gateway.replica"),
    (groups(codingassistant=True), "did you mean 'coding-assistant'?", f"{P}groups.codingassistant"),
    ({"gcp:zone": "us-central1-z"}, "a zone without L4", "gcp:zone"),
    ({"gcp:region": "us-central1"}, "is not a setting", "gcp:region"),
    ({f"{P}machineType": "g2-standard-9"}, "known: auto, g2-standard-4, ", f"{P}machineType"),
    ({f"{P}machineType": "n2-standard-4"}, "no machine type with an L4", f"{P}machineType"),
    ({f"{P}systemMachineType": "e2-standard-3"}, "no machine type known", f"{P}systemMachineType"),
    ({f"{P}target": "aks"}, "'gke'", f"{P}target"),
    ({f"{P}gateway": '{"database": "cloudsql"}'}, "'cloud-sql'", f"{P}gateway.database"),
    # types
    ({"coder-chat:replicas": "one"}, "must be a whole number", "coder-chat:replicas"),
    ({"coder-chat:replicas": "0.5"}, "must be a whole number", "coder-chat:replicas"),
    ({"coder-chat:replicas": ""}, "must be a whole number", "coder-chat:replicas"),
    ({"coder-chat:replicas": "true"}, "must be a whole number", "coder-chat:replicas"),
    ({"coder-chat:replicas": '{"a": 1}'}, "must be", "coder-chat:replicas"),
    ({"coder-chat:gpuMemoryUtilization": "much"}, "must be", "coder-chat:gpuMemoryUtilization"),
    ({"coder-chat:gpuMemoryUtilization": "nan"}, "finite", "coder-chat:gpuMemoryUtilization"),
    ({f"{P}spot": "yes"}, "must be true or false", f"{P}spot"),
    (groups(baseline="on"), "must be true or false", f"{P}groups.baseline"),
    (groups(baseline=1), "must be true or false", f"{P}groups.baseline"),
    ({f"{P}groups": "all"}, "must be", f"{P}groups"),
    ({f"{P}groups": '{"baseline": '}, "is not valid JSON", f"{P}groups"),
    ({f"{P}gateway": "[1]"}, "must be", f"{P}gateway"),
    # namespaces
    ({f"{P}namespaces": '{"gateway": "Team_A"}'}, "lower-case letters", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": '{"gateway": "a.b"}'}, "lower-case letters", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": '{"gateway": ""}'}, "lower-case letters", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": '{"gateway": 7}'}, "must be text", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": json.dumps({"models": "a" * 64})}, "at most 63", f"{P}namespaces.models"),
    ({f"{P}namespaces": '{"models": "kube-system"}'}, "of the cluster itself", f"{P}namespaces.models"),
    ({f"{P}namespaces": '{"models": "default"}'}, "of the cluster itself", f"{P}namespaces.models"),
    ({f"{P}namespaces": '{"models": "gmp-system"}'}, "of the cluster itself", f"{P}namespaces.models"),
    ({f"{P}namespaces": '{"serving": "x"}'}, "known: gateway, models", f"{P}namespaces.serving"),
    ({f"{P}namespaces": '{"gateway": "x", "models": "x"}'}, "and so is the other", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": '{"gateway": "serving"}'}, "and so is the other", f"{P}namespaces.gateway"),
    ({f"{P}namespaces": '{"models": "gateway"}'}, "and so is the other", f"{P}namespaces.models"),
    # bounds
    ({"coder-chat:replicas": "-1"}, "greater than or equal to 0", "coder-chat:replicas"),
    ({f"{P}gpuQuota": "-1"}, "greater than or equal to 0", f"{P}gpuQuota"),
    ({"coder-chat:maxModelLen": "0"}, "greater than or equal to 1", "coder-chat:maxModelLen"),
    ({"coder-chat:gpuMemoryUtilization": "1.1"}, "less than or equal to 1", "coder-chat:gpuMemoryUtilization"),
    ({"coder-chat:claimGib": "-5"}, "greater than or equal to 1", "coder-chat:claimGib"),
    ({f"{P}gpuSharingClients": "49"}, "less than or equal to 48", f"{P}gpuSharingClients"),
    ({f"{P}gateway": '{"replicas": 0}'}, "greater than or equal to 1", f"{P}gateway.replicas"),
    # what exists and cannot be used
    (groups(providers=True), "egress gateway", f"{P}groups.providers"),
    ({"claude-haiku:replicas": "1"}, "nothing of this model runs here", "claude-haiku:replicas"),
]


@pytest.mark.parametrize(("values", "said", "key"), MISTAKES, ids=[f"{k}={v.get(k, '')}" for v, _, k in MISTAKES])
def test_a_mistake_is_one_error_that_names_key_consequence_and_remedy(
    values: dict[str, str], said: str, key: str
) -> None:
    found = judge(values).problems
    assert len(found) == 1, [p.message for p in found]
    assert found[0].message.startswith(key)
    assert said in found[0].message
    assert found[0].remedy.startswith("pulumi config ")


def test_everything_wrong_is_told_at_once() -> None:
    wrong: dict[str, str] = {}
    apart: list[tuple[dict[str, str], str, str]] = []
    for mistake in MISTAKES:
        if not wrong.keys() & mistake[0].keys() and "target" not in mistake[2]:
            wrong.update(mistake[0])
            apart.append(mistake)
    assert len(apart) > 15
    messages = [p.message for p in judge(wrong).problems]
    for _, said, key in apart:
        assert any(m.startswith(key) and said in m for m in messages), key


def test_an_empty_config_lacks_project_and_zone_and_nothing_else() -> None:
    messages = [p.message for p in admit(replace(raw(), values={})).problems]
    assert [m.split()[0] for m in messages] == ["gcp:project", "gcp:zone"]


def test_the_base_of_these_tests_is_admitted() -> None:
    assert judge({}).problems == ()


# --- values that have to arrive as they are --------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [a for a in CATALOG if a != "claude-haiku"])
@pytest.mark.parametrize("value", ["0", "1"])
def test_replicas_arrive_as_typed_and_zero_stays_zero(alias: str, value: str) -> None:
    model = next(m for m in judge({f"{alias}:replicas": value}).plan.models if m.spec.alias == alias)
    assert model.replicas == int(value)
    assert model.state is (State.UP if value == "1" else State.OFF)


def test_a_group_is_off_unless_config_turns_it_on() -> None:
    admission = admit(replace(raw(), values={k: v for k, v in BASE.items() if "groups" not in k}))
    assert {m.state for m in admission.plan.models} == {State.DISABLED}


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("coder-chat:maxModelLen", "4096", "max_model_len"),
        ("coder-chat:gpuMemoryUtilization", "0.8", "gpu_memory_utilization"),
        ("coder-chat:maxNumSeqs", "8", "max_num_seqs"),
        ("coder-chat:maxNumBatchedTokens", "1024", "max_num_batched_tokens"),
        ("coder-chat:streamInterval", "4", "stream_interval"),
        ("coder-chat:claimGib", "40", "claim_gib"),
        ("embeddings:maxBatchTokens", "2048", "max_batch_tokens"),
        ("embeddings:maxClientBatchSize", "16", "max_client_batch_size"),
    ],
)
def test_every_override_is_typed_and_arrives(key: str, value: str, field: str) -> None:
    admission = judge({key: value})
    assert not admission.problems
    overrides = admission.plan.settings.models[key.split(":", maxsplit=1)[0]]
    assert getattr(overrides, field) == json.loads(value)


def test_an_override_changes_one_model_and_the_catalog_not_at_all() -> None:
    plan = judge({"coder-chat:maxModelLen": "4096"}).plan
    contexts = {m.spec.alias: m.spec.context for m in plan.models}
    assert contexts == {alias: spec.context for alias, spec in CATALOG.items()} | {"coder-chat": 4096}


@pytest.mark.parametrize("zone", L4_ZONES)
def test_every_zone_with_l4_is_taken(zone: str) -> None:
    assert not judge({"gcp:zone": zone}).problems


def test_what_nothing_would_read_is_refused_on_another_target() -> None:
    local = {f"{P}target": "kubernetes", f"{P}kubeconfig": "k", f"{P}kubeContext": "c"}
    found = judge(local).problems
    assert [p.message.split()[0] for p in found] == ["gcp:project", "gcp:zone"]
    mended = with_values(local)
    for problem in found:
        mended = follow(mended, problem.remedy)
    assert not admit(mended).problems


def test_the_engine_s_own_namespace_is_left_alone() -> None:
    assert not judge({"pulumi:disable-default-providers": '["*"]'}).problems


# --- secrets ---------------------------------------------------------------------------------------------------

CANARY = "sk-CANARY-0123456789abcdef"


@pytest.mark.parametrize("key", list(SECRETS))
def test_a_secret_in_clear_text_is_refused_and_never_echoed(key: str) -> None:
    config = with_values({f"{P}{key}": CANARY})
    config = replace(config, secrets={k: v for k, v in config.secrets.items() if k != f"{P}{key}"})
    found = admit(config).problems
    assert found[0].message.startswith(f"{P}{key} stands in the stack file in clear text")
    assert "CANARY" not in str(found)
    assert not admit(follow(config, found[0].remedy.split("   #")[0])).problems


@pytest.mark.parametrize("key", list(SECRETS))
def test_a_secret_of_the_wrong_shape_is_refused_and_never_echoed(key: str) -> None:
    config = replace(raw(), secrets={**raw().secrets, f"{P}{key}": "CANARY £"})
    found = admit(config).problems
    assert [p.message for p in found] == [f"{P}{key} (value not shown) must {SECRETS[key].must}"]
    assert not admit(follow(config, found[0].remedy)).problems


def test_an_unknown_secret_is_refused_and_never_echoed() -> None:
    config = replace(raw(), secrets={**raw().secrets, f"{P}litelmMasterKey": CANARY, "coder-chat:replicas": CANARY})
    found = admit(config).problems
    assert len(found) == 2
    assert "did you mean 'litellmMasterKey'?" in found[0].message
    assert "coder-chat:replicas is encrypted" in found[1].message
    assert "CANARY" not in str(found)
    for problem in found:
        config = follow(config, problem.remedy.split("   #")[0])
    assert not admit(config).problems


@pytest.mark.parametrize("key", [k for k in SECRETS if k not in ("huggingFaceToken", "registryLogin")])
def test_a_missing_secret_stops_an_update_and_is_a_reminder_to_a_plan(key: str) -> None:
    config = replace(raw(), secrets={k: v for k, v in raw().secrets.items() if k != f"{P}{key}"})
    found = admit(config).problems
    assert len(found) == 1
    assert f"{P}{key}" in found[0].message
    rehearsal = admit(config, rehearsal=True)
    assert not rehearsal.problems
    assert any(f"{P}{key}" in notice.message for notice in rehearsal.notices)
    assert not admit(follow(config, found[0].remedy)).problems


def test_the_example_s_project_stops_an_update_and_is_a_reminder_to_a_plan() -> None:
    example = with_values({"gcp:project": "your-gcp-project"})
    found = admit(example).problems
    assert [p.message.split()[0] for p in found] == ["gcp:project"]
    assert not admit(example, rehearsal=True).problems
    assert not admit(follow(example, found[0].remedy)).problems


def test_commands_that_set_a_secret_show_it_nowhere() -> None:
    for secret in SECRETS.values():
        command = secret.command.split(" | ")[-1]
        assert command.startswith("pulumi config set --secret ")
        assert command.split()[-1] == secret.key  # the value comes by standard input or a prompt


# --- where weights and images come from --------------------------------------------------------------------------


HUB = {
    "endpoint": (
        "ftp://hub",
        "hub.example.com",
        "https://me:secret-of-mine@hub.example.com",
        "https://h?a=b",
        "http://hub.example.com",
        3,
    ),
    "proxy": ("10.0.0.5:3128", "http://10.0.0.5:3128/path", "socks5://10.0.0.5:1080", "http://me:pw@10.0.0.5:3128"),
    "ca": ("not a certificate", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"),
    "cidr": ("10.0.0.5/8", "everything"),
    "download": ("never", "yes"),
}


@pytest.mark.parametrize(("setting", "value"), [(key, value) for key, values in HUB.items() for value in values])
def test_a_way_to_the_hub_that_cannot_be_is_refused_and_no_login_is_echoed(setting: str, value: Any) -> None:
    found = admit(with_values({f"{P}hub": json.dumps({setting: value})})).problems
    assert len(found) == 1, found
    assert found[0].message.startswith(f"{P}hub.{setting} is ")
    assert "secret-of-mine" not in str(found[0])
    assert "PRIVATE" not in found[0].message.split(": must")[0]


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        ({"cidr": "10.0.0.0/8"}, "nothing reads it"),
        ({"cidr": "10.0.0.0/8", "proxy": "http://10.1.2.3:3128"}, "nothing reads it"),
    ],
)
def test_a_range_of_addresses_that_nothing_reads_is_refused(hub: Any, words: str) -> None:
    config = with_values({f"{P}hub": json.dumps(hub)})
    found = admit(config).problems
    assert [words in p.message for p in found] == [True]
    assert not admit(follow(config, found[0].remedy)).problems


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"mirrors": {"gcr.io": "registry.example.com"}}, "no image comes from there"),
        ({"mirrors": {"docker.io": "https://registry.example.com"}}, "must be a registry's host"),
        ({"login": "maybe"}, "must be true or false"),
    ],
)
def test_images_from_where_none_can_come_are_refused(images: Any, message: str) -> None:
    found = admit(with_values({f"{P}images": json.dumps(images)})).problems
    assert [message in p.message for p in found] == [True], found


def test_a_login_is_asked_for_where_config_says_so() -> None:
    config = with_values({f"{P}images": json.dumps({"login": True})})
    config = replace(config, secrets={k: v for k, v in config.secrets.items() if k != f"{P}registryLogin"})
    found = admit(config).problems
    assert ["registryLogin" in p.message for p in found] == [True]
    assert not admit(follow(config, found[0].remedy)).problems


@pytest.mark.parametrize(
    ("setting", "value", "meant"),
    [
        ("proxy", "10.0.0.5:3128", "http://10.0.0.5:3128"),
        ("proxy", "proxy.corp:3128", "http://proxy.corp:3128"),
        ("endpoint", "hub.example.com", "https://hub.example.com"),
        ("endpoint", "http://hub.example.com", "https://hub.example.com"),
    ],
)
def test_an_address_without_its_scheme_is_offered_with_it(setting: str, value: str, meant: str) -> None:
    config = with_values({f"{P}hub": json.dumps({setting: value})})
    (found,) = admit(config).problems
    assert found.remedy.endswith(f" {meant}")
    assert not admit(follow(config, found.remedy)).problems


def test_labels_of_gpu_nodes_are_for_clusters_that_the_program_does_not_make() -> None:
    labels = {f"{P}gpuNodeLabels": json.dumps({"nvidia.com/gpu.product": "NVIDIA-L4"})}
    config = with_values(labels)
    found = admit(config).problems
    assert ["gpuNodeLabels is set, but" in p.message for p in found] == [True]
    assert not admit(follow(config, found[0].remedy)).problems


# --- whatever is typed ----------------------------------------------------------------------------------------------

_PIECES = [
    "",
    " ",
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "1000",
    "9" * 30,
    "9" * 5000,
    "1.5",
    "1e400",
    "NaN",
    "Infinity",
    "true",
    "false",
    "null",
    "auto",
    "g2-standard-4",
    "coder-chat",
    "{}",
    "[]",
    "[",
    "{",
    '{"a": {"b": [1, null]}}',
    '{"replicas": -3, "x": {"y": 1}}',
    '{"baseline": true}',
    '{"editor": {"models": ["coder-chat"], "maxBudgetUsd": 1}}',
    '{"onDemand": {"e2-standard-4": 1}}',
    "[" * 100_000,
    "é漢\x00",
    "x" * 300,
]


def _random_config(dice: random.Random) -> Mapping[str, str]:
    """Known and unknown names with values that fit and that do not."""
    plain = ["ai-platform", "gcp", "pulumi", "", "aws", *CATALOG]
    fields = [
        *("replicas", "claimGib", "maxModelLen", "gpuMemoryUtilization", "maxNumSeqs", "maxNumBatchedTokens"),
        *("streamInterval", "maxBatchTokens", "maxClientBatchSize", "tokensPerSecond", "fallback"),
        *("target", "groups", "gpuQuota", "machineType", "spot", "gpuSharingClients", "gpuBootDiskGib"),
        *("systemMachineType", "systemNodes", "gateway", "namespaces", "teams", "keys", "keyValues", "prices"),
        *("maxHourlyUsd", "maxMonthlyUsd", "deletionProtection", "retainWeights", "kubeconfig"),
        *("project", "zone", *SECRETS, "", "a.b", "replcas"),
    ]
    config = dict(BASE) if dice.random() < 0.5 else {}
    for _ in range(dice.randrange(1, 12)):
        value = dice.choice(_PIECES)
        if dice.random() < 0.2:
            value = json.dumps(
                {dice.choice([*fields, *GROUPS, *CATALOG]): dice.choice([True, 1, -1, 1.5, None, "x", []])}
            )
        config[f"{dice.choice(plain)}:{dice.choice(fields)}"] = value
    return config


@pytest.mark.parametrize("seed", range(20))
def test_no_config_whatever_makes_admission_raise(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    for _ in range(25):
        values = _random_config(dice)
        secrets = {
            f"{P}{k}": dice.choice([None, "x", *_PIECES]) for k in dice.sample([*SECRETS, "keyValues", "odd"], 3)
        }
        try:
            admission = admit(RawConfig("ai-platform", "test", values, secrets), rehearsal=dice.random() < 0.5)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{values}\n{secrets}") from error
        for problem in admission.problems:
            assert problem.message
            assert "pulumi config" in problem.remedy


def test_parsing_alone_leaves_what_is_invalid_at_its_default() -> None:
    settings, found = parse(with_values({f"{P}gpuQuota": "many", f"{P}spot": "true"}), CATALOG, GROUPS)
    assert len(found) == 1
    assert settings.platform.gpu_quota == 1
    assert settings.platform.spot is True


@pytest.mark.parametrize(
    "content", [f"apiVersion: v1\nusers: [{{token: {CANARY}}}]\n", f'{{"users": [{{"token": "{CANARY}"}}]}}']
)
def test_the_content_of_a_kubeconfig_is_refused_and_never_shown(content: str) -> None:
    values = {f"{P}target": "kubernetes", f"{P}kubeconfig": content, f"{P}kubeContext": "c"}
    found = judge(values)
    assert any("kubeconfig is" in p.message and "must be" in p.message for p in found.problems)
    assert CANARY not in "\n".join(map(str, [*found.problems, *found.notices]))
    assert found.plan.settings.platform.kubeconfig is None
