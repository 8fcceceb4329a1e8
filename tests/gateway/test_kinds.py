"""Models that hear, rank, see and embed, on the real proxy: what reaches their servers, what it costs, who may."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import yaml
from openai import OpenAI

from components.gateway.config import model_entry
from components.gateway.reconcile_keys import ROUTES
from components.serving.registration import registration
from models.facts import PerAudioSecond, PerQuery
from models.tasks import TASKS, Task
from ops.endpoint import Endpoint
from ops.smoke.checks import Verdict, exercise, through_gateway
from tests.gateway.conftest import FAST, unhurried
from tests.gateway.environment import Environment
from tests.gateway.kinds import Heard, Kinds, m4a, wav
from tests.gateway.postgres import Postgres
from tests.gateway.proxy import UPSTREAM_KEY, Answer, Proxy, call, master_key
from tests.gateway.rendered import rendered
from tests.gateway.test_routes import USAGE, price
from tests.gateway.upstream import Behaviour, Json, Seen
from tests.guide_entries import ENTRIES, RERANKER, SPEECH, VECTORS, VISION
from tests.patience import at_least, patient

QUERY: Json = {"query": "what is a pod", "documents": ["it rains", "a pod is a group", "what is a pod"]}
FORMS = {"transcription": "/v1/audio/transcriptions", "translation": "/v1/audio/translations"}


@pytest.fixture(scope="module")
def kinds() -> Iterator[Kinds]:
    with Kinds() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    environment: Environment, postgres: Postgres, kinds: Kinds, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """A proxy with the rendered files, but that its models are those of tests/guide_entries.py."""
    config = yaml.safe_load(rendered().files["config.yaml"])
    config["model_list"] = [model_entry(registration(spec, "serving")) for spec in ENTRIES.values()]
    for entry in config["model_list"]:
        parameters = entry["litellm_params"]
        rest = parameters["api_base"].partition(":8000")[2]
        parameters["api_base"] = f"{kinds.url}{rest}"
    name = f"gateway_{secrets.token_hex(3)}"
    postgres.create_database(name, template="template")
    proxy = Proxy(
        environment=environment,
        directory=tmp_path_factory.mktemp("proxy"),
        files={**rendered().files, "config.yaml": yaml.safe_dump(config, sort_keys=False)},
        database_url=postgres.url(name),
        master_key=master_key(),
        salt_key=master_key(),
        variables=FAST | unhurried(),
    )
    with proxy.launch():
        yield proxy.wait()


def key_of(gateway: Proxy, *aliases: str, **limits: Any) -> str:
    """One that reaches what the keys of a stack reach."""
    return gateway.make_key(aliases, allowed_routes=ROUTES, **limits)


def heard(client: OpenAI, kinds: Kinds, what: str, recording: bytes, **asked: Any) -> tuple[Any, Heard]:
    """An answer, and the form that the model's server got for it."""
    before = len(kinds.heard)
    route: Any = client.audio.transcriptions if what == "transcription" else client.audio.translations
    answer = route.create(model=SPEECH.alias, file=("a.wav", recording), **asked)
    (form,) = kinds.heard[before:]
    return answer, form


def ranked(gateway: Proxy, key: str, **asked: Any) -> Answer:
    return call(f"{gateway.url}/v1/rerank", key, {"model": RERANKER.alias, **QUERY, **asked})


# --- speech ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", FORMS)
def test_a_recording_reaches_the_model_s_route_with_its_own_name_and_key(
    what: str, gateway: Proxy, kinds: Kinds
) -> None:
    key = key_of(gateway, SPEECH.alias, key_alias=f"tenant-secret-{what}")
    client = gateway.client(key, headers={"x-tenant": "acme"})
    answer, form = heard(client, kinds, what, wav(1))
    assert form.path == FORMS[what]
    assert form.authorization == f"Bearer {UPSTREAM_KEY}"
    assert form.recording == wav(1)
    assert form.fields["model"] == [SPEECH.served_name]
    assert answer.text == {"transcription": "bonjour", "translation": "hello"}[what]
    assert not [text for text in ("tenant-secret", "acme", key, "translate") if text in str(form.fields)]


