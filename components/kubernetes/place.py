"""Where a component puts its objects, and which of them outlive the stack."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.kubernetes.pods import taken_back


@dataclass(frozen=True, kw_only=True)
class Place:
    """A namespace and the provider instance for objects in it that hold data.

    That instance adopts an object that a destroy kept (upsert) and overrides no other manager (no force), unless the
    object says so (`taken_back`). Everything else goes through the provider that the component inherits.
    """

    namespace: str
    data: pulumi.ProviderResource
    after: tuple[pulumi.Resource, ...] = ()  # the namespace itself, where the stack makes it

    def keeping(self, parent: pulumi.Resource, *, keep: bool = True) -> pulumi.ResourceOptions:
        """Options of an object that holds data: kept in the cluster when the stack lets go of it."""
        return pulumi.ResourceOptions(
            parent=parent, provider=self.data, depends_on=list(self.after), retain_on_delete=keep
        )


@dataclass(frozen=True)
class StaticVolume:
    """A PersistentVolume that was made beforehand.

    The name is plain: before there is a cluster, a preview knows nothing of what the object itself would answer.
    """

    name: str
    volume: pulumi.Resource


def restricted_namespace(resource: str, name: str, data: pulumi.ProviderResource) -> core.Namespace:
    """A namespace at Pod Security "restricted", kept on destroy: deleting it would delete its claims."""
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return core.Namespace(
        resource,
        metadata=meta.ObjectMetaArgs(
            name=name,
            labels=levels,
            annotations={
                "ai-platform/pod-security": "restricted, since every image here runs as a numeric user without "
                "privileges",
                **taken_back(),
            },
        ),
        opts=pulumi.ResourceOptions(provider=data, retain_on_delete=True),
    )
