"""What every test shares: the catalog it runs on, and which worker runs it."""

from __future__ import annotations

import os
import signal

os.environ["MODELS_LOCAL"] = ""  # before models.catalog is imported: no test runs on a developer's own entries

import pytest
from xdist.remote import Producer

from models.catalog import OVERLAYS
from tests import catalog, shipped
from tests.checkout import CHECKOUT
from tests.guard import watch
from tests.scheduling import GroupScheduling

catalog.install()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background job, whose children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)
watch([*shipped.FILES, *(CHECKOUT / name for name in OVERLAYS)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tests that share an expensive fixture run on one worker."""
    return GroupScheduling(config, log)
