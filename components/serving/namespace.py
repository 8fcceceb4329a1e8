"""What the models of a namespace share: the key, the policies, the staging program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.kubernetes.network_policies import allow, deny_by_default
from components.kubernetes.pods import metadata
from components.kubernetes.secrets import opaque_secret
from components.serving.hub import CA_CONFIG_MAP, CA_FILE, PUBLIC_HUB, HubAccess

API_KEY_SECRET = "vllm-api-key"  # noqa: S105  a name
API_KEY = "api-key"
HF_TOKEN_SECRET = "hugging-face-token"  # noqa: S105  a name
HF_TOKEN = "token"  # noqa: S105  a key
STAGING_CONFIG_MAP = "stage-weights"
STAGING_PROGRAM = "stage_weights.py"
STAGING_APP = "stage-weights"  # name label of the Jobs that `ops stage` makes

_STAGING_FILES = (STAGING_PROGRAM, "stage_claim.py", "stage_hub.py")  # what it imports lies beside it


def staging_job_name(alias: str) -> str:
    """Of the Job that fills a model's claim while the model is off."""
    return f"stage-{alias}"


@dataclass(frozen=True, kw_only=True)
class ServingNamespaceArgs:
    """`hugging_face_token` is for gated weights only."""

    namespace: str  # that all models run in
    api_key: pulumi.Input[str]  # secret: what the models' servers ask for
    hugging_face_token: pulumi.Input[str] | None = None
    hub: HubAccess = PUBLIC_HUB  # how pods that stage reach the hub


class ServingNamespace(pulumi.ComponentResource):
    """Key Secrets, default-deny policies and the ConfigMap with the staging program.

    The program is mounted, not part of the pod template: mending it does not restart a model that serves.
    """

    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: ServingNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:serving:ServingNamespace", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        opaque_secret(API_KEY_SECRET, args.namespace, {API_KEY: args.api_key}, child)
        if args.hugging_face_token is not None:
            opaque_secret(HF_TOKEN_SECRET, args.namespace, {HF_TOKEN: args.hugging_face_token}, child)
        core.ConfigMap(
            STAGING_CONFIG_MAP,
            metadata=metadata(STAGING_CONFIG_MAP, args.namespace, "staging"),
            data={name: Path(__file__).with_name(name).read_text() for name in _STAGING_FILES},
            opts=child,
        )
        if args.hub.ca:
            core.ConfigMap(
                CA_CONFIG_MAP,
                metadata=metadata(CA_CONFIG_MAP, args.namespace, "staging"),
                data={CA_FILE: args.hub.ca},
                opts=child,
            )
        deny_by_default(args.namespace, self)
        allow(STAGING_APP, args.namespace, self, outgoing=args.hub.egress)
        self.namespace = pulumi.Output.from_input(args.namespace)
        self.register_outputs({"namespace": self.namespace})
