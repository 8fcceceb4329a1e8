"""Run a command that leaves nothing behind: `leash.py PARENT COMMAND...`, first of a session of its own.

The Pulumi CLI is interrupted when its starter is gone, however that went; and plugins that it did not end (killed, or
interrupted in its first half second, it ends none) are ended after it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_AT_LAST = 3  # the CLI finishes at the first interrupt and stops at the second; at this one it is killed


def main(parent: int, command: list[str]) -> int:
    """The exit code of the command."""
    child: subprocess.Popen[bytes] | None = None
    interrupts = 0

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if child is not None:
            child.send_signal(signal.SIGINT if interrupts < _AT_LAST else signal.SIGKILL)

    signal.signal(signal.SIGINT, interrupt)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:  # gone before it could be watched
        return 128 + signal.SIGINT
    child = subprocess.Popen(command)
    if interrupts:  # while it began
        child.send_signal(signal.SIGINT)
    code = child.wait()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(ProcessLookupError):
            if pid != os.getpid() and os.getsid(pid) == os.getpid():
                os.kill(pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
