"""Names that something else has: a cluster that is somebody's, an alias that is an object's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.gke.names import CloudNames
from components.kubernetes.network_policies import ALLOW_DNS, DEFAULT_DENY
from stacks.commands import remove_command, set_command
from stacks.plan import Plan
from stacks.problems import Notice, Problem, config_path
from stacks.sections import GATEWAY, SERVING

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


def cloud_names(plan: Plan) -> Iterator[Problem]:
    """Names in the cloud are made of project and stack, and Google takes fewer of them than Pulumi does."""
    if plan.settings.platform.target != "gke":
        return
    refused = list(plan.settings.cloud_names.refused(plan.registries))
    if not refused:
        return
    name, rule = refused[0]
    project, stack = plan.settings.project, plan.settings.stack
    message = (
        f"project {project} and stack {stack} make the name '{name}' of {rule.what}, and Google takes "
        f"{rule.longest} small letters, digits and hyphens at most, a letter first and no hyphen last"
    )
    shorter = _fitting(plan, stack)
    if shorter:
        before = f"mv Pulumi.{stack}.yaml Pulumi.{shorter}.yaml"
        yield Problem(message, f"pulumi stack rename {shorter}   # or, before `pulumi stack init`: {before}")
    else:
        yield Problem(message, f"grep -n '^name:' Pulumi.yaml   # and give the project another name than {project}")


def _fitting(plan: Plan, stack: str) -> str | None:
    """The longest like name of a stack that all services take; None where the project's name is the fault."""
    plain = re.sub(r"[^a-z0-9]+", "-", stack.lower())
    shorter = (plain[:length].strip("-") for length in range(len(plain), 0, -1))
    for name in (*filter(None, shorter), "dev"):
        if not any(CloudNames(f"{plan.settings.project}-{name}").refused(plan.registries)):
            return name
    return None


def namespaces(plan: Plan) -> Iterator[Problem]:
    """The gateway and the models have a Secret of one name, and policies that deny each other's paths by default."""
    names, settings = plan.settings.platform.namespaces, plan.settings
    if names.gateway != names.models or settings.doubtful("namespaces", "gateway", "models"):
        return
    place, default = ("models", SERVING) if names.gateway == GATEWAY else ("gateway", GATEWAY)
    yield Problem(
        f"{config_path(settings.project, 'namespaces', place)} is '{names.models}', and so is the other namespace: "
        "what is in one would take the other's place",
        set_command(settings.project, ("namespaces", place), default),
    )


def adopting(plan: Plan) -> Iterator[Notice]:
    """For one update, not for good: the next stranger under one of the stack's names would be taken over unseen."""
    if plan.settings.platform.adopt:
        project = plan.settings.project
        yield Notice(
            f"{project}:adopt is true: whatever is in the cluster under this stack's names is taken over, whosever it "
            "is, and `pulumi destroy` deletes it",
            f"{remove_command(project, ['adopt'])}   # once the update is done",
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
