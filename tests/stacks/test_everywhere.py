"""What config says of the way to weights and images reaches every pod and policy that it concerns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.images import REGISTRIES
from tests.support import Records, recorded

PROXY = "hub.proxy=http://10.1.2.3:3128"
MIRROR = "hub.endpoint=https://hub.example.com:8443"


def staging_env(records: Records, alias: str = "coder-chat") -> dict[str, str]:
    container = records.pod(alias).spec["initContainers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def egress(records: Records, name: str) -> list[Any]:
    return records.one("NetworkPolicy", name, "serving").inputs["spec"]["egress"]


@pytest.mark.parametrize("policy", ["coder-chat", "stage-weights"])
def test_with_a_proxy_pods_that_stage_reach_it_and_nothing_else(policy: str) -> None:
    records = recorded(PROXY)
    (rule,) = egress(records, policy)
    assert rule["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    assert [port["port"] for port in rule["ports"]] == [3128]
    assert staging_env(records)["HTTPS_PROXY"] == "http://10.1.2.3:3128"


def test_a_named_proxy_without_public_addresses_is_reached_where_config_says_it_is() -> None:
    (rule,) = egress(recorded("hub.proxy=http://proxy.corp:3128", "hub.cidr=10.9.0.0/16"), "coder-chat")
    assert rule["to"] == [{"ipBlock": {"cidr": "10.9.0.0/16"}}]


def test_a_mirror_is_asked_on_its_port_and_what_it_sends_from_elsewhere_may_come() -> None:
    records = recorded(MIRROR)
    assert staging_env(records)["HF_ENDPOINT"] == "https://hub.example.com:8443"
    assert [[port["port"] for port in rule["ports"]] for rule in egress(records, "coder-chat")] == [[8443], [443]]


def test_without_a_word_nothing_is_set() -> None:
    assert not {"HF_ENDPOINT", "HTTPS_PROXY", "HUB_CA_FILE", "STAGE_DOWNLOAD"} & staging_env(recorded()).keys()
    assert [[port["port"] for port in rule["ports"]] for rule in egress(recorded(), "coder-chat")] == [[443]]


@pytest.mark.parametrize("stack", ["ai-dev", "local"])
def test_every_image_comes_from_the_mirror_of_its_registry(stack: str) -> None:
    mirrors = [f'images.mirrors["{name}"]=registry.example.com/{n}' for n, name in enumerate(REGISTRIES)]
    records = recorded(*mirrors, stack=stack)
    images = [container["image"] for pod in records.pods for container in pod.containers]
    assert images
    assert [image for image in images if not image.startswith("registry.example.com/")] == []
    assert records.all("Repository") == []  # no pull-through cache of a registry that nothing asks


@pytest.mark.parametrize("stack", ["ai-dev", "local"])
def test_every_pod_shows_the_login_and_waits_for_it(stack: str) -> None:
    records = recorded("images.login=true", stack=stack)
    assert records.pods
    for pod in records.pods:
        assert pod.spec["imagePullSecrets"] == [{"name": "registry-login"}]
        secret = records.one("Secret", "registry-login", pod.namespace)
        assert secret.inputs["type"] == "kubernetes.io/dockerconfigjson"
    for owner in (r for r in records.kubernetes if r.short_type in ("Deployment", "StatefulSet", "Job", "CronJob")):
        secret = records.one("Secret", "registry-login", owner.inputs["metadata"]["namespace"])
        assert records.waits_for(owner, secret)
    assert "imagePullSecrets" not in json.dumps([pod.spec for pod in recorded(stack=stack).pods])


def test_claims_have_the_class_that_config_names_but_for_those_of_a_disk_that_is_there() -> None:
    records = recorded("storageClass=premium-rwo")
    classes = {r.inputs["metadata"]["name"]: r.inputs["spec"].get("storageClassName") for r in _claims(records)}
    assert classes.pop("litellm-db-data") == ""  # ai-dev's database is on a disk of its own
    assert set(classes.values()) == {"premium-rwo"}
    assert {r.inputs["spec"].get("storageClassName") for r in _claims(recorded())} == {None, ""}
    local = _claims(recorded("storageClass=fast", stack="local"))
    assert {r.inputs["spec"].get("storageClassName") for r in local} == {"fast"}


@pytest.mark.parametrize("assignments", [(), ("storageClass=fast",)])
def test_a_claim_that_is_there_keeps_its_class_whatever_config_names(assignments: tuple[str, ...]) -> None:
    """Another class is a replacement, which no hook is asked about before what was there is gone."""
    for claim in _claims(recorded(*assignments, stack="local")):
        assert claim.ignore_changes == ("spec.storageClassName",)


def _claims(records: Records) -> list[Any]:
    return records.all("PersistentVolumeClaim")


def test_gpu_pods_look_for_the_labels_that_nodes_have() -> None:
    records = recorded('gpuNodeLabels["nvidia.com/gpu.product"]=NVIDIA-L4', stack="local")
    assert records.pod("coder-chat").spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert "nodeSelector" not in records.pod("embeddings").spec
