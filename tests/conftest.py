"""What every test shares: which worker runs it."""

from __future__ import annotations

import pytest
from xdist.remote import Producer

from tests.scheduling import GroupScheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tests that share an expensive fixture run on one worker."""
    return GroupScheduling(config, log)
