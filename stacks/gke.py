"""The cloud half of a stack on GKE: APIs, network, cluster, pools, image mirror, the database's disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_gcp as gcp
from pulumi_gcp import projects

from components.gateway import litellm_gateway, postgres
from components.gateway.database import Database
from components.gateway.postgres import Postgres, PostgresArgs
from components.gke.answers import wait_for_google
from components.gke.cloud_sql import CloudSql, CloudSqlArgs
from components.gke.cluster import GkeCluster, GkeClusterArgs
from components.gke.data_place import DataPlace, DataPlaceArgs
from components.gke.image_mirror import ImageMirror, ImageMirrorArgs
from components.gke.l4_node_pool import GkeL4NodePool, GkeL4NodePoolArgs
from components.gke.names import CloudNames
from components.gke.network import GkeNetwork, GkeNetworkArgs
from components.gke.persistent_disk import PersistentDisk, PersistentDiskArgs
from components.kubernetes.moves import SYSTEM_SETTING, Shapes, move_of_system
from components.kubernetes.place import Place
from models.images import POSTGRES, VLLM
from models.machines import region_of
from stacks.plan import Plan, system_holds

# Asked about every other API and every role, so it is on before any of them.
_FIRST_API = "cloudresourcemanager"
_APIS = (
    "artifactregistry",
    "compute",
    "container",
    "containerfilesystem",  # image streaming
    "iam",
    "logging",
    "monitoring",
)
_CLOUD_SQL_APIS = ("servicenetworking", "sqladmin")


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """What the Kubernetes half builds on."""

    provider: gcp.Provider
    names: CloudNames
    project: str
    zone: str
    network_id: pulumi.Output[str]
    kubeconfig: pulumi.Output[str]
    cluster_identifier: str
    mirrors: Mapping[str, str]
    apis: Sequence[pulumi.Resource]
    ready: Sequence[pulumi.Resource]  # nodes and images are there once these are


def cloud(plan: Plan) -> Cloud:
    """Register the cloud half. The plan was admitted, so its GCP section is there."""
    settings, where = plan.settings, plan.settings.gcp
    if where is None:
        raise ValueError("a GKE stack has gcp:project and gcp:zone")
    region = region_of(where.zone)
    names = settings.cloud_names
    labels = _labels(plan)
    wait_for_google(where.project)
    # Default labels reach disks and repositories. Cluster, pools and database have fields of their own for them.
    provider = gcp.Provider("gcp", project=where.project, region=region, zone=where.zone, default_labels=labels)
    in_gcp = pulumi.ResourceOptions(provider=provider)
    apis = _enabled(plan, in_gcp)
    network = GkeNetwork(
        "network",
        GkeNetworkArgs(name=names.network, region=region, after=apis),
        opts=in_gcp,
    )
    shape = pulumi.Stash(
        "system-machine",
        input=plan.system.machine.name,
        opts=pulumi.ResourceOptions(hooks=_system_shapes(plan).stay("the system pool")),
    )
    cluster = GkeCluster(
        "cluster",
        GkeClusterArgs(
            name=names.cluster,
            node_account=names.node_account,
            project=where.project,
            zone=where.zone,
            network_id=network.network_id,
            subnetwork_id=network.subnetwork_id,
            system_machine_type=plan.system.machine.name,
            system_nodes=settings.platform.system_nodes,
            deletion_protection=settings.platform.deletion_protection,
            labels=labels,
            after=apis,
            system_pool_after=[shape],
        ),
        opts=in_gcp,
    )
    mirror = ImageMirror(
        "mirror",
        ImageMirrorArgs(
            project=where.project,
            region=region,
            repositories={registry: names.repository(registry) for registry in plan.registries},
            reader=pulumi.Output.concat("serviceAccount:", cluster.node_service_account),
            after=apis,
        ),
        opts=in_gcp,
    )
    ready: list[pulumi.Resource] = [cluster.system_pool, *mirror.repositories]
    if plan.gpu is not None:
        pool = GkeL4NodePool(
            "l4",
            GkeL4NodePoolArgs(
                cluster=cluster.name,
                zone=where.zone,
                machine=plan.gpu.machine,
                max_nodes=plan.max_gpu_nodes,
                min_driver=VLLM.min_driver or "",
                labels=labels,
                service_account=cluster.node_service_account,
                after=[cluster.system_pool],
                spot=settings.platform.spot,
                boot_disk_gib=settings.platform.gpu_boot_disk_gib,
                sharing_clients=settings.platform.gpu_sharing_clients,
            ),
            opts=in_gcp,
        )
        ready.append(pool.pool)
    return Cloud(
        provider=provider,
        names=names,
        project=where.project,
        zone=where.zone,
        network_id=network.network_id,
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=f"{where.project}/{where.zone}/{names.cluster}",
        mirrors={**mirror.prefixes, **settings.platform.images.mirrors},
        apis=apis,
        ready=ready,
    )


def _enabled(plan: Plan, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """The APIs that the stack uses. None is ever disabled: others in the project may use it."""

    def enabled(api: str, *after: pulumi.Resource) -> pulumi.Resource:
        later = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(after)))
        return projects.Service(api, service=f"{api}.googleapis.com", disable_on_destroy=False, opts=later)

    first = enabled(_FIRST_API)
    gateway = plan.settings.platform.gateway
    sql = _CLOUD_SQL_APIS if "cloud-sql" in (gateway.database, gateway.former_database) else ()
    return [first, *(enabled(api, first) for api in (*_APIS, *sql))]


def _system_shapes(plan: Plan) -> Shapes:
    """The pool's own name has its shape, so a resource beside it keeps what the shape was."""
    return Shapes(
        setting=SYSTEM_SETTING,
        asked=plan.system.asked,
        of=lambda inputs: inputs.get("input"),
        told=move_of_system,
        holds=partial(system_holds, plan),
    )


