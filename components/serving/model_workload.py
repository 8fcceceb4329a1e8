"""The parts that every model served here has, whatever its engine: claim, staging, Deployment, Service.

An engine's component brings its container; this module brings the rest of the contract.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.kubernetes.network_policies import allow, ingress, namespace_peer
from components.kubernetes.never_shrink import claim_setting, never_shrinks, sized_by
from components.kubernetes.place import Place
from components.kubernetes.pods import (
    NAME_LABEL,
    container_security,
    env,
    gib,
    http_probe,
    labels,
    metadata,
    pod_security,
    resources,
    scratch,
    secret_env,
    skip_await,
    taken_back,
    timeouts,
    user_env,
)
from components.kubernetes.secrets import READS
from components.serving.hub import PUBLIC_HUB, HubAccess
from components.serving.namespace import (
    API_KEY,
    API_KEY_SECRET,
    HF_TOKEN,
    HF_TOKEN_SECRET,
    STAGING_CONFIG_MAP,
    STAGING_PROGRAM,
)
from components.serving.registration import PORT, Registration, registration
from models.cold_start import ColdStart
from models.facts import Image
from models.images import LITELLM
from models.memory.host import COMPILE_CACHE_GIB
from models.needs import TMP_GIB, Needs
from models.spec import ModelSpec
from models.weights import Weights

CLAIM_PATH = "/model-cache"
HUB_CACHE = f"{CLAIM_PATH}/hub"
SERVED_LINK = f"{HUB_CACHE}/served"  # the staging program points it at the pinned snapshot
_TMP_PATH = "/tmp"  # noqa: S108  a volume of the pod
TMP_VOLUME, TMP_MOUNT = scratch("tmp", _TMP_PATH, gib(TMP_GIB))
_PROGRAM_PATH = "/opt/stage"
COMPONENT = "model"
STAGE_CONTAINER = "stage-weights"


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """What every model component takes. `mirrors` maps a registry to the prefix that nodes pull through."""

    spec: ModelSpec  # the catalog's entry
    place: Place  # namespace and provider of everything here
    replicas: int  # 0 keeps everything but the pods, and costs no GPU
    needs: Needs  # what a pod asks of its node
    cold_start: ColdStart  # how long until it answers, which the probes allow for
    claim_gib: int  # size of the claim of the weights
    api_key_mark: pulumi.Input[str]  # another one whenever the key that the engine asks for is another one
    keep_weights: bool = True  # whether a destroy leaves the claim
    gateway_namespace: str  # whose pods may ask the model
    metrics_namespaces: tuple[str, ...] = ("gmp-system",)  # whose pods may read metrics
    mirrors: Mapping[str, str] | None = None
    hub: HubAccess = PUBLIC_HUB  # where its weights come from

    def image(self, image: Image) -> str:
        """The reference that a node pulls."""
        return image.reference(mirror=(self.mirrors or {}).get(image.registry))


@dataclass(frozen=True, kw_only=True)
class ModelObjects:
    """What `model_objects` made."""

    claim: core.PersistentVolumeClaim
    deployment: apps.Deployment
    service: core.Service
    registration: Registration


def weights_of(spec: ModelSpec) -> Weights:
    """The weights of an entry that runs here. Raises ValueError for one that does not."""
    if spec.weights is None:
        raise ValueError(f"{spec.alias} has no weights to stage")
    return spec.weights


def _claim_name(spec: ModelSpec) -> str:
    return f"{spec.alias}-model-cache"


def _claim(args: ModelArgs, parent: pulumi.Resource) -> core.PersistentVolumeClaim:
    name = _claim_name(args.spec)
    return core.PersistentVolumeClaim(
        name,
        # The default class binds at first use, so a model at zero has a claim that nobody should wait for.
        metadata=metadata(
            name,
            args.place.namespace,
            COMPONENT,
            annotations=skip_await(True) | taken_back() | sized_by(claim_setting(args.spec.alias)),
        ),
        spec=core.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            resources=core.VolumeResourceRequirementsArgs(requests={"storage": gib(args.claim_gib)}),
        ),
        opts=pulumi.ResourceOptions.merge(
            args.place.keeping(parent, keep=args.keep_weights),
            pulumi.ResourceOptions(hooks=never_shrinks(name, claim_setting(args.spec.alias))),
        ),
    )


def _stage(args: ModelArgs, image: Image, directories: Sequence[str]) -> core.ContainerArgs:
    """The init container that puts the weights on the claim."""
    weights = weights_of(args.spec)
    return core.ContainerArgs(
        name=STAGE_CONTAINER,
        image=args.image(image),
        command=["python3", f"{_PROGRAM_PATH}/{STAGING_PROGRAM}"],
        env=[
            *env(
                MODEL_ALIAS=args.spec.alias,
                MODEL_ID=args.spec.model_id,
                # None for the default branch: the API server drops an empty value, and the engine would see a change.
                **({"MODEL_REVISION": weights.revision} if weights.revision else {}),
                MODEL_FILES=json.dumps(weights.files),
                **({"MODEL_DIGESTS": json.dumps(dict(weights.digests))} if weights.digests else {}),
                MODEL_BYTES=str(weights.bytes_on_disk),
                STAGE_DEADLINE_S=str(args.cold_start.staging_deadline),
                MODEL_DIRECTORIES=json.dumps(list(directories)),
                MODEL_DIRECTORY_BYTES=str(COMPILE_CACHE_GIB * 2**30),
                HF_HUB_CACHE=HUB_CACHE,
                # The hub's defaults of 10 s fail on a slow answer.
                HF_HUB_DOWNLOAD_TIMEOUT="60",
                HF_HUB_ETAG_TIMEOUT="60",
                PYTHONDONTWRITEBYTECODE="1",
            ),
            *args.hub.environment,
            *user_env(_TMP_PATH),
            *([secret_env("HF_TOKEN", HF_TOKEN_SECRET, HF_TOKEN)] if weights.gated else []),
        ],
        resources=resources(args.needs),
        security_context=container_security(),
        # The last lines of the log say why, also in `kubectl describe pod`.
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            core.VolumeMountArgs(name="model-cache", mount_path=CLAIM_PATH),
            core.VolumeMountArgs(name="stage", mount_path=_PROGRAM_PATH, read_only=True),
            TMP_MOUNT,
            *args.hub.mounts,
        ],
    )


def engine_container(
    args: ModelArgs,
    name: str,
    image: Image,
    *,
    arguments: Sequence[str],
    env: Sequence[core.EnvVarArgs],
    health_route: str,
    probe_period: int,
    extended: Mapping[str, str] | None = None,
    mounts: Sequence[core.VolumeMountArgs] = (),
) -> core.ContainerArgs:
    """The server of a model: weights read-only, probed on its port, with the whole budget of a start to come up."""
    return core.ContainerArgs(
        name=name,
        image=args.image(image),
        args=list(arguments),
        env=[*env, *user_env(image.home)],
        ports=[core.ContainerPortArgs(name="http", container_port=PORT)],
        resources=resources(args.needs, extended=extended),
        security_context=container_security(),
        startup_probe=http_probe(
            health_route, period=probe_period, failures=args.cold_start.startup_failures(probe_period)
        ),
        readiness_probe=http_probe(health_route, period=probe_period, failures=3),
        liveness_probe=http_probe(health_route, period=probe_period, failures=12, timeout=10),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            core.VolumeMountArgs(name="model-cache", mount_path=HUB_CACHE, sub_path="hub", read_only=True),
            *mounts,
            TMP_MOUNT,
        ],
    )


def cpu_model(
    args: ModelArgs,
    parent: pulumi.Resource,
    name: str,
    image: Image,
    *,
    arguments: Sequence[str],
    api_key_variable: str,
    health_route: str,
) -> ModelObjects:
    """A model on CPU: its server needs nothing but its weights and the key, which it takes from a variable."""
    container = engine_container(
        args,
        name,
        image,
        arguments=arguments,
        env=[secret_env(api_key_variable, API_KEY_SECRET, API_KEY)],
        health_route=health_route,
        probe_period=5,
    )
    # Images of such servers have no Python; the gateway's has, and is on the node already.
    return model_objects(args, parent, engine=container, engine_image=image, staging_image=LITELLM)


def model_objects(
    args: ModelArgs,
    parent: pulumi.Resource,
    *,
    engine: core.ContainerArgs,
    engine_image: Image,
    staging_image: Image,
    extra_volumes: Sequence[core.VolumeArgs] = (),
    node_selector: Mapping[str, str] | None = None,
    tolerations: Sequence[core.TolerationArgs] = (),
    directories: Sequence[str] = (),
    after: Sequence[pulumi.Resource] = (),
    hooks: pulumi.ResourceHookBinding | None = None,
) -> ModelObjects:
    """Claim, Deployment, Service, policy and registration of one model.

    `directories` on the claim are made for the engine by its own user, before it mounts them; `hooks` are the
    Deployment's.
    """
    spec, namespace = args.spec, args.place.namespace
    claim = _claim(args, parent)
    pod_volumes = [
        core.VolumeArgs(
            name="model-cache",
            persistent_volume_claim=core.PersistentVolumeClaimVolumeSourceArgs(claim_name=_claim_name(spec)),
        ),
        core.VolumeArgs(name="stage", config_map=core.ConfigMapVolumeSourceArgs(name=STAGING_CONFIG_MAP)),
        TMP_VOLUME,
        *args.hub.volumes,
        *extra_volumes,
    ]
    # At zero there is nothing to wait for, but the provider would: for the claim, which binds at first use. Whoever
    # goes up in the same update still starts after this one was scaled down.
    at_zero = skip_await(args.replicas == 0) or None
    deployment = apps.Deployment(
        spec.alias,
        metadata=metadata(spec.alias, namespace, COMPONENT, annotations=at_zero),
        spec=apps.DeploymentSpecArgs(
            replicas=args.replicas,
            # A rolling update would surge a second pod that waits for the one GPU, or the one claim, for ever.
            strategy=apps.DeploymentStrategyArgs(type="Recreate"),
            progress_deadline_seconds=args.cold_start.progress_deadline,
            revision_history_limit=2,
            selector=meta.LabelSelectorArgs(match_labels={NAME_LABEL: spec.alias}),
            template=core.PodTemplateSpecArgs(
                metadata=meta.ObjectMetaArgs(
                    labels=labels(spec.alias, COMPONENT), annotations={READS: args.api_key_mark}
                ),
                spec=core.PodSpecArgs(
                    automount_service_account_token=False,
                    # A Service named vllm would set VLLM_PORT and kill the engine.
                    enable_service_links=False,
                    security_context=pod_security(engine_image),
                    termination_grace_period_seconds=60,
                    node_selector=dict(node_selector) if node_selector else None,
                    tolerations=list(tolerations) or None,
                    init_containers=[_stage(args, staging_image, directories)],
                    containers=[engine],
                    volumes=pod_volumes,
                ),
            ),
        ),
        opts=pulumi.ResourceOptions(
            parent=parent,
            depends_on=[claim, *after],
            custom_timeouts=timeouts(args.cold_start.await_timeout),
            hooks=hooks,
        ),
    )
    service = core.Service(
        spec.alias,
        # The Deployment's await says that it serves; without pods, waiting for endpoints takes ten seconds.
        metadata=metadata(spec.alias, namespace, COMPONENT, annotations=skip_await(True)),
        spec=core.ServiceSpecArgs(
            type="ClusterIP",
            selector={NAME_LABEL: spec.alias},
            ports=[core.ServicePortArgs(name="http", port=PORT, target_port="http")],
        ),
        opts=pulumi.ResourceOptions(parent=parent),
    )
    callers = [namespace_peer(args.gateway_namespace), *(namespace_peer(n) for n in args.metrics_namespaces)]
    allow(
        spec.alias,
        namespace,
        parent,
        incoming=[ingress(callers, PORT)],
        # Staging only; init containers share the pod's policy.
        outgoing=args.hub.egress if args.hub.download else (),
    )
    return ModelObjects(claim=claim, deployment=deployment, service=service, registration=registration(spec, namespace))
