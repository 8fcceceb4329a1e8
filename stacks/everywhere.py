"""What a stack has everywhere, whichever component makes it: a login for images, a class of disks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.kubernetes.secrets import opaque_secret

LOGIN_SECRET = "registry-login"  # noqa: S105  a name
_LOGIN_TYPE, _LOGIN_KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
_WITH_PODS = ("Deployment", "StatefulSet", "Job", "CronJob")


def log_in(login: pulumi.Input[str], namespaces: Iterable[str], opts: pulumi.ResourceOptions) -> None:
    """From now on every pod shows this login to the registries of its images."""
    secrets = {
        namespace: opaque_secret(LOGIN_SECRET, namespace, {_LOGIN_KEY: login}, opts, kind=_LOGIN_TYPE)
        for namespace in namespaces
    }

    def shown(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("kubernetes:") or args.type_.rpartition(":")[2] not in _WITH_PODS:
            return None
        spec: Any = args.props["spec"]
        if args.type_.endswith(":CronJob"):
            spec = spec.job_template.spec
        spec.template.spec.image_pull_secrets = [core.LocalObjectReferenceArgs(name=LOGIN_SECRET)]
        metadata: Any = args.props["metadata"]
        first = pulumi.ResourceOptions(depends_on=[secrets[metadata.namespace]])
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, first))

    pulumi.runtime.register_stack_transformation(shown)


def use_storage_class(name: str | None) -> None:
    """From now on every claim that is given a disk, and not one that is there, has this class.

    A claim keeps the class that it was made with: another one would be another claim, and an empty one.
    """
    keeping = pulumi.ResourceOptions(ignore_changes=["spec.storageClassName"])

    def classed(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        spec: Any = args.props.get("spec")
        if not args.type_.endswith(":PersistentVolumeClaim") or spec.storage_class_name is not None:
            return None
        spec.storage_class_name = name
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, keeping))

    pulumi.runtime.register_stack_transformation(classed)