def test_what_a_client_asks_of_a_transcription_arrives_and_nothing_else(gateway: Proxy, kinds: Kinds) -> None:
    client = gateway.client(key_of(gateway, SPEECH.alias))
    asked: Json = {
        "language": "fr",
        "prompt": "Kubernetes, Pulumi",
        "temperature": 0.2,
        "response_format": "verbose_json",
        "timestamp_granularities": ["segment"],
    }
    answer, form = heard(client, kinds, "transcription", wav(2.5), **asked)
    assert form.fields == {
        "model": [SPEECH.served_name],
        "language": ["fr"],
        "prompt": ["Kubernetes, Pulumi"],
        "temperature": ["0.2"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["segment"],
    }
    assert (answer.language, answer.duration, answer.segments[0].end) == ("fr", 2.5, 2.5)


def test_what_a_client_asks_of_a_translation_arrives_too(gateway: Proxy, kinds: Kinds) -> None:
    client = gateway.client(key_of(gateway, SPEECH.alias))
    answer, form = heard(
        client, kinds, "translation", wav(1), prompt="Names", temperature=0, extra_body={"language": "fr"}
    )
    assert {name: values[-1] for name, values in form.fields.items()} == {
        "model": SPEECH.served_name,
        "response_format": "json",
        "prompt": "Names",
        "temperature": "0",
        "language": "fr",
    }
    assert answer.text == "hello"


def test_a_plain_answer_stays_plain(gateway: Proxy, kinds: Kinds) -> None:
    """And so is what is asked of the model: one that was tuned without times answers a verbose request with nothing."""
    client = gateway.client(key_of(gateway, SPEECH.alias))
    answer, form = heard(client, kinds, "transcription", wav(1))
    assert form.fields["response_format"] == ["json"]
    assert answer.model_dump(exclude_none=True) == {"text": "bonjour", "usage": {"type": "duration", "seconds": 1.0}}


BILLED: Mapping[str, tuple[str, bytes, Mapping[str, str]]] = {
    "a transcription": ("transcription", wav(3.2), {}),
    "a verbose transcription": ("transcription", wav(3.2), {"response_format": "verbose_json"}),
    "a translation": ("translation", wav(3.2), {}),
    "a verbose translation": ("translation", wav(3.2), {"response_format": "verbose_json"}),
    "a transcription of a file that LiteLLM cannot read": ("transcription", m4a(3.2), {}),
    "a verbose one of such a file": ("translation", m4a(3.2), {"response_format": "verbose_json"}),
}


@pytest.fixture(scope="module")
def billed(gateway: Proxy, kinds: Kinds) -> dict[str, str]:
    """A key for each, that has asked once; all of them first, as spend is written in batches."""
    keys = {case: key_of(gateway, SPEECH.alias) for case in BILLED}
    for case, (what, recording, asked) in BILLED.items():
        heard(gateway.client(keys[case]), kinds, what, recording, **asked)
    return keys


@pytest.mark.parametrize("case", BILLED)
def test_a_recording_costs_its_whole_seconds_times_the_price_of_one(
    case: str, gateway: Proxy, billed: dict[str, str]
) -> None:
    assert isinstance(SPEECH.price, PerAudioSecond)
    expected = 4 * SPEECH.price.usd_per_second
    assert gateway.spend(billed[case], expected) == pytest.approx(expected, rel=1e-9)


def test_a_recording_whose_length_nobody_can_tell_is_refused_before_the_model_is_asked(
    gateway: Proxy, kinds: Kinds
) -> None:
    client, before = gateway.client(key_of(gateway, SPEECH.alias)), len(kinds.heard)
    with pytest.raises(openai.BadRequestError, match="WAV, FLAC, Ogg or MP3"):
        heard(client, kinds, "translation", m4a(1))
    assert len(kinds.heard) == before


def test_a_budget_ends_transcriptions(gateway: Proxy, kinds: Kinds) -> None:
    assert isinstance(SPEECH.price, PerAudioSecond)
    key = key_of(gateway, SPEECH.alias, max_budget=5 * SPEECH.price.usd_per_second, budget_duration="1d")
    client = gateway.client(key)
    heard(client, kinds, "transcription", wav(6))
    refused = None
    for _ in patient(30):
        try:
            heard(client, kinds, "transcription", wav(1))
        except openai.UnprocessableEntityError as error:
            refused = error
            break
    assert refused is not None
    assert refused.type == "budget_exceeded"


@pytest.mark.parametrize("what", FORMS)
def test_a_key_of_other_models_hears_nothing(what: str, gateway: Proxy, kinds: Kinds) -> None:
    client, before = gateway.client(key_of(gateway, RERANKER.alias)), len(kinds.heard)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        heard(client, kinds, what, wav(1))
    assert refused.value.type == "key_model_access_denied"
    assert len(kinds.heard) == before


@pytest.mark.parametrize("what", FORMS)
def test_a_speech_model_that_is_off_says_so(what: str, gateway: Proxy, kinds: Kinds) -> None:
    client = gateway.client(key_of(gateway, SPEECH.alias))
    gateway.set_state({SPEECH.alias: {"message": "it is off"}})
    try:
        with pytest.raises(openai.APIStatusError) as refused:
            heard(client, kinds, what, wav(1))
    finally:
        gateway.set_state({})
    assert (refused.value.status_code, refused.value.type) == (503, "model_off")


REFUSED: dict[str, tuple[Json, str]] = {
    "another format": ({"response_format": "srt"}, "json or verbose_json"),
    "times of words": ({"response_format": "verbose_json", "timestamp_granularities": ["word"]}, "must be segment"),
    "times in a plain answer": ({"timestamp_granularities": ["segment"]}, "verbose_json"),
    "a field of LiteLLM's": ({"extra_body": {"api_base": "http://elsewhere"}}, "'api_base' is no field"),
    "the mark of translations": ({"extra_body": {"task": "translate"}}, "'task' is no field"),
    "another temperature": ({"temperature": 3}, "from 0 to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_form_that_asks_for_what_there_is_not_is_refused_by_name(case: str, gateway: Proxy, kinds: Kinds) -> None:
    client, before = gateway.client(key_of(gateway, SPEECH.alias)), len(kinds.heard)
    asked, words = REFUSED[case]
    with pytest.raises(openai.BadRequestError, match=words):
        heard(client, kinds, "transcription", wav(1), **asked)
    assert len(kinds.heard) == before


# --- reranking ---------------------------------------------------------------------------------------------------


def test_texts_come_back_in_the_order_of_the_model_with_their_places(gateway: Proxy, kinds: Kinds) -> None:
    with kinds.recording() as seen:
        answer = ranked(gateway, key_of(gateway, RERANKER.alias), return_documents=True)
    assert answer.status == 200, answer.body
    assert [result["index"] for result in answer.body["results"]] == [2, 1, 0]
    assert answer.body["results"][0]["document"] == {"text": "what is a pod"}
    (request,) = seen
    assert request.path == "/rerank"
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert (request.body["query"], request.body["texts"]) == (QUERY["query"], QUERY["documents"])


def test_as_many_texts_come_back_as_were_asked_for(gateway: Proxy) -> None:
    answer = ranked(gateway, key_of(gateway, RERANKER.alias), top_n=1)
    assert answer.body["results"] == [{"index": 2, "relevance_score": 0.4}]


def test_a_question_costs_the_same_whatever_its_size(gateway: Proxy) -> None:
    assert isinstance(RERANKER.price, PerQuery)
    small, large = (key_of(gateway, RERANKER.alias) for _ in range(2))
    assert ranked(gateway, small).status == 200
    for _ in range(2):
        assert ranked(gateway, large, documents=["a long text " * 200] * 50).status == 200
    for key, questions in ((small, 1), (large, 2)):
        expected = questions * RERANKER.price.usd_per_query
        assert gateway.spend(key, expected) == pytest.approx(expected, rel=1e-9)


def test_a_budget_ends_reranking(gateway: Proxy) -> None:
    assert isinstance(RERANKER.price, PerQuery)
    key = key_of(gateway, RERANKER.alias, max_budget=RERANKER.price.usd_per_query / 2, budget_duration="1d")
    answer = ranked(gateway, key)
    for _ in patient(30):
        answer = ranked(gateway, key)
        if answer.status != 200:
            break
    assert (answer.status, answer.body["error"]["type"]) == (422, "budget_exceeded")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"documents": []}, "'documents'"),
        ({"documents": [{"text": "a"}]}, "list of texts"),
        ({"top_n": 0}, "'top_n'"),
        ({"max_chunks_per_doc": 2}, "no field"),
        ({"query": None}, "'query'"),
    ],
)
def test_a_question_that_is_none_is_refused(asked: Json, words: str, gateway: Proxy, kinds: Kinds) -> None:
    with kinds.recording() as seen:
        answer = ranked(gateway, key_of(gateway, RERANKER.alias), **asked)
    assert answer.status == 400
    assert words in answer.body["error"]["message"]
    assert seen == []


