"""How a hook of the engine says no: in a preview as in an update, in words, and without a traceback behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, cast

import pulumi

from components.kubernetes.clean_exit import end_without_traceback


def judging(name: str, judge: Callable[[pulumi.ResourceHookArgs], Awaitable[None] | None]) -> pulumi.ResourceHook:
    """A hook that is asked in a preview too."""
    return pulumi.ResourceHook(name, judge, opts=pulumi.ResourceHookOptions(on_dry_run=True))


def refuse(error: Exception) -> NoReturn:
    """Stop the step that a hook was asked about; the engine tells the text of the error."""
    end_without_traceback()
    raise error


def mapping(value: object) -> Mapping[str, Any]:
    """What stands in inputs at a place, empty where it is nothing or something else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


async def resolved(inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Inputs as plain values: a property with a secret anywhere in it comes as an output."""
    outputs = {key: pulumi.Output.from_input(value) for key, value in (inputs or {}).items()}
    return {key: await value.future(with_unknowns=True) for key, value in outputs.items()}
