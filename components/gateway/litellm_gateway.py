"""The gateway: LiteLLM in front of every model, with keys, budgets and prices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.batch import v1 as batch
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.policy import v1 as policy

from components.gateway.config import gateway_config
from components.gateway.database import NAME, PASSWORD, USER, Database
from components.gateway.database import PORT as DATABASE_PORT
from components.gateway.reconcile_keys import ROUTES
from components.kubernetes.network_policies import (
    allow,
    any_namespace,
    deny_by_default,
    egress,
    ingress,
    namespace_peer,
)
from components.kubernetes.place import Place
from components.kubernetes.pods import (
    NAME_LABEL,
    container_security,
    env,
    http_probe,
    labels,
    made_anew,
    metadata,
    pod_security,
    pod_that_ends,
    resources,
    scratch,
    secret_env,
    skip_await,
    timeouts,
)
from components.kubernetes.secrets import READS, fingerprint_output, opaque_secret
from components.serving.namespace import API_KEY, API_KEY_SECRET
from components.serving.registration import PORT as MODEL_PORT
from components.serving.registration import Registration
from models.cold_start import pull_seconds
from models.gateway_database import pool_size
from models.gateway_streams import LEAST_CPU
from models.images import LITELLM
from models.needs import Needs

APP = "litellm"
MIGRATION = "litellm-migrate"
DATABASE_CLIENTS = (APP, MIGRATION)
PORT = 4000
# Measured: 715 MB with a database, before traffic. A proxy that carries streams asks for more CPU (LiteLlmGatewayArgs).
NEEDS = Needs(cpu=LEAST_CPU, gib=1.5, ephemeral_gib=1)
_MIGRATION_S = 600  # LiteLLM's own limit for `prisma migrate deploy`
_START_S = 300  # measured: 19 to 26 s on two cores; a quarter of a core takes ten times that
# Servers of models close what is idle for 5 s (uvicorn's default, which is vLLM's too): a request that is sent on such
# a connection while it closes is a 500, since nothing here tries twice. Well below, for an answer that arrives late.
_IDLE_S = 2
MASTER_SECRET, _SALT = "litellm-master-key", "litellm-salt-key"
SECRET_KEY = "key"  # noqa: S105  a key in the Secret
_STATE = "litellm-model-state"
_STATE_FILE, _STATE_PATH = "state.json", "/etc/model-state"
_HOOKS = ("door.py", "model_state.py", "stream_usage.py", "budget_refusal.py", "servers.py")


@dataclass(frozen=True, kw_only=True)
class LiteLlmGatewayArgs:
    """`models` are those enabled, up or not; `serving_namespaces` are where they answer.

    `model_state` says what a model answers that is not up. It is published once `up` have come up.
    """

    place: Place  # namespace and provider of everything here
    image: str  # reference of LiteLLM, as nodes pull it
    replicas: int  # of the proxy
    needs: Needs  # of each
    spend_log_days: int  # how long the row of a call stays
    models: Sequence[Registration]
    serving_namespaces: tuple[str, ...]
    database: Database  # where LiteLLM keeps teams, keys and spend
    master_key: pulumi.Input[str]  # secret: the admin key
    salt_key: pulumi.Input[str]  # secret: encrypts what LiteLLM stores, so it never changes
    upstream_api_key: pulumi.Input[str]  # secret: what the models' own servers ask for
    model_state: Mapping[str, Any]
    up: Sequence[pulumi.Resource] = ()


class LiteLlmGateway(pulumi.ComponentResource):
    """Secrets, rendered configuration, migration Job, Deployment, Service, disruption budget, policies.

    The Job migrates the schema before the proxy rolls; the proxy itself never touches it, so two replicas
    cannot race and a failed migration leaves the old proxy serving.
    """

    service_name: pulumi.Output[str]
    url: pulumi.Output[str]
    proxy: apps.Deployment

    def __init__(self, name: str, args: LiteLlmGatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gateway:LiteLlmGateway", name, None, opts)
        namespace = args.place.namespace
        child = pulumi.ResourceOptions(parent=self)
        self._policies(args)
        secrets = [
            opaque_secret(MASTER_SECRET, namespace, {SECRET_KEY: args.master_key}, child),
            opaque_secret(API_KEY_SECRET, namespace, {API_KEY: args.upstream_api_key}, child),
            # Another salt makes what the database holds unreadable: kept like the data, and immutable.
            opaque_secret(
                _SALT, namespace, {SECRET_KEY: args.salt_key}, args.place.keeping(self), immutable_from="litellmSaltKey"
            ),
        ]
        config_yaml = gateway_config(
            args.models,
            pool=pool_size(args.database.max_connections, args.replicas),
            spend_log_days=args.spend_log_days,
        )
        files = {
            "config.yaml": yaml.safe_dump(config_yaml, sort_keys=False),
            "door.json": json.dumps({"routes": ROUTES}, indent=1),
            **{hook: Path(__file__).with_name(hook).read_text() for hook in _HOOKS},
        }
        config = core.ConfigMap(
            f"{APP}-config", metadata=metadata(f"{APP}-config", namespace, "gateway"), data=files, opts=child
        )
        # Mounted and read at each change, so a model that goes up or down restarts nothing here.
        core.ConfigMap(
            _STATE,
            metadata=metadata(_STATE, namespace, "gateway"),
            data={_STATE_FILE: json.dumps(args.model_state, indent=1, sort_keys=True)},
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.up)),
        )
        migration = self._migration(args, [*secrets, *args.database.ready])
        self.proxy = self._proxy(args, files, [migration, config])
        service = core.Service(
            APP,
            # The Deployment's await says that it serves; waiting for endpoints besides takes ten seconds.
            metadata=metadata(APP, namespace, "gateway", annotations=skip_await(True)),
            spec=core.ServiceSpecArgs(
                type="ClusterIP",
                selector={NAME_LABEL: APP},
                ports=[core.ServicePortArgs(name="http", port=PORT, target_port="http")],
            ),
            opts=child,
        )
        if args.replicas > 1:
            policy.PodDisruptionBudget(
                APP,
                metadata=metadata(APP, namespace, "gateway"),
                spec=policy.PodDisruptionBudgetSpecArgs(
                    max_unavailable=1, selector=meta.LabelSelectorArgs(match_labels={NAME_LABEL: APP})
                ),
                opts=child,
            )
        self.service_name = service.metadata.name
        self.url = pulumi.Output.concat(
            "http://", self.proxy.metadata.name, f".{namespace}.svc.cluster.local:{PORT}/v1"
        )
        self.register_outputs({"serviceName": self.service_name, "url": self.url})

    def _policies(self, args: LiteLlmGatewayArgs) -> None:
        namespace = args.place.namespace
        deny_by_default(namespace, self)
        to_database = egress([args.database.peer], DATABASE_PORT)
        allow(
            APP,
            namespace,
            self,
            # Every client in the cluster; the proxy itself asks for a key.
            incoming=[ingress([any_namespace()], PORT)],
            outgoing=[egress([namespace_peer(n) for n in args.serving_namespaces], MODEL_PORT), to_database],
        )
        allow(MIGRATION, namespace, self, outgoing=[to_database])

    def _database_env(self, database: Database) -> list[core.EnvVarArgs]:
        host = pulumi.Output.from_input(database.host)
        return [
            secret_env("DATABASE_PASSWORD", database.secret, PASSWORD),
            # The kubelet puts the password in, so it stands in no manifest.
            core.EnvVarArgs(
                name="DATABASE_URL",
                value=pulumi.Output.concat(
                    f"postgresql://{USER}:$(DATABASE_PASSWORD)@",
                    host,
                    f":{DATABASE_PORT}/{NAME}?sslmode={database.ssl_mode}",
                ),
            ),
        ]

    def _migration(self, args: LiteLlmGatewayArgs, after: Sequence[pulumi.Resource]) -> batch.Job:
        """The Job of one image: another image is another Job, whose success the proxy waits for."""
        container = core.ContainerArgs(
            name="migrate",
            image=args.image,
            command=["litellm"],
            args=["--skip_server_startup"],
            env=[*self._database_env(args.database), *env(**_COMMON_ENV, DISABLE_SCHEMA_UPDATE="false")],
            resources=resources(NEEDS),
            security_context=container_security(),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[_TMP[1]],
        )
        return batch.Job(
            MIGRATION,
            metadata=metadata(
                f"{MIGRATION}-{_digest(args.image)}", args.place.namespace, "gateway", annotations=made_anew()
            ),
            spec=batch.JobSpecArgs(
                backoff_limit=4,
                active_deadline_seconds=_MIGRATION_S + pull_seconds(LITELLM),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(labels=labels(MIGRATION, "gateway")),
                    spec=pod_that_ends(LITELLM, container, [_TMP[0]], grace_s=60),
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(after),
                custom_timeouts=timeouts(_MIGRATION_S + pull_seconds(LITELLM) + 60),
            ),
        )

    def _proxy(
        self, args: LiteLlmGatewayArgs, files: Mapping[str, str], after: Sequence[pulumi.Resource]
    ) -> apps.Deployment:
        namespace = args.place.namespace
        deadline = _START_S + pull_seconds(LITELLM)
        container = core.ContainerArgs(
            name="litellm",
            image=args.image,
            command=["litellm"],
            args=["--config", "/etc/litellm/config.yaml", "--host", "0.0.0.0", "--port", str(PORT)],  # noqa: S104
            env=[
                *self._database_env(args.database),
                secret_env("LITELLM_MASTER_KEY", MASTER_SECRET, SECRET_KEY),
                secret_env("LITELLM_SALT_KEY", _SALT, SECRET_KEY),
                secret_env("UPSTREAM_API_KEY", API_KEY_SECRET, API_KEY),
                # The Job migrates; a proxy that did so too would race its twin.
                *env(
                    **_COMMON_ENV,
                    DISABLE_SCHEMA_UPDATE="true",
                    MODEL_STATE_FILE=f"{_STATE_PATH}/{_STATE_FILE}",
                    AIOHTTP_KEEPALIVE_TIMEOUT=str(_IDLE_S),
                ),
            ],
            ports=[core.ContainerPortArgs(name="http", container_port=PORT)],
            resources=resources(args.needs),
            security_context=container_security(),
            startup_probe=http_probe("/health/readiness", period=10, failures=_START_S // 10),
            # Not /health/readiness: it fails while the database is away and would take every replica out of the
            # Service, although keys that were used lately are still served.
            readiness_probe=http_probe("/health/liveliness", period=10, failures=3, timeout=10),
            liveness_probe=http_probe("/health/liveliness", period=20, failures=6, timeout=10),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[
                core.VolumeMountArgs(name="config", mount_path="/etc/litellm", read_only=True),
                core.VolumeMountArgs(name="model-state", mount_path=_STATE_PATH, read_only=True),
                _TMP[1],
            ],
        )
        config = core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=f"{APP}-config"))
        # Optional: on a first run that brings a model up it comes after the proxy, and none then means all are up.
        state = core.VolumeArgs(
            name="model-state", config_map=core.ConfigMapVolumeSourceArgs(name=_STATE, optional=True)
        )
        return apps.Deployment(
            APP,
            metadata=metadata(APP, namespace, "gateway"),
            spec=apps.DeploymentSpecArgs(
                replicas=args.replicas,
                progress_deadline_seconds=deadline,
                revision_history_limit=2,
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                selector=meta.LabelSelectorArgs(match_labels={NAME_LABEL: APP}),
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(
                        labels=labels(APP, "gateway"),
                        annotations={
                            # LiteLLM reads its file at start only, so another file has to be another pod.
                            "ai-platform/config": _digest(json.dumps(files, sort_keys=True)),
                            READS: fingerprint_output(
                                {
                                    f"{MASTER_SECRET}/{SECRET_KEY}": args.master_key,
                                    f"{API_KEY_SECRET}/{API_KEY}": args.upstream_api_key,
                                    **args.database.changing,
                                },
                                args.salt_key,
                            ),
                        },
                    ),
                    spec=core.PodSpecArgs(
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(LITELLM),
                        termination_grace_period_seconds=60,
                        containers=[container],
                        volumes=[config, state, _TMP[0]],
                    ),
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=list(after), custom_timeouts=timeouts(deadline * args.replicas + 60)
            ),
        )


_TMP = scratch("tmp", "/tmp", "512Mi")  # noqa: S108  a volume
_COMMON_ENV = {
    # The bundled price map, so that a start needs no network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MIGRATION_DIR": "/tmp/migrations",  # noqa: S108
    "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
