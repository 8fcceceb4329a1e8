"""Refuses, in `pulumi preview` as in `pulumi up`, that a claim or a disk becomes smaller.

Only the engine knows the size that exists, so this is a hook of the engine. Without it the API server refuses a
smaller claim in the middle of an update, and a smaller disk is another disk, without what was on it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping
from typing import Any, cast

import pulumi

DATABASE_SETTING = "--path gateway.databaseGib"  # as `pulumi config set` takes it
_GIB = {"Ki": 2**-20, "Mi": 2**-10, "Gi": 1, "Ti": 2**10, "k": 1e3 / 2**30, "M": 1e6 / 2**30, "G": 1e9 / 2**30}


class ShrinkError(Exception):
    """A size that would go down; the text says what that means and what to do."""


def claim_setting(alias: str) -> str:
    """The key of config that sizes a model's claim, as `pulumi config set` takes it."""
    return f"{alias}:claimGib"


def stored_gib(inputs: Mapping[str, Any]) -> float | None:
    """GiB that a claim, a volume or a disk has by its inputs; None for anything else, and for what is not known yet."""
    spec = _mapping(inputs.get("spec"))
    asked = _mapping(_mapping(spec.get("resources")).get("requests")).get("storage")
    size = asked or _mapping(spec.get("capacity")).get("storage") or inputs.get("size")
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


def never_shrinks(name: str, setting: str) -> pulumi.ResourceHookBinding:
    """Hook of a resource that holds data. `setting` is the key of config that sizes it, with its flags."""

    def refuse(args: pulumi.ResourceHookArgs) -> None:
        old, new = args.old_inputs or {}, args.new_inputs or {}
        if message := shrink(name, old, new):
            _end_without_traceback()
            raise ShrinkError(f"{message}\n  remedy: {keep_size(setting, old)}")

    options = pulumi.ResourceHookOptions(on_dry_run=True)
    return pulumi.ResourceHookBinding(before_update=[pulumi.ResourceHook(f"size of {name}", refuse, opts=options)])


def _end_without_traceback() -> None:
    """The engine interrupts the program after a failed hook, and Python would show where it was."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os._exit(1)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
