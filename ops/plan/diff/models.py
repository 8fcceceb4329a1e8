"""Which models come, go and change, and whether they fit, before and after. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops.plan.diff.lines import Line, duration, grouped
from ops.plan.diff.resources import PlanData, mapping
from stacks.plan import State

# Of a model, by the keys of the plan: label and unit.
_FACTS: Mapping[str, tuple[str, str]] = {
    "state": ("state", ""),
    "replicas": ("replicas", ""),
    "modelId": ("model", ""),
    "revision": ("revision", ""),
    "task": ("task", ""),
    "engine": ("engine", ""),
    "gpus": ("GPUs", ""),
    "context": ("context", " tokens"),
    "servedName": ("served name", ""),
    "group": ("group", ""),
    "licence": ("licence", ""),
    "fallback": ("fallback", ""),
    "claimGib": ("claim", " GiB"),
    "memoryGib": ("host memory", " GiB"),
    "coldStartSeconds": ("cold start", " s"),
    "overlay": ("overlay", ""),
}
_FIT = {"fits": "", "kvCacheTokens": "KV cache", "maxModelLen": "longest context"}
# A reviewer of these wants to see the fit, whether or not it differs.
_DECIDES_FIT = ("modelId", "revision", "context", "engine", "gpus")
_REVISION_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class ModelDifference:
    """Facts of a model that differ, by their keys in the plan, and all that are told on each side.

    None on a side that has no such model.
    """

    alias: str
    facts: Mapping[str, tuple[Any, Any]]
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


def models(old: PlanData, new: PlanData) -> Iterator[ModelDifference]:
    """Models that differ, in the order of the new side."""
    before, after = ({m["alias"]: _facts(m) for m in plan["models"]} for plan in (old, new))
    for alias in dict.fromkeys([*after, *before]):
        one, other = before.get(alias, {}), after.get(alias, {})
        # A plan of an older version may not know a fact: that is no change of it.
        known = [key for key in dict.fromkeys([*other, *one]) if not (one and other) or (key in one and key in other)]
        facts = {key: (one.get(key), other.get(key)) for key in known if one.get(key) != other.get(key)}
        if facts:
            yield ModelDifference(alias=alias, facts=facts, old=before.get(alias), new=after.get(alias))


def _facts(model: Mapping[str, Any]) -> dict[str, Any]:
    fit = mapping(model, "fit")
    if "fit" in model and model["fit"] is None and model["gpus"]:
        fit = {"fits": False}  # its engine refuses its flags
    facts = {key: model[key] for key in _FACTS if key in model} | {key: fit[key] for key in _FIT if key in fit}
    if own := mapping(model, "overlay"):
        # Where it stands there is no matter of the plan.
        facts["overlay"] = f"{own['file']} ({', '.join(own['fields']) or 'new'})"
    return facts


# --- lines ---------------------------------------------------------------------------------------------------


def model_lines(found: tuple[ModelDifference, ...]) -> list[Line]:
    """A model a line; models to which the same happens share one."""
    return grouped(_line(difference) for difference in found)


def _line(found: ModelDifference) -> Line:
    if found.new is None:
        was = (found.old or {}).get("state")
        return Line(subject=found.alias, text=f"leaves the catalog (was {was})", loud=was == State.UP)
    if found.old is None:
        parts = [_shown(key, found.new[key]) for key in ("state", "modelId", "revision", "engine") if key in found.new]
        parts += [f"context {_fact(found.new.get('context'), ' tokens')}", *_fit({}, found.new)]
        if found.new.get("overlay"):
            parts.append(f"of {found.new['overlay']}")
        return Line(subject=found.alias, text=f"new: {', '.join(parts)}", loud=found.new.get("fits") is False)
    parts = [*_state(found)]
    for key, (old, new) in found.facts.items():
        if key in _FACTS and key not in ("state", "replicas"):
            label, unit = _FACTS[key]
            parts.append(f"{label} {_fact(old, unit if new is None else '', key)} -> {_fact(new, unit, key)}")
    if found.facts.keys() & {*_FIT, *_DECIDES_FIT}:
        parts += _fit(found.old, found.new)
    worse = found.old.get("fits") is True and found.new.get("fits") is False
    return Line(subject=found.alias, text="; ".join(parts), loud=worse or "modelId" in found.facts)


def _state(found: ModelDifference) -> Iterator[str]:
    old, new = found.facts.get("state", (None, None))
    if old is not None and new is not None:
        down = "goes down" if old == State.UP else ""
        match new:
            case State.UP:
                budget = (found.new or {}).get("coldStartSeconds")
                why = f"goes up, first answer within {duration(budget)}" if budget else "goes up"
            case State.DISABLED:
                why = f"{down}{', ' if down else ''}no longer enabled"
            case _:
                why = down or "now enabled"
        yield f"{old} -> {new} ({why})"
    elif "replicas" in found.facts:
        before, after = found.facts["replicas"]
        yield f"replicas {before} -> {after}"


def _fit(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Before and after, of sides that tell it."""
    sides = [_one_fit(side) for side in (old, new) if "fits" in side]
    if len(set(sides)) > 1:
        yield f"fits its GPU: {' -> '.join(sides)}"
    elif sides:
        yield f"fits its GPU{' as before' if len(sides) > 1 else ''}: {sides[0]}"


def _one_fit(facts: Mapping[str, Any]) -> str:
    parts = ["yes" if facts["fits"] else "no"]
    parts += [f"{label} {facts[key]:,} tokens" for key, label in _FIT.items() if label and key in facts]
    return ", ".join(parts)


def _shown(key: str, value: Any) -> str:
    label = "revision " if key == "revision" else ""
    return f"{label}{_fact(value, '', key)}"


def _fact(value: Any, unit: str, key: str = "") -> str:
    if value is None:
        return "none pinned" if key == "revision" else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "revision":
        return str(value)[:_REVISION_DIGITS]
    return f"{value:,}{unit}" if isinstance(value, int | float) else f"{value}{unit}"
