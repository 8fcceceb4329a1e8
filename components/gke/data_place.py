"""Where a stack's data is: refuses, in `pulumi preview` as in `pulumi up`, what would begin again with empty disks.

Only the engine knows what a stack had, so this is a hook of the engine. It is not on the disk: another size, zone or
project is a replacement there, which asks no hook. The engine refuses to replace what is protected, and names the
command that unprotects it; one command later the data would be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.kubernetes.judging import judging, refuse
from components.kubernetes.never_shrink import DATABASE_SETTING

DATA_PLACE = "ai-platform:gke:DataPlace"  # type of the component
NONE = "none"  # for `former_database`
_DATABASE, _FORMER = "--path gateway.database", "--path gateway.formerDatabase"  # as `pulumi config set` takes them
# Each input of the component that says where the data is, and the command that sets it.
_PLACES = {
    "project": "pulumi config set gcp:project",
    "zone": "pulumi config set gcp:zone",
    "stack": "pulumi stack rename",
}


class DataLossError(Exception):
    """A step after which the stack would be without its data; the text says so, and what to do."""


@dataclass(frozen=True, kw_only=True)
class DataPlaceArgs:
    """`former_database` is what the stack had before `database` and still keeps; "none" if nothing."""

    database: str  # "in-cluster" or "cloud-sql"
    former_database: str
    database_gib: int  # size of its disk
    project: str  # project of Google Cloud
    zone: str  # where its disk is
    stack: str  # of Pulumi: names in the cloud are made of it


class DataPlace(pulumi.ComponentResource):
    """Has nothing in it. What holds data depends on it, so that this speaks first."""

    def __init__(self, name: str, args: DataPlaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        inputs = {
            "database": args.database,
            "formerDatabase": args.former_database,
            "databaseGib": args.database_gib,
            "project": args.project,
            "zone": args.zone,
            "stack": args.stack,
        }
        hooks = pulumi.ResourceHookBinding(
            before_create=[judging("data of a new stack", _judge_new)],
            before_update=[judging("where the data is", _judge)],
        )
        guarded = pulumi.ResourceOptions(hooks=hooks)
        super().__init__(DATA_PLACE, name, inputs, pulumi.ResourceOptions.merge(opts, guarded))
        self.register_outputs({})


@dataclass(frozen=True)
class Loss:
    """What a step would leave behind, and the command that asks for what there is."""

    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"


def losses(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Loss]:
    """What a change of the component's inputs would cost."""
    for place, command in _PLACES.items():
        if old[place] != new[place]:
            yield Loss(
                f"the {place} would change from {old[place]} to {new[place]}: cluster and database would be replaced "
                "by empty ones",
                f"{command} {old[place]}   # for a second place, make a second stack",
            )
    before, after = old["database"], new["database"]
    if before != after and new["formerDatabase"] != before:
        yield Loss(
            f"the gateway's database would change from {before} to {after}: it would begin empty, and the one with all "
            "that keys have spent would be deleted",
            f"pulumi config set {_DATABASE} {before}   # or keep that one beside the new one: "
            f"pulumi config set {_FORMER} {before} (docs/operating.md, Another database)",
        )
    if new["formerDatabase"] not in (NONE, before, old["formerDatabase"]):
        yield _unknown_former(new["formerDatabase"])
    had, asked = old["databaseGib"], new["databaseGib"]
    # Beside another database too: the disk that is kept has the size that it had, and is to be found again.
    if asked < had:
        yield Loss(
            f"the gateway's database would shrink from {had:g} to {asked:g} GiB, which no storage can: its disk would "
            "be replaced by an empty one",
            f"pulumi config set {DATABASE_SETTING} {had:g}",
        )


def _unknown_former(former: str) -> Loss:
    return Loss(
        f"the stack has no {former} database that it had before: a new and empty one would be made and billed, or an "
        "older one met that the stack has let go of",
        f"pulumi config rm {_FORMER}",
    )


def _judge_new(args: pulumi.ResourceHookArgs) -> None:
    """A stack that begins, or begins again after a destroy, has no other database in its state."""
    former = (args.new_inputs or {})["formerDatabase"]
    if former != NONE:
        refuse(DataLossError(str(_unknown_former(former))))


def _judge(args: pulumi.ResourceHookArgs) -> None:
    old, new = args.old_inputs or {}, args.new_inputs or {}
    found = list(losses(old, new))
    if found:
        refuse(DataLossError("\n".join(map(str, found))))
    left = old["formerDatabase"]
    if left != NONE and left not in (new["formerDatabase"], new["database"]):
        pulumi.log.warn(
            f"the {left} database that the stack had before is let go: it stays in the cloud, and is billed, until it "
            "is deleted there (docs/operating.md, Another database)"
        )
