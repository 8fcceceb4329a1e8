"""What holds for every pod of every component: Pod Security "restricted", a read-only root, no ambient access."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.pod_security import violations
from tests.support import SERVED_ALIASES, Pod, env_of, quantity, recorded

EVERYTHING = (*(f"{alias}:replicas=1" for alias in SERVED_ALIASES), f"gpuQuota={len(SERVED_ALIASES)}")
NAMES = [*SERVED_ALIASES, "litellm", "litellm-migrate", "litellm-keys", "litellm-db", "litellm-db-backup"]

every_pod = pytest.mark.parametrize("pod", NAMES, indirect=True)


@pytest.fixture
def pod(request: pytest.FixtureRequest) -> Pod:
    return recorded(*EVERYTHING).pod(request.param)


def test_all_pods_are_looked_at() -> None:
    assert {p.labels["app.kubernetes.io/name"] for p in recorded(*EVERYTHING).pods} == set(NAMES)


def test_pods_of_one_name_are_alike() -> None:
    job, cron_job = (p for p in recorded(*EVERYTHING).pods if p.labels["app.kubernetes.io/name"] == "litellm-keys")
    assert {job.owner.short_type, cron_job.owner.short_type} == {"Job", "CronJob"}
    assert job.spec == cron_job.spec


@every_pod
def test_pods_pass_pod_security_restricted(pod: Pod) -> None:
    assert violations(pod.spec) == []


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        *way, last = path.split(".")
        inner: Any = spec
        for part in way:
            inner = inner[int(part)] if part.isdigit() else inner.setdefault(part, {})
        inner[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("hostNetwork", True),
        _set("volumes.0", {"name": "host", "hostPath": {"path": "/"}}),
        _set("securityContext.runAsUser", 0),
        _set("securityContext.runAsNonRoot", False),
        _set("securityContext.seccompProfile", {"type": "Unconfined"}),
        _set("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        _set("containers.0.securityContext.privileged", True),
        _set("containers.0.securityContext.allowPrivilegeEscalation", True),
        _set("containers.0.securityContext.capabilities", {}),
        _set("containers.0.securityContext.capabilities.add", ["NET_RAW"]),
        _set("containers.0.ports", [{"containerPort": 1, "hostPort": 1}]),
        _set("initContainers.0.securityContext", {}),
    ],
)
def test_the_check_of_pod_security_finds_what_the_profile_forbids(change: Callable[[dict[str, Any]], None]) -> None:
    spec = copy.deepcopy(dict(recorded(*EVERYTHING).pod("coder-chat").spec))
    change(spec)
    assert violations(spec)


@every_pod
def test_the_root_filesystem_is_read_only_and_tmp_is_writable(pod: Pod) -> None:
    writable = {v["name"] for v in pod.spec["volumes"] if "emptyDir" in v}
    for container in pod.containers:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert mounts["/tmp"] in writable  # noqa: S108


@every_pod
def test_pods_run_as_the_numeric_user_of_their_image_and_own_their_volumes(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsUser"] > 0
    assert context["fsGroup"] == context["runAsGroup"]
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"


@every_pod
def test_pods_get_no_service_account_token_and_no_service_links(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False


@every_pod
def test_memory_and_disk_are_requested_in_full_and_capped(pod: Pod) -> None:
    for container in pod.containers:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        for resource in ("memory", "ephemeral-storage"):
            assert quantity(requests[resource]) == quantity(limits[resource]) > 0
        assert quantity(requests["cpu"]) > 0
        assert "cpu" not in limits


@every_pod
def test_scratch_volumes_are_bounded_and_fit_the_request(pod: Pod) -> None:
    volumes = [v["emptyDir"] for v in pod.spec["volumes"] if "emptyDir" in v]
    assert all("sizeLimit" in v for v in volumes)
    on_disk = sum(quantity(v["sizeLimit"]) for v in volumes if v.get("medium") != "Memory")
    request = max(quantity(c["resources"]["requests"]["ephemeral-storage"]) for c in pod.containers)
    assert on_disk <= request


@every_pod
def test_no_secret_is_anything_but_a_reference(pod: Pod) -> None:
    for container in pod.containers:
        for name, value in env_of(container).items():
            if any(word in name for word in ("KEY", "PASSWORD", "TOKEN", "SALT")) and not name.endswith(
                ("_FILE", "_DIR")
            ):
                assert "secretKeyRef" in value, name


@every_pod
def test_every_mount_has_its_volume(pod: Pod) -> None:
    names = [v["name"] for v in pod.spec["volumes"]]
    assert len(names) == len(set(names))
    mounted = {m["name"] for c in pod.containers for m in c["volumeMounts"]}
    assert mounted == set(names)


@every_pod
def test_images_are_pinned_by_tag_or_digest_and_pulled_through_the_mirror(pod: Pod) -> None:
    for container in pod.containers:
        image: str = container["image"]
        assert image.startswith("us-central1-docker.pkg.dev/")
        assert "@sha256:" in image or ":" in image.rsplit("/", 1)[1]
        assert ":latest" not in image
