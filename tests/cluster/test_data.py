"""What holds data is never lost: claims grow, and outlive whatever the stack does."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from components.gateway.database import PASSWORD, PASSWORD_SECRET
from components.gateway.postgres import CLAIM
from ops.errors import FailedError
from stacks.secrets import DATABASE_PASSWORD, SALT_KEY, SecretKey
from stacks.sections import GATEWAY, SERVING
from tests.cluster.conftest import eventually
from tests.cluster.engine import Engine, secret_of_test
from tests.cluster.platform import NAMESPACES, Manifest, Platform, planned
from tests.support import SERVED_ALIASES

_CHAT_CLAIM = "coder-chat-model-cache"
_KEPT_SECRETS = {PASSWORD_SECRET, "litellm-salt-key"}


def capacity(platform: Platform, claim: str, namespace: str = SERVING) -> str:
    """What a bound claim has."""
    return platform.get(namespace, "pvc", claim)["status"]["capacity"]["storage"]


def identity(found: Manifest) -> dict[str, Any]:
    """What makes an object of the data the same one: itself, the disk behind it, the value in it."""
    return {
        "uid": found["metadata"]["uid"],
        "volume": found["spec"].get("volumeName") if "spec" in found else None,
        "data": found.get("data"),
    }


def kept(platform: Platform) -> dict[str, dict[str, Any]]:
    """Everything that holds data, by kind and name."""
    claims = {
        f"{namespace}/{claim['metadata']['name']}": identity(claim)
        for namespace in NAMESPACES
        for claim in platform.items(namespace, "pvc")
    }
    secrets = {name: identity(platform.get(GATEWAY, "secret", name)) for name in _KEPT_SECRETS}
    namespaces = {name: identity(platform.get(name, "namespace", name)) for name in NAMESPACES}
    return claims | secrets | namespaces


def test_a_claim_grows_with_its_model_and_the_api_server_refuses_to_shrink_it(platform: Platform) -> None:
    platform.apply(*planned("coder-chat:replicas=1"))
    platform.rolled_out("deployment/coder-chat")
    before = identity(platform.get(SERVING, "pvc", _CHAT_CLAIM))
    platform.apply(*planned("coder-chat:replicas=1", "coder-chat:claimGib=20"))
    eventually(lambda: capacity(platform, _CHAT_CLAIM) == "20Gi")
    with pytest.raises(FailedError, match="can not be less than"):
        platform.apply(*planned("coder-chat:replicas=1"))
    assert capacity(platform, _CHAT_CLAIM) == "20Gi"
    assert identity(platform.get(SERVING, "pvc", _CHAT_CLAIM)) == before


def test_an_apply_of_the_plan_leaves_what_holds_data_as_it_is(platform: Platform) -> None:
    """The manifests of a swap, a disabled group and back name the same claims."""
    platform.apply(*planned("coder-chat:replicas=1"))
    platform.rolled_out("deployment/coder-chat")
    platform.rolled_out("statefulset/litellm-db", GATEWAY)
    before = {n: {c["metadata"]["name"]: identity(c) for c in platform.items(n, "pvc")} for n in NAMESPACES}
    for sets in (("coder-agent:replicas=1",), ("groups.coding-assistant=false", "keys={}"), ("coder-chat:replicas=1",)):
        platform.apply(*planned(*sets))
    platform.rolled_out("deployment/coder-chat")
    after = {n: {c["metadata"]["name"]: identity(c) for c in platform.items(n, "pvc")} for n in NAMESPACES}
    assert after[GATEWAY] == before[GATEWAY]
    assert after[SERVING][_CHAT_CLAIM] == before[SERVING][_CHAT_CLAIM]


# --- on the real engine


def test_destroy_keeps_what_holds_data_and_a_later_up_adopts_it(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    before = kept(platform)
    assert {f"{SERVING}/{alias}-model-cache" for alias in SERVED_ALIASES} | {f"{GATEWAY}/{CLAIM}"} < before.keys()
    assert before[f"{SERVING}/{_CHAT_CLAIM}"]["volume"]
    assert before[f"{GATEWAY}/{CLAIM}"]["volume"]

    engine.run("destroy", "--yes", "--skip-preview")
    assert kept(platform) == before
    for namespace in NAMESPACES:
        eventually(lambda namespace=namespace: not platform.items(namespace, "pods"))
        for kind in ("deployment", "statefulset", "job", "cronjob", "service", "networkpolicy"):
            assert not platform.uids(namespace, kind), kind
        assert platform.uids(namespace, "configmap").keys() == {"kube-root-ca.crt"}
    assert platform.uids(GATEWAY, "secret").keys() == _KEPT_SECRETS
    assert not platform.uids(SERVING, "secret")

    engine.up()
    assert kept(platform) == before
    assert platform.is_up("coder-chat")
    assert engine.changes() == {}


def test_a_disabled_group_keeps_its_claims_and_finds_them_again(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    engine = deploys("local")
    engine.set("keys.smoke.models[1]=baseline")  # no key is for the group
    engine.up("coder-chat:replicas=1")
    before = kept(platform)
    engine.up("coder-chat:replicas=0", "groups.coding-assistant=false")
    assert "coder-chat" not in platform.uids(SERVING, "deployment")
    assert kept(platform) == before
    engine.up("coder-chat:replicas=1", "groups.coding-assistant=true")
    assert kept(platform) == before
    assert platform.is_up("coder-chat")


def test_weights_go_with_the_stack_only_where_config_says_so_and_the_database_never_does(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    engine = deploys("local")
    engine.up()
    engine.up("retainWeights=false")  # of a stack that kept them so far
    before = identity(platform.get(GATEWAY, "pvc", CLAIM))
    engine.run("destroy", "--yes", "--skip-preview")
    assert not platform.items(SERVING, "pvc")
    assert identity(platform.get(GATEWAY, "pvc", CLAIM)) == before


def test_a_claim_keeps_its_class_whatever_config_names(platform: Platform, deploys: Callable[[str], Engine]) -> None:
    """Another class is another claim, and the engine deletes what is there before it asks a hook about the new one."""
    engine = deploys("local")
    engine.up("coder-chat:replicas=1", "retainWeights=false")
    before = {namespace: platform.uids(namespace, "pvc") for namespace in NAMESPACES}
    for change in (("set", "storageClass", "premium-rwo"), ("rm", "storageClass")):
        engine.run("config", *change)
        engine.up()
        assert {namespace: platform.uids(namespace, "pvc") for namespace in NAMESPACES} == before
        assert engine.changes() == {}

    engine.run("destroy", "--yes", "--skip-preview")
    refused = engine.try_up("storageClass=premium-rwo", "coder-chat:replicas=0")
    assert refused.code != 0
    assert "is there with storage class standard-rwo and is to have premium-rwo" in refused.text
    assert "remedy: pulumi config rm storageClass && pulumi up" in refused.text
    engine.run("config", "rm", "storageClass")
    engine.up()
    assert platform.uids(GATEWAY, "pvc") == before[GATEWAY]


def test_the_engine_grows_a_claim_and_refuses_to_shrink_it_before_it_changes_anything(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    engine.up("coder-chat:claimGib=20", "gateway.databaseGib=20")
    eventually(lambda: capacity(platform, _CHAT_CLAIM) == capacity(platform, CLAIM, GATEWAY) == "20Gi")
    pods = platform.uids(SERVING, "pods")

    engine.set("coder-chat:claimGib=12", "coder-chat:replicas=0")
    for outcome in (engine.run("preview", check=False), engine.try_up()):
        assert outcome.code != 0
        assert f"{_CHAT_CLAIM} would shrink from 20 to 12 GiB" in outcome.text
        assert "remedy: pulumi config set coder-chat:claimGib 20" in outcome.text
        assert "Traceback" not in outcome.text
    assert capacity(platform, _CHAT_CLAIM) == "20Gi"
    engine.up("coder-chat:claimGib=20", "coder-chat:replicas=1")
    assert platform.uids(SERVING, "pods") == pods


def test_a_claim_that_no_pod_has_used_is_not_resized_and_the_remedy_mends_it(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    """The API server changes no claim before its first use: every later update would fail at it."""
    engine = deploys("local")
    engine.up()
    outcome = engine.try_up("coder-chat:claimGib=50", "coder-chat:replicas=1")
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    remedy = re.search(
        r"remedy: (kubectl -n serving wait .* delete pvc coder-chat-model-cache) && pulumi up", outcome.text
    )
    assert remedy, outcome.text
    for command in remedy[1].split(" && "):
        platform.cluster.kubectl(*shlex.split(command)[1:])
    engine.up()
    assert capacity(platform, _CHAT_CLAIM) == "50Gi"
    assert engine.changes() == {}


@pytest.mark.parametrize(
    ("secret", "name", "key"),
    [(DATABASE_PASSWORD, PASSWORD_SECRET, PASSWORD), (SALT_KEY, "litellm-salt-key", "key")],
    ids=lambda value: value.key if isinstance(value, SecretKey) else "",
)
def test_another_value_for_what_the_data_was_made_with_is_refused_and_everything_serves_on(
    platform: Platform, deploys: Callable[[str], Engine], secret: SecretKey, name: str, key: str
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    before = kept(platform)
    pods = {namespace: platform.uids(namespace, "pods") for namespace in NAMESPACES}

    def untouched() -> bool:
        return kept(platform) == before and pods == {n: platform.uids(n, "pods") for n in NAMESPACES}

    engine.run("config", "set", "--secret", secret.key, "another" * 4)
    outcome = engine.try_up()
    assert outcome.code != 0
    assert f"{secret.key} of the config is not what {GATEWAY}/{name} holds" in outcome.text
    assert "Traceback" not in outcome.text
    assert untouched()

    # The remedy, as it is printed, up to the pipe into `pulumi config set`.
    command = re.search(
        rf"remedy: kubectl (-n {GATEWAY} get secret {name} -o jsonpath='(.*)') \| base64 -d", outcome.text
    )
    assert command, outcome.text
    value = base64.b64decode(
        platform.cluster.kubectl("-n", GATEWAY, "get", "secret", name, "-o", f"jsonpath={command[2]}")
    )
    assert value.decode() == secret_of_test(secret)
    engine.run("config", "set", "--secret", secret.key, value.decode())
    engine.up()
    assert untouched()
    assert engine.changes() == {}
