"""Names that something else has: a cluster that is somebody's, an alias that is an object's."""

from __future__ import annotations

from collections.abc import Iterator

from components.kubernetes.network_policies import ALLOW_DNS, DEFAULT_DENY
from stacks.commands import remove_command
from stacks.plan import Plan
from stacks.problems import Problem

# Namespaces of config that are not a model's, and names of objects beside those of the models.
_TAKEN = {
    "gcp": "a namespace of config",
    "kubernetes": "a namespace of config",
    "pulumi": "a namespace of config",
    DEFAULT_DENY: "a network policy of the models' namespace",
    ALLOW_DNS: "a network policy of the models' namespace",
}


def named_cluster(plan: Plan) -> Iterator[Problem]:
    """Never the context that happens to be current: a cluster of one's own is named in full."""
    platform, project = plan.settings.platform, plan.settings.project
    doubtful = ("target",) in plan.settings.left_out
    for key, value, example in (
        ("kubeconfig", platform.kubeconfig, "~/.kube/config"),
        ("kubeContext", platform.kube_context, "kind-ai"),
    ):
        if platform.target != "kubernetes":
            if value and not doubtful:
                yield Problem(
                    f"{project}:{key} is set, but this stack's target is {platform.target!r}, so nothing reads it",
                    remove_command(project, [key]),
                )
        elif not value:
            yield Problem(
                f"{project}:{key} is not set, and target kubernetes deploys only to a cluster that is named: the "
                "current context may be anybody's",
                f"pulumi config set {key} {example}",
            )


def aliases(plan: Plan) -> Iterator[Problem]:
    """An alias is the name of a namespace of config and of objects in the cluster, which others may have."""
    for alias in (model.spec.alias for model in plan.models):
        taken = "this project's namespace of config" if alias == plan.settings.project else _TAKEN.get(alias)
        if taken:
            yield Problem(
                f"the catalog has a model called '{alias}', which is {taken}: one would take the other's place",
                f"grep -rn 'alias=\"{alias}\"' models/catalog   # and give that entry another alias",
            )
