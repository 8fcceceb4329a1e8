"""The catalog: the single source of truth for every model this platform can serve.

One entry a model, in the file of its family. To add a model, add an entry and nothing else: its command line, claim,
Service, gateway registration, probes, cost and every table follow from it. (A base model whose numbers are not there
yet is a row of `models/architectures.py`.) To see whether an entry fits: `ops fit <alias>`.

What a checkout has for itself alone lies over it: `models.local.yaml`, see `models/catalog/overlay.py`.

Aliases, context, prices, targets and results are those of the reference deployment; architecture numbers are
those of each model's config.json. `revision=None` means that nobody could look it up yet: `ops pin` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.catalog.gather import Flaw, Place, gather
from models.catalog.parts import GROUPS, Group
from models.spec import ModelSpec

if TYPE_CHECKING:
    from models.catalog.overlay import Overlaid

__all__ = [
    "CATALOG",
    "FAMILIES",
    "FLAWS",
    "GROUPS",
    "OVERLAID",
    "OVERLAYS",
    "PLACES",
    "SHIPPED",
    "Flaw",
    "Group",
    "Place",
    "overlay_file",
    "with_overlay",
]

# Files beside this one, in the order of plans and tables.
FAMILIES = ("chat", "coding", "one_l4", "vision", "speech", "retrieval", "gguf", "providers")

OVERLAYS = ("models.local.yaml", "models.local.yml")  # beside Pulumi.yaml, ignored by git
_INSTEAD = "MODELS_LOCAL"  # of the environment: another file in their place, or empty for none
_CHECKOUT = Path(__file__).parents[2]


def overlay_file() -> tuple[Path, ...]:
    """The overlay of this checkout: none, one, or two, of which nobody knows which is meant."""
    instead = os.environ.get(_INSTEAD)
    if instead is not None:
        return (Path(instead),) if instead else ()
    # Not Path: it takes longer than the question, and every plan asks.
    return tuple(_CHECKOUT / name for name in OVERLAYS if os.path.lexists(f"{_CHECKOUT}/{name}"))


def with_overlay(
    shipped: Mapping[str, ModelSpec], groups: Mapping[str, Group]
) -> tuple[Mapping[str, ModelSpec], Mapping[str, Overlaid], tuple[Flaw, ...]]:
    """A catalog with what this checkout lays over it; what of each entry comes from there; and what is wrong there."""
    files = overlay_file()
    if not files:
        return shipped, {}, ()
    file, *others = files
    if others:
        first, second = OVERLAYS
        both = Flaw(f"{first} and {second} are both there, and one is read", f"mv {second} {second}.old")
        return shipped, {}, (both,)
    from models.catalog.overlay import lay_over  # noqa: PLC0415  only where there is one: a plan starts faster

    laid = lay_over(shipped, groups, file, str(file) if os.environ.get(_INSTEAD) else file.name)
    return laid.catalog, laid.overlaid, tuple(laid.flaws)


_gathered = gather(FAMILIES, GROUPS)
SHIPPED: Mapping[str, ModelSpec] = _gathered.catalog
PLACES: Mapping[str, Place] = _gathered.places
CATALOG, OVERLAID, _flaws = with_overlay(SHIPPED, GROUPS)
FLAWS: tuple[Flaw, ...] = (*_gathered.flaws, *_flaws)
