from __future__ import annotations

from datetime import date

import pytest

from models.facts import Evidence
from models.machines import G2_MACHINES, L4_ZONES, SYSTEM_MACHINES, region_of
from models.prices import Item, PriceTable, list_prices, parse

REGIONS = sorted({region_of(zone) for zone in L4_ZONES})


@pytest.fixture
def table() -> PriceTable:
    return list_prices()


def test_the_list_has_the_date_it_was_read(table: PriceTable):
    assert table.as_of == date(2026, 8, 20)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("machine", [*G2_MACHINES, *SYSTEM_MACHINES])
def test_every_machine_has_two_prices_wherever_there_is_an_l4(table: PriceTable, machine: str, region: str):
    on_demand, spot = table.find(machine, region), table.find(machine, region, spot=True)
    assert on_demand is not None
    assert spot is not None
    assert 0 < spot.usd < on_demand.usd


@pytest.mark.parametrize("region", REGIONS)
def test_a_machine_costs_its_vcpus_and_its_gpus(table: PriceTable, region: str):
    def usd(vcpus: int) -> float:
        price = table.find(f"g2-standard-{vcpus}", region)
        assert price is not None
        return price.usd

    per_4_vcpus = usd(8) - usd(4)
    one_gpu = usd(4) - per_4_vcpus
    for machine in G2_MACHINES.values():
        expected = machine.vcpus / 4 * per_4_vcpus + machine.gpus * one_gpu
        assert usd(machine.vcpus) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("item", [Item.DISK, Item.CLUSTER, Item.FREE_TIER, Item.NAT_VM, Item.NAT_ADDRESS])
def test_what_every_stack_uses_is_priced_everywhere(table: PriceTable, item: Item, region: str):
    assert table.find(item, region) is not None


def test_prices_differ_between_regions(table: PriceTable):
    central, zurich = table.find(Item.DISK, "us-central1"), table.find(Item.DISK, "europe-west6")
    assert central is not None
    assert zurich is not None
    assert (central.usd, zurich.usd) == (0.10, 0.13)


def test_a_price_that_nobody_looked_up_is_none_and_not_a_guess(table: PriceTable):
    assert table.find(Item.CLOUD_SQL, "europe-west4") is None
    assert table.find("g2-standard-8", "mars-north1") is None
    assert table.find("n1-standard-4", "us-central1") is None


def test_a_disk_has_no_spot_price(table: PriceTable):
    assert table.find(Item.DISK, "us-central1", spot=True) is None


def test_an_override_holds_in_its_region_only_and_says_that_it_is_one(table: PriceTable):
    changed = table.override({"e2-standard-4": 0.5}, {"g2-standard-8": 0.25}, "us-east4")
    on_demand, spot = changed.find("e2-standard-4", "us-east4"), changed.find("g2-standard-8", "us-east4", spot=True)
    assert on_demand is not None
    assert spot is not None
    assert (on_demand.usd, on_demand.evidence, spot.usd) == (0.5, None, 0.25)
    assert changed.find("e2-standard-4", "us-central1") == table.find("e2-standard-4", "us-central1")
    assert changed.find("g2-standard-8", "us-east4") == table.find("g2-standard-8", "us-east4")
    assert changed.overridden == ("e2-standard-4", "g2-standard-8")


def test_recalled_prices_are_marked(table: PriceTable):
    price = table.find(Item.CLOUD_SQL_DISK, "us-central1")
    assert price is not None
    assert price.evidence is Evidence.MEMORY


_HEADER = ["# as of: 2026-01-31", "item,region,unit,on_demand,spot,evidence"]


def test_a_list_without_a_date_is_refused():
    with pytest.raises(ValueError, match="isoformat"):
        parse(_HEADER[1:])


def test_an_item_has_one_unit():
    with pytest.raises(ValueError, match="priced by h and by month"):
        parse([*_HEADER, "x,a,h,1,,verified", "x,b,month,1,,verified"])


def test_a_price_rests_on_a_known_kind_of_evidence():
    with pytest.raises(ValueError, match="hearsay"):
        parse([*_HEADER, "x,a,h,1,,hearsay"])
