"""LiteLLM hook: a model at zero replicas is a designed state of the gateway, not a failing connection.

Runs inside the LiteLLM image, named `model_state.hook` in `litellm_settings.callbacks`. It reads one small JSON
file from a mounted ConfigMap (`MODEL_STATE_FILE`), again whenever kubelet swaps it, so that a model going up or
down restarts nothing. The file names the aliases that are not up, and nothing else (see `State`):

    {"models": {"coder-chat": {"message": "... is off. Bring it up: pulumi config set ..."},
                "coder-mini": {"message": "...", "fallback": "coder-chat"}}}

A request to such an alias is answered before routing: at once, without contact, retry, cool-down or spend. With a
fallback it is served by that alias, at that alias's price, if the key may use that alias too: config decides
what a key reaches and pays, never the state of another model. A fallback that is itself off is not followed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict, cast

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base of every hook; not installed where this is type-checked."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # outside the image
        CustomLogger = object

log = logging.getLogger("model_state")


class ModelOff(TypedDict):
    """What is said of one alias that is not up."""

    message: str  # for the tenant: that it is off, and how it is brought up
    fallback: NotRequired[str]  # the alias that serves meanwhile


class State(TypedDict):
    """The file. An alias that is not in it is up."""

    models: dict[str, ModelOff]


class ModelState:
    """The file, read again when it changes. What cannot be read leaves the last good state in force."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._models: Mapping[str, ModelOff] = {}

    def off(self, alias: str) -> ModelOff | None:
        """What is said of an alias, or None when it is up."""
        self._refresh()
        return self._models.get(alias)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116  a microsecond per request counts
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark == self._seen:
                return
            self._seen = mark
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                self._models = parse(file.read())
        except (OSError, ValueError) as error:
            # Once per change: `_seen` is set before the file is read.
            if self._seen is not None:
                log.warning("keeping the last good state of the models: %s: %s", self._path, error)


def parse(text: str) -> dict[str, ModelOff]:
    """The aliases of a state file. Raises ValueError for anything that is not one."""
    state: object = json.loads(text)
    models = cast("dict[str, object]", state).get("models") if isinstance(state, dict) else None
    if not isinstance(models, dict):
        raise ValueError("no object 'models' in it")
    found: dict[str, ModelOff] = {}
    for alias, value in cast("dict[str, object]", models).items():
        entry = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        message, fallback = entry.get("message"), entry.get("fallback")
        if not isinstance(message, str) or not isinstance(fallback, str | None):
            raise ValueError(f"entry '{alias}' has no text 'message', or a 'fallback' that is not an alias")
        found[alias] = {"message": message, "fallback": fallback} if fallback else {"message": message}
    return found


class Verdict(NamedTuple):
    """What becomes of a request: one of the two is set, or neither."""

    serve_by: str | None = None
    refuse: str | None = None


def decide(state: ModelState, alias: str, may_use_fallback: bool) -> Verdict:
    """Whether a request to an alias is served as it is, by its fallback, or refused with a message."""
    off = state.off(alias)
    if off is None:
        return Verdict()
    fallback = off.get("fallback")
    if fallback is None:
        return Verdict(refuse=off["message"])
    if not may_use_fallback:
        return Verdict(refuse=f"{off['message']} Its fallback '{fallback}' is not among the models of this key.")
    if state.off(fallback) is not None:
        return Verdict(refuse=f"{off['message']} Its fallback '{fallback}' is off too.")
    return Verdict(serve_by=fallback)


class ModelStateHook(CustomLogger):
    """What LiteLLM calls before it routes a request of any kind: chat, completion, embedding, stream or not."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._state = ModelState(path)

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any] | None:
        """Answer for an alias that is off, or send the request to its fallback."""
        alias = data.get("model")
        off = self._state.off(alias) if isinstance(alias, str) else None
        if alias is None or off is None:
            return None
        allowed = "fallback" in off and await _may_use(user_api_key_dict, off["fallback"])
        verdict = decide(self._state, alias, allowed)
        if verdict.refuse is not None:
            raise _refusal(verdict.refuse)
        data["model"] = verdict.serve_by
        return data


def _refusal(message: str) -> Exception:
    from litellm.proxy._types import ProxyException  # noqa: PLC0415  # pyright: ignore

    # OpenAI's clients would otherwise ask again, twice, for a model that nobody is starting.
    headers = {"x-should-retry": "false"}
    error = cast("Any", ProxyException)(message=message, type="model_off", param="model", code=503, headers=headers)
    error.status_code = 503  # the route of recordings reads this one, and would answer with 500
    return cast("Exception", error)


async def _may_use(token: Any, alias: str) -> bool:
    """Whether a key, its team and its project may use an alias: LiteLLM's own check, so its own rules."""
    from litellm.proxy._types import ProxyException  # noqa: PLC0415  # pyright: ignore
    from litellm.proxy.auth.auth_checks import can_key_call_resolved_model  # noqa: PLC0415  # pyright: ignore
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415  # pyright: ignore

    try:
        await can_key_call_resolved_model(model=alias, llm_model_list=None, valid_token=token, llm_router=llm_router)
    except ProxyException:  # pyright: ignore[reportUnknownVariableType]
        return False
    return True


hook = ModelStateHook(os.environ.get("MODEL_STATE_FILE", "/etc/model-state/state.json"))
