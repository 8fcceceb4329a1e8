"""Dumps of the gateway's in-cluster database, every night, on a claim of their own; and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
from pulumi_kubernetes.batch import v1 as batch
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta

from components.gateway.database import NAME, PASSWORD, PASSWORD_SECRET, PORT, USER
from components.kubernetes.network_policies import allow, app_peer, egress
from components.kubernetes.never_shrink import DATABASE_SETTING, never_shrinks, sized_by
from components.kubernetes.place import Place
from components.kubernetes.pods import (
    container_security,
    env,
    gib,
    labels,
    metadata,
    pod_that_ends,
    resources,
    scratch,
    secret_env,
    skip_await,
    taken_back,
)
from models.images import POSTGRES
from models.needs import Needs

APP = "litellm-db-backup"
CLAIM = f"{APP}s"
RESTORE = "litellm-db-restore"
NEEDS = Needs(cpu=0.1, gib=0.25, ephemeral_gib=0.1)
_BACK_UP, _RESTORE = "back_up.sh", "restore.sh"
_PROGRAMS, _DUMPS = "/etc/backup", "/dumps"
_SCHEDULE = "15 2 * * *"  # UTC
_LATE_S = 6 * 3600  # a cluster that was away at night still dumps in the morning
_LIMIT_S = 3 * 3600


@dataclass(frozen=True, kw_only=True)
class DatabaseBackupArgs:
    """`app` is the database's; it lets this one's pods in."""

    place: Place  # namespace of database and dumps, and the provider of the claim
    image: str  # PostgreSQL's, as nodes pull it
    app: str
    host: str  # the database's Service
    gib: int  # of the claim of the dumps; it may only grow
    kept: int  # dumps that stay
    after: tuple[pulumi.Resource, ...]  # the database


class DatabaseBackup(pulumi.ComponentResource):
    """Claim, programs, a CronJob that dumps, a suspended one to make a restore from, and their policy.

    The dumps are on another disk than the database, compressed, so a claim of its size holds several times what it
    has. Keys are in them as hashes only. A restore is a Job that an operator makes: nothing runs it by itself.
    """

    def __init__(self, name: str, args: DatabaseBackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gateway:DatabaseBackup", name, None, opts)
        namespace = args.place.namespace
        child = pulumi.ResourceOptions(parent=self)
        claim = core.PersistentVolumeClaim(
            CLAIM,
            metadata=metadata(
                CLAIM, namespace, "database", annotations=skip_await(True) | taken_back() | sized_by(DATABASE_SETTING)
            ),
            spec=core.PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteOnce"],
                resources=core.VolumeResourceRequirementsArgs(requests={"storage": gib(args.gib)}),
            ),
            opts=pulumi.ResourceOptions.merge(
                args.place.keeping(self), pulumi.ResourceOptions(hooks=never_shrinks(CLAIM, DATABASE_SETTING))
            ),
        )
        programs = core.ConfigMap(
            APP,
            metadata=metadata(APP, namespace, "database"),
            data={file: Path(__file__).with_name(file).read_text() for file in (_BACK_UP, _RESTORE)},
            opts=child,
        )
        allow(APP, namespace, self, outgoing=[egress([app_peer(args.app)], PORT)])
        for job, program, suspended in ((APP, _BACK_UP, False), (RESTORE, _RESTORE, True)):
            batch.CronJob(
                job,
                metadata=metadata(job, namespace, "database"),
                spec=batch.CronJobSpecArgs(
                    schedule=_SCHEDULE,
                    suspend=suspended,
                    starting_deadline_seconds=_LATE_S,
                    concurrency_policy="Forbid",
                    successful_jobs_history_limit=1,
                    failed_jobs_history_limit=1,
                    job_template=batch.JobTemplateSpecArgs(
                        metadata=meta.ObjectMetaArgs(labels=labels(APP, "database")),
                        spec=batch.JobSpecArgs(
                            # A restore that failed is looked at before it runs again.
                            backoff_limit=0 if suspended else 2,
                            active_deadline_seconds=_LIMIT_S,
                            template=core.PodTemplateSpecArgs(
                                metadata=meta.ObjectMetaArgs(labels=labels(APP, "database")),
                                spec=self._pod(args, program),
                            ),
                        ),
                    ),
                ),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[claim, programs, *args.after]),
            )
        self.register_outputs({})

    def _pod(self, args: DatabaseBackupArgs, program: str) -> core.PodSpecArgs:
        tmp_volume, tmp_mount = scratch("tmp", "/tmp", "64Mi")  # noqa: S108  a volume
        container = core.ContainerArgs(
            name="postgres",
            image=args.image,
            command=["bash", f"{_PROGRAMS}/{program}"],
            env=[
                secret_env("PGPASSWORD", PASSWORD_SECRET, PASSWORD),
                *env(
                    PGHOST=args.host,
                    PGPORT=str(PORT),
                    PGUSER=USER,
                    PGDATABASE=NAME,
                    DUMPS=_DUMPS,
                    KEPT=str(args.kept),
                ),
            ],
            resources=resources(NEEDS),
            security_context=container_security(),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[
                core.VolumeMountArgs(name="programs", mount_path=_PROGRAMS, read_only=True),
                core.VolumeMountArgs(name="dumps", mount_path=_DUMPS),
                tmp_mount,
            ],
        )
        return pod_that_ends(
            POSTGRES,
            container,
            [
                core.VolumeArgs(name="programs", config_map=core.ConfigMapVolumeSourceArgs(name=APP)),
                core.VolumeArgs(
                    name="dumps",
                    persistent_volume_claim=core.PersistentVolumeClaimVolumeSourceArgs(claim_name=CLAIM),
                ),
                tmp_volume,
            ],
        )
