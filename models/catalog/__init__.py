"""The catalog: the single source of truth for every model this platform can serve.

One entry a model, in the file of its family. To add a model, add an entry and nothing else: its command line, claim,
Service, gateway registration, probes, cost and every table follow from it. (A base model whose numbers are not there
yet is a row of `models/architectures.py`.) To see whether an entry fits: `ops fit <alias>`.

Aliases, context, prices, targets and results are those of the reference deployment; architecture numbers are
those of each model's config.json. `revision=None` means that nobody could look it up yet: `ops pin` does.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.catalog.gather import Flaw, gather
from models.catalog.parts import GROUPS, Group
from models.spec import ModelSpec

__all__ = ["CATALOG", "FAMILIES", "FLAWS", "GROUPS", "Flaw", "Group"]

# Files beside this one, in the order of plans and tables.
FAMILIES = ("chat", "coding", "retrieval", "gguf", "providers")

_entries, FLAWS = gather(FAMILIES, GROUPS)
CATALOG: Mapping[str, ModelSpec] = _entries
