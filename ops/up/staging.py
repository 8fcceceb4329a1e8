"""Before `ops up` brings a model up: is its claim being filled?"""

from __future__ import annotations

from components.serving.namespace import staging_job_name
from ops.errors import OpsError
from ops.up.site import Kubectl
from stacks.plan import Plan, State
from stacks.problems import Problem
from stacks.staging import too_early, under_way


def refuse_while_staged(plan: Plan, kubectl: Kubectl) -> None:
    """Raises OpsError with every model that would come up and whose weights a Job of `ops stage` is bringing."""
    settings = plan.settings
    namespace = settings.platform.namespaces.models
    found = {job["metadata"]["name"]: job for job in kubectl.get("--namespace", namespace, "jobs")}
    aliases = [model.spec.alias for model in plan.models if model.state is State.UP]
    early = [alias for alias in aliases if under_way(found.get(staging_job_name(alias)))]
    if early:
        first, *others = [Problem(*too_early(alias, f" --stack {settings.stack}")) for alias in early]
        raise OpsError(first.message, first.remedy, *others)