# --- images and defaults -----------------------------------------------------------------------------------------


def chat(gateway: Proxy, kinds: Kinds, key: str, **asked: Any) -> Seen:
    with kinds.recording() as seen:
        messages: Any = TASKS[Task.VISION].example["messages"]
        gateway.client(key).chat.completions.create(model=VISION.alias, messages=messages, **asked)
    (request,) = seen
    return request


def test_an_image_arrives_as_it_was_sent_and_is_billed_by_what_the_model_counts(gateway: Proxy, kinds: Kinds) -> None:
    key = key_of(gateway, VISION.alias)
    with kinds.behaving(VISION.served_name, Behaviour(usage=USAGE)):
        request = chat(gateway, kinds, key)
    assert request.body["messages"] == TASKS[Task.VISION].example["messages"]
    assert gateway.spend(key, price(VISION, USAGE)) == pytest.approx(price(VISION, USAGE), rel=1e-9)


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "https://example.com/a.png", "file:///etc/passwd"])
@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
def test_media_by_address_are_refused(kind: str, url: str, gateway: Proxy, kinds: Kinds) -> None:
    for value in (url, {"url": url}):
        messages: Any = [{"role": "user", "content": [{"type": kind, kind: value}]}]
        with kinds.recording() as seen, pytest.raises(openai.BadRequestError, match="nothing is fetched"):
            gateway.client(key_of(gateway, VISION.alias)).chat.completions.create(model=VISION.alias, messages=messages)
        assert seen == []


