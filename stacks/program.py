"""The Pulumi program: config in, components wired, outputs out. The same under `pulumi up` and `ops plan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.gateway import litellm_gateway
from components.gateway.database import Database
from components.gateway.keys import GatewayKeys, GatewayKeysArgs
from components.gateway.litellm_gateway import LiteLlmGateway, LiteLlmGatewayArgs
from components.gateway.postgres import Postgres, PostgresArgs
from components.kubernetes.clean_exit import end_without_traceback
from components.kubernetes.place import Place, restricted_namespace
from components.kubernetes.secrets import fingerprint_output
from components.serving.engines import COMPONENTS, Slot
from components.serving.hub import HubAccess
from components.serving.model_workload import ModelArgs
from components.serving.namespace import API_KEY, API_KEY_SECRET, ServingNamespace, ServingNamespaceArgs
from components.serving.registration import Registration
from models.facts import Image
from models.images import LITELLM, POSTGRES
from models.machines import G2_MACHINES
from stacks import settings
from stacks.access import desired_access, model_state
from stacks.admission import admit
from stacks.cluster_look import ClusterLook
from stacks.costs import costs
from stacks.everywhere import log_in, use_storage_class
from stacks.gke import Cloud, cloud, gateway_database
from stacks.ownership import claim_all
from stacks.plan import Plan, PlannedModel, State, Workload, gateway_needs
from stacks.secrets import (
    DATABASE_PASSWORD,
    HUGGING_FACE_TOKEN,
    MASTER_KEY,
    REGISTRY_LOGIN,
    SALT_KEY,
    SERVING_API_KEY,
)
from stacks.sections import GATEWAY, SERVING, Namespaces
from stacks.staging import await_staging


def main() -> None:
    """Deploy what the config of the running stack asks for, or say everything that is wrong with it.

    Exits with 1 and without a traceback if anything is wrong; nothing is registered then.
    """
    admission = admit(settings.read(), rehearsal=settings.REHEARSAL.get())
    if admission.problems:
        for problem in admission.problems:
            pulumi.log.error(str(problem))
        sys.exit(1)
    for notice in admission.notices:
        pulumi.log.warn(str(notice))
    if local := admission.plan.local:
        pulumi.log.info(f"of this checkout alone, in {local}")
    if not settings.REHEARSAL.get():
        end_without_traceback()
    deploy(admission.plan)


@dataclass(frozen=True, kw_only=True)
class _Site:
    """Where workloads go."""

    data: k8s.Provider
    workloads: k8s.Provider
    mirrors: Mapping[str, str]
    names: Namespaces
    namespaces: Mapping[str, pulumi.Resource]  # by name

    @property
    def gateway(self) -> Place:
        return self._place(self.names.gateway)

    @property
    def models(self) -> Place:
        return self._place(self.names.models)

    def _place(self, namespace: str) -> Place:
        return Place(namespace=namespace, data=self.data, after=(self.namespaces[namespace],))

    def image(self, image: Image) -> str:
        return image.reference(mirror=self.mirrors.get(image.registry))

    @property
    def opts(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(provider=self.workloads)


def deploy(plan: Plan) -> None:
    """Register everything of an admitted plan."""
    base = cloud(plan) if plan.settings.platform.target == "gke" else None
    site = _site(plan, base)
    if REGISTRY_LOGIN in plan.secrets:
        log_in(settings.secret_output(REGISTRY_LOGIN), site.namespaces, site.opts)
    token = settings.secret_output(HUGGING_FACE_TOKEN) if HUGGING_FACE_TOKEN in plan.secrets else None
    api_key = settings.secret_output(SERVING_API_KEY)
    ServingNamespace(
        SERVING,
        ServingNamespaceArgs(
            namespace=site.names.models, api_key=api_key, hugging_face_token=token, hub=hub_access(plan)
        ),
        opts=site.opts,
    )
    api_key_mark = fingerprint_output({f"{API_KEY_SECRET}/{API_KEY}": api_key}, settings.secret_output(SALT_KEY))
    registrations, up = _models(plan, site, api_key_mark)
    password = settings.secret_output(DATABASE_PASSWORD)
    gateway = LiteLlmGateway(
        GATEWAY,
        LiteLlmGatewayArgs(
            place=site.gateway,
            image=site.image(LITELLM),
            replicas=plan.settings.platform.gateway.replicas,
            needs=gateway_needs(plan.settings, plan.models),
            spend_log_days=plan.settings.platform.gateway.spend_log_days,
            models=registrations,
            serving_namespaces=(site.names.models,),
            database=gateway_database(plan, base, site.gateway, password, site.workloads)
            if base
            else _local_database(plan, site, password),
            master_key=settings.secret_output(MASTER_KEY),
            salt_key=settings.secret_output(SALT_KEY),
            upstream_api_key=api_key,
            model_state=model_state(plan),
            up=up,
        ),
        opts=site.opts,
    )
    GatewayKeys(
        "keys",
        GatewayKeysArgs(
            namespace=site.names.gateway,
            image=site.image(LITELLM),
            desired=desired_access(plan),
            values=settings.key_value_outputs(plan.settings.platform.keys),
            master_key=settings.secret_output(MASTER_KEY),
            salt_key=settings.secret_output(SALT_KEY),
            after=[gateway.proxy],
        ),
        opts=site.opts,
    )
    pulumi.export("gatewayUrl", gateway.url)
    pulumi.export(
        "gatewayForward",
        pulumi.Output.concat(
            f"kubectl -n {site.names.gateway} port-forward svc/", gateway.service_name, f" {litellm_gateway.PORT}"
        ),
    )
    pulumi.export("models", [registration.alias for registration in registrations])
    pulumi.export("modelsUp", [model.spec.alias for model in plan.models if model.state is State.UP])
    if base:
        pulumi.export(
            "kubectlLogin",
            f"gcloud container clusters get-credentials {base.names.cluster} --zone {base.zone} "
            f"--project {base.project} --dns-endpoint",
        )
    if bill := costs(plan):
        pulumi.export("idleUsdPerMonth", bill.idle_usd_per_month)
        pulumi.export("usdPerHourNow", bill.usd_per_hour_now)
        pulumi.export("worstCaseUsdPerMonth", bill.worst_case_usd_per_month)
        pulumi.export("pricesAsOf", bill.dated)
        pulumi.export("modelCosts", {model.alias: model.told for model in bill.models})


def _site(plan: Plan, base: Cloud | None) -> _Site:
    """Namespaces and the two provider instances.

    `data` adopts what a destroy kept (upsert) and takes nothing over from another manager (no force).
    `workloads` repairs: it adopts an object whose creation was lost on the way (upsert), overrides changes made
    by hand (force), and updates ConfigMaps and Secrets in place. Neither is asked to take over what is not marked as
    the stack's own.
    """
    platform = plan.settings.platform
    if base:
        kubeconfig, context, identifier = base.kubeconfig, None, base.cluster_identifier
    else:
        kubeconfig, context = platform.kubeconfig, platform.kube_context
        # Another context is another cluster, where everything has to be made; another address of it is not.
        identifier = f"{plan.settings.project}/{plan.settings.stack}/{platform.kube_context}"
    look = ClusterLook(kubeconfig, context)
    claim_all(plan.settings, look)
    use_storage_class(platform.storage_class)
    await_staging(look, platform.namespaces.models, plan.settings.stack)
    data = k8s.Provider(
        "data",
        kubeconfig=kubeconfig,
        context=context,
        # Fixed, or a moved endpoint would replace every object.
        cluster_identifier=identifier,
        upsert_existing_objects=True,
        opts=pulumi.ResourceOptions(depends_on=list(base.ready) if base else None),
    )
    names = platform.namespaces
    # Known to the engine by what they are for.
    namespaces = {
        namespace: restricted_namespace(resource, namespace, data)
        for resource, namespace in ((SERVING, names.models), (GATEWAY, names.gateway))
    }
    workloads = k8s.Provider(
        "workloads",
        kubeconfig=kubeconfig,
        context=context,
        cluster_identifier=identifier,
        upsert_existing_objects=True,
        enable_patch_force=True,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        opts=pulumi.ResourceOptions(depends_on=[*namespaces.values(), *(base.ready if base else ())]),
    )
    return _Site(
        data=data,
        workloads=workloads,
        mirrors=base.mirrors if base else platform.images.mirrors,
        names=names,
        namespaces=namespaces,
    )


def _local_database(plan: Plan, site: _Site, password: pulumi.Output[str]) -> Database:
    """In the cluster, on a claim of the default class."""
    args = PostgresArgs(
        place=site.gateway,
        image=site.image(POSTGRES),
        gib=plan.settings.platform.gateway.database_gib,
        backups_kept=plan.settings.platform.gateway.backups_kept,
        password=password,
        clients=litellm_gateway.DATABASE_CLIENTS,
    )
    return Postgres("postgres", args, opts=site.opts).database


# --- models --------------------------------------------------------------------------------------------------


def _model_args(
    plan: Plan, site: _Site, model: PlannedModel, load: Workload, api_key_mark: pulumi.Output[str]
) -> ModelArgs:
    return ModelArgs(
        spec=model.spec,
        place=site.models,
        replicas=model.replicas,
        needs=load.needs,
        cold_start=load.cold_start,
        claim_gib=load.claim_gib,
        api_key_mark=api_key_mark,
        keep_weights=plan.settings.platform.retain_weights,
        gateway_namespace=site.names.gateway,
        mirrors=site.mirrors,
        hub=hub_access(plan),
    )


def hub_access(plan: Plan) -> HubAccess:
    """How pods of a plan reach the hub."""
    hub = plan.settings.platform.hub
    return HubAccess(endpoint=hub.endpoint, proxy=hub.proxy, ca=hub.ca, cidr=hub.cidr, download=hub.download)


def _models(
    plan: Plan, site: _Site, api_key_mark: pulumi.Output[str]
) -> tuple[list[Registration], list[pulumi.Resource]]:
    """Every enabled model; those going up wait until those at zero have let go of the GPU.

    Returns the registrations, and the Deployments of models that come up.
    """
    machine = plan.gpu.machine if plan.gpu else next(iter(G2_MACHINES.values()))
    registrations: dict[str, Registration] = {}
    released: list[pulumi.Resource] = []
    up: list[pulumi.Resource] = []
    for model in sorted(plan.deployed, key=lambda m: m.replicas > 0):
        if model.workload is None:
            continue
        slot = Slot(
            machine_type=machine.name,
            after=tuple(released) if model.gpus else (),
            node_labels=plan.settings.platform.gpu_node_labels,
            asked=plan.gpu is None or plan.gpu.asked,
            waits=not plan.holds_two_gpu_nodes,
        )
        args = _model_args(plan, site, model, model.workload, api_key_mark)
        deployed = COMPONENTS[type(model.spec.engine)](args, slot, site.opts)
        registrations[model.spec.alias] = deployed.registration
        if model.replicas:
            up.append(deployed.deployment)
        elif model.spec.gpus:
            released.append(deployed.deployment)
    # In the catalog's order, whatever is up: the gateway's configuration does not change with it.
    return [registrations[m.spec.alias] for m in plan.deployed if m.spec.alias in registrations], up
