"""PostgreSQL in the cluster, for the gateway: one pod, one claim that outlives everything, and its dumps."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps import v1 as apps
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.gateway import backup
from components.gateway.database import NAME, PASSWORD, PASSWORD_SECRET, PORT, USER, Database
from components.kubernetes.network_policies import allow, app_peer, ingress
from components.kubernetes.never_shrink import DATABASE_SETTING, never_shrinks, sized_by
from components.kubernetes.place import Place, StaticVolume
from components.kubernetes.pods import (
    NAME_LABEL,
    container_security,
    env,
    gib,
    labels,
    metadata,
    pod_security,
    resources,
    scratch,
    skip_await,
    taken_back,
)
from components.kubernetes.secrets import opaque_secret
from models.gateway_database import IN_CLUSTER_CONNECTIONS, LEAST_GIB
from models.images import POSTGRES
from models.needs import Needs

APP = "litellm-db"
CLAIM = f"{APP}-data"
NEEDS = Needs(cpu=0.1, gib=0.5, ephemeral_gib=0.5)
_DATA = "/var/lib/postgresql/data"


@dataclass(frozen=True, kw_only=True)
class PostgresArgs:
    """`volume` was made beforehand; None lets the default class make one.

    `clients` are the apps of the same namespace that may connect.
    """

    place: Place  # namespace and provider of everything here
    image: str  # reference of PostgreSQL, as nodes pull it
    gib: int  # size of the claim, and of that of the dumps; it may only grow
    backups_kept: int  # one a night
    password: pulumi.Input[str]  # secret: of the database's user
    clients: tuple[str, ...]
    volume: StaticVolume | None = None


class Postgres(pulumi.ComponentResource):
    """Claim, password Secret, StatefulSet of one, Service, policy and backup.

    The password is that of the first start, kept inside the data. So its Secret is immutable: another value in
    config is refused by the API server, instead of locking the gateway out of its database.
    """

    database: Database

    def __init__(self, name: str, args: PostgresArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gateway:Postgres", name, None, opts)
        namespace = args.place.namespace
        child = pulumi.ResourceOptions(parent=self)
        secret = opaque_secret(
            PASSWORD_SECRET,
            namespace,
            {PASSWORD: args.password},
            args.place.keeping(self),
            immutable_from="databasePassword",
        )
        claim = _claim(args, self)
        run_volume, run_mount = scratch("run", "/var/run/postgresql", "16Mi")
        tmp_volume, tmp_mount = scratch("tmp", "/tmp", "64Mi")  # noqa: S108  a volume
        ready = ["pg_isready", "-h", "127.0.0.1", "-U", USER, "-d", NAME]
        container = core.ContainerArgs(
            name="postgres",
            image=args.image,
            # The gateway's pools are made to fit it.
            args=["-c", f"max_connections={IN_CLUSTER_CONNECTIONS}"],
            env=env(
                POSTGRES_USER=USER,
                POSTGRES_DB=NAME,
                POSTGRES_PASSWORD_FILE=f"/run/secrets/{PASSWORD_SECRET}/{PASSWORD}",
                POSTGRES_INITDB_ARGS="--data-checksums --auth-host=scram-sha-256",
                # Below the mount: a fresh disk has a lost+found, which initdb refuses.
                PGDATA=f"{_DATA}/pgdata",
            ),
            ports=[core.ContainerPortArgs(name="postgres", container_port=PORT)],
            resources=resources(NEEDS),
            security_context=container_security(),
            # By TCP: the server that initialises the data listens on its socket only and is not ready.
            startup_probe=core.ProbeArgs(
                exec_=core.ExecActionArgs(command=ready), period_seconds=5, failure_threshold=60
            ),
            readiness_probe=core.ProbeArgs(
                exec_=core.ExecActionArgs(command=ready), period_seconds=10, timeout_seconds=5
            ),
            liveness_probe=core.ProbeArgs(
                exec_=core.ExecActionArgs(command=ready), period_seconds=20, failure_threshold=6, timeout_seconds=5
            ),
            volume_mounts=[
                core.VolumeMountArgs(name="data", mount_path=_DATA),
                core.VolumeMountArgs(name="password", mount_path=f"/run/secrets/{PASSWORD_SECRET}", read_only=True),
                run_mount,
                tmp_mount,
            ],
        )
        server = apps.StatefulSet(
            APP,
            metadata=metadata(APP, namespace, "database"),
            spec=apps.StatefulSetSpecArgs(
                replicas=1,
                service_name=APP,
                selector=meta.LabelSelectorArgs(match_labels={NAME_LABEL: APP}),
                template=core.PodTemplateSpecArgs(
                    # A disk that grew has a file system that grows when it is mounted the next time.
                    metadata=meta.ObjectMetaArgs(
                        labels=labels(APP, "database"),
                        annotations={"ai-platform/disk": gib(args.gib)} if args.volume else None,
                    ),
                    spec=core.PodSpecArgs(
                        automount_service_account_token=False,
                        enable_service_links=False,
                        security_context=pod_security(POSTGRES),
                        termination_grace_period_seconds=60,
                        containers=[container],
                        volumes=[
                            core.VolumeArgs(
                                name="data",
                                persistent_volume_claim=core.PersistentVolumeClaimVolumeSourceArgs(claim_name=CLAIM),
                            ),
                            core.VolumeArgs(
                                name="password",
                                secret=core.SecretVolumeSourceArgs(
                                    secret_name=PASSWORD_SECRET,
                                    items=[core.KeyToPathArgs(key=PASSWORD, path=PASSWORD)],
                                    default_mode=0o440,
                                ),
                            ),
                            run_volume,
                            tmp_volume,
                        ],
                    ),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[claim, secret]),
        )
        service = core.Service(
            APP,
            # The StatefulSet is what clients wait for; waiting for endpoints besides takes ten seconds.
            metadata=metadata(APP, namespace, "database", annotations=skip_await(True)),
            spec=core.ServiceSpecArgs(
                type="ClusterIP",
                selector={NAME_LABEL: APP},
                ports=[core.ServicePortArgs(name="postgres", port=PORT, target_port="postgres")],
            ),
            opts=child,
        )
        clients = (*args.clients, backup.APP)
        allow(APP, namespace, self, incoming=[ingress([app_peer(client) for client in clients], PORT)])
        host = f"{APP}.{namespace}.svc.cluster.local"
        backup.DatabaseBackup(
            "backup",
            backup.DatabaseBackupArgs(
                place=args.place,
                image=args.image,
                app=APP,
                host=host,
                gib=args.gib,
                kept=args.backups_kept,
                after=(server, service),
            ),
            opts=child,
        )
        self.database = Database(
            host=host,
            ssl_mode="disable",
            max_connections=IN_CLUSTER_CONNECTIONS,
            peer=app_peer(APP),
            secret=PASSWORD_SECRET,
            ready=(server, service),
        )
        self.register_outputs({})


def _claim(args: PostgresArgs, parent: pulumi.Resource) -> core.PersistentVolumeClaim:
    if args.volume:
        # No class at all, bound to exactly the volume named, whose size is the disk's. The API server never changes the
        # size of such a claim, so it asks for what every disk has, or for what an older one asked.
        size, request = {}, LEAST_GIB
        how = pulumi.ResourceOptions(depends_on=[args.volume.volume], ignore_changes=["spec.resources.requests"])
    else:
        size, request = sized_by(DATABASE_SETTING), args.gib
        how = pulumi.ResourceOptions(hooks=never_shrinks(CLAIM, DATABASE_SETTING))
    return core.PersistentVolumeClaim(
        CLAIM,
        metadata=metadata(CLAIM, args.place.namespace, "database", annotations=skip_await(True) | taken_back() | size),
        spec=core.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            resources=core.VolumeResourceRequirementsArgs(requests={"storage": gib(request)}),
            storage_class_name="" if args.volume else None,
            volume_name=args.volume.name if args.volume else None,
        ),
        opts=pulumi.ResourceOptions.merge(args.place.keeping(parent), how),
    )
