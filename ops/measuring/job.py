"""The Jobs that measure a model, beside it in its namespace: their programs, and the ways that are open while they run.

A Job runs in the gateway's image, which has Python and is on the node already, as the user of the model's pod, without
a token of the cluster. What it needs beside itself belongs to it and is gone with it: the ConfigMap of its program, and
for one that asks the model, the two halves of the way there. One that runs code of a model gets no way at all.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.kubernetes.pods import NAME_LABEL, labels
from components.serving.model_workload import COMPONENT, STAGE_CONTAINER, TMP_VOLUME
from components.serving.namespace import API_KEY, API_KEY_SECRET
from components.serving.registration import PORT
from ops.job_parts import KEPT_S, Object, container, deployment, gateway_image, requests
from stacks.ownership import MARK

PROGRAMS = Path(__file__).with_name("programs")
_APP = "measuring"
_PATH = "/opt/measure"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a Job does. `url` is None for one that reaches nothing."""

    name: str  # of the Job and of what belongs to it
    programs: Sequence[str]  # files of `programs`; the first is run
    environment: Mapping[str, str]
    deadline_s: int
    asks: bool = True  # the model, with its key; else it reaches nothing
    data: Mapping[str, bytes] | None = None  # files beside the programs


def address(alias: str, namespace: str) -> str:
    """Where a model answers within the cluster."""
    return f"http://{alias}.{namespace}.svc:{PORT}"


def measuring_job(objects: Sequence[Object], alias: str, wanted: Measurement) -> Object:
    """The Job, from a plan's manifests. Raises StopIteration where the plan does not deploy the model."""
    served = deployment(objects, alias, COMPONENT)
    pod: Mapping[str, Any] = served["spec"]["template"]["spec"]
    stage = container(pod["initContainers"], STAGE_CONTAINER)
    tmp = next(mount for mount in stage["volumeMounts"] if mount["name"] == _TMP)
    key = {"name": "MEASURE_KEY", "valueFrom": {"secretKeyRef": {"name": API_KEY_SECRET, "key": API_KEY}}}
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **wanted.environment}
    own = {**labels(_app(wanted), _APP), "ai-platform/model": alias}
    asking = {
        "name": _APP,
        "image": gateway_image(objects),
        "command": ["python3", f"{_PATH}/{wanted.programs[0]}"],
        "env": [
            *({"name": name, "value": value} for name, value in environment.items()),
            *([key] if wanted.asks else []),
        ],
        "resources": requests(),
        "securityContext": stage["securityContext"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "program", "mountPath": _PATH, "readOnly": True}, tmp],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**_metadata(served, wanted.name), "labels": own},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": wanted.deadline_s,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {
                "metadata": {"labels": own},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "securityContext": pod["securityContext"],
                    "terminationGracePeriodSeconds": 5,
                    **({"imagePullSecrets": pod["imagePullSecrets"]} if "imagePullSecrets" in pod else {}),
                    "containers": [asking],
                    "volumes": [
                        {"name": "program", "configMap": {"name": wanted.name}},
                        *(volume for volume in pod["volumes"] if volume["name"] == _TMP),
                    ],
                },
            },
        },
    }


def beside(job: Object, uid: str, alias: str, wanted: Measurement) -> Object:
    """What a Job needs beside itself, as one list, owned by the Job that has this uid."""
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": wanted.name, "uid": uid}
    data = {name: (PROGRAMS / name).read_bytes() for name in wanted.programs} | dict(wanted.data or {})

    def owned(kind: str, version: str, name: str, **rest: object) -> Object:
        metadata = {**_metadata(job, name), "labels": job["metadata"]["labels"], "ownerReferences": [owner]}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}

    def way(name: str, of: str, other: str, kind: str, direction: str) -> Object:
        rule = {
            direction: [{"podSelector": _pods(other)}],
            "ports": [{"port": PORT, "protocol": "TCP"}],
        }
        spec = {"podSelector": _pods(of), "policyTypes": [kind], kind.lower(): [rule]}
        return owned("NetworkPolicy", "networking.k8s.io/v1", name, spec=spec)

    ways = [
        way(_app(wanted), _app(wanted), alias, "Egress", "to"),
        way(f"{_app(wanted)}.in", alias, _app(wanted), "Ingress", "from"),
    ]
    files = {name: base64.b64encode(content).decode() for name, content in data.items()}
    items = [owned("ConfigMap", "v1", wanted.name, binaryData=files), *(ways if wanted.asks else [])]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def packed(text: str) -> bytes:
    """A text as it is mounted: a ConfigMap has a megabyte."""
    return gzip.compress(text.encode(), mtime=0)


_TMP = str(TMP_VOLUME.name)


def _app(wanted: Measurement) -> str:
    """Of its pods and policies: no alias has a dot, so it is no model's."""
    return f"job.{wanted.name}"


def _pods(name: str) -> Object:
    return {"matchLabels": {NAME_LABEL: name}}


def _metadata(of: Mapping[str, Any], name: str) -> Object:
    """A name in the same namespace, under the same mark."""
    there = of["metadata"]
    return {"name": name, "namespace": there["namespace"], "annotations": {MARK: there["annotations"][MARK]}}
