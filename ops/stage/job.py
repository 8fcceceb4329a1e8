"""The Job that fills a model's claim while no GPU is billed, made of the pod that would serve the model.

Same program, variables, user and volumes as that pod's init container, so what it leaves is what a start finds. What
differs: the gateway's image, which has Python and is on the node already; a node without a GPU, in the zone where the
claim's disk will be used; and patience, since waiting costs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.kubernetes.pods import labels
from components.serving.model_workload import COMPONENT, STAGE_CONTAINER
from components.serving.namespace import STAGING_APP, staging_job_name
from components.serving.stage_claim import OutOfTime
from models.machines import ZONE_LABEL
from ops.job_parts import KEPT_S, Object, container, deployment, gateway_image, requests
from stacks.ownership import MARK

_RETRIES = 20  # of runs that ended at their deadline, minutes apart
_DEADLINE_S = 12 * 3600
_GRACE_S = 30


def staging_job(objects: Sequence[Object], alias: str, zone: str | None) -> Object:
    """The Job of a model, from a plan's manifests. `zone` is where its node has to be; None is any.

    Raises StopIteration where the plan does not deploy the model.
    """
    served = deployment(objects, alias, COMPONENT)
    pod: Mapping[str, Any] = served["spec"]["template"]["spec"]
    stage = container(pod["initContainers"], STAGE_CONTAINER)
    mounted = {mount["name"] for mount in stage["volumeMounts"]}
    metadata = served["metadata"]
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
            "ttlSecondsAfterFinished": KEPT_S,
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
                    "containers": [_fetching(stage, gateway_image(objects))],
                    "volumes": [volume for volume in pod["volumes"] if volume["name"] in mounted],
                },
            },
        },
    }


_KILLED = (137, 143)  # by the node or by hand: nothing that the program said


def _fetching(stage: Mapping[str, Any], image: str) -> Object:
    """The init container as a container of its own, which may download whatever a start may."""
    return {
        **stage,
        "image": image,
        "env": [variable for variable in stage["env"] if variable["name"] != "STAGE_DOWNLOAD"],
        "resources": requests(),
    }
