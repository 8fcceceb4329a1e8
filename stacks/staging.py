"""A model does not come up while a Job of `ops stage` fills its claim: its pod would wait for the disk, GPU billed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.kubernetes.judging import judging, mapping, refuse, resolved
from components.serving.namespace import staging_job_name
from stacks.cluster_look import ClusterLook


class StagingError(Exception):
    """A model that would come up too early; the text says so, and the ways out."""


def under_way(job: Mapping[str, Any] | None) -> bool:
    """Whether a Job has not ended yet."""
    return job is not None and not _is(job, "Complete", "Failed")


def succeeded(job: Mapping[str, Any]) -> bool:
    """Whether a Job has ended well."""
    return _is(job, "Complete")


def _is(job: Mapping[str, Any], *types: str) -> bool:
    conditions = mapping(job.get("status")).get("conditions") or ()
    return any(c["type"] in types and c["status"] == "True" for c in conditions)


def too_early(alias: str, stack: str) -> tuple[str, str]:
    """A refusal and its command; `stack` is the option that names the stack."""
    return (
        f"{alias} would come up while its weights are being staged: its pod would wait for the disk, its GPU billed",
        f"ops stage {alias}{stack}   # waits for the end; or, to end it now: ops stage {alias}{stack} --stop",
    )


def await_staging(look: ClusterLook, namespace: str, stack: str) -> None:
    """From now on a Deployment of a model that goes up from zero is judged first.

    To be called once, in the stack's program, before there is a model.
    """

    async def judge(args: pulumi.ResourceHookArgs) -> None:
        old, new = await resolved(args.old_inputs), await resolved(args.new_inputs)
        name = mapping(new.get("metadata")).get("name")
        if not _replicas(new) or _replicas(old):
            return
        from components.kubernetes.api_reader import CannotLookError  # noqa: PLC0415

        try:
            job = await look.ask(lambda reader: reader.job(namespace, staging_job_name(str(name))))
        except CannotLookError:
            return  # who may not see Jobs is told by the pod
        if under_way(job):
            message, remedy = too_early(str(name), f" --stack {stack}")
            refuse(StagingError(f"{message}\n  remedy: {remedy}"))

    hook = judging("staging is over", judge)
    hooks = pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook])

    def watch(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        metadata: Any = args.props.get("metadata")
        if args.type_ != "kubernetes:apps/v1:Deployment" or metadata.namespace != namespace:
            return None
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(hooks=hooks))
        return pulumi.ResourceTransformationResult(args.props, opts)

    pulumi.runtime.register_stack_transformation(watch)


def _replicas(inputs: Mapping[str, Any]) -> int:
    return int(mapping(inputs.get("spec")).get("replicas") or 0)
