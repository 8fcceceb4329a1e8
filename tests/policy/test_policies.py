"""The rules of the policy pack: the recorded plan passes, and each way to break it is named with its remedy."""

from __future__ import annotations

import copy
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.machines import GPU_TAINT
from ops.policies import DEFAULT_QUOTA, RULES, STACK_RULES, Resource
from tests.checkout import CHECKOUT
from tests.support import recorded

Inputs = dict[str, Any]
Change = Callable[[Inputs], object]


@functools.cache
def _registered(stack: str = "ai-dev", *assignments: str) -> tuple[Resource, ...]:
    return tuple(
        Resource(type=r.type, name=r.name, urn=r.urn, properties=r.inputs, protect=r.protect)
        for r in recorded(*assignments, stack=stack).resources
    )


def _violations(resources: tuple[Resource, ...], quota: int = DEFAULT_QUOTA) -> dict[str, list[str]]:
    """By rule, what it says."""
    found = {rule.name: [str(p) for r in resources for p in rule.check(r)] for rule in RULES}
    found |= {rule.name: [str(p) for p in rule.check(resources, quota)] for rule in STACK_RULES}
    return {name: texts for name, texts in found.items() if texts}


def _with(kind: str, name: str, change: Change) -> tuple[Resource, ...]:
    """The recorded plan with the inputs of one resource changed."""
    changed: list[Resource] = []
    for resource in _registered():
        inputs = copy.deepcopy(dict(resource.properties))
        if resource.type.endswith(f":{kind}") and resource.where.endswith(name):
            change(inputs)
        changed.append(replace(resource, properties=inputs))
    assert changed != list(_registered()), f"there is no {kind} {name}"
    return tuple(changed)


def _pod(inputs: Inputs) -> Inputs:
    return inputs["spec"]["template"]["spec"]


def _engine(inputs: Inputs) -> Inputs:
    return _pod(inputs)["containers"][0]


def _case(rule: str, kind: str, name: str, change: Change, said: str) -> tuple[str, str, str, Change, str]:
    """Gives the change its type."""
    return rule, kind, name, change, said


@pytest.mark.parametrize("stack", ["ai-dev", "local"])
@pytest.mark.parametrize("assignments", [(), ("coder-chat:replicas=1",)])
def test_what_the_program_registers_passes_every_rule(stack: str, assignments: tuple[str, ...]) -> None:
    assert _violations(_registered(stack, *assignments)) == {}


def test_a_managed_database_passes_too() -> None:
    assert _violations(_registered("ai-dev", "ai-platform:gateway.database=cloud-sql")) == {}


