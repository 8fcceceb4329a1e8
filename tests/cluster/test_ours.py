"""What is somebody else's in a cluster is refused before the first write, by both engines, and the ways out work."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ops import cli
from ops.embedded_cluster.control_plane import CONTEXT, EmbeddedCluster
from ops.errors import OpsError
from ops.up.ours import refuse_what_is_not_ours
from ops.up.site import Kubectl
from stacks.admission import admit
from stacks.ownership import MARK
from stacks.sections import GATEWAY, SERVING
from tests.cluster.engine import Engine
from tests.cluster.platform import Manifest, Platform
from tests.patience import kubectl_timeout
from tests.support import PROJECT_DIR, config, recorded

LABELS = {"team": "search", "owner": "ann"}
AT_ZERO = ("--set", "coder-chat:replicas=0")


@dataclass(frozen=True)
class Checkout:
    """A project whose local stack goes to a cluster that others use."""

    project: Path
    cluster: EmbeddedCluster

    def up(self, *arguments: str, stack: str = "local") -> int:
        place = ("--set", f"kubeconfig={self.cluster.kubeconfig}", "--set", f"kubeContext={CONTEXT}")
        words = ["up", "--engine=kubectl", f"--project-dir={self.project}", "--stack", stack, *place]
        return cli.main([*words, *arguments])

    def typed(self, remedy: str) -> int:
        """A remedy as it is printed, in a shell that stands in the project."""
        words = shlex.split(remedy, comments=True)
        assert words[:4] == ["ops", "up", "--stack", "local"]
        return self.up(*words[4:])


@pytest.fixture
def checkout(platform: Platform, tmp_path: Path) -> Checkout:
    for name in ("__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(PROJECT_DIR / name, tmp_path / name)
    shutil.copy(PROJECT_DIR / "Pulumi.local.yaml", tmp_path / "Pulumi.mine.yaml")
    return Checkout(tmp_path, platform.cluster)


@pytest.fixture
def theirs(platform: Platform) -> Iterator[list[Manifest]]:
    """Another team's namespace and what it has in it, under names of the platform."""
    where = {"namespace": GATEWAY, "labels": LABELS}
    pod = {"containers": [{"name": "app", "image": "theirs", "command": ["serve"]}]}
    template = {"metadata": {"labels": {"app": "theirs"}}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "theirs"}}, "template": template}
    secret = {"litellm-salt-key": {"key": "dGhlaXJz"}}
    objects: list[Manifest] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATEWAY, "labels": LABELS}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "litellm", **where},
            "spec": spec,
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "litellm-config", **where},
            "data": {"config.yaml": "theirs", "own": "kept"},
        },
        *(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **where}, "data": data}
            for name, data in secret.items()
        ),
    ]
    platform.cluster.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )
    yield objects
    other = ["ai-platform-local-gateway", "elsewhere"]
    kinds = "deployment,statefulset,cronjob,job,pod,pvc"
    for name in other:
        platform.cluster.kubectl("-n", name, "delete", kinds, "--all", "--cascade=foreground", kubectl_timeout(60))
    platform.cluster.kubectl("delete", "namespace", *other, "--ignore-not-found", kubectl_timeout(60))


def state(platform: Platform) -> dict[str, Any]:
    """What is in the cluster under the platform's names, but for what controllers report of it."""
    kinds = "deployment,configmap,secret,service,networkpolicy,pvc,statefulset,job,cronjob"
    found = json.loads(platform.cluster.kubectl("get", f"{kinds}", "-A", "-o", "json"))["items"]
    found += json.loads(platform.cluster.kubectl("get", "namespaces", "-o", "json"))["items"]
    return {
        f"{o['kind']}/{o['metadata'].get('namespace')}/{o['metadata']['name']}": (
            o["metadata"]["uid"],
            o["metadata"].get("labels"),
            o.get("spec"),
            o.get("data"),
        )
        for o in found
        if o["metadata"].get("namespace") != "kube-system" and o["metadata"]["name"] != "kube-root-ca.crt"
    }


def remedies(text: str) -> list[str]:
    return re.findall(r"remedy: (.*)", text)


# --- by kubectl ------------------------------------------------------------------------------------------------


