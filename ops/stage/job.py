"""The Job that fills a model's claim while no GPU is billed, made of the pod that would serve the model.

Same program, variables, user and volumes as that pod's init container, so what it leaves is what a start finds. What
differs: the gateway's image, which has Python and is on the node already; a node without a GPU, in the zone where the
claim's disk will be used; and patience, since waiting costs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.gateway import litellm_gateway
from components.kubernetes.pods import gib, labels
from components.serving.model_workload import COMPONENT, STAGE_CONTAINER
from components.serving.namespace import STAGING_APP, staging_job_name
from components.serving.stage_claim import OutOfTime
from models.machines import ZONE_LABEL
from models.needs import LOGS_GIB, TMP_GIB
from stacks.ownership import MARK

Object = dict[str, Any]
CPU, GIB = 0.25, 0.5  # files pass through by the megabyte
_RETRIES = 20  # of runs that ended at their deadline, minutes apart
_DEADLINE_S = 12 * 3600
_KEPT_S = 3600  # once it has ended, for whoever did not look
_GRACE_S = 30


def staging_job(objects: Sequence[Object], alias: str, zone: str | None) -> Object:
    """The Job of a model, from a plan's manifests. `zone` is where its node has to be; None is any.

    Raises StopIteration where the plan does not deploy the model.
    """
    deployment = _deployment(objects, alias, COMPONENT)
    pod: Mapping[str, Any] = deployment["spec"]["template"]["spec"]
    stage = _container(pod["initContainers"], STAGE_CONTAINER)
    mounted = {mount["name"] for mount in stage["volumeMounts"]}
    metadata = deployment["metadata"]
    own = {**labels(STAGING_APP, "staging"), "ai-platform/model": alias}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": staging_job_name(alias),
            "namespace": metadata["namespace"],
            "labels": own,
            "annotations": {MARK: metadata["annotations"][MARK]},
        },
        "spec": {
            "backoffLimit": _RETRIES,
            "activeDeadlineSeconds": _DEADLINE_S,
            "ttlSecondsAfterFinished": _KEPT_S,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"operator": "NotIn", "values": [OutOfTime.exit_code, *_KILLED]},
                    },
                ]
            },
            "template": {
                "metadata": {"labels": own},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "securityContext": pod["securityContext"],
                    "terminationGracePeriodSeconds": _GRACE_S,
                    **({"nodeSelector": {ZONE_LABEL: zone}} if zone else {}),
                    **({"imagePullSecrets": pod["imagePullSecrets"]} if "imagePullSecrets" in pod else {}),
                    "containers": [_fetching(stage, _gateway_image(objects))],
                    "volumes": [volume for volume in pod["volumes"] if volume["name"] in mounted],
                },
            },
        },
    }


_KILLED = (137, 143)  # by the node or by hand: nothing that the program said


def _fetching(stage: Mapping[str, Any], image: str) -> Object:
    """The init container as a container of its own, which may download whatever a start may."""
    asked = {"memory": gib(GIB), "ephemeral-storage": gib(TMP_GIB + LOGS_GIB)}
    return {
        **stage,
        "image": image,
        "env": [variable for variable in stage["env"] if variable["name"] != "STAGE_DOWNLOAD"],
        "resources": {"requests": {"cpu": f"{CPU * 1000:.0f}m", **asked}, "limits": asked},
    }


def _gateway_image(objects: Sequence[Object]) -> str:
    pod = _deployment(objects, litellm_gateway.APP, "gateway")["spec"]["template"]["spec"]
    return str(_container(pod["containers"], litellm_gateway.APP)["image"])


def _deployment(objects: Sequence[Object], name: str, component: str) -> Object:
    wanted = labels(name, component).items()
    return next(o for o in objects if o["kind"] == "Deployment" and wanted <= o["metadata"]["labels"].items())


def _container(containers: Sequence[Object], name: str) -> Object:
    return next(container for container in containers if container["name"] == name)
