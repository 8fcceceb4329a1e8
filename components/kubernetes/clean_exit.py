"""How the program ends when the engine gives up."""

from __future__ import annotations

import os
import signal
import threading


def end_without_traceback() -> None:
    """From now on, end at once when interrupted: the engine interrupts the program of an update that failed.

    Python would show where it was, which says nothing to the operator; the engine has told the reason.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os._exit(1)
