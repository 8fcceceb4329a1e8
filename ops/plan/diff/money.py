"""What is billed, what is charged, on which machines, before and after. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops.plan.diff.lines import LOUD_FACTOR, Line, dollars, grouped, percent, times
from ops.plan.diff.resources import PlanData, mapping
from stacks.costs import CENTS, HOURLY_DIGITS
from stacks.plan import State

COST_TOTALS: Mapping[str, tuple[str, int]] = {
    "usdPerHourNow": ("an hour, with what is up", HOURLY_DIGITS),
    "idleUsdPerMonth": ("a month, idle", CENTS),
    "worstCaseUsdPerMonth": ("a month, everything up", CENTS),
}
_PER_MTOK = "per million tokens"
_PRICES: Mapping[str, tuple[str, str]] = {  # of a price: what is counted, and how
    "input_usd_per_mtok": ("in", _PER_MTOK),
    "output_usd_per_mtok": ("out", _PER_MTOK),
    "cached_input_usd_per_mtok": ("cached in", _PER_MTOK),
    "usd_per_second": ("audio", "a second"),
    "usd_per_query": ("query", "each"),
}
_POOLS = {"gpu": "maxNodes", "system": "nodes"}


@dataclass(frozen=True, kw_only=True)
class PriceDifference:
    """What a model is sold at, by the keys of the plan. None on a side that has no such model."""

    alias: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    in_force: bool  # False: it is not enabled, so the gateway does not know it
    below_cost: tuple[float, float] | None  # sold at, cost; of the mix that throughput is given in


@dataclass(frozen=True, kw_only=True)
class PriceListDifference:
    """Which day's prices a bill is made with, and what config sets in place of the list's."""

    old: str
    new: str
    items: Mapping[str, tuple[float | None, float | None]]  # what config prices otherwise than before; None: not told
    by_config: bool  # whether config does so on the new side


@dataclass(frozen=True, kw_only=True)
class MoneyDifference:
    """Totals are there whether or not they differ; all else only where it does, and where both sides tell it."""

    costs: Mapping[str, tuple[float | None, float | None]]
    limits: Mapping[str, tuple[float | None, float | None]]
    prices: tuple[PriceDifference, ...]
    machines: Mapping[str, tuple[str, str]]
    price_list: PriceListDifference | None


def money(old: PlanData, new: PlanData) -> MoneyDifference:
    """Everything that a bill or a budget follows from."""
    bills = mapping(old, "costs"), mapping(new, "costs")
    limits = mapping(old, "limits"), mapping(new, "limits")
    return MoneyDifference(
        costs={key: (bills[0].get(key), bills[1].get(key)) for key in COST_TOTALS},
        limits={
            key: (limits[0][key], limits[1][key])
            for key in limits[1]
            if key in limits[0] and limits[0][key] != limits[1][key]
        },
        prices=tuple(_prices(old, new)),
        machines=_machines(old, new),
        price_list=_price_lists(*bills),
    )


def _price_lists(old: Mapping[str, Any], new: Mapping[str, Any]) -> PriceListDifference | None:
    sides = _price_list(old), _price_list(new)
    if not all(sides):
        return None
    owns = [dict.fromkeys(bill.get("pricesByConfig", ())) for bill in (old, new)]
    units = _unit_prices(old), _unit_prices(new)
    items = {
        item: both
        for item in dict.fromkeys([*owns[1], *owns[0]])
        for both in [(units[0].get(item), units[1].get(item))]
        if both[0] != both[1] or (item in owns[0]) != (item in owns[1])
    }
    if sides[0] == sides[1] and not items:
        return None
    return PriceListDifference(old=sides[0], new=sides[1], items=items, by_config=bool(items.keys() & owns[1].keys()))


def _unit_prices(bill: Mapping[str, Any]) -> dict[str, float]:
    """By item, of what the plan needs."""
    lines = [line for key in ("idle", "gpuNow", "gpuAtWorst") for line in bill.get(key, ())]
    return {line["item"]: line["unitUsd"] for line in lines if line.get("unitUsd") is not None}


def _price_list(bill: Mapping[str, Any]) -> str:
    if "pricesAsOf" not in bill:
        return ""
    own = ", ".join(bill.get("pricesByConfig", ()))
    day = bill.get("pricesByConfigAsOf") or "no date"
    return f"{bill['pricesAsOf']}{f'; by config ({day}): {own}' if own else ''}"


def _prices(old: PlanData, new: PlanData) -> Iterator[PriceDifference]:
    before, after = ({m["alias"]: m for m in plan["models"]} for plan in (old, new))
    for alias in dict.fromkeys([*after, *before]):
        one, other = before.get(alias), after.get(alias)
        if any(model is not None and "price" not in model for model in (one, other)):
            continue
        sold = one["price"] if one else None, other["price"] if other else None
        if sold[0] == sold[1]:
            continue
        last: Mapping[str, Any] = other or one or {}
        cost = mapping(last, "cost")
        loss = (cost["priceUsdPerMtok"], cost["usdPerMtok"]) if other and cost.get("atALoss") else None
        in_force = last.get("state") in (State.UP, State.OFF)
        yield PriceDifference(alias=alias, old=sold[0], new=sold[1], in_force=in_force, below_cost=loss)


def _machines(old: PlanData, new: PlanData) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for pool, count in _POOLS.items():
        one, other = (mapping(mapping(plan, "machines"), pool) for plan in (old, new))
        told = [key for key in ("spot", "slots") if one.get(key) != other.get(key) and key in one and key in other]
        sides = _machine(one, count, told), _machine(other, count, told)
        if sides[0] != sides[1]:
            found[pool] = sides
    return found


def _machine(machine: Mapping[str, Any], count: str, told: list[str]) -> str:
    if not machine:
        return "none"
    spot = (" on demand", " spot")[bool(machine["spot"])] if "spot" in told else ""
    slots = f", {machine['slots']} GPU slots" if "slots" in told else ""
    return f"{machine['type']} x {machine[count]}{spot}{slots}"


# --- lines ---------------------------------------------------------------------------------------------------


def money_lines(found: MoneyDifference) -> list[Line]:
    """Totals, then what they follow from."""
    totals = [
        Line(subject="", text=f"{total(key, *both)} {label}")
        for key, both in found.costs.items()
        if both != (None, None)
        for label in [COST_TOTALS[key][0]]
    ]
    pools = {"gpu": "GPU", "system": "system"}
    rest = limit_lines(found)
    rest += [_price(price) for price in found.prices]
    rest += [Line(subject=f"{pools[pool]} pool", text=f"{old} -> {new}") for pool, (old, new) in found.machines.items()]
    if found.price_list:
        rest.append(_priced_by(found.price_list))
    return [*totals, *grouped(rest)]


def standing_totals(found: MoneyDifference) -> int:
    """How many totals are told though they are as before, or known on one side only."""
    return sum(both[0] == both[1] or None in both for both in found.costs.values() if both != (None, None))


def _priced_by(found: PriceListDifference) -> Line:
    """A bill that shrinks by another price of config is no saving, so it is not to be overlooked."""
    text = found.new if found.old == found.new else f"{found.old} -> {found.new}"
    for item, (old, new) in found.items.items():
        if (old, new) != (None, None):
            sides = ["unknown" if side is None else dollars(side) for side in (old, new)]
            change = percent(old, new) if old is not None and new is not None else ""
            text += f"; {item} {' -> '.join(sides)}{change}"
    return Line(subject="price list", text=text, loud=bool(found.items))


def total(key: str, old: float | None, new: float | None) -> str:
    """`$0.2146 -> $1.0833 (+$0.8687)`, or the one that it is on both sides."""
    digits = COST_TOTALS[key][1]
    sides = ["-" if side is None else f"${side:,.{digits}f}" for side in (old, new)]
    return sides[1] if sides[0] == sides[1] else f"{sides[0]} -> {sides[1]}{_difference(digits, old, new)}"


def hourly_difference(found: MoneyDifference) -> str:
    """`+$0.8687/h`; empty where nothing is billed otherwise."""
    change = _difference(HOURLY_DIGITS, *found.costs["usdPerHourNow"])
    return f"{change.strip(' ()')}/h" if change else ""


def _difference(digits: int, old: float | None, new: float | None) -> str:
    delta = round(new - old, digits) if old is not None and new is not None else 0
    return f" ({'+' if delta > 0 else '-'}${abs(delta):,.{digits}f})" if delta else ""


def limit_lines(found: MoneyDifference) -> list[Line]:
    """What a plan may cost before it is refused."""
    return [_limit(key, *both) for key, both in found.limits.items()]


def _limit(key: str, old: float | None, new: float | None) -> Line:
    sides = [dollars(side) if side is not None else "no limit" for side in (old, new)]
    factor = times(old, new) if old and new and new > old else ""
    loud = old is not None and (new is None or new >= old * LOUD_FACTOR)
    return Line(subject=f"limit {key}", text=f"{sides[0]} -> {sides[1]}{factor}", loud=loud)


def _price(found: PriceDifference) -> Line:
    old, new = found.old, found.new
    text = "no longer sold" if new is None else f"new, {_whole(new)}" if old is None else _moved(old, new)
    loud = old is not None and new is not None and _moves_much(old, new)
    if found.below_cost:
        sold, cost = found.below_cost
        text += f"; below cost: {dollars(round(sold, 3))} for what costs {dollars(round(cost, 3))}"
    if not found.in_force and new is not None:
        text += "; not in force, as it is not enabled"
    return Line(subject=f"price of {found.alias}", text=text, loud=loud or found.below_cost is not None)


def _amounts(price: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in price.items() if isinstance(value, int | float)}


def _whole(price: Mapping[str, Any]) -> str:
    amounts = _amounts(price)
    named = [f"{_PRICES.get(key, (key, ''))[0]} {dollars(value)}" for key, value in amounts.items()]
    return f"{', '.join(named)} {_unit(amounts)}".rstrip()


def _unit(amounts: Mapping[str, float]) -> str:
    return next((_PRICES[key][1] for key in amounts if key in _PRICES), "")


def _moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = _amounts(old), _amounts(new)
    if _unit(before) != _unit(after):
        return f"{_whole(old)} -> {_whole(new)}"
    parts: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        one, other, label = before.get(key), after.get(key), _PRICES.get(key, (key, ""))[0]
        if one == other and one is not None:
            parts.append(f"{label} {dollars(one)}")
        else:
            sides = [dollars(side) if side is not None else "not priced" for side in (one, other)]
            change = percent(one, other) if one is not None and other is not None else ""
            parts.append(f"{label} {sides[0]} -> {sides[1]}{change}")
    return f"{', '.join(parts)} {_unit(after)}".rstrip()


def _moves_much(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    before, after = _amounts(old), _amounts(new)
    return any(
        max(before[key], after[key]) >= LOUD_FACTOR * min(before[key], after[key])
        for key in before.keys() & after.keys()
        if before[key] != after[key]
    )
