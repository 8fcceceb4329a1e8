"""What the objects of a stack are called in the cloud, and what each service takes for a name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_ACCOUNT_ID = 30  # letters of a service account's id
_NODES = "-nodes"


@dataclass(frozen=True, kw_only=True)
class NameRule:
    """A service's own pattern for a name. Source: the field's reference in the service's API."""

    what: str  # "a GKE cluster"
    pattern: str  # of the whole name
    longest: int  # letters

    def takes(self, name: str) -> bool:
        return len(name) <= self.longest and re.fullmatch(self.pattern, name) is not None


_LABEL = r"[a-z](?:[a-z0-9-]*[a-z0-9])?"
CLUSTER = NameRule(what="a GKE cluster", pattern=_LABEL, longest=40)
COMPUTE = NameRule(what="a network, router or disk of Compute Engine", pattern=_LABEL, longest=63)
ACCOUNT = NameRule(what="a service account", pattern=r"[a-z](?:[a-z0-9-]{4,}[a-z0-9])", longest=_ACCOUNT_ID)
REPOSITORY = NameRule(what="a repository of Artifact Registry", pattern=_LABEL, longest=63)
# Instance and project together, "project:instance", have 98 letters, and a project's id has 30 at most.
SQL_INSTANCE = NameRule(what="a Cloud SQL instance", pattern=_LABEL, longest=67)


@dataclass(frozen=True)
class CloudNames:
    """Names of all cloud objects of one stack; no other stack of the project has any of them."""

    base: str  # project and stack of Pulumi: "ai-platform-ai-dev"

    @property
    def cluster(self) -> str:
        return self.base

    @property
    def network(self) -> str:
        """Also of subnetwork, router and NAT."""
        return self.base

    @property
    def node_account(self) -> str:
        """Id of the nodes' service account. Too long a name is cut, and told from its like by a digest of the whole."""
        if len(self.base) + len(_NODES) <= _ACCOUNT_ID:
            return self.base + _NODES
        digest = hashlib.sha256(self.base.encode()).hexdigest()[:6]
        return f"{self.base[: _ACCOUNT_ID - len(_NODES) - len(digest) - 1].rstrip('-')}-{digest}{_NODES}"

    @property
    def database_disk(self) -> str:
        """Also of the volume on it."""
        return f"{self.base}-gateway-db"

    @property
    def sql_instance(self) -> str:
        return f"{self.base}-gateway"

    @property
    def sql_addresses(self) -> str:
        return f"{self.sql_instance}-sql"

    def repository(self, registry: str) -> str:
        """Id of the repository through which images of a public registry are pulled."""
        return f"{self.base}-{re.sub(r'[^a-z0-9]+', '-', registry)}"

    def refused(self, registries: Iterable[str]) -> Iterator[tuple[str, NameRule]]:
        """The names that their services would not take, with the rule that each breaks."""
        named = [
            (self.cluster, CLUSTER),
            (self.network, COMPUTE),
            (self.node_account, ACCOUNT),
            (self.database_disk, COMPUTE),
            (self.sql_instance, SQL_INSTANCE),
            (self.sql_addresses, COMPUTE),
            *((self.repository(registry), REPOSITORY) for registry in registries),
        ]
        return ((name, rule) for name, rule in named if not rule.takes(name))