def test_a_request_that_says_nothing_is_served_by_the_defaults_of_the_entry(gateway: Proxy, kinds: Kinds) -> None:
    body = chat(gateway, kinds, key_of(gateway, VISION.alias)).body
    assert {name: body[name] for name in VISION.defaults.asked} == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 512}


@pytest.mark.parametrize("asked", [{"temperature": 0}, {"temperature": 0.1, "top_p": 1}, {"max_tokens": 5}])
def test_what_a_request_says_is_what_it_is_served_by(asked: Json, gateway: Proxy, kinds: Kinds) -> None:
    body = chat(gateway, kinds, key_of(gateway, VISION.alias), **asked).body
    assert {name: body[name] for name in VISION.defaults.asked} == {**VISION.defaults.asked, **asked}


def test_a_schema_for_the_answer_reaches_the_model(gateway: Proxy, kinds: Kinds) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    assert chat(gateway, kinds, key_of(gateway, VISION.alias), response_format=wanted).body["response_format"] == wanted


def test_more_requests_at_once_than_an_entry_takes_are_told_to_wait(gateway: Proxy, kinds: Kinds) -> None:
    client = gateway.client(key_of(gateway, VISION.alias))

    def ask(_: int) -> int:
        try:
            client.chat.completions.create(model=VISION.alias, messages=[{"role": "user", "content": "ping"}])
        except openai.RateLimitError:
            return 429
        return 200

    with kinds.behaving(VISION.served_name, Behaviour(delay=3)), ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [200, 200, 429, 429]
    assert ask(0) == 200


# --- vectors -----------------------------------------------------------------------------------------------------


def test_a_shorter_vector_is_asked_of_the_model_that_has_them(gateway: Proxy, kinds: Kinds) -> None:
    key = key_of(gateway, VECTORS.alias)
    with kinds.recording() as seen, kinds.behaving(VECTORS.served_name, Behaviour(usage=USAGE)):
        gateway.client(key).embeddings.create(model=VECTORS.alias, input=["a"], dimensions=256)
    assert [request.body["dimensions"] for request in seen] == [256]
    assert gateway.spend(key, price(VECTORS, USAGE)) == pytest.approx(price(VECTORS, USAGE), rel=1e-9)


def test_a_shorter_vector_of_a_model_that_has_none_is_refused(gateway: Proxy, kinds: Kinds) -> None:
    client = gateway.client(key_of(gateway, RERANKER.alias))
    with kinds.recording() as seen, pytest.raises(openai.BadRequestError, match="'dimensions' cannot be asked"):
        client.embeddings.create(model=RERANKER.alias, input=["a"], dimensions=256)
    assert seen == []


# --- what an operator asks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [VISION.alias, RERANKER.alias, SPEECH.alias])
def test_a_smoke_test_asks_each_kind_and_proves_its_price(alias: str, gateway: Proxy, kinds: Kinds) -> None:
    spec = ENTRIES[alias]
    direct = Endpoint(kinds.url, at_least(30), UPSTREAM_KEY)
    through = Endpoint(gateway.url, at_least(30), key_of(gateway, alias))
    for name, endpoint in ((spec.served_name, direct), (alias, through)):
        checks = list(exercise(spec, name, endpoint))
        assert {check.verdict for check in checks} == {Verdict.OK}, checks
    for check in checks:
        judged = through_gateway(spec, check)
        assert judged.verdict is Verdict.OK, judged
        assert check.cost_usd
        cheaper = spec.model_copy(update={"price": PerQuery(usd_per_query=check.cost_usd / 2)})
        assert through_gateway(cheaper, check).verdict is Verdict.FAILED


# --- the list ----------------------------------------------------------------------------------------------------


def test_the_list_of_models_says_who_serves_each(gateway: Proxy) -> None:
    listed = gateway.client(key_of(gateway, *ENTRIES)).models.list()
    assert {model.id: model.owned_by for model in listed} == {
        VISION.alias: "vllm",
        VECTORS.alias: "vllm",
        RERANKER.alias: "tei",
        SPEECH.alias: "vllm",
    }
