"""What a test waits for may take long on a busy machine, and what is broken is told from what is slow."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import patience
from tests.patience import at_least, patient, slowness, until_ready

BUSY = "while True: pass"
# The work is done by a child, as LiteLLM's is by its database engine while it starts.
BUSY_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
IDLE = "import time; time.sleep(600)"
LEAVES = "import sys; print('no such table', flush=True); sys.exit(3)"


@contextmanager
def running(program: str, log: Path) -> Generator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen([sys.executable, "-c", program], stdout=file) as process:
        try:
            yield process
        finally:
            for child in subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
            ).stdout.split():
                subprocess.run(["kill", child], check=False)
            process.kill()


def never() -> bool:
    return False


def test_a_server_that_works_is_waited_for_longer_than_one_that_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_STALLED_S", 2)
    with running(IDLE, tmp_path / "log") as process, pytest.raises(RuntimeError, match="has done nothing for"):
        until_ready(process, never, what="a server", log=tmp_path / "log")
    started = time.monotonic()
    for program in (BUSY, BUSY_CHILD):
        with running(program, tmp_path / "log") as process:
            until_ready(process, lambda: time.monotonic() - started > 5, what="a server", log=tmp_path / "log")


def test_a_server_that_works_and_gets_nowhere_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_START_CPU_S", 0.5)
    with running(BUSY, tmp_path / "log") as process, pytest.raises(RuntimeError, match="has worked for"):
        until_ready(process, never, what="a server", log=tmp_path / "log")


def test_a_server_that_has_left_is_not_waited_for_and_its_log_is_shown(tmp_path: Path) -> None:
    with (
        running(LEAVES, tmp_path / "log") as process,
        pytest.raises(RuntimeError, match=r"a server left with 3:\nno such table"),
    ):
        until_ready(process, never, what="a server", log=tmp_path / "log")


def test_on_a_busy_machine_the_same_wait_lasts_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def lasts() -> float:
        started = time.monotonic()
        for _ in patient(0.2, every=0.01):
            pass
        return time.monotonic() - started

    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    assert slowness() == 1
    assert lasts() >= 0.2
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.1, 0.1))
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(100)), raising=False)  # pyright: ignore
    assert slowness() == 10
    assert lasts() >= 2


def test_a_call_into_another_program_gets_ten_times_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    assert at_least(30) == 300
