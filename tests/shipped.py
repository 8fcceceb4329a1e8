"""What this repository ships: the catalog and the stacks that belong to whoever cloned it, and change in every clone.

Few tests read it, and ask of it only what any good model and any good stack have: tests/guard.py lists them. All others
run on tests/catalog.py and tests/project.
"""

from __future__ import annotations

from models.catalog import CATALOG, FLAWS, GROUPS
from tests import catalog
from tests.checkout import CHECKOUT

if CATALOG is catalog.CATALOG:
    raise ImportError("tests.shipped has to be imported before tests.catalog.install(): tests/conftest.py does both")

FILES = sorted(CHECKOUT.glob("Pulumi.*.yaml"))
STACKS = [file.name.split(".")[1] for file in FILES]

__all__ = ["CATALOG", "FILES", "FLAWS", "GROUPS", "STACKS"]
