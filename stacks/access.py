"""Who may use what: teams, keys and fallbacks of the config, checked against the catalog. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.spec import ModelSpec
from models.tasks import TASKS
from stacks.commands import remove_command, set_command
from stacks.forms import outlined
from stacks.plan import Plan, PlannedModel, State
from stacks.problems import Notice, Problem, config_path, did_you_mean, near, nearest
from stacks.secrets import KEY_VALUES
from stacks.sections import Access, Key, Platform


def registered(plan: Plan) -> list[PlannedModel]:
    """Models that the gateway knows, in the catalog's order."""
    return [model for model in plan.deployed if model.workload is not None]


# --- what is rendered ----------------------------------------------------------------------------------------


def desired_access(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Teams and keys as the reconcile program takes them: groups expanded to the aliases that are registered."""
    platform = plan.settings.platform
    return {
        "teams": [_entry(plan, alias, team) for alias, team in platform.teams.items()],
        "keys": [_key_entry(plan, alias, key) for alias, key in platform.keys.items()],
    }


def _key_entry(plan: Plan, alias: str, key: Key) -> dict[str, Any]:
    """A key as far as its team lets it go: LiteLLM refuses to move a key into a team with more than the team has."""
    entry: dict[str, Any] = {**_entry(plan, alias, key), "models": effective(plan, key.models, key.team)}
    entry["team"] = key.team
    if team := plan.settings.platform.teams.get(key.team or ""):
        for name, bound in (("tpm_limit", team.tokens_per_minute), ("rpm_limit", team.requests_per_minute)):
            if entry[name] is not None and bound is not None:
                entry[name] = min(entry[name], bound)
    return entry


def _entry(plan: Plan, alias: str, access: Access) -> dict[str, Any]:
    return {
        "alias": alias,
        "models": expand(plan, access.models),
        "max_budget": access.max_budget_usd,
        "budget_duration": access.budget_period if access.max_budget_usd else None,
        "tpm_limit": access.tokens_per_minute,
        "rpm_limit": access.requests_per_minute,
    }


def expand(plan: Plan, names: Iterable[str]) -> list[str]:
    """Aliases that a list of aliases and groups stands for, of those registered, in the catalog's order."""
    wanted = set(names)
    return [m.spec.alias for m in registered(plan) if m.spec.alias in wanted or m.spec.group in wanted]


def model_state(plan: Plan) -> dict[str, dict[str, dict[str, str]]]:
    """What the gateway says of models that are not up, or who serves in their place."""
    models: dict[str, dict[str, str]] = {}
    for model in registered(plan):
        if model.state is State.UP:
            continue
        alias = model.spec.alias
        models[alias] = {
            "message": f"The model '{alias}' is off, so it costs nothing. The operator brings it up with: "
            f"pulumi config set {alias}:replicas 1 && pulumi up"
        }
        if model.fallback:
            models[alias]["fallback"] = model.fallback
    return {"models": models}


# --- what stands against it ----------------------------------------------------------------------------------


def access_problems(plan: Plan) -> Iterator[Problem]:
    """Everything wrong with teams, keys and fallbacks."""
    platform, project = plan.settings.platform, plan.settings.project
    catalog = {model.spec.alias: model.spec for model in plan.models}
    known = [*catalog, *{spec.group: None for spec in catalog.values()}]
    for section, entries in _sections(platform).items():
        for alias, access in entries.items():
            yield from _unknown_models(project, (section, alias, "models"), access.models, known)
    for alias, key in platform.keys.items():
        path = f"{project}:keys.{alias}"
        known_team = key.team is None or key.team in platform.teams
        if key.team is not None and not known_team and not plan.settings.doubtful("teams", key.team):
            place, match = ("keys", alias, "team"), nearest(key.team, platform.teams)
            yield Problem(
                f"{path}.team is {_named(key.team, platform.teams)}, and there is no such team; "
                f"{did_you_mean(key.team, platform.teams)}"
                if platform.teams
                else f"{path}.team is {outlined(key.team)}, and there are no teams",
                _team_remedy(project, place, match, platform),
            )
        team = platform.teams.get(key.team or "")
        doubtful = plan.settings.doubtful("keys", alias) or plan.settings.doubtful("teams", key.team or "")
        if key.max_budget_usd is None and (team is None or team.max_budget_usd is None) and not doubtful:
            yield Problem(
                f"{path} has no maxBudgetUsd and no team that has one, so whoever holds it may spend without end",
                set_command(project, ("keys", alias, "maxBudgetUsd"), 10),
            )
    for alias in sorted(plan.settings.key_values - platform.keys.keys()):
        if not plan.settings.doubtful("keys", alias):
            yield Problem(
                f"the secret {config_path(project, KEY_VALUES, alias)} is the value of a key that is not in "
                f"{project}:keys",
                remove_command(project, (KEY_VALUES, alias)),
            )
    yield from _fallback_problems(plan, catalog)


def _unknown_models(
    project: str, place: tuple[str, ...], models: Sequence[str], known: Collection[str]
) -> Iterator[Problem]:
    """Names that give nothing, the last first: typed in that order, no remedy moves what the next one is about."""
    left = sum(name in known or nearest(name, known) is not None for name in models)
    for index, name in reversed(list(enumerate(models))):
        if name in known:
            continue
        match, remedy = nearest(name, known), remove_command(project, (*place, index))
        if match or not left:  # never an empty list, which is refused as well
            meant = set_command(project, (*place, index), match or next(iter(known), "<alias>"))
            remedy = meant if match else f"{meant}   # or another model, or a group"
            left += 1
        yield Problem(
            f"{config_path(project, *place)} has {_named(name, known)}, which is no model and no group, so it gives "
            f"nothing; {did_you_mean(name, known)}",
            remedy,
        )


def _named(name: str, known: Iterable[str]) -> str:
    """A name that is none, as a message has it: quoted where it is nearly one, since otherwise it may be anything."""
    return f"'{name}'" if near(name, known) else outlined(name)


def _team_remedy(project: str, place: tuple[str, str, str], match: str | None, platform: Platform) -> str:
    """A team that there is; without any, the key stands alone, and only its own budget binds it."""
    if match or platform.teams:
        others = "" if match else "   # or another team"
        return set_command(project, place, match or next(iter(platform.teams))) + others
    return f"{remove_command(project, place)}   # then only the key's own budget binds it"


def _fallback_problems(plan: Plan, catalog: Mapping[str, ModelSpec]) -> Iterator[Problem]:
    fallbacks = {model.spec.alias: model.fallback for model in plan.models if model.fallback}
    served = {model.spec.alias for model in registered(plan)}
    for alias, target in fallbacks.items():
        key, remove = f"{alias}:fallback", remove_command(alias, ["fallback"])
        if target not in catalog:
            match = nearest(target, catalog)
            yield Problem(
                f"{key} is {_named(target, catalog)}, which is no model; {did_you_mean(target, catalog)}",
                set_command(alias, ["fallback"], match) if match else remove,
            )
            continue
        if target not in served:
            yield Problem(
                f"{key} is '{target}', and neither it nor its group '{catalog[target].group}' is enabled, so it can "
                "serve nothing",
                remove,
            )
        if not _may_replace(catalog[target], catalog[alias]):
            yield Problem(
                f"{key} is '{target}' ({catalog[target].task}, {catalog[target].model_id}), which cannot answer in "
                f"place of {alias} ({catalog[alias].task}, {catalog[alias].model_id})",
                remove,
            )
        if _loops(alias, fallbacks):
            yield Problem(f"{key} is '{target}', which leads back to {alias}: nobody would answer", remove)


def _may_replace(stand_in: ModelSpec, model: ModelSpec) -> bool:
    answers = TASKS[stand_in.task]
    return model.task in answers.stands_in_for and not (answers.same_model and stand_in.model_id != model.model_id)


def _loops(alias: str, fallbacks: Mapping[str, str]) -> bool:
    seen: set[str] = set()
    current: str | None = alias
    while current in fallbacks and current not in seen:
        seen.add(current)
        current = fallbacks[current]
    return current == alias


def access_notices(plan: Plan) -> Iterator[Notice]:
    """What keys will be refused, or let through, that their config does not show."""
    yield from _rates(plan)
    for alias, key in plan.settings.platform.keys.items():
        if not expand(plan, key.models):
            yield Notice(f"key {alias} reaches nothing: no model that it lists is enabled")
    # One notice a list: of two that each add a name to its end, the second would replace what the first one added.
    wanted: dict[tuple[_List, ...], dict[str, list[str]]] = {}
    for missing in (*_unreached(plan), *_listed_in_vain(plan)):
        wanted.setdefault(missing.lists, {}).setdefault(missing.why, []).extend(missing.names)
    for lists, reasons in wanted.items():
        names = list(dict.fromkeys(name for found in reasons.values() for name in found))
        yield Notice("; ".join(reasons), " && ".join(_list_also(plan, each, names) for each in lists))


_List = tuple[str, str]  # "keys" or "teams", and the alias


@dataclass(frozen=True)
class _Missing:
    """Names that would have to be in some lists of models as well."""

    lists: tuple[_List, ...]
    names: list[str]
    why: str


def _unreached(plan: Plan) -> Iterator[_Missing]:
    """Aliases that no key lists: a new one is refused to every existing key until one does."""
    keys = plan.settings.platform.keys
    listed = {alias for key in keys.values() for alias in expand(plan, key.models)}
    for_key: dict[tuple[_List, ...], list[str]] = {}
    for name in (model.spec.alias for model in registered(plan)):
        if keys and name not in listed:
            ways = [_ways(plan, alias, name) for alias in keys]
            for_key.setdefault(min(ways, key=len), []).append(name)
    for lists, names in for_key.items():
        they, them = ("is", "it") if len(names) == 1 else ("are", "them")
        yield _Missing(
            lists,
            names,
            f"{', '.join(names)} {they} registered, but no key may use {them}: a call is refused until a key lists "
            f"{them}",
        )


def _ways(plan: Plan, alias: str, name: str) -> tuple[_List, ...]:
    """The lists that have to name a model so that a key reaches it."""
    key, teams = plan.settings.platform.keys[alias], plan.settings.platform.teams
    lists: list[_List] = [] if name in expand(plan, key.models) else [("keys", alias)]
    if key.team in teams and name not in expand(plan, teams[key.team].models):
        lists.append(("teams", key.team))
    return tuple(lists)


def _rates(plan: Plan) -> Iterator[Notice]:
    """What rates let through where several replicas count: to know, since fewer replicas may carry too little."""
    platform, project = plan.settings.platform, plan.settings.project
    count = platform.gateway.replicas
    if count == 1:
        return
    effective = [
        f"{project}:{section}.{alias} up to {count * rate:,} {what}"
        for section, entries in _sections(platform).items()
        for alias, entry in entries.items()
        for rate, what in ((entry.requests_per_minute, "requests"), (entry.tokens_per_minute, "tokens"))
        if rate
    ]
    if effective:
        yield Notice(
            f"each of {count} gateways counts rates for itself, so a minute lets through {', '.join(effective)}: set "
            f"a rate to a {_ordinal(count)} of what all of them may let through"
        )


def _ordinal(count: int) -> str:
    return {2: "half", 3: "third"}.get(count, f"{count}th")


def _listed_in_vain(plan: Plan) -> Iterator[_Missing]:
    """What a key lists and its team does not, and fallbacks that a key does not reach."""
    for alias, key in plan.settings.platform.keys.items():
        reached = effective(plan, key.models, key.team)
        if key.team and (refused := [name for name in expand(plan, key.models) if name not in reached]):
            them = "it" if len(refused) == 1 else "them"
            yield _Missing(
                (("teams", key.team),),
                refused,
                f"key {alias} lists {', '.join(refused)}, and its team {key.team} does not: a call is refused until "
                f"the team lists {them} too",
            )
        for model in registered(plan):
            if model.spec.alias in reached and model.fallback and model.fallback not in reached:
                yield _Missing(
                    _ways(plan, alias, model.fallback),
                    [model.fallback],
                    f"key {alias} may use {model.spec.alias} but not its fallback {model.fallback}: while "
                    f"{model.spec.alias} is off, it gets the error instead",
                )


def _list_also(plan: Plan, where: _List, names: Sequence[str]) -> str:
    section, alias = where
    there = len(_sections(plan.settings.platform)[section][alias].models)
    project = plan.settings.project
    return " && ".join(
        set_command(project, (section, alias, "models", there + n), name) for n, name in enumerate(names)
    )


def _sections(platform: Platform) -> Mapping[str, Mapping[str, Access]]:
    return {"teams": platform.teams, "keys": platform.keys}


def effective(plan: Plan, models: Iterable[str], team: str | None) -> list[str]:
    """A key of a team reaches only what the team reaches as well."""
    own = expand(plan, models)
    if team is None or team not in plan.settings.platform.teams:
        return own
    allowed = set(expand(plan, plan.settings.platform.teams[team].models))
    return [alias for alias in own if alias in allowed]
