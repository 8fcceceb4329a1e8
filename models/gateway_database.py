"""What the gateway and its database ask of each other: connections, and room for the log of calls. Pure."""

from __future__ import annotations

from models.facts import GIB

MAX_REPLICAS = 10  # of the proxy, by config
# LiteLLM's default pool, and what a replica holds beside it: 11 were counted.
_POOL, _BESIDE_POOL = 10, 1
_ROLLING = 2  # replicas more while an update rolls: the one that comes, and one that writes what it holds and leaves
_OTHERS = 5  # the migration, a dump, a restore, probes, an operator
_RESERVED = 3  # superuser_reserved_connections
IN_CLUSTER_CONNECTIONS = 100  # PostgreSQL's default; fixed, since another number restarts the database
CLOUD_SQL_CONNECTIONS = 50  # Cloud SQL's default for the 1.7 GB of CLOUD_SQL_TIER; recalled

# Measured: LiteLLM_SpendLogs with its indexes, and what one replica serves (docs/gateway.md).
CALL_BYTES = 5_200
CALLS_PER_SECOND = 70
LEAST_GIB = 10  # of its disk, by config; Google's smallest balanced disk
_OTHER_GIB = 2  # write-ahead log (1 GiB, max_wal_size), catalogs, keys, daily totals


def pool_size(max_connections: int, replicas: int) -> int:
    """Connections in the pool of one replica, so that all of them together always find room."""
    free = max_connections - _RESERVED - _OTHERS
    return min(_POOL, free // (replicas + _ROLLING) - _BESIDE_POOL)


def most_connections(pool: int, replicas: int) -> int:
    """What a gateway and its jobs may hold at once, an update included."""
    return (replicas + _ROLLING) * (pool + _BESIDE_POOL) + _OTHERS + _RESERVED


def calls_that_fit(gib: int) -> int:
    """Calls whose log a database disk holds."""
    return int((gib - _OTHER_GIB) * GIB / CALL_BYTES)
