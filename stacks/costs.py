"""What a plan costs: idle, with what is up, at worst, and for each model. Pure.

Every figure is a sum of lines, and every line is a quantity times a price with a date. What is not counted (traffic,
log volume, stored images) is listed in docs/costs.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from models.facts import Evidence, Price, Throughput
from models.machines import SYSTEM_BOOT_DISK_GIB, Machine, region_of
from models.prices import HOURS_PER_MONTH, NAT_BILLED_VMS, Item, PriceTable, list_prices
from models.tasks import TASKS
from models.throughput import price_per_mtok, usual
from stacks.plan import Plan, PlannedModel, State, Workload, on_gpu
from stacks.sections import Overrides

CENTS, HOURLY_DIGITS = 2, 4  # decimals in which budgets are judged and totals are shown


@dataclass(frozen=True, kw_only=True)
class Line:
    """One position of a monthly bill. Without a known price it counts as nothing and is named as unpriced."""

    what: str  # "system pool: e2-standard-4"
    item: str  # of the price list
    quantity: float
    unit: str  # "h", "GiB-month"
    unit_usd: float | None
    evidence: Evidence | None  # None: set by config

    @property
    def usd(self) -> float:
        """US dollars a month."""
        return self.quantity * (self.unit_usd or 0)

    @property
    def basis(self) -> str:
        """How far the price may be trusted: "verified", "config", "unknown"."""
        if self.unit_usd is None:
            return "unknown"
        return self.evidence.value if self.evidence else "config"


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """One model kept up and busy. None is unknown, or not sold by the token."""

    alias: str
    usd_per_hour: float | None
    throughput: Throughput | None
    price: Price  # as registered at the gateway
    price_usd_per_mtok: float | None  # of the mix of tokens that the throughput is given in

    @property
    def usd_per_mtok(self) -> float | None:
        """What a million tokens cost at that throughput, day and night."""
        if self.usd_per_hour is None or self.throughput is None:
            return None
        return self.usd_per_hour / (self.throughput.tokens_per_second * 3600) * 1e6

    @property
    def at_a_loss(self) -> bool:
        """Whether even a model that is never idle costs more than it brings in."""
        cost, price = self.usd_per_mtok, self.price_usd_per_mtok
        return cost is not None and price is not None and price < cost

    @property
    def told(self) -> str:
        """In a line: "$0.8687/h; $0.021 per million tokens at 11,319/s (verified; …), sold at $0.833"."""
        if self.usd_per_hour is None:
            return "no price known"
        text = f"${self.usd_per_hour:.{HOURLY_DIGITS}f}/h"
        if self.throughput and self.usd_per_mtok is not None:
            rate, how = self.throughput.tokens_per_second, self.throughput.told
            text += f"; ${self.usd_per_mtok:.3f} per million tokens at {rate:,.0f}/s ({how})"
        if self.price_usd_per_mtok is None:
            return text
        return f"{text}, sold at ${self.price_usd_per_mtok:.3f}{', below cost' if self.at_a_loss else ''}"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """US dollars of one plan. GPU lines are those of all its nodes, around the clock."""

    region: str
    as_of: date  # of the price list
    overridden: tuple[str, ...]  # items priced by config
    overridden_as_of: date | None
    idle: tuple[Line, ...]  # billed with every model at zero
    nodes_now: int  # GPU nodes that what is up holds
    now: tuple[Line, ...]
    nodes_at_worst: int  # GPU nodes with every enabled model up, within the quota
    at_worst: tuple[Line, ...]
    models: tuple[ModelCost, ...]  # of enabled ones, those that run here

    @property
    def idle_usd_per_month(self) -> float:
        """With every model at zero."""
        return round(_sum(self.idle), CENTS)

    @property
    def usd_per_hour_now(self) -> float:
        """With the replicas of the config, what is billed while idle included."""
        return round((_sum(self.idle) + _sum(self.now)) / HOURS_PER_MONTH, HOURLY_DIGITS)

    @property
    def worst_case_usd_per_month(self) -> float:
        """With every enabled model up around the clock, as far as the quota goes."""
        return round(_sum(self.idle) + _sum(self.at_worst), CENTS)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Items that the plan needs and whose price is not known."""
        return tuple(dict.fromkeys(str(line.item) for line in (*self.idle, *self.at_worst) if line.unit_usd is None))

    @property
    def dated(self) -> str:
        """Of which day the prices are: "2026-08-20"."""
        if not self.overridden:
            return str(self.as_of)
        day = self.overridden_as_of or "no date"
        return f"{self.as_of}; by config ({day}): {', '.join(self.overridden)}"


