"""What a stack let go of and found again changes as what it never let go of, on the real engine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from components.gateway.backup import CLAIM as DUMPS
from components.gateway.postgres import CLAIM
from components.gke.cloud_sql import PASSWORD_SECRET
from stacks.sections import GATEWAY, SERVING
from tests.cluster.conftest import eventually
from tests.cluster.engine import Engine
from tests.cluster.platform import Platform
from tests.cluster.test_data import capacity, identity, kept

Deploys = Callable[[str], Engine]
_CHAT_CLAIM = "coder-chat-model-cache"
_DISK = "ai-platform-ai-dev-gateway-db"


def _label(platform: Platform, kind: str, name: str, namespace: str = "default") -> None:
    """By hand: another manager owns what the program also writes."""
    label = "pod-security.kubernetes.io/warn" if kind == "namespace" else "app.kubernetes.io/component"
    platform.cluster.kubectl("-n", namespace, "label", "--overwrite", kind, name, f"{label}=baseline")


def test_a_claim_grows_after_its_group_was_off_and_on_and_after_a_destroy(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("local")
    engine.set("keys.smoke.models[1]=baseline")  # no key is for the group
    engine.up("coder-chat:replicas=1")
    before = kept(platform)
    engine.up("coder-chat:replicas=0", "groups.coding-assistant=false")
    engine.up("groups.coding-assistant=true")
    engine.up("coder-chat:claimGib=20")
    eventually(lambda: capacity(platform, _CHAT_CLAIM) == "20Gi")

    engine.run("destroy", "--yes", "--skip-preview")
    # Found again and larger at once, with what others wrote meanwhile.
    _label(platform, "namespace", SERVING)
    _label(platform, "pvc", _CHAT_CLAIM, SERVING)
    engine.up("coder-chat:claimGib=30", "coder-chat:replicas=1")
    eventually(lambda: capacity(platform, _CHAT_CLAIM) == "30Gi")
    del before[f"{GATEWAY}/{DUMPS}"]  # no dump was made yet, so its claim has no disk that could grow
    platform.cluster.kubectl("-n", GATEWAY, "delete", "pvc", DUMPS)
    engine.up("gateway.databaseGib=20")
    eventually(lambda: capacity(platform, CLAIM, GATEWAY) == "20Gi")
    assert before.items() <= kept(platform).items()
    assert engine.changes() == {}


def test_a_claim_that_is_found_again_is_refused_another_size_that_it_cannot_have_before_anything_is_made(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1", "coder-chat:claimGib=20")
    engine.run("destroy", "--yes", "--skip-preview")
    engine.set("coder-chat:claimGib=12", "coder-fim:claimGib=50")
    # The remedies as they are printed, but for the update that one ends in; the engine stops at the first.
    remedies = {
        f"{_CHAT_CLAIM} would shrink from 20 to 12 GiB": r"(pulumi config set coder-chat:claimGib 20)",
        "coder-fim-model-cache would change": r"(kubectl .* delete pvc coder-fim-model-cache) && pulumi up",
    }
    while remedies:
        preview = engine.run("preview", check=False)
        assert preview.code != 0
        assert "Traceback" not in preview.text
        told = next(message for message in remedies if message in preview.text)
        remedy = re.search(f"remedy: {remedies.pop(told)}", preview.text)
        assert remedy, preview.text
        for tool, *words in map(shlex.split, remedy[1].split(" && ")):
            if tool == "kubectl":
                platform.cluster.kubectl(*words)
            else:
                engine.run(*words)
    engine.up()
    assert capacity(platform, _CHAT_CLAIM) == "20Gi"
    assert engine.changes() == {}


def test_the_disk_of_the_database_grows_and_its_pod_mounts_it_anew(platform: Platform, deploys: Deploys) -> None:
    """Before and after a destroy that keeps it; half a growth is finished by the next update and never undone."""
    engine = deploys("ai-dev")
    engine.up()
    before = identity(platform.get(GATEWAY, "pvc", CLAIM))

    def volume() -> dict[str, Any]:
        return json.loads(platform.cluster.kubectl("get", "pv", _DISK, "-o", "json"))

    def size() -> int:
        return next(r["outputs"]["size"] for r in engine.resources() if r["type"].endswith(":Disk"))

    pod = platform.uids(GATEWAY, "pods")["litellm-db-0"]
    platform.cluster.kubectl("-n", GATEWAY, "delete", "pvc", DUMPS)
    engine.up("gateway.databaseGib=20")
    assert (size(), volume()["spec"]["capacity"]["storage"]) == (20, "20Gi")
    assert platform.uids(GATEWAY, "pods")["litellm-db-0"] != pod

    engine.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    _label(platform, "pv", _DISK)
    platform.cluster.kubectl("-n", GATEWAY, "delete", "pvc", DUMPS)
    engine.up("gateway.databaseGib=30")
    assert (size(), volume()["spec"]["capacity"]["storage"]) == (30, "30Gi")
    assert volume()["status"]["phase"] == "Bound"
    assert identity(platform.get(GATEWAY, "pvc", CLAIM)) == before
    assert engine.changes() == {}

    shrunk = engine.try_up("gateway.databaseGib=20")
    assert "remedy: pulumi config set --path gateway.databaseGib 30" in shrunk.text
    engine.up("gateway.databaseGib=30")


def test_a_claim_and_volume_of_an_older_version_are_made_anew_on_the_disk_that_there_is(
    platform: Platform, deploys: Deploys
) -> None:
    """0.1.0 asked for as much as the disk has, which the API server never changes, and marked nothing."""
    engine = deploys("ai-dev")
    engine.up("gateway.databaseGib=20")
    disk = next(r["id"] for r in engine.resources() if r["type"].endswith(":Disk"))
    engine.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    claim = platform.get(GATEWAY, "pvc", CLAIM)
    volume = json.loads(platform.cluster.kubectl("get", "pv", _DISK, "-o", "json"))
    platform.cluster.kubectl("-n", GATEWAY, "delete", "pvc", CLAIM)
    platform.cluster.kubectl("delete", "pv", _DISK)
    for older in (volume, claim):
        namespace = {"namespace": GATEWAY} if older is claim else {}
        older["metadata"] = {"name": older["metadata"]["name"], "labels": older["metadata"].get("labels"), **namespace}
        del older["status"]
    volume["spec"]["claimRef"] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": GATEWAY,
        "name": CLAIM,
    }
    claim["spec"]["resources"] = {"requests": {"storage": "20Gi"}}
    platform.apply(volume, claim)
    eventually(lambda: capacity(platform, CLAIM, GATEWAY) == "20Gi")

    refused = engine.try_up("adopt=true")
    assert refused.code != 0
    remedy = re.search(r"remedy: (kubectl patch pv .*) && pulumi up", refused.text)
    assert remedy, refused.text
    for command in remedy[1].split(" && "):
        platform.cluster.kubectl(*shlex.split(command)[1:])
    engine.up()
    assert next(r["id"] for r in engine.resources() if r["type"].endswith(":Disk")) == disk
    assert platform.get(GATEWAY, "pvc", CLAIM)["status"]["phase"] == "Bound"
    assert engine.changes() == {}


def test_another_password_of_a_managed_database_reaches_its_secret_after_a_destroy(
    platform: Platform, deploys: Deploys
) -> None:
    """Whoever wrote the Secret before: an older version did so as another manager at each adoption."""
    engine = deploys("ai-dev")
    engine.up("gateway.database=cloud-sql")
    engine.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    older = platform.get(GATEWAY, "secret", PASSWORD_SECRET)
    older["metadata"].pop("managedFields", None)
    as_older = ("--server-side", "--force-conflicts", "--field-manager=pulumi-kubernetes-0123abcd", "-f", "-")
    platform.cluster.kubectl("apply", *as_older, stdin=json.dumps(older))
    engine.up()
    before = identity(platform.get(GATEWAY, "secret", PASSWORD_SECRET))
    engine.run("config", "set", "--secret", "databasePassword", "another" * 4)
    engine.up()
    after = identity(platform.get(GATEWAY, "secret", PASSWORD_SECRET))
    assert after["uid"] == before["uid"]
    assert after["data"] != before["data"]
