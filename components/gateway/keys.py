"""Teams, keys and budgets of the gateway, kept as the config says by a program inside the cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi_kubernetes.batch import v1 as batch
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.gateway import litellm_gateway
from components.kubernetes.network_policies import allow, app_peer, egress
from components.kubernetes.pods import (
    container_security,
    env,
    labels,
    made_anew,
    metadata,
    pod_that_ends,
    resources,
    scratch,
    secret_env,
    timeouts,
)
from components.kubernetes.secrets import READS, fingerprint_output, opaque_secret
from models.cold_start import pull_seconds
from models.images import LITELLM
from models.needs import Needs

APP = "litellm-keys"
NEEDS = Needs(cpu=0.05, gib=0.25, ephemeral_gib=0.25)
_PROGRAM = "reconcile_keys.py"
_FILES = (_PROGRAM, "admin_api.py")
_LATE_S = 300  # a run that is later than this is left to the next one
_SCHEDULE = "*/15 * * * *"
_DEADLINE_S = 300  # how long the program waits for a gateway that does not answer


@dataclass(frozen=True, kw_only=True)
class GatewayKeysArgs:
    """`desired` has no value of any key; `values` has one for each, by its alias."""

    namespace: str  # the gateway's
    image: str  # LiteLLM's, which brings the Python that the Job runs
    desired: Mapping[str, Any]
    values: Mapping[str, pulumi.Input[str]]
    master_key: pulumi.Input[str]  # the pods take it from the gateway's own Secret
    salt_key: pulumi.Input[str]  # what keeps the values' fingerprint from being guessed
    after: Sequence[pulumi.Resource]  # what the first Job waits for: the proxy


class GatewayKeys(pulumi.ComponentResource):
    """Desired state, values, a Job for each change of it, and a CronJob against drift.

    The Job runs once the gateway is healthy, and again when anything of it or a value changes, so `pulumi up` ends
    with the keys in force. The CronJob finds what was changed by hand.
    """

    def __init__(self, name: str, args: GatewayKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gateway:GatewayKeys", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        program = {file: Path(__file__).with_name(file).read_text() for file in _FILES}
        desired = json.dumps(args.desired, indent=1, sort_keys=True)
        config = core.ConfigMap(
            APP,
            metadata=metadata(APP, args.namespace, "gateway"),
            data={**program, "keys.json": desired},
            opts=child,
        )
        values = opaque_secret(APP, args.namespace, dict(args.values), child)
        allow(APP, args.namespace, self, outgoing=[egress([app_peer(litellm_gateway.APP)], litellm_gateway.PORT)])
        pod = self._pod(args)
        digest = hashlib.sha256("\n".join((args.image, *program.values(), desired)).encode()).hexdigest()[:10]
        budget = _DEADLINE_S + pull_seconds(LITELLM)
        job = batch.JobSpecArgs(
            backoff_limit=2,
            active_deadline_seconds=budget,
            template=core.PodTemplateSpecArgs(
                metadata=meta.ObjectMetaArgs(
                    labels=labels(APP, "gateway"),
                    annotations={READS: fingerprint_output(self._reads(args), args.salt_key)},
                ),
                spec=pod,
            ),
        )
        batch.Job(
            APP,
            metadata=metadata(f"{APP}-{digest}", args.namespace, "gateway", annotations=made_anew()),
            spec=job,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[config, values, *args.after],
                custom_timeouts=timeouts(budget + 60),
            ),
        )
        batch.CronJob(
            APP,
            metadata=metadata(APP, args.namespace, "gateway"),
            spec=batch.CronJobSpecArgs(
                schedule=_SCHEDULE,
                concurrency_policy="Forbid",
                starting_deadline_seconds=_LATE_S,
                successful_jobs_history_limit=1,
                failed_jobs_history_limit=1,
                job_template=batch.JobTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(labels=labels(APP, "gateway")), spec=job
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config, values, *args.after]),
        )
        self.register_outputs({})

    def _reads(self, args: GatewayKeysArgs) -> dict[str, pulumi.Input[str]]:
        return {
            f"{litellm_gateway.MASTER_SECRET}/{litellm_gateway.SECRET_KEY}": args.master_key,
            **{f"{APP}/{alias}": value for alias, value in args.values.items()},
        }

    def _pod(self, args: GatewayKeysArgs) -> core.PodSpecArgs:
        tmp_volume, tmp_mount = scratch("tmp", "/tmp", "64Mi")  # noqa: S108  a volume
        container = core.ContainerArgs(
            name="reconcile",
            image=args.image,
            command=["python3", f"/etc/keys/{_PROGRAM}"],
            env=[
                secret_env("LITELLM_MASTER_KEY", litellm_gateway.MASTER_SECRET, litellm_gateway.SECRET_KEY),
                *env(
                    GATEWAY_URL=f"http://{litellm_gateway.APP}.{args.namespace}.svc.cluster.local:"
                    f"{litellm_gateway.PORT}",
                    KEYS_FILE="/etc/keys/keys.json",
                    KEY_VALUES_DIR="/run/secrets/keys",
                    DEADLINE_SECONDS=str(_DEADLINE_S),
                    PYTHONDONTWRITEBYTECODE="1",
                ),
            ],
            resources=resources(NEEDS),
            security_context=container_security(),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[
                core.VolumeMountArgs(name="config", mount_path="/etc/keys", read_only=True),
                core.VolumeMountArgs(name="values", mount_path="/run/secrets/keys", read_only=True),
                tmp_mount,
            ],
        )
        return pod_that_ends(
            LITELLM,
            container,
            [
                core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=APP)),
                core.VolumeArgs(
                    name="values",
                    secret=core.SecretVolumeSourceArgs(
                        secret_name=APP,
                        # Named, so that a reader of the manifests alone knows what the Secret has to hold.
                        items=[core.KeyToPathArgs(key=alias, path=alias) for alias in sorted(args.values)],
                        default_mode=0o440,
                    ),
                ),
                tmp_volume,
            ],
        )
