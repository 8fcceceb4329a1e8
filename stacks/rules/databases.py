"""Which database the gateway has, and which it had."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.commands import remove_command
from stacks.plan import Plan
from stacks.problems import Problem, config_path


def databases(plan: Plan) -> Iterator[Problem]:
    """A managed one is Google Cloud's, and one that is kept from before is another than the one that is used."""
    settings, gateway = plan.settings, plan.settings.platform.gateway
    if settings.doubtful("gateway", "database", "formerDatabase") or ("target",) in settings.left_out:
        return
    project, on_gke = settings.project, settings.platform.target == "gke"
    former = config_path(project, "gateway", "formerDatabase")
    remove = remove_command(project, ("gateway", "formerDatabase"))
    if not on_gke and gateway.database != "in-cluster":
        yield Problem(
            f"{config_path(project, 'gateway', 'database')} is '{gateway.database}', but this stack's target is "
            f"'{settings.platform.target}', where the database is in the cluster",
            remove_command(project, ("gateway", "database")),
        )
    if gateway.former_database == "none":
        return
    if not on_gke:
        yield Problem(
            f"{former} is '{gateway.former_database}', but this stack's target is '{settings.platform.target}', so "
            "nothing reads it",
            remove,
        )
    elif gateway.former_database == gateway.database:
        yield Problem(f"{former} is '{gateway.former_database}', which is the database that is used", remove)
