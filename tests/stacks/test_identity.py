"""What the program registers keeps its identity: another URN is another resource, and the engine deletes the old one.

`WRITE_URNS=1 pytest tests/stacks/test_identity.py` writes the lists anew. Before you commit a line that left one: does
an alias (`ResourceOptions.aliases`) say what it was called before? Without, `pulumi up` replaces it with its data.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import recorded

FOLDER = Path(__file__).with_name("urns")
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ai-dev": ("ai-dev", ()),
    "ai-dev-cloud-sql": ("ai-dev", ("gateway.database=cloud-sql", "gateway.replicas=2")),
    "local": ("local", ()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_resource_is_registered_under_the_urn_that_it_had(variant: str) -> None:
    stack, assignments = VARIANTS[variant]
    after = sorted(resource.urn for resource in recorded(*assignments, stack=stack).resources)
    file = FOLDER / f"{variant}.txt"
    if os.environ.get("WRITE_URNS"):
        file.write_text("\n".join(after) + "\n")
    before = file.read_text().splitlines()
    assert [urn for urn in before if urn not in after] == [], "gone: without an alias the engine deletes what it was"
    assert [urn for urn in after if urn not in before] == [], "new: WRITE_URNS=1 writes it down"
