"""Kubernetes Secrets as every engine registers them alike."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.kubernetes.pods import metadata, one_manager, taken_back

# Annotation of a pod template: a pod reads a Secret when it starts, so another value has to be another pod.
READS = "ai-platform/secrets"


def fingerprint(values: Mapping[str, str], key: str) -> str:
    """Another one whenever a value changes; tells nothing of the values to who does not know the key.

    `values` go by Secret and key, `litellm-master-key/key`, and are those that may change: so every engine that
    deploys the same makes the same of it.
    """
    return hmac.digest(key.encode(), json.dumps(values, sort_keys=True).encode(), "sha256").hex()


def fingerprint_output(values: Mapping[str, pulumi.Input[str]], key: pulumi.Input[str]) -> pulumi.Output[str]:
    """`fingerprint` of what the engine knows. A secret, so that a plan, which does not, shows the same as a preview."""
    found = pulumi.Output.all(key, pulumi.Output.all(**values))
    return pulumi.Output.secret(found.apply(lambda both: fingerprint(both[1], both[0])))


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def opaque_secret(
    name: str,
    namespace: str,
    values: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
    *,
    immutable_from: str | None = None,
    kind: str = "Opaque",
) -> core.Secret:
    """A Secret with `data`: the provider rewrites `string_data`, so inputs would differ between engines.

    `immutable_from` is for what a database was initialised with: the API server refuses another value, and the
    operator is told how to get the old one back into this key of config. What may change and outlives its stack is
    taken back from whoever wrote it before, an older version too. `kind` is Kubernetes' type of it.
    """
    kept = one_manager() if immutable_from else taken_back()
    return core.Secret(
        f"{namespace}-{name}",
        metadata=metadata(name, namespace, "secret", annotations=kept if opts.retain_on_delete else None),
        type=kind,
        data={
            key: pulumi.Output.secret(pulumi.Output.from_input(value).apply(_encode)) for key, value in values.items()
        },
        immutable=True if immutable_from else None,
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(hooks=_explain(name, namespace, next(iter(values)), immutable_from))
        )
        if immutable_from
        else opts,
    )


def _explain(name: str, namespace: str, key: str, setting: str) -> pulumi.ResourceHookBinding:
    """The engine only says that a field conflicts, and how to force it, which here would be the wrong thing to do."""

    def explain(args: pulumi.ErrorHookArgs) -> bool:
        if any("conflict" in error or "immutable" in error for error in args.errors):
            pulumi.log.error(
                f"{setting} of the config is not what {namespace}/{name} holds, with which the data was made: it was "
                "not changed, and what runs goes on with it\n"
                f"  remedy: kubectl -n {namespace} get secret {name} -o jsonpath='{{.data.{key}}}' | base64 -d | "
                f"pulumi config set --secret {setting}"
            )
        return False  # trying again changes nothing

    return pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook(f"value of {namespace}/{name}", explain)])
