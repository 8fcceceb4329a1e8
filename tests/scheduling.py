"""Which tests share a worker: those that share a proxy or a cluster.

`xdist_group` says it in the tests, but `--dist loadgroup` of pytest-xdist 3.8 does nothing under pytest 9.2, and a
worker that gets one test of a group builds all that the group needs. So the scheduler asks for the group by file.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Files that break what they run on, apart from those that share one proxy.
BREAKING = ("test_data.py", "test_reconcile.py")


def group_of(nodeid: str) -> str:
    """Tests of one group run on one worker; the tests of any other file are a group of their own."""
    path = nodeid.partition("::")[0]
    if path.startswith("tests/cluster/"):
        return "cluster"
    if not path.startswith("tests/gateway/"):
        return path
    return "gateway, broken" if path.endswith(BREAKING) else "gateway"


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups, the largest first."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        """A test that killed its worker failed; pytest-xdist would give it to the next one, until all are dead."""
        units = self.assigned_work[node].values()
        fatal = next(((unit, test) for unit in units for test, done in unit.items() if not done), None)
        if fatal is None:
            return super().remove_node(node)
        unit, test = fatal
        unit[test] = True
        super().remove_node(node)
        return test
