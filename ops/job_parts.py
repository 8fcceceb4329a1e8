"""What Jobs that an operator starts have in common: made of a plan's manifests, run in the gateway's image.

That image has Python and is on the node already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.gateway import litellm_gateway
from components.kubernetes.pods import gib, labels
from models.needs import LOGS_GIB, TMP_GIB

Object = dict[str, Any]
CPU, GIB = 0.25, 0.5  # what fits where a gateway that rolls would
KEPT_S = 3600  # once a Job has ended, for whoever did not look


def requests() -> Object:
    """Requests and limits of a Job's container: CPU may burst."""
    fixed = {"memory": gib(GIB), "ephemeral-storage": gib(TMP_GIB + LOGS_GIB)}
    return {"requests": {"cpu": f"{CPU * 1000:.0f}m", **fixed}, "limits": {**fixed}}


def gateway_image(objects: Sequence[Object]) -> str:
    """As the plan's nodes pull it."""
    pod = deployment(objects, litellm_gateway.APP, "gateway")["spec"]["template"]["spec"]
    return str(container(pod["containers"], litellm_gateway.APP)["image"])


def deployment(objects: Sequence[Object], name: str, component: str) -> Object:
    """One of a plan's. Raises StopIteration where it has none of that name."""
    wanted = labels(name, component).items()
    return next(o for o in objects if o["kind"] == "Deployment" and wanted <= o["metadata"]["labels"].items())


def container(containers: Sequence[Object], name: str) -> Object:
    """One of a pod's. Raises StopIteration where it has none of that name."""
    return next(found for found in containers if found["name"] == name)
