"""How long tests wait: as long as things go on, which on a busy machine is longer.

A test that waits for something ends as soon as it is there, so a long bound costs only where something is broken.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 1200.0  # a server that is not ready by then never will be, however busy the machine is
_START_CPU_S = 300.0  # of processor: a start of LiteLLM takes 10
_STALLED_S = 180.0  # without any work: starved on a machine with a hundred busy processes, it would still get some


def slowness() -> float:
    """How many times as long as on an idle machine something takes here and now; 1 where a processor is free."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        processors = os.cpu_count() or 1
    return max(1.0, os.getloadavg()[0] / processors)


def patient(seconds: float, every: float = 0.1) -> Iterator[None]:
    """Tries, until so much time has passed as were these seconds on an idle machine; the load counts as it comes."""
    spent, before = 0.0, time.monotonic()
    while spent < seconds:
        yield
        time.sleep(every)
        now = time.monotonic()
        spent, before = spent + (now - before) / slowness(), now


def at_least(seconds: float) -> float:
    """A time-out for one call into another program: what suffices on an idle machine, and ten times that."""
    return seconds * max(10.0, slowness())


def kubectl_timeout(seconds: float) -> str:
    """The same as an argument of kubectl."""
    return f"--timeout={at_least(seconds):.0f}s"


def until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], *, what: str, log: Path) -> None:
    """Wait for a server for as long as it lives and works towards being ready.

    Raises RuntimeError with the end of its log when it leaves, does nothing for minutes, or works and gets nowhere.
    """
    started = worked = time.monotonic()
    cpu = 0.0
    while not ready():
        now, used = time.monotonic(), _cpu_seconds(process.pid)
        if used is None:
            worked = now
        elif used > cpu + 0.02:
            worked, cpu = now, used
        for failed, why in (
            (process.poll() is not None, f"left with {process.returncode}"),
            (now - worked > _STALLED_S, f"has done nothing for {now - worked:.0f} s, and is not ready"),
            (cpu > _START_CPU_S, f"has worked for {cpu:.0f} s and is not ready"),
            (now - started > _START_S, f"was not ready in {now - started:.0f} s"),
        ):
            if failed:
                raise RuntimeError(f"{what} {why}:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> float | None:
    """Processor time of a process and of all that descends from it; None where there is no /proc to read it in."""
    if not Path("/proc/self/stat").exists():
        return None
    parents, used = dict[int, int](), dict[int, float]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()  # from the state on: parent, ... utime, stime
            number = int(stat.parent.name)
            # Of children that have ended, too: cutime and cstime.
            parents[number], used[number] = int(fields[1]), sum(map(int, fields[11:15])) / _TICKS
    family, found = [pid], 0.0
    while family:
        member = family.pop()
        found += used.get(member, 0.0)
        family += [child for child, parent in parents.items() if parent == member]
    return found
