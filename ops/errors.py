"""What stops a command. There is one kind, and `ops/cli.py` alone prints it.

Exit codes of every command: 0 as asked; 1 the world is not as asked (each command says what); 2 refused, wrong or
out of reach; 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar

from stacks.problems import Problem


class OpsError(Exception):
    """Refused, wrong or out of reach. A subclass is for a caller that tells it from others."""

    verdict: ClassVar[str] = "refused"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, remedy: str, *others: Problem) -> None:
        self.problem = Problem(message, remedy)
        super().__init__("\n".join(map(str, (self.problem, *others))))


class FailedError(OpsError):
    """What was asked for is in order, and a cluster or a tool did not do it."""

    verdict = "failed"
    exit_code = 1
