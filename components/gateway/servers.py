"""LiteLLM hook: what the servers of models here take and answer that LiteLLM 1.106.2 does not know.

Runs inside the LiteLLM image, named `servers.hook` in `litellm_settings.callbacks`.

Speech. LiteLLM bills a recording by the seconds that it can measure itself, and only where the answer says none. vLLM
says them as a text in `verbose_json`, which no price can be multiplied with, and formats that LiteLLM cannot measure
(m4a, webm) would cost nothing. So the seconds are taken from the answer, else measured, and rounded up to whole ones as
vLLM rounds them. A recording of which neither is possible is refused before the model is asked. A translation into
English is a route of its own at the model's server and has none here; `door.py` marks it.

Reranking. LiteLLM's client for servers of one's own speaks as vLLM does and counts nothing that a price by the request
could be multiplied with; its client for text-embeddings-inference does, but asks the internet about the model at each
call, and takes the price from there. So the first one learns the other's words, and every answer counts as one request.

Embeddings. `dimensions` is dropped without a word where a model is not registered to hear it, and the client finds
vectors of another length; here it is refused.

The list of models says who serves each one; LiteLLM says "openai" of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base of every hook; not installed where this is type-checked."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # outside the image
        CustomLogger = object

_MEASURED = "audio_transcription_duration"  # LiteLLM's name for the seconds that it bills
_OF_TRANSLATIONS = ("file", "model", "prompt", "response_format", "temperature")  # fields, of OpenAI's client


def seconds_of(response: Any) -> int | None:
    """Whole seconds of the recording of an answer: as the server says, else as LiteLLM measured; None: nobody knows."""
    usage = getattr(response, "usage", None)
    told = getattr(usage, "seconds", None) or getattr(response, "duration", None)
    known = told if told is not None else response.hidden_params.get(_MEASURED)
    try:
        return math.ceil(float(known))
    except (TypeError, ValueError, OverflowError):
        return None


def asks_to_translate(data: Any) -> bool:
    """Whether a request for a transcription is one for a translation, as the door marked it."""
    return data.get("task") == "translate"


def heard(answer: Any) -> Any:
    """An answer of a speech model, with the seconds that are billed and its duration as the number that it is."""
    if (seconds := seconds_of(answer)) is not None:
        answer.hidden_params[_MEASURED] = seconds
    if isinstance(getattr(answer, "duration", None), str):
        answer.duration = float(answer.duration)
    return answer


def asked_of_tei(body: dict[str, Any]) -> dict[str, Any]:
    """A question in vLLM's words and in TEI's, each of which reads its own."""
    return {**body, "texts": body["documents"], "return_text": bool(body.get("return_documents"))}


def ranked(answer: Any, most: object) -> dict[str, Any]:
    """TEI's answer in vLLM's words: the best first, and no more than were asked for; TEI gives all."""
    results = [
        {"index": rank["index"], "relevance_score": rank["score"]}
        | ({"document": {"text": rank["text"]}} if rank.get("text") is not None else {})
        for rank in sorted(answer, key=lambda rank: -rank["score"])
    ]
    return {"results": results[:most] if isinstance(most, int) else results}


def refusal(message: str, param: str) -> Exception:
    """A 400 in the shape of OpenAI's errors."""
    from litellm.proxy._types import ProxyException  # noqa: PLC0415  # pyright: ignore

    error = cast("Any", ProxyException)(message=message, type="invalid_request_error", param=param, code=400)
    error.status_code = 400  # some routes of LiteLLM read this one
    return cast("Exception", error)


