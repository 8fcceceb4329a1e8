"""The table of what scanners find, held against the program: what it calls mended is gone, what it argues is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.checkout import CHECKOUT
from tests.support import Records, recorded

_ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \| (mended|argued|open) \| ([^|]+?) \|$", re.MULTILINE)
TABLE = {rules: verdict for _, rules, verdict, _ in _ROW.findall((CHECKOUT / "docs/scanners.md").read_text())}


def _containers(records: Records) -> list[dict[str, Any]]:
    return [container for pod in records.pods for container in pod.containers]


def _low(records: Records) -> bool:
    contexts = [pod.spec.get("securityContext", {}) for pod in records.pods]
    contexts += [container.get("securityContext", {}) for container in _containers(records)]
    return any(0 < context.get("runAsUser", 0) < 10_000 for context in contexts)


def _twice(records: Records) -> bool:
    probed = [c for c in _containers(records) if "livenessProbe" in c and "readinessProbe" in c]
    return any(c["livenessProbe"].get("httpGet") == c["readinessProbe"].get("httpGet") for c in probed)


def _without_headless(records: Records) -> bool:
    headless = {
        s.inputs["metadata"]["name"]
        for s in records.kubernetes
        if s.short_type == "Service" and s.inputs["spec"].get("clusterIP")
    }
    return any(s.inputs["spec"]["serviceName"] not in headless for s in records.all("StatefulSet"))


def _gpu_without_secure_boot(records: Records) -> bool:
    pools = [p.inputs["nodeConfig"] for p in records.all("NodePool") if "autoscaling" in p.inputs]
    return not all(pool["shieldedInstanceConfig"].get("enableSecureBoot") for pool in pools)


def _unlogged(records: Records) -> bool:
    settings = records.all("DatabaseInstance")[0].inputs["settings"]
    flags = {flag["name"] for flag in settings.get("databaseFlags", [])}
    wanted = {"checkpoints", "connections", "disconnections", "lock_waits", "temp_files"}
    return not {f"log_{what}" for what in wanted} <= flags


# Whether the program has what a rule finds.
FINDINGS: Mapping[str, Callable[[Records], bool]] = {
    "CKV_K8S_11": lambda r: any("cpu" not in c["resources"].get("limits", {}) for c in _containers(r)),
    "CKV_K8S_15": lambda r: any(c.get("imagePullPolicy") != "Always" for c in _containers(r)),
    "CKV_K8S_35": lambda r: any("secretKeyRef" in str(c.get("env")) for c in _containers(r)),
    "CKV_K8S_40": _low,
    "CKV_K8S_43": lambda r: any("@sha256:" not in c["image"] for c in _containers(r)),
    "cronjob-has-deadline": lambda r: any("startingDeadlineSeconds" not in j.inputs["spec"] for j in r.all("CronJob")),
    "pod-probes-identical": _twice,
    "statefulset-has-servicename": _without_headless,
    "deployment-replicas": lambda r: any(d.inputs["spec"]["replicas"] < 2 for d in r.all("Deployment")),
    "CKV_GCP_68": _gpu_without_secure_boot,
    "CKV_GCP_21": lambda r: not all(c.inputs.get("resourceLabels") for c in r.all("Cluster")),
    "CKV_GCP_26": lambda r: not all(s.inputs.get("logConfig") for s in r.all("Subnetwork")),
    "CKV_GCP_51": _unlogged,
}


def test_every_row_has_its_rule_here() -> None:
    assert len(TABLE) == len(_ROW.findall((CHECKOUT / "docs/scanners.md").read_text()))
    assert {rules.split(",")[0] for rules in TABLE} == FINDINGS.keys()


@pytest.mark.parametrize("rules", TABLE)
def test_a_finding_is_there_exactly_if_it_is_argued_or_open(rules: str) -> None:
    database = ("gateway.database=cloud-sql",) if rules.startswith("CKV_GCP") else ()
    found = FINDINGS[rules.split(",", maxsplit=1)[0]](recorded(*database))
    assert found is (TABLE[rules] != "mended")
