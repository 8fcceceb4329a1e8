"""Refuses, in a preview too, what a claim or disk cannot become: smaller, another size too early, another class.

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
    # Typed later, or at another cluster, it stops at a claim that has data by then.
    empty = f"kubectl -n {namespace} wait pvc {name} --for=jsonpath='{{.status.phase}}'=Pending --timeout=1s"
    return (
        f"{name} would change from {before:g} to {after:g} GiB, but no pod has used it yet, and a claim without a disk "
        f"cannot change\n  remedy: {empty} && kubectl -n {namespace} delete pvc {name} && pulumi up   # it is empty"
    )


def _class(inputs: Mapping[str, Any]) -> str | None:
    return mapping(inputs.get("spec")).get("storageClassName")


def _another_class(name: str, there: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """A claim keeps the class that it was made with, and one that asks for none keeps what it was given."""
    has, asked = _class(there), _class(new)
    if not has or not asked or has == asked:
        return None
    return (
        f"{name} is there with storage class {has} and is to have {asked}, and a claim keeps its own\n"
        "  remedy: pulumi config rm storageClass && pulumi up   # what is there keeps its class; then set it again"
    )


def of_its_class(there: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The planned claim with the class of the one that is there, which it keeps."""
    return {**new, "spec": {**mapping(new.get("spec")), "storageClassName": _class(there)}}


def refusal(
    name: str, setting: str, old: Mapping[str, Any], new: Mapping[str, Any], outputs: Mapping[str, Any]
) -> str | None:
    """Why a change cannot be had, with the remedy; None where it can. `outputs` is what exists, as it was read last."""
    if message := shrink(name, old, new):
        return f"{message}\n  remedy: {keep_size(setting, old)}"
    return too_early(name, old, new, outputs)


def refused_adoption(there: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why a claim that is there cannot become the planned one, with the remedy; None where it can."""
    metadata = mapping(new.get("metadata"))
    name, setting = str(metadata.get("name")), mapping(metadata.get("annotations")).get(_SIZED_BY)
    if not setting:
        return _on_a_volume(name, there, new)
    return _another_class(name, there, new) or refusal(name, setting, there, new, there)


def _on_a_volume(name: str, there: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """A claim keeps its volume, and on one that was made beforehand its size; an older version asked for the disk's."""
    before, after = stored_gib(there), stored_gib(new)
    volume, held = (mapping(claim.get("spec")).get("volumeName") for claim in (new, there))
    if volume is None:
        return None
    namespace = mapping(new.get("metadata")).get("namespace")
    keep = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}, separators=(",", ":"))
    if held not in (None, "", volume):
        return (
            f"{name} is on the volume {held}, and is to be on {volume}, which a claim cannot: it would begin with what "
            "is there. Dump what it has first\n"
            f"  remedy: kubectl patch pv {held} -p '{keep}' && kubectl -n {namespace} delete pvc {name} && pulumi up"
            f"   # {held} stays, with all that is on it"
        )
    if before is None or before == after:
        return None
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
