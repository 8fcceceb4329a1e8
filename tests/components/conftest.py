"""The hub and the claim of the staging program's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.hub import Hub
from tests.components.staging import FILES, FIRST, SECOND, Claim


@pytest.fixture
def hub() -> Iterator[Hub]:
    revisions = {FIRST: FILES, SECOND: {**FILES, "model.safetensors": b"X" * 400_000}}
    with Hub(revisions, default=SECOND, failures=[]) as running:
        yield running


@pytest.fixture
def claim(tmp_path: Path, hub: Hub) -> Claim:
    return Claim(tmp_path, hub)
