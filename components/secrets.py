"""Kubernetes Secrets as every engine registers them alike."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.pods import metadata


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def opaque_secret(
    name: str,
    namespace: str,
    values: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
    *,
    immutable: bool | None = None,
) -> core.Secret:
    """A Secret with `data`: the provider rewrites `string_data`, so inputs would differ between engines.

    `immutable` makes the API server refuse another value, for what a database was initialised with.
    """
    return core.Secret(
        f"{namespace}-{name}",
        metadata=metadata(name, namespace, "secret"),
        type="Opaque",
        data={
            key: pulumi.Output.secret(pulumi.Output.from_input(value).apply(_encode)) for key, value in values.items()
        },
        immutable=immutable,
        opts=opts,
    )