def test_another_teams_namespace_is_refused_before_anything_is_written(
    checkout: Checkout, platform: Platform, theirs: list[Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(platform)
    assert checkout.up(*AT_ZERO) == 2
    said = capsys.readouterr().err
    assert "Namespace gateway is there already and not of this stack, ai-platform/local" in said
    for known in (
        "owner=ann, team=search",
        "Deployment litellm",
        "ConfigMap litellm-config",
        "Secret litellm-salt-key",
    ):
        assert known in said
    assert state(platform) == before
    assert not (checkout.project / ".local" / "secrets.json").exists()  # nor was anything of theirs taken over


def test_the_way_out_into_another_namespace_works_as_it_is_printed(
    checkout: Checkout, platform: Platform, theirs: list[Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkout.up(*AT_ZERO) == 2
    (remedy,) = remedies(capsys.readouterr().err)
    before = state(platform)
    assert checkout.typed(f"{remedy.partition('   #')[0]} {shlex.join(AT_ZERO)}") == 0
    after = state(platform)
    assert {key: after[key] for key in before} == before
    assert "Deployment/ai-platform-local-gateway/litellm" in after
    # And a stack does not leave its data behind by a change of config.
    assert checkout.up(*AT_ZERO, "--set", "namespaces.gateway=elsewhere") == 2
    assert "its data would stay behind" in capsys.readouterr().err
    assert "Namespace/None/elsewhere" not in state(platform)


def test_what_is_adopted_on_purpose_is_taken_over_and_ours_from_then_on(
    checkout: Checkout, platform: Platform, theirs: list[Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs_secret = ("-n", GATEWAY, "delete", "secret", "litellm-salt-key")
    platform.cluster.kubectl(*theirs_secret)
    platform.cluster.kubectl("-n", GATEWAY, "delete", "deployment", "litellm", "--cascade=foreground")
    assert checkout.up(*AT_ZERO) == 2
    (remedy,) = remedies(capsys.readouterr().err)
    assert checkout.typed(f"{remedy.partition('or: ')[2].partition('   #')[0]} {shlex.join(AT_ZERO)}") == 0
    assert platform.get("", "namespace", GATEWAY)["metadata"]["annotations"][MARK] == "ai-platform/local"
    assert checkout.up(*AT_ZERO) == 0


def test_a_second_stack_is_told_of_the_first_and_what_is_unmarked_in_ours_is_refused_too(
    checkout: Checkout, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkout.up(*AT_ZERO) == 0
    for kind in ("namespace", "secret,configmap,service,deployment,statefulset,networkpolicy,pvc,cronjob"):
        for found in json.loads(platform.cluster.kubectl("get", kind, "-n", GATEWAY, "-o", "json"))["items"]:
            ours = found["kind"] != "Namespace" or found["metadata"]["name"] in (GATEWAY, SERVING)
            made_here = ours and found["metadata"]["name"] not in ("kube-root-ca.crt", "ai-platform")
            assert not made_here or found["metadata"]["annotations"][MARK] == "ai-platform/local", found["metadata"]
    before = state(platform)
    capsys.readouterr()
    assert checkout.up(*AT_ZERO, stack="mine") == 2
    said = capsys.readouterr().err
    assert "not of this stack, ai-platform/mine (of the stack ai-platform/local)" in said
    assert len(remedies(said)) == 2
    assert state(platform) == before
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "coder-fim", "namespace": SERVING}}
    platform.cluster.kubectl("-n", SERVING, "delete", "service", "coder-fim")
    platform.cluster.kubectl("create", "-f", "-", stdin=json.dumps({**stranger, "spec": {"ports": [{"port": 1}]}}))
    assert checkout.up(*AT_ZERO) == 2
    assert "Service serving/coder-fim is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("v1:PersistentVolume", {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
        ("rbac.authorization.k8s.io/v1:ClusterRole", {"rules": []}),
        ("scheduling.k8s.io/v1:PriorityClass", {"value": 7}),
        ("storage.k8s.io/v1:StorageClass", {"provisioner": "theirs"}),
    ],
)
def test_objects_of_the_whole_cluster_are_judged_as_well(
    platform: Platform, tmp_path: Path, kind: str, rest: dict[str, Any]
) -> None:
    version, _, name = kind.rpartition(":")
    inputs: Manifest = {"apiVersion": version, "kind": name, "metadata": {"name": "taken", "labels": LABELS}, **rest}
    if name == "PersistentVolume":
        inputs["spec"]["hostPath"] = {"path": "/theirs"}
    template = recorded(stack="local").kubernetes[0]
    resource = replace(template, type=f"kubernetes:{kind}", name="taken", inputs=inputs)
    platform.cluster.kubectl("create", "-f", "-", stdin=json.dumps(inputs))
    kubectl = Kubectl(str(platform.cluster.kubectl_binary), platform.cluster.kubeconfig, CONTEXT, tmp_path)
    plan = admit(config(stack="local"), rehearsal=True).plan
    try:
        with pytest.raises(OpsError, match=f"{name} taken is there already .*owner=ann, team=search"):
            refuse_what_is_not_ours(plan, [resource], [], kubectl)
        platform.cluster.kubectl("annotate", name, "taken", f"{MARK}=ai-platform/local")
        refuse_what_is_not_ours(plan, [resource], [], kubectl)
    finally:
        platform.cluster.kubectl("delete", name, "taken")


# --- by pulumi ------------------------------------------------------------------------------------------------


def test_the_real_engine_refuses_what_is_not_ours_in_preview_and_update_and_writes_nothing(
    deploys: Callable[[str], Engine], platform: Platform, theirs: list[Manifest]
) -> None:
    stack = deploys("local")
    before = state(platform)
    preview = stack.run("preview", check=False)
    assert preview.code != 0
    assert "Namespace gateway is there already and not of this stack, ai-platform/local" in preview.text
    assert "owner=ann, team=search" in preview.text
    update = stack.try_up()
    assert update.code != 0
    assert "owner=ann, team=search" in update.text
    assert "Traceback" not in preview.text + update.text
    after = state(platform)
    assert after == before


def test_the_real_engine_refuses_one_object_that_is_not_ours_and_adopts_it_when_told(
    deploys: Callable[[str], Engine], platform: Platform
) -> None:
    stack = deploys("local")
    stack.up()
    destroyed = stack.run("destroy", "--yes", "--skip-preview")
    assert destroyed.code == 0
    mine: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "litellm-config", "namespace": GATEWAY, "labels": LABELS},
        "data": {"theirs": "kept"},
    }
    platform.cluster.kubectl("create", "-f", "-", stdin=json.dumps(mine))
    refused = stack.try_up()
    assert refused.code != 0
    assert "ConfigMap gateway/litellm-config is there already" in refused.text
    assert "pulumi config set ai-platform:adopt true && pulumi up" in refused.text
    assert platform.get(GATEWAY, "configmap", "litellm-config")["data"] == {"theirs": "kept"}
    stack.up("adopt=true")
    assert "config.yaml" in platform.get(GATEWAY, "configmap", "litellm-config")["data"]
    assert not stack.changes()
