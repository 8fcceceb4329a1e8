"""What stands against the step from one plan to the next, each of which may be fine alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.gke.data_place import DATA_PLACE, losses
from components.kubernetes.moves import GPU_SETTING, SYSTEM_SETTING, move_of_model, move_of_system, unasked
from components.kubernetes.never_shrink import DATABASE_SETTING, another_class, claim_setting, keep_size, shrink
from ops.plan.diff.resources import PlanData, Resource, mapping
from stacks.plan import State
from stacks.problems import Problem


def shrinks(olds: Mapping[str, Resource], news: Mapping[str, Resource], aliases: Sequence[str]) -> Iterator[Problem]:
    """What is sized by one setting is told once: the disk, its volume and the claim on it."""
    told: set[str] = set()
    for urn in sorted(olds.keys() & news.keys()):
        old, new = olds[urn], news[urn]
        message = shrink(f"{new.kind} {new.where}", old.inputs, new.inputs)
        if message is None:
            continue
        owner = new.parent.rpartition("::")[2]
        remedy = keep_size(claim_setting(owner) if owner in aliases else DATABASE_SETTING, old.inputs)
        if remedy not in told:
            told.add(remedy)
            yield Problem(message, remedy)


def other_classes(olds: Mapping[str, Resource], news: Mapping[str, Resource]) -> Iterator[Problem]:
    """Claims that would have another storage class, all in one: it is one setting."""
    found: dict[str, list[str]] = {}
    for urn in sorted(olds.keys() & news.keys()):
        old, new = olds[urn], news[urn]
        message = another_class("", old.inputs, new.inputs) if new.kind == "PersistentVolumeClaim" else None
        if message:
            found.setdefault(message, []).append(new.where)
    for message, places in found.items():
        what, _, remedy = message.partition("\n  remedy: ")
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield Problem(f"PersistentVolumeClaim {places[0]}{more}{what}", remedy)


def moved_data(old: PlanData, new: PlanData) -> Iterator[Problem]:
    """What would begin again with empty disks: the same that the hook of an update refuses."""
    before, after = (
        {r["urn"]: r["inputs"] for r in plan["resources"] if r["type"] == DATA_PLACE} for plan in (old, new)
    )
    for urn in before.keys() & after.keys():
        yield from (Problem(loss.message, loss.remedy) for loss in losses(before[urn], after[urn]))


def held_slots(old: PlanData, new: PlanData) -> Iterator[Problem]:
    """Models that leave the program while they hold what another one comes up for: Pulumi deletes last."""
    before, after = ({m["alias"]: m for m in plan["models"] if m["state"] == State.UP} for plan in (old, new))
    stay = {m["alias"] for m in new["models"] if m["state"] != State.DISABLED}
    leaving = [m for alias, m in before.items() if alias not in stay and m["gpus"]]
    coming = [alias for alias, m in after.items() if alias not in before and m["gpus"]]
    slots = mapping(mapping(new, "machines"), "gpu").get("slots", 0)
    held = sum(m["gpus"] * m["replicas"] for m in (*leaving, *after.values()))
    if leaving and coming and held > slots:
        names = ", ".join(m["alias"] for m in leaving)
        yield Problem(
            f"{names} leaves the program while it is up, and Pulumi deletes last: {', '.join(coming)} would wait for "
            "its GPU until `pulumi up` gives up",
            " && ".join(f"pulumi config set {m['alias']}:replicas 0" for m in leaving)
            + f" && pulumi up   # first, with {leaving[0]['group']} still enabled",
        )


def moves(old: PlanData, new: PlanData) -> Iterator[Problem]:
    """Pools that `auto` makes anew under what is up, as the engine refuses it (components/kubernetes/moves.py)."""
    was_up = {m["alias"] for m in old["models"] if m["state"] == State.UP}
    moved = [m for m in new["models"] if m["state"] == State.UP and m["gpus"] and m["alias"] in was_up]
    if (pools := _made_anew(old, new, "gpu")) and moved:
        before, after = pools[0]["type"], pools[1]["type"]
        waits, holds = not pools[1]["roomForTwo"], before in pools[1]["holding"]
        for model in moved[:1]:
            told = move_of_model(model["alias"], before, after, model["elsewhereSeconds"], waits=waits)
            yield Problem(*unasked(GPU_SETTING, told, before, after, holds=holds))
    if pools := _made_anew(old, new, "system"):
        before, after = pools[0]["type"], pools[1]["type"]
        told, holds = move_of_system(before, after), before in pools[1]["holding"]
        yield Problem(*unasked(SYSTEM_SETTING, told, before, after, holds=holds))


def _made_anew(old: PlanData, new: PlanData, pool: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """A pool on both sides, where it becomes another one and config does not name it."""
    before, after = (mapping(mapping(plan, "machines"), pool) for plan in (old, new))
    is_moved = before and after and before["type"] != after["type"] and not after["asked"]
    return (before, after) if is_moved else None
