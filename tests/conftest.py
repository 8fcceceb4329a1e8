"""What every test shares: the catalog it runs on, and which worker runs it."""

from __future__ import annotations

import signal

import pytest
from xdist.remote import Producer

from tests import catalog, shipped
from tests.guard import watch
from tests.scheduling import GroupScheduling

catalog.install()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background job, whose children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)
watch(shipped.FILES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tests that share an expensive fixture run on one worker."""
    return GroupScheduling(config, log)
