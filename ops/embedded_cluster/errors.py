"""What stops the embedded cluster, told so that its reader can mend it."""

from __future__ import annotations

from stacks.problems import Problem


class ClusterError(Exception):
    """A problem with its remedy; `str()` of it is what the operator reads."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(str(Problem(message, remedy)))