def _sum(lines: Sequence[Line]) -> float:
    return sum(line.usd for line in lines)


@dataclass(frozen=True, kw_only=True)
class _Bill:
    """Makes lines of one plan."""

    plan: Plan
    region: str
    prices: PriceTable

    def line(self, what: str, item: str, quantity: float, *, spot: bool = False) -> Line:
        price = self.prices.find(item, self.region, spot=spot)
        return Line(
            what=what,
            item=item,
            quantity=quantity,
            unit=self.prices.units.get(item, "h"),
            unit_usd=price.usd if price else None,
            evidence=price.evidence if price else None,
        )

    def nodes(
        self, what: str, machine: Machine, *, count: int, disk_gib: int, other_vms: int = 0, spot: bool = False
    ) -> list[Line]:
        """Machines around the clock with their boot disks and their use of NAT, beside `other_vms`."""
        nat_vms = min(count + other_vms, NAT_BILLED_VMS) - min(other_vms, NAT_BILLED_VMS)
        return [
            self.line(
                f"{what}: {machine.name}{' (spot)' if spot else ''}",
                machine.name,
                count * HOURS_PER_MONTH,
                spot=spot,
            ),
            self.line(f"{what}: boot disks", Item.DISK, count * disk_gib),
            self.line(f"{what}: NAT", Item.NAT_VM, nat_vms * HOURS_PER_MONTH),
        ]

    def system(self, count: int) -> list[Line]:
        return self.nodes("system pool", self.plan.system.machine, count=count, disk_gib=SYSTEM_BOOT_DISK_GIB)

    def gpu(self, count: int) -> tuple[Line, ...]:
        platform = self.plan.settings.platform
        if self.plan.gpu is None or not count:
            return ()
        return tuple(
            self.nodes(
                "GPU pool",
                self.plan.gpu.machine,
                count=count,
                disk_gib=platform.gpu_boot_disk_gib,
                other_vms=platform.system_nodes,
                spot=platform.spot,
            )
        )

    def idle(self) -> Iterator[Line]:
        """What is billed before any model is up."""
        platform = self.plan.settings.platform
        fee = self.line("cluster fee", Item.CLUSTER, HOURS_PER_MONTH)
        yield fee
        free = self.line("free tier: the fee of one zonal cluster a billing account", Item.FREE_TIER, 1)
        # A credit for the fee and for nothing else.
        yield replace(free, unit_usd=-min(free.usd, fee.usd))
        yield from self.system(platform.system_nodes)
        yield self.line("NAT address", Item.NAT_ADDRESS, HOURS_PER_MONTH)
        yield from self.database("gateway database", platform.gateway.database)
        if platform.gateway.former_database != "none":
            yield from self.database("former database, kept", platform.gateway.former_database)
        once = [m for m in self.plan.models if m.state is State.DISABLED and self.named(m)]
        disabled = [load for m in once if (load := m.workload)]
        enabled = [load for m in self.plan.deployed if (load := m.workload)]
        yield self.line(f"claims of {len(enabled)} models", Item.DISK, sum(load.claim_gib for load in enabled))
        if platform.retain_weights and disabled:
            gib = sum(load.claim_gib for load in disabled)
            yield self.line(f"claims kept of {len(disabled)} models that are not enabled", Item.DISK, gib)

    def named(self, model: PlannedModel) -> bool:
        """Whether config names a model to enable it or not, or its group: else it never was, so no claim is kept."""
        own = self.plan.settings.models.get(model.spec.alias, Overrides())
        return model.spec.group in self.plan.settings.platform.groups or own.asked_enabled is not None

    def database(self, what: str, kind: str) -> Iterator[Line]:
        """A database by its kind, whether it is used or kept."""
        gib = self.plan.settings.platform.gateway.database_gib
        if kind == "cloud-sql":
            yield self.line(f"{what}: Cloud SQL", Item.CLOUD_SQL, HOURS_PER_MONTH)
            yield self.line(f"{what}: Cloud SQL disk", Item.CLOUD_SQL_DISK, gib)
        else:
            yield self.line(f"{what}: disk", Item.DISK, gib)
            yield self.line(f"{what}: claim of its dumps", Item.DISK, gib)

    def model(self, model: PlannedModel, load: Workload) -> ModelCost:
        """A GPU model is charged the whole node that it alone keeps up, a CPU model its share of a system node."""
        on_node = self.gpu(1) if model.spec.gpus else self.system(1)
        share = 1.0
        if not model.spec.gpus:
            machine = self.plan.system.machine
            share = max(load.needs.cpu / machine.pod_cpu, load.needs.gib / machine.pod_gib)
        known = on_node and all(line.unit_usd is not None for line in on_node)
        try:
            rate = model.spec.expected_throughput
        except ValueError:  # of flags that make no sense, which is refused elsewhere
            rate = None
        mix = rate.at if rate else usual(model.spec.context, generates=TASKS[model.spec.task].generates)
        return ModelCost(
            alias=model.spec.alias,
            usd_per_hour=_sum(on_node) * share / HOURS_PER_MONTH if known else None,
            throughput=rate,
            price=model.spec.price,
            price_usd_per_mtok=price_per_mtok(model.spec.price, mix),
        )


