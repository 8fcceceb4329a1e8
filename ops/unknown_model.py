"""An alias that no entry has."""

from __future__ import annotations

from models.catalog import CATALOG
from ops.errors import OpsError
from stacks.problems import did_you_mean, nearest


def unknown(alias: str, command: str) -> OpsError:
    """The refusal, with the command about the model that may have been meant."""
    return OpsError(
        f"there is no model '{alias}' in the catalog; {did_you_mean(alias, CATALOG)}",
        f"{command} {nearest(alias, CATALOG) or next(iter(CATALOG))}",
    )
