"""Where the gateway keeps keys, budgets and spend: what any PostgreSQL offers to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.networking import v1 as net

PORT = 5432
USER = "litellm"
NAME = "litellm"
PASSWORD_SECRET = "litellm-database"  # noqa: S105  a name
PASSWORD = "password"  # noqa: S105  a key


@dataclass(frozen=True, kw_only=True)
class Database:
    """A reachable database with a user; the password is in the Secret above, in the gateway's namespace."""

    host: pulumi.Input[str]
    ssl_mode: str  # libpq's
    max_connections: int  # as the server has it
    peer: net.NetworkPolicyPeerArgs  # for the egress policy of its clients
    ready: Sequence[pulumi.Resource]  # clients start after these
