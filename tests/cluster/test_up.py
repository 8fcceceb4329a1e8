"""`ops up` without the Pulumi CLI, on the real API server: what it applies, keeps, removes and says."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops import cli
from ops.embedded_cluster.control_plane import EmbeddedCluster
from stacks.ownership import MARK
from stacks.sections import GATEWAY, SERVING
from tests.cluster.conftest import eventually
from tests.cluster.platform import NAMESPACES, Manifest, Platform
from tests.patience import kubectl_timeout
from tests.support import PROJECT_DIR

KINDS = "pvc,secret,configmap,service,networkpolicy,deployment,statefulset,job,cronjob"


@dataclass(frozen=True)
class Stack:
    """The local stack of a checkout, and the checkout's own embedded cluster."""

    project: Path

    def up(self, *arguments: str) -> int:
        """`ops up`, where there is no Pulumi CLI."""
        return cli.main(["up", "--engine=kubectl", f"--project-dir={self.project}", *arguments])


@pytest.fixture(scope="module")
def first_run(can_start: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str]]:
    """A stack that was brought up once for all tests here, each of which leaves it up; and what that printed."""
    project, shown = tmp_path_factory.mktemp("project"), io.StringIO()
    for name in ("__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(PROJECT_DIR / name, project / name)
    with EmbeddedCluster.started(project / ".local" / "cluster"):
        with contextlib.redirect_stdout(shown):
            assert Stack(project).up() == 0
        yield Stack(project), shown.getvalue()


@pytest.fixture
def stack(first_run: tuple[Stack, str]) -> Stack:
    return first_run[0]


@pytest.fixture
def platform(stack: Stack) -> Platform:
    return Platform(EmbeddedCluster(stack.project / ".local" / "cluster"))


def writes(platform: Platform) -> dict[str, object]:
    """Every object of the platform, and who wrote what of it when, but for what controllers report."""
    items: list[Manifest] = []
    for namespace in NAMESPACES:
        items += platform.items(namespace, KINDS, "--show-managed-fields")
    return {
        f"{o['kind']}/{o['metadata']['namespace']}/{o['metadata']['name']}": [
            entry
            for entry in o["metadata"].get("managedFields", ())
            if entry["manager"] != "kube-controller-manager" and "subresource" not in entry
        ]
        for o in items
        if "ownerReferences" not in o["metadata"]
    }


def secrets(platform: Platform) -> dict[str, dict[str, str]]:
    return {
        f"{namespace}/{o['metadata']['name']}": o["data"]
        for namespace in NAMESPACES
        for o in platform.items(namespace, "secrets")
    }


def test_a_first_run_ends_with_everything_available_and_one_model_up(
    first_run: tuple[Stack, str], platform: Platform
) -> None:
    assert platform.is_up("coder-chat")
    assert platform.nodes_of("coder-chat") == ["g2"]
    assert platform.nodes_of("litellm", GATEWAY) == ["system"]
    report = " ".join(first_run[1].split())  # folded where the terminal ends
    for said in ("no token is served", "ready on g2", "litellm.gateway.svc", "up --model", "make down"):
        assert said in report
    assert str(platform.cluster.kubeconfig) in first_run[1]


def test_the_gateway_came_after_its_migration_and_the_keys_after_the_gateway(platform: Platform) -> None:
    jobs = platform.items(GATEWAY, "jobs")
    (migration,) = (j for j in jobs if j["metadata"]["name"].startswith("litellm-migrate-"))
    (keys,) = (j for j in jobs if j["metadata"]["name"].startswith("litellm-keys-") and not _by_cron(j))
    (gateway,) = platform.pods("litellm", GATEWAY)
    assert migration["status"]["completionTime"] <= gateway["metadata"]["creationTimestamp"]
    (ready,) = (c for c in gateway["status"]["conditions"] if c["type"] == "Ready")
    assert ready["lastTransitionTime"] <= keys["metadata"]["creationTimestamp"]


def _by_cron(job: Manifest) -> bool:
    return "ownerReferences" in job["metadata"]


def test_a_second_run_writes_nothing_and_leaves_alone_what_is_not_of_the_stack(
    stack: Stack, platform: Platform
) -> None:
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": SERVING}})
    before = writes(platform)
    assert stack.up() == 0
    assert writes(platform) == before
    assert f"ConfigMap/{SERVING}/mine" in before


def test_another_model_takes_the_slot_in_one_run(stack: Stack, platform: Platform) -> None:
    assert stack.up("--model", "coder-agent") == 0
    assert platform.is_up("coder-agent")
    assert platform.wanted("coder-chat") == 0


def test_what_left_the_plan_goes_and_its_claim_and_namespace_stay(stack: Stack, platform: Platform) -> None:
    """Also while the model that goes holds the GPU that another one waits for."""
    assert stack.up("--model", "coder-chat") == 0
    claims = platform.uids(SERVING, "pvc")
    assert "coder-chat-model-cache" in claims
    assert stack.up("--set", "groups.coding-assistant=false", "--model", "qwen-local") == 0
    assert platform.is_up("qwen-local")
    for kind in ("deployment", "service", "networkpolicy"):
        assert not [name for name in platform.uids(SERVING, kind) if name.startswith("coder-")]
    assert platform.uids(SERVING, "pvc") == claims


def test_what_was_changed_by_hand_is_put_right(stack: Stack, platform: Platform) -> None:
    assert stack.up() == 0
    platform.scale("coder-chat", 0)
    platform.scale("coder-mini", 1)
    platform.cluster.kubectl("-n", GATEWAY, "delete", "service", "litellm")
    assert stack.up() == 0
    assert (platform.wanted("coder-chat"), platform.wanted("coder-mini")) == (1, 0)
    assert "litellm" in platform.uids(GATEWAY, "service")


def test_secrets_are_never_made_anew_over_existing_data(stack: Stack, platform: Platform) -> None:
    before = secrets(platform)
    (stack.project / ".local" / "secrets.json").unlink()
    assert stack.up() == 0
    assert secrets(platform) == before


def test_another_salt_than_the_datas_is_refused_and_another_admin_key_is_not(
    stack: Stack, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    before = secrets(platform)
    file = stack.project / ".local" / "secrets.json"
    original = json.loads(file.read_text())
    file.write_text(json.dumps({**original, "litellmSaltKey": "another-salt-of-some-length"}))
    assert stack.up() == 1
    assert "remove litellmSaltKey" in capsys.readouterr().err
    assert secrets(platform) == before
    file.write_text(json.dumps({**original, "litellmMasterKey": "sk-another-key-of-some-length"}))
    gateway, job = platform.uids(GATEWAY, "pods"), platform.uids(GATEWAY, "job")
    assert stack.up() == 0
    changed = {name for name, data in secrets(platform).items() if data != before[name]}
    assert changed == {f"{GATEWAY}/litellm-master-key"}
    # Only the proxy and the reconcile job read it.
    eventually(lambda: _apps(gateway.items() - platform.uids(GATEWAY, "pods").items()) == {"litellm"})
    gone = job.items() - platform.uids(GATEWAY, "job").items()
    assert {name.rpartition("-")[0] for name, _ in gone} == {"litellm-keys"}


def test_another_value_of_a_key_runs_its_job_again(stack: Stack, platform: Platform) -> None:
    assert stack.up() == 0
    before = platform.uids(GATEWAY, "job")
    file = stack.project / ".local" / "secrets.json"
    original = json.loads(file.read_text())
    file.write_text(json.dumps({**original, "keyValues.smoke": "sk-another-value-of-some-length"}))
    assert stack.up() == 0
    after = platform.uids(GATEWAY, "job")
    assert {name.rpartition("-")[0] for name in before if after.get(name) != before[name]} == {"litellm-keys"}


def _apps(pods: Iterable[tuple[str, str]]) -> set[str]:
    """Of Deployments' pods, by name and UID."""
    return {name.rsplit("-", 2)[0] for name, _ in pods if "keys" not in name}


def test_a_migration_that_failed_is_run_again(stack: Stack, platform: Platform) -> None:
    (job,) = (j for j in platform.items(GATEWAY, "jobs") if "migrate" in j["metadata"]["name"])
    name = job["metadata"]["name"]
    pod = {**job["spec"]["template"]["spec"], "nodeSelector": {"no": "such-node"}}
    failing: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": GATEWAY, "annotations": {MARK: "ai-platform/local"}},
        "spec": {"activeDeadlineSeconds": 1, "template": {"spec": pod}},
    }
    platform.cluster.kubectl("-n", GATEWAY, "delete", "job", name, "--cascade=foreground")
    platform.apply(failing)
    platform.cluster.kubectl("-n", GATEWAY, "wait", f"job/{name}", "--for=condition=failed", kubectl_timeout(30))
    assert stack.up() == 0
    assert platform.get(GATEWAY, "job", name)["status"]["succeeded"] == 1


def test_a_gpu_model_is_refused_at_once_where_no_node_has_its_gpu(
    stack: Stack, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a cluster of the user's own, whose nodes are not ours to label."""
    kubeconfig = shutil.copy(platform.cluster.kubeconfig, tmp_path / "config")
    platform.cluster.kubectl("label", "node", "g2", "cloud.google.com/gke-accelerator-")
    assert stack.up("--set", f"kubeconfig={kubeconfig}", "--model", "coder-mini") == 1
    assert "ops up --stack local --model embeddings" in capsys.readouterr().err
    assert platform.wanted("coder-mini") == 0
    assert stack.up("--set", f"kubeconfig={kubeconfig}", "--model", "embeddings") == 0
    assert platform.nodes_of("embeddings") == ["system"]


def test_a_refused_config_changes_nothing(stack: Stack, platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    before = writes(platform)
    assert stack.up("--set", "coder-mini:replicas=1", "--set", "coder-agent:replicas=1") == 2
    assert "coder-agent" in capsys.readouterr().err
    assert writes(platform) == before