def _labels(plan: Plan) -> dict[str, str]:
    """Whose a cloud object is, as the bill tells it apart."""
    names = {"project": plan.settings.project, "stack": plan.settings.stack}
    return {key: re.sub(r"[^a-z0-9_-]", "-", name.lower())[:63] for key, name in names.items()}


def gateway_database(
    plan: Plan, base: Cloud, place: Place, password: pulumi.Output[str], workloads: pulumi.ProviderResource
) -> Database:
    """The gateway's database, in the form that survives the cluster, and the one that the stack had before."""
    gateway = plan.settings.platform.gateway
    guard = DataPlace(
        "gateway-data",
        DataPlaceArgs(
            database=gateway.database,
            former_database=gateway.former_database,
            database_gib=gateway.database_gib,
            project=base.project,
            zone=base.zone,
            stack=plan.settings.stack,
        ),
    )
    if gateway.former_database == "in-cluster":
        _disk(plan, base, place, guard, former=True)
    elif gateway.former_database == "cloud-sql":
        _cloud_sql(plan, base, place, guard, password, former=True)
    if gateway.database == "cloud-sql":
        return _cloud_sql(plan, base, place, guard, password).database
    return Postgres(
        "postgres",
        PostgresArgs(
            place=place,
            image=POSTGRES.reference(mirror=base.mirrors[POSTGRES.registry]),
            gib=gateway.database_gib,
            backups_kept=gateway.backups_kept,
            password=password,
            clients=litellm_gateway.DATABASE_CLIENTS,
            volume=_disk(plan, base, place, guard).volume,
        ),
        opts=pulumi.ResourceOptions(provider=workloads),
    ).database


def _cloud_sql(
    plan: Plan, base: Cloud, place: Place, guard: pulumi.Resource, password: pulumi.Output[str], *, former: bool = False
) -> CloudSql:
    platform = plan.settings.platform
    args = CloudSqlArgs(
        name=base.names.sql_instance,
        addresses=base.names.sql_addresses,
        region=region_of(base.zone),
        network_id=base.network_id,
        gib=platform.gateway.database_gib,
        backups_kept=platform.gateway.backups_kept,
        password=password,
        place=place,
        labels=_labels(plan),
        deletion_protection=platform.deletion_protection,
        former=former,
        after=[*base.apis, guard],
    )
    return CloudSql("cloud-sql", args, opts=pulumi.ResourceOptions(provider=base.provider))


def _disk(plan: Plan, base: Cloud, place: Place, guard: pulumi.Resource, *, former: bool = False) -> PersistentDisk:
    platform = plan.settings.platform
    args = PersistentDiskArgs(
        name=base.names.database_disk,
        project=base.project,
        zone=base.zone,
        gib=platform.gateway.database_gib,
        claim=postgres.CLAIM,
        place=place,
        deletion_protection=platform.deletion_protection,
        former=former,
        after=[*base.apis, guard],
    )
    return PersistentDisk("gateway-disk", args, opts=pulumi.ResourceOptions(provider=base.provider))