@pytest.mark.parametrize(
    ("rule", "kind", "name", "change", "said"),
    [
        _case(
            "gpu-pods-are-placed", "Deployment", "coder-chat", lambda i: _pod(i).pop("tolerations"), "add a toleration"
        ),
        _case(
            "gpu-pods-are-placed",
            "Deployment",
            "coder-chat",
            lambda i: _pod(i).pop("nodeSelector"),
            "add a nodeSelector",
        ),
        _case(
            "gpu-pods-are-placed",
            "Deployment",
            "coder-chat",
            lambda i: _engine(i)["resources"]["limits"].pop("memory"),
            "set resources.limits.memory",
        ),
        _case(
            "gpu-rollout-recreates",
            "Deployment",
            "coder-chat",
            lambda i: i["spec"].update(strategy={"type": "RollingUpdate"}),
            "set spec.strategy.type to Recreate",
        ),
        _case(
            "gpu-rollout-recreates", "Deployment", "coder-chat", lambda i: i["spec"].pop("strategy"), "RollingUpdate"
        ),
        _case(
            "pods-are-restricted",
            "Deployment",
            "litellm",
            lambda i: _engine(i)["securityContext"].update(privileged=True),
            "litellm is privileged",
        ),
        _case(
            "pods-are-restricted",
            "StatefulSet",
            "litellm-db",
            lambda i: _pod(i)["securityContext"].pop("runAsNonRoot"),
            "may run as root",
        ),
        _case(
            "pods-are-restricted",
            "Deployment",
            "embeddings",
            lambda i: _pod(i)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
            "hostPath",
        ),
        _case(
            "pods-are-restricted",
            "CronJob",
            "litellm-keys",
            lambda i: i["spec"]["jobTemplate"]["spec"]["template"]["spec"].update(hostNetwork=True),
            "hostNetwork",
        ),
        _case(
            "no-plain-secrets",
            "Deployment",
            "coder-chat",
            lambda i: _engine(i)["env"].append({"name": "VLLM_API_KEY", "value": "sk-1"}),
            "VLLM_API_KEY in clear text",
        ),
        _case(
            "no-plain-secrets",
            "Deployment",
            "litellm",
            lambda i: _engine(i)["env"].append({"name": "DATABASE_URL", "value": "postgresql://u:pass@h/d"}),
            "valueFrom.secretKeyRef",
        ),
        _case(
            "gpu-pools-are-tainted",
            "NodePool",
            "g2-standard-8-100g",
            lambda i: i["nodeConfig"].pop("taints"),
            f"the taint {GPU_TAINT}",
        ),
        _case(
            "gpu-pools-are-tainted",
            "NodePool",
            "g2-standard-8-100g",
            lambda i: i["upgradeSettings"].update(maxSurge=1),
            "a maxSurge of 1",
        ),
        _case(
            "gpu-pools-are-tainted",
            "NodePool",
            "g2-standard-8-100g",
            lambda i: i.pop("upgradeSettings"),
            "GKE's default of 1",
        ),
        _case(
            "no-public-endpoint",
            "Cluster",
            "cluster",
            lambda i: i["controlPlaneEndpointsConfig"].pop("ipEndpointsConfig"),
            "answers on an IP address",
        ),
        _case(
            "no-public-endpoint",
            "Cluster",
            "cluster",
            lambda i: i.pop("privateClusterConfig"),
            "gives its nodes public addresses",
        ),
        _case(
            "no-public-endpoint",
            "Service",
            "gateway/litellm",
            lambda i: i["spec"].update(type="LoadBalancer"),
            "set spec.type to ClusterIP",
        ),
        _case(
            "gpus-within-quota",
            "NodePool",
            "g2-standard-8-100g",
            lambda i: i["autoscaling"].update(totalMaxNodeCount=2),
            "may grow to 2 GPUs",
        ),
        _case(
            "gpus-within-quota",
            "Deployment",
            "coder-chat",
            lambda i: i["spec"].update(replicas=2),
            "pulumi config set coder-chat:replicas 1",
        ),
        _case(
            "one-writer-a-claim",
            "Deployment",
            "embeddings",
            lambda i: i["spec"].update(replicas=2),
            "pulumi config set embeddings:replicas 1",
        ),
    ],
)
def test_a_change_for_the_worse_is_named_with_its_remedy(
    rule: str, kind: str, name: str, change: Change, said: str
) -> None:
    found = _violations(_with(kind, name, change))
    assert said in " ".join(found[rule])
    assert all("\n  remedy: " in text for text in found[rule])


def test_two_models_on_one_slot_are_too_many_and_the_remedy_names_the_one_to_stop() -> None:
    up = {"coder-chat", "coder-fim"}
    resources = tuple(
        Resource(
            type=r.type,
            name=r.name,
            urn=r.urn,
            properties={**r.properties, "spec": {**r.properties["spec"], "replicas": 1}}
            if r.name in up
            else r.properties,
            protect=r.protect,
        )
        for r in _registered()
        if not (r.name in up and not r.type.endswith(":Deployment"))
    )
    (text,) = _violations(resources)["gpus-within-quota"]
    assert "2 by serving/coder-" in text
    assert text.endswith(("pulumi config set coder-fim:replicas 0", "pulumi config set coder-chat:replicas 0"))
    assert "gpus-within-quota" in _violations(resources, quota=1)
    assert _violations(resources, quota=2) == {}


def test_a_shared_gpu_has_room_for_as_many_pods_as_its_pool_says() -> None:
    assert (
        _violations(
            _registered(
                "ai-dev",
                "ai-platform:gpuSharingClients=2",
                "qwen-local:replicas=1",
                "qwen-local:gpuMemoryUtilization=0.45",
                "coder-fim:replicas=1",
                "coder-fim:gpuMemoryUtilization=0.45",
            )
        )
        == {}
    )


@pytest.mark.parametrize("kind", ["Cluster", "Disk"])
def test_data_without_protection_is_named(kind: str) -> None:
    bare = tuple(replace(r, protect=False) for r in _registered() if r.type.endswith(f":{kind}"))
    (text,) = _violations(bare)["data-is-protected"]
    assert "is not protected" in text


@pytest.mark.skipif(importlib.util.find_spec("pulumi_policy") is None, reason="pulumi-policy is not installed")
def test_the_pack_starts_and_offers_every_rule() -> None:
    """It prints the port on which the engine finds it, once all its policies are valid."""
    pack = subprocess.Popen(
        [sys.executable, "-u", str(CHECKOUT / "policy" / "__main__.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    try:
        assert pack.stdout is not None
        port = pack.stdout.readline()
        assert port.strip().isdigit(), pack.communicate()[1]
    finally:
        pack.kill()
        pack.communicate()
