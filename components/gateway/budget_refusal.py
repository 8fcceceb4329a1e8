"""LiteLLM hook: a call that is refused for its budget is told why, and what helps.

Runs inside the LiteLLM image, named `budget_refusal.hook` in `litellm_settings.callbacks`. LiteLLM 1.106.2 holds the
most that a call may cost against the budget until the call ends, and refuses another one when nothing is left. It then
says "Budget has been exceeded! ... Current cost: 0.02", where most of that is held and not spent. Status and type of
the error stay as they are (422, `budget_exceeded`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base of every hook; not installed where this is type-checked."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # outside the image
        CustomLogger = object


def told(who: str, budget: float, spent: float | None, reset_at: object) -> str:
    """What a client reads. `spent` is what the database had against it, at most a minute ago; US dollars."""
    again = f" It starts again at {reset_at}." if reset_at else ""
    if spent is None or spent >= budget:
        amount = "" if spent is None else f", ${spent:.4f} so far"
        return f"The budget of {who}, ${budget:g}, is spent{amount}.{again}"
    return (
        f"The budget of {who}, ${budget:g}, has nothing left for this call: ${spent:.4f} is recorded as spent, and "
        "calls that run, or are not recorded yet, hold the rest. A call holds the most that it may cost until it ends: "
        f"send max_tokens, which makes that less, or wait until the others end.{again}"
    )


class BudgetRefusalHook(CustomLogger):
    """What LiteLLM calls when a request fails, before it answers."""

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Put the message of a refusal by budget in words. What it cannot know stays as LiteLLM says it."""
        if type(original_exception).__name__ != "BudgetExceededError":
            return
        error: Any = original_exception
        key = user_api_key_dict
        match error.entity_type:
            case "key":
                error.message = told("this key", error.max_budget, key.spend, getattr(key, "budget_reset_at", None))
            case "team":
                team = getattr(key, "team_alias", None) or error.entity_id
                error.message = told(f"the team '{team}'", error.max_budget, getattr(key, "team_spend", None), None)
            case _:
                pass


hook = BudgetRefusalHook()