def gpu_nodes(plan: Plan) -> int:
    """GPU nodes that what is up holds: largest first, each on the first node with room.

    Never more than the quota allows: the rest would wait.
    """
    if plan.gpu is None:
        return 0
    machine = plan.gpu.machine
    slots = machine.gpus * plan.settings.platform.gpu_sharing_clients
    pods = [load.needs for m, load in on_gpu(plan.models) for _ in range(m.replicas)]
    free: list[list[float]] = []
    for pod in sorted(pods, key=lambda needs: needs.gib, reverse=True):
        node = next((n for n in free if n[0] >= pod.gpus and n[1] >= pod.cpu and n[2] >= pod.gib), None)
        if node is None:
            node = [slots, machine.pod_cpu, machine.pod_gib]
            free.append(node)
        node[0] -= pod.gpus
        node[1] -= pod.cpu
        node[2] -= pod.gib
    return min(len(free), plan.max_gpu_nodes)


def costs(plan: Plan, table: PriceTable | None = None) -> Costs | None:
    """What a plan costs; None where it runs on no cloud that this program pays for, or nobody said where."""
    platform, where = plan.settings.platform, plan.settings.gcp
    if platform.target != "gke" or where is None:
        return None
    region, own = region_of(where.zone), platform.prices
    prices = (table or list_prices()).override(own.on_demand, own.spot, region)
    bill = _Bill(plan=plan, region=region, prices=prices)
    nodes_now = gpu_nodes(plan)
    # Swaps may leave every replica on a node of its own, so these are not packed.
    nodes_at_worst = min(sum(max(m.replicas, 1) for m, _ in on_gpu(plan.models)), plan.max_gpu_nodes)
    return Costs(
        region=region,
        as_of=prices.as_of,
        overridden=prices.overridden,
        overridden_as_of=own.as_of,
        idle=tuple(bill.idle()),
        nodes_now=nodes_now,
        now=bill.gpu(nodes_now),
        nodes_at_worst=nodes_at_worst,
        at_worst=bill.gpu(nodes_at_worst),
        models=tuple(bill.model(m, m.workload) for m in plan.deployed if m.workload),
    )
