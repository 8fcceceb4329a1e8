"""Refuses, in a preview too, what a claim or disk cannot become: smaller, of another class, another size too early.

Only the engine knows the size that exists, so this is a hook of the engine; of a claim that a stack finds again, only
the cluster does, and it is asked before the create (stacks/ownership.py). Without it the API server refuses a smaller
claim in the middle of an update, and a smaller disk is another disk, without what was on it. Nor does it change a
claim that no pod has used yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pulumi

from components.kubernetes.judging import judging, mapping, refuse

_SIZED_BY = "ai-platform/sized-by"
DATABASE_SETTING = "--path gateway.databaseGib"  # as `pulumi config set` takes it
_GIB = {"Ki": 2**-20, "Mi": 2**-10, "Gi": 1, "Ti": 2**10, "k": 1e3 / 2**30, "M": 1e6 / 2**30, "G": 1e9 / 2**30}


class ShrinkError(Exception):
    """A size that cannot be had; the text says what that means and what to do."""


def claim_setting(alias: str) -> str:
    """The key of config that sizes a model's claim, as `pulumi config set` takes it."""
    return f"{alias}:claimGib"


def sized_by(setting: str) -> dict[str, str]:
    """Annotation of a claim: what sizes it, which its reader may want to know as well."""
    return {_SIZED_BY: setting}


def stored_gib(inputs: Mapping[str, Any]) -> float | None:
    """GiB that a claim, a volume or a disk has by its inputs; None for anything else, and for what is not known yet."""
    spec = mapping(inputs.get("spec"))
    asked = mapping(mapping(spec.get("resources")).get("requests")).get("storage")
    size = asked or mapping(spec.get("capacity")).get("storage") or inputs.get("size")
    if isinstance(size, int | float):
        return float(size)
    parts = re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(_GIB)})", size) if isinstance(size, str) else None
    return float(parts[1]) * _GIB[parts[2]] if parts else None


def shrink(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What a change of size would do, in words; None where nothing becomes smaller."""
    before, after = stored_gib(old), stored_gib(new)
    if before is None or after is None or after >= before:
        return None
    return (
        f"{name} would shrink from {before:g} to {after:g} GiB, which no storage can: the update would stop halfway, "
        "or replace the disk by an empty one"
    )


def keep_size(setting: str, old: Mapping[str, Any]) -> str:
    """The command that asks for the size that exists."""
    return f"pulumi config set {setting} {stored_gib(old):g}"


def too_early(name: str, old: Mapping[str, Any], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | None:
    """What a change of size meets on a claim without a disk, with the remedy; None for any other change.

    `outputs` is the claim as it was read last.
    """
    before, after = stored_gib(old), stored_gib(new)
    if before is None or after is None or before == after:
        return None
    if mapping(outputs.get("status")).get("phase") != "Pending":
        return None
    namespace = mapping(old.get("metadata")).get("namespace")
    return (
        f"{name} would change from {before:g} to {after:g} GiB, but no pod has used it yet, and a claim without a disk "
        f"cannot change\n  remedy: kubectl -n {namespace} delete pvc {name} && pulumi up   # it is empty"
    )


def _class(inputs: Mapping[str, Any]) -> str | None:
    return mapping(inputs.get("spec")).get("storageClassName")


def another_class(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What another storage class would do, with the remedy; None where it stays the same.

    A claim keeps the class that it was made with: the engine would make an empty one in its place.
    """
    before, after = _class(old), _class(new)
    if before == after:
        return None
    keep = f"pulumi config set storageClass {before}" if before else "pulumi config rm storageClass"
    shown = [f"storage class {found}" if found else "the default storage class" for found in (after, before)]
    return (
        f"{name} would have {shown[0]} in place of {shown[1]}, and a claim keeps its own: it would be replaced by an "
        f"empty one\n  remedy: {keep}   # stays"
    )


def refusal(
    name: str, setting: str, old: Mapping[str, Any], new: Mapping[str, Any], outputs: Mapping[str, Any]
) -> str | None:
    """Why a change cannot be had, with the remedy; None where it can. `outputs` is what exists, as it was read last."""
    if message := another_class(name, old, new):
        return message
    if message := shrink(name, old, new):
        return f"{message}\n  remedy: {keep_size(setting, old)}"
    return too_early(name, old, new, outputs)


def refused_adoption(there: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why a claim that is there cannot become the planned one, with the remedy; None where it can."""
    metadata = mapping(new.get("metadata"))
    name, setting = str(metadata.get("name")), mapping(metadata.get("annotations")).get(_SIZED_BY)
    if not setting:
        return _of_another_size(name, there, new)
    # One that asks for no class keeps the one that it was given.
    spec = {**mapping(new.get("spec")), "storageClassName": _class(new) or _class(there)}
    return refusal(name, setting, there, {**new, "spec": spec}, there)


def _of_another_size(name: str, there: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """A claim on a volume that was made beforehand keeps its size for ever; an older version asked for the disk's."""
    before, after = stored_gib(there), stored_gib(new)
    volume = mapping(new.get("spec")).get("volumeName")
    if volume is None or before is None or before == after:
        return None
    namespace = mapping(new.get("metadata")).get("namespace")
    keep = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}, separators=(",", ":"))
    return (
        f"{name} asks for {before:g} GiB, as an older version made it, and is to ask for {after:g}, which no claim on "
        "a volume of its own can: claim and volume have to be made anew, on the disk that there is\n"
        f"  remedy: kubectl patch pv {volume} -p '{keep}' && kubectl -n {namespace} delete pvc {name} && "
        f"kubectl delete pv {volume} && pulumi up   # the disk stays as it is"
    )


def never_shrinks(name: str, setting: str) -> pulumi.ResourceHookBinding:
    """Hook of a resource that holds data. `setting` is the key of config that sizes it, with its flags."""

    def judge(args: pulumi.ResourceHookArgs) -> None:
        found = refusal(name, setting, args.old_inputs or {}, args.new_inputs or {}, args.old_outputs or {})
        if found:
            refuse(ShrinkError(found))

    return pulumi.ResourceHookBinding(before_update=[judging(f"size of {name}", judge)])
