"""What a signal does while something must not be cut in two, or must be stopped in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def acting(act: Callable[[int], None], numbers: Sequence[int] = (signal.SIGINT,)) -> Generator[None]:
    """Call `act` with the number of a signal that comes meanwhile, in place of what it does otherwise.

    Python handles signals in its main thread alone; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _frame: act(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Generator[None]:
    """Whatever would interrupt the block does so when it is over: to be used where that is soon."""
    came: list[int] = []
    try:
        with acting(came.append, _ALL):
            yield
    finally:
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


@contextmanager
def ending_on_signals() -> Generator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what was started is stopped."""

    def leave(number: int) -> None:
        sys.exit(128 + number)

    with acting(leave, (signal.SIGTERM, signal.SIGHUP)):
        yield
