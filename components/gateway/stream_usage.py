"""LiteLLM hook: a stream of /v1/completions is billed by the model's own count, whatever the client asks for.

Runs inside the LiteLLM image, named `stream_usage.hook` in `litellm_settings.callbacks`. A model reports the usage
of a stream only when it is asked to. LiteLLM 1.106.2 asks for it on chat routes and hides the report from a
client that did not; on /v1/completions it does not ask, and bills what its own tokenizer makes of the text: a
few words for a prompt of thousands of tokens. Fill-in-the-middle is streams of exactly that kind. The client that did
not ask then finds `usage` in the last chunk, which is part of the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base of every hook; not installed where this is type-checked."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # outside the image
        CustomLogger = object


def ask_for_usage(data: dict[str, Any]) -> bool:
    """Make a streamed request ask for usage; whether that changed it."""
    given: Any = data.get("stream_options")
    options = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    if data.get("stream") is not True or options.get("include_usage") is True:
        return False
    data["stream_options"] = {**options, "include_usage": True}
    return True


def share_client() -> None:
    """Let every request of LiteLLM's OpenAI clients use one HTTP client, with its connections."""
    import litellm  # noqa: PLC0415  # pyright: ignore
    from litellm.llms.openai.common_utils import BaseOpenAILLM  # noqa: PLC0415  # pyright: ignore

    shared = cast("Any", litellm)
    if shared.aclient_session is None:
        shared.aclient_session = cast("Any", BaseOpenAILLM).get_async_http_client()


class StreamUsageHook(CustomLogger):
    """What LiteLLM calls before it routes a request."""

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any] | None:
        """Ask for usage where LiteLLM does not."""
        return data if call_type == "atext_completion" and ask_for_usage(data) else None


hook = StreamUsageHook()
if CustomLogger is not object:
    share_client()
