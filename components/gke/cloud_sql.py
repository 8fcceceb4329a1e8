"""A managed PostgreSQL for the gateway, on a private address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import compute, servicenetworking, sql

from components.gateway.database import NAME, PASSWORD, USER, Database
from components.kubernetes.network_policies import cidr_peer
from components.kubernetes.place import Place
from components.kubernetes.secrets import opaque_secret
from models.gateway_database import CLOUD_SQL_CONNECTIONS
from models.prices import CLOUD_SQL_TIER

# Not that of a database in the cluster, which never changes: a stack may have had one before.
PASSWORD_SECRET = "litellm-cloud-sql"  # noqa: S105  a name
# A fixed range, so that the gateway's egress policy can name it before the instance exists.
_ADDRESS, _PREFIX = "10.16.0.0", 20


# Who connects, waits and changes tables, and never a statement with the values in it. All are set without a restart.
_LOGGED = {
    "log_checkpoints": "on",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_lock_waits": "on",
    "log_temp_files": "0",
}


@dataclass(frozen=True, kw_only=True)
class CloudSqlArgs:
    """An instance that is `former` is kept beside the database that is used now, until the stack lets go of it."""

    name: str  # of the instance on Google Cloud
    addresses: str  # name of the range that the instance takes its address from
    region: str  # of the cluster
    network_id: pulumi.Input[str]  # network that gets the private connection
    gib: int  # size of the disk; it may only grow
    backups_kept: int  # one a day
    password: pulumi.Input[str]  # secret: of the database's user
    place: Place  # namespace and provider of the password's Secret
    labels: Mapping[str, str]  # of the instance, for the bill
    deletion_protection: bool  # whether Google Cloud refuses to delete the instance
    former: bool = False
    after: Sequence[pulumi.Resource] = ()  # what comes first: APIs, and the guard of what holds data


class CloudSql(pulumi.ComponentResource):
    """Protected instance with backups, its private connection, database, user, and the password's Secret.

    Database, user and connection go with instance and network, and cannot be deleted before them: the user owns
    tables, and the instance uses the connection for days after its end.
    """

    database: Database

    def __init__(self, name: str, args: CloudSqlArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ai-platform:gke:CloudSql", name, None, opts)
        # The Secret is that of the database which is used.
        passwords = {PASSWORD: args.password}
        secret = (
            ()
            if args.former
            else (opaque_secret(PASSWORD_SECRET, args.place.namespace, passwords, args.place.keeping(self)),)
        )
        child = pulumi.ResourceOptions(parent=self, retain_on_delete=args.former)
        policy = "PREVENT" if args.deletion_protection else "ABANDON"
        kept = pulumi.ResourceOptions(parent=self, protect=not args.former, retain_on_delete=args.former)
        addresses = compute.GlobalAddress(
            "sql-addresses",
            name=args.addresses,
            purpose="VPC_PEERING",
            address_type="INTERNAL",
            address=_ADDRESS,
            prefix_length=_PREFIX,
            network=args.network_id,
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(args.after))),
        )
        connection = servicenetworking.Connection(
            "sql-connection",
            network=args.network_id,
            service="servicenetworking.googleapis.com",
            reserved_peering_ranges=[addresses.name],
            # Google remembers the connection of a network of this name for days after it is gone.
            update_on_creation_fail=True,
            deletion_policy="ABANDON",
            opts=child,
        )
        instance = sql.DatabaseInstance(
            "sql",
            name=args.name,
            region=args.region,
            database_version="POSTGRES_17",
            deletion_protection=args.deletion_protection,
            settings=sql.DatabaseInstanceSettingsArgs(
                tier=CLOUD_SQL_TIER,
                user_labels=dict(args.labels),
                # The gateway's pools are made to fit the connections.
                database_flags=[
                    sql.DatabaseInstanceSettingsDatabaseFlagArgs(name=flag, value=value)
                    for flag, value in {"max_connections": str(CLOUD_SQL_CONNECTIONS), **_LOGGED}.items()
                ],
                edition="ENTERPRISE",
                # It grows by itself, and while it does so, asking for less than there is is no change.
                disk_size=args.gib,
                disk_autoresize=True,
                deletion_protection_enabled=args.deletion_protection,
                ip_configuration=sql.DatabaseInstanceSettingsIpConfigurationArgs(
                    ipv4_enabled=False, private_network=args.network_id, ssl_mode="ENCRYPTED_ONLY"
                ),
                backup_configuration=sql.DatabaseInstanceSettingsBackupConfigurationArgs(
                    enabled=True,
                    point_in_time_recovery_enabled=True,
                    backup_retention_settings=sql.DatabaseInstanceSettingsBackupConfigurationBackupRetentionSettingsArgs(
                        retained_backups=args.backups_kept, retention_unit="COUNT"
                    ),
                ),
            ),
            opts=pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[connection])),
        )
        database = sql.Database("sql-database", name=NAME, instance=instance.name, deletion_policy=policy, opts=kept)
        user = sql.User(
            "sql-user",
            name=USER,
            instance=instance.name,
            password=args.password,
            deletion_policy=policy,
            opts=kept,
        )
        self.database = Database(
            host=instance.private_ip_address,
            ssl_mode="require",
            max_connections=CLOUD_SQL_CONNECTIONS,
            peer=cidr_peer(f"{_ADDRESS}/{_PREFIX}"),
            secret=PASSWORD_SECRET,
            password=args.password,
            ready=(*secret, database, user),
        )
        self.register_outputs({})