class ServersHook(CustomLogger):
    """What LiteLLM calls before it routes a request, and when a model has answered."""

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any] | None:
        """Refuse what would be answered otherwise than asked, or could not be billed."""
        if data.get("dimensions") is not None and "embedding" in call_type and not _heard_by(data.get("model")):
            raise refusal(
                f"'dimensions' cannot be asked of {data.get('model')}: its vectors have one length; leave it out of "
                "the request",
                "dimensions",
            )
        plain = asks_to_translate(data) and data.get("response_format") != "verbose_json"
        if plain and _measured(data["file"]) is None:
            raise refusal(
                "how long 'file' is cannot be told, so nobody could be billed: send it as WAV, FLAC, Ogg or MP3, or "
                "ask for response_format verbose_json",
                "file",
            )
        return None

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> Any:
        """What LiteLLM bills and hands on."""
        return heard(response) if getattr(call_type, "value", None) == "atranscription" else None


def _measured(recording: Any) -> float | None:
    from litellm.litellm_core_utils.audio_utils.utils import calculate_request_duration  # noqa: PLC0415  # pyright: ignore

    return cast("Any", calculate_request_duration)(recording)


def _heard_by(alias: object) -> bool:
    """Whether a model is registered to hear `dimensions`; one that nobody registered is refused elsewhere."""
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415  # pyright: ignore

    found: Any = cast("Any", llm_router).get_model_list(model_name=alias) or []
    return all("dimensions" in (entry["litellm_params"].get("allowed_openai_params") or ()) for entry in found)


def translate_too() -> None:
    """Let LiteLLM's client for transcriptions ask for translations where one is marked."""
    from litellm.llms.openai.transcriptions import handler  # noqa: PLC0415  # pyright: ignore

    client: Any = cast("Any", handler).OpenAIAudioTranscription
    ask = client.make_openai_audio_transcriptions_request

    async def either(self: Any, openai_aclient: Any, data: dict[str, Any], timeout: Any) -> Any:
        further = dict(data.get("extra_body") or {})
        if further.pop("task", None) != "translate":
            return await ask(self, openai_aclient, data, timeout)
        known = {name: data[name] for name in _OF_TRANSLATIONS if name in data}
        if "language" in data:  # that is spoken; not among OpenAI's fields of a translation
            further["language"] = data["language"]
        translations: Any = openai_aclient.audio.translations.with_raw_response
        raw = await translations.create(**known, extra_body=further, timeout=timeout)
        return dict(raw.headers), raw.parse()

    client.make_openai_audio_transcriptions_request = either


def rank_by_the_request() -> None:
    """Let LiteLLM's client for rerankers of one's own ask TEI too, and count requests."""
    from litellm.llms.hosted_vllm.rerank import transformation  # noqa: PLC0415  # pyright: ignore

    client: Any = cast("Any", transformation).HostedVLLMRerankConfig
    ask, read = client.transform_rerank_request, client._transform_response

    def request(self: Any, *args: Any, **named: Any) -> dict[str, Any]:
        return asked_of_tei(ask(self, *args, **named))

    def response(self: Any, model: str, raw_response: Any, *_: Any, **named: Any) -> Any:
        body = raw_response.json()
        most = cast("dict[str, Any]", named.get("request_data") or {}).get("top_n")
        answer = read(self, ranked(body, most) if isinstance(body, list) else body)
        answer.meta["billed_units"] = {"search_units": 1}
        return answer

    client.transform_rerank_request, client.transform_rerank_response = request, response


def name_owners() -> None:
    """Let the list of models say who serves each, as it is registered."""
    from litellm.proxy import proxy_server, utils  # noqa: PLC0415  # pyright: ignore

    listed: Any = cast("Any", utils).create_model_info_response

    def owned(model_id: str, *args: Any, **named: Any) -> Any:
        entry = listed(model_id, *args, **named)
        router: Any = cast("Any", proxy_server).llm_router
        registered: list[Any] = (router.get_model_list(model_name=model_id) or []) if router else []
        for found in registered[:1]:
            entry["owned_by"] = found["model_info"].get("owned_by") or entry["owned_by"]
        return entry

    cast("Any", utils).create_model_info_response = owned


hook = ServersHook()
if CustomLogger is not object:
    translate_too()
    rank_by_the_request()
    name_owners()
