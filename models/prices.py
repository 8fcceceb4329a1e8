"""What Google Cloud charges: list prices by item and region, with a date, from `prices.csv` beside this file.

Units are in the file: "h" is an hour, "GiB-month" a GiB kept for a month. A region of "*" means everywhere. Where
each row was read and how far it may be trusted is in docs/costs.md; a stack overrides any item by config.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from pathlib import Path

from models.facts import Evidence

HOURS_PER_MONTH = 730
CLOUD_SQL_TIER = "db-g1-small"
# NAT is billed for each VM that uses it, and for no more than this many.
NAT_BILLED_VMS = 32

_ANYWHERE = "*"
_FILE = Path(__file__).with_name("prices.csv")
_DATE = "# as of: "


class Item(StrEnum):
    """What is billed beside machines, which go by their own names."""

    DISK = "pd-balanced"  # boot disks, claims, the database's disk
    CLUSTER = "gke-cluster"  # management fee
    FREE_TIER = "gke-free-tier"  # credit for one zonal cluster a billing account, a month
    NAT_VM = "nat-vm"
    NAT_ADDRESS = "nat-address"
    CLOUD_SQL = f"cloud-sql-{CLOUD_SQL_TIER}"
    CLOUD_SQL_DISK = "cloud-sql-ssd"


@dataclass(frozen=True)
class Price:
    """Price of one unit. `evidence` is None where the operator's config says so."""

    usd: float
    evidence: Evidence | None


@dataclass(frozen=True)
class PriceTable:
    """Prices, and the date of the list that they are from."""

    as_of: date
    prices: Mapping[tuple[str, str, bool], Price]  # by item, region, spot
    units: Mapping[str, str]  # by item
    overridden: tuple[str, ...] = ()  # items that config prices

    def find(self, item: str, region: str, *, spot: bool = False) -> Price | None:
        """Price of an item in a region; None where nobody looked it up."""
        return self.prices.get((item, region, spot)) or self.prices.get((item, _ANYWHERE, spot))

    def override(self, on_demand: Mapping[str, float], spot: Mapping[str, float], region: str) -> PriceTable:
        """This table with other prices in one region."""
        changed = {
            (item, region, is_spot): Price(usd, None)
            for prices, is_spot in ((on_demand, False), (spot, True))
            for item, usd in prices.items()
        }
        names = tuple(dict.fromkeys([*on_demand, *spot]))
        return PriceTable(self.as_of, {**self.prices, **changed}, self.units, names)


def parse(lines: Iterable[str]) -> PriceTable:
    """A table from the lines of a CSV file with a date in a comment. Raises ValueError for a malformed one."""
    lines = list(lines)
    as_of = next((line.removeprefix(_DATE).strip() for line in lines if line.startswith(_DATE)), "")
    prices: dict[tuple[str, str, bool], Price] = {}
    units: dict[str, str] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        item, region, evidence = row["item"], row["region"], Evidence(row["evidence"])
        prices[item, region, False] = Price(float(row["on_demand"]), evidence)
        if row["spot"]:
            prices[item, region, True] = Price(float(row["spot"]), evidence)
        if units.setdefault(item, row["unit"]) != row["unit"]:
            raise ValueError(f"{item} is priced by {units[item]} and by {row['unit']}")
    return PriceTable(date.fromisoformat(as_of), prices, units)


@cache
def list_prices() -> PriceTable:
    """The table that this version brings."""
    return parse(_FILE.read_text().splitlines())
