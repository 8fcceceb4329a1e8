"""What the waits of `ops up` meet: findings in place of a pod's state, and the end where waiting mends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ops.errors import FailedError, OpsError
from ops.findings.causes import Cause
from ops.findings.diagnose import diagnose
from ops.findings.finding import Finding, Workload
from ops.findings.look import Cluster, look
from ops.findings.redact import Redactor
from ops.findings.ways import Ways

_EVERY_S = 5.0


@dataclass
class Watch:
    """Looks at a cluster now and then while something is awaited.

    `planned` is what is deployed: others' failures end no wait of ours. What had failed before the watch began does
    neither: only evidence that was made since then counts as final.
    """

    cluster: Cluster
    namespaces: Sequence[str]
    planned: Collection[tuple[str, str, str]]  # kind, namespace, name
    ways: Ways
    redact: Redactor = field(repr=False)
    every: float = _EVERY_S
    clock: Callable[[], float] = time.monotonic
    begun: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    _looked: float | None = None
    _found: list[Finding] = field(default_factory=list[Finding])
    _suspected: set[tuple[Cause, Workload]] = field(default_factory=set[tuple[Cause, Workload]])
    _hopeless: Finding | None = None

    def about(self, identity: tuple[str, str, str]) -> Finding | None:
        """The finding about a workload, as of a moment ago."""
        self._look()
        return next((found for found in self._found if identity in found.workloads), None)

    def hopeless(self) -> Finding | None:
        """A finding that waiting does not mend, once it was there in two looks."""
        self._look()
        return self._hopeless

    def require_hope(self) -> None:
        """Raises FailedError where waiting mends nothing."""
        if found := self.hopeless():
            raise failed(found)

    def last(self, identity: tuple[str, str, str] | None = None) -> Finding | None:
        """The first finding about a workload, else about anything that is deployed, looked for now."""
        self._looked = None
        self._look()
        ours = [found for found in self._found if self._ours(found)]
        return next((found for found in ours if identity in found.workloads), ours[0] if ours else None)

    def _look(self) -> None:
        if self._looked is not None and self.clock() - self._looked < self.every:
            return
        try:
            self._found = diagnose(look(self.cluster, self.namespaces, self.ways, redact=self.redact))
        except OpsError:
            self._found = []  # the wait itself tells of a cluster that does not answer
        self._looked = self.clock()
        final = [
            found
            for found in self._found
            if found.final and found.seen is not None and found.seen >= self.begun and self._ours(found)
        ]
        self._hopeless = self._hopeless or next(
            (found for found in final if (found.cause, found.workloads[0]) in self._suspected), None
        )
        self._suspected = {(found.cause, found.workloads[0]) for found in final}

    def _ours(self, found: Finding) -> bool:
        return any(workload in self.planned for workload in found.workloads)


def failed(found: Finding) -> FailedError:
    """The finding as what stops a command."""
    return FailedError(found.told, found.command)
