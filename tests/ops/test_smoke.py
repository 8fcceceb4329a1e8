"""`ops smoke` against servers on loopback, by plain addresses and by a kubectl that forwards to them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.engines.external import ExternalProvider
from models.engines.tei import TeiEngine
from models.tasks import Task
from ops import kube
from ops.cli import main
from ops.smoke.checks import Usage, Verdict, price_usd
from ops.smoke.command import exit_code
from tests.catalog import CATALOG
from tests.checkout import PROJECT_DIR, clone
from tests.ops.cluster import container, ended, node, pod
from tests.ops.fakes import USAGE, Answer, Asked, Fault, Kubectl, Server, cost_of
from tests.ops.typed import remedies, why_not_typable
from tests.patience import at_least, patient

KEY, SERVING_KEY = "sk-smoke-0123456789abcdef", "serving-0123456789abcdef"
SERVED = [alias for alias, spec in CATALOG.items() if not isinstance(spec.engine, ExternalProvider)]
CHAT, FIM, AGENT, EMBEDDING = (
    next(alias for alias in SERVED if CATALOG[alias].task is task)
    for task in (Task.CHAT, Task.FIM, Task.AGENT, Task.EMBEDDING)
)
STEPS = {Task.CHAT: 2, Task.FIM: 2, Task.AGENT: 3, Task.EMBEDDING: 1}


@pytest.fixture
def gateway() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOKE_KEY", KEY)
    monkeypatch.setenv("DIRECT_KEY", SERVING_KEY)


def smoke(*arguments: str, timeout: str = "50") -> int:
    return main(["smoke", *arguments, "--timeout", timeout])


def through(server: Server, *aliases: str, timeout: str = "50") -> int:
    return smoke(*aliases, "--gateway-url", server.url, "--key-env", "SMOKE_KEY", timeout=timeout)


def rows(text: str) -> list[list[str]]:
    """The cells of the table."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line[0] in CATALOG]


# --- plain addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", SERVED)
def test_each_model_is_asked_for_its_own_kind_and_the_key_pays_for_it(
    alias: str, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert through(gateway, alias) == 0
    out = capsys.readouterr().out
    found = rows(out)
    steps, cost = STEPS[CATALOG[alias].task], cost_of(CATALOG[alias])
    assert [(row[1], row[3], row[-2], row[-1]) for row in found] == [("gateway", "200", f"{cost:.9f}", "ok")] * steps
    after = 0.25 + steps * cost
    assert f"spent $0.250000 before, ${after:.6f} after" in out
    assert f"budget $1 per 1d, ${1 - after:.6f} left" in out
    assert {asked.key for asked in gateway.seen} == {KEY}


@pytest.mark.parametrize("alias", SERVED)
def test_a_models_own_server_is_asked_who_it_is_and_then_by_that_name(
    alias: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = CATALOG[alias]
    with Server(spec) as server:
        assert smoke(alias, "--direct-url", f"{server.url}/v1/", "--direct-key-env", "DIRECT_KEY") == 0
    assert [row[-1] for row in rows(capsys.readouterr().out)] == ["ok"] * (1 + STEPS[spec.task])
    assert server.seen[0].path == ("/info" if isinstance(spec.engine, TeiEngine) else "/v1/models")
    assert {asked.body["model"] for asked in server.seen[1:]} == {spec.served_name}
    assert {asked.key for asked in server.seen} == {SERVING_KEY}


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_cost_and_no_verdict_is_cut_on_a_small_screen(
    gateway: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert through(gateway) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "…" not in out
    found = [words for line in out.splitlines() if (words := line.split()) and words[0] in CATALOG]
    assert {row[0] for row in found} == set(CATALOG)
    for row in found:
        assert row[-1] == "ok"
        assert re.fullmatch(r"\d+\.\d{9}", row[-2])


def test_a_tool_is_called_and_its_result_sent_back(gateway: Server) -> None:
    assert through(gateway, AGENT) == 0
    asked = [asked.body for asked in gateway.seen if asked.body]
    assert [body["tool_choice"] for body in asked[:2]] == ["auto", "required"]
    first, _, second = (body["messages"] for body in asked)
    assert second[: len(first)] == first
    assert [turn["role"] for turn in second[len(first) :]] == ["assistant", "tool"]
    assert second[-1]["tool_call_id"] == second[-2]["tool_calls"][0]["id"]


def test_a_model_that_calls_tools_only_where_it_must_is_asked_for_both_and_goes_on(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = patched(choices=[{"message": {"content": "I would"}}])
    gateway.fault = lambda asked, answer: (
        words(asked, answer) if (asked.body or {}).get("tool_choice") == "auto" else answer
    )
    assert through(gateway, AGENT) == 1
    assert [row[-1] for row in rows(capsys.readouterr().out)] == ["failed", "ok", "ok"]


def test_fill_in_the_middle_is_a_raw_prompt_of_control_tokens(gateway: Server) -> None:
    assert through(gateway, FIM) == 0
    asked = next(asked for asked in gateway.seen if asked.body)
    assert asked.path == "/v1/completions"
    assert re.fullmatch(r"<\|fim_prefix\|>.+<\|fim_suffix\|>.+<\|fim_middle\|>", asked.body["prompt"], flags=re.DOTALL)


def test_the_time_to_the_first_token_is_that_of_the_stream(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def slow_stream(asked: Asked, answer: Answer) -> Answer:
        return replace(answer, delay=0.3 if asked.body.get("stream") else 0)

    gateway.fault = slow_stream
    assert through(gateway, CHAT) == 0
    plain, streamed = rows(capsys.readouterr().out)
    assert plain[4] == "-"
    assert 300 <= int(streamed[4].replace(",", "")) <= int(streamed[5].replace(",", ""))


def test_without_a_name_every_model_that_the_key_may_use_is_checked(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert through(gateway) == 0
    assert list(dict.fromkeys(row[0] for row in rows(capsys.readouterr().out))) == list(CATALOG)


# --- what goes wrong -----------------------------------------------------------------------------------------


def whole(body: Any, **fields: Any) -> Fault:
    """Another answer to every request of a model."""
    return lambda asked, answer: replace(answer, body=body, **fields) if asked.body else answer


def patched(**fields: Any) -> Fault:
    """Other fields in the answer."""
    return lambda asked, answer: replace(answer, body={**answer.body, **fields}) if asked.body else answer


def refusal(status: int, kind: str, message: str = "because") -> Fault:
    return whole({"error": {"message": message, "type": kind}}, status=status)


def header(name: str, value: str) -> Fault:
    return lambda _, answer: replace(answer, headers={**answer.headers, name: value})


def tool_call(name: str, arguments: str) -> Any:
    call = {"id": "call-1", "function": {"name": name, "arguments": arguments}}
    return [{"message": {"content": None, "tool_calls": [call]}}]


def streamed(change: Fault) -> Fault:
    return lambda asked, answer: change(asked, answer) if asked.body.get("stream") else answer


FAULTS: dict[str, tuple[str, Fault, str]] = {
    "no price": (CHAT, header("x-litellm-response-cost", "0.0"), "budgets do not bind"),
    "another price": (EMBEDDING, header("x-litellm-response-cost", "0.000002"), "it cost $0.000002000"),
    "a stream without a price": (
        CHAT,
        streamed(whole([{"choices": [{"delta": {"content": "hi"}}]}, {"usage": {**USAGE, "cost": 0}}])),
        "budgets do not bind",
    ),
    "no usage": (CHAT, patched(usage=None), "nobody can be billed"),
    "usage of nothing": (CHAT, patched(usage={"prompt_tokens": 0}), "nobody can be billed"),
    "a stream without usage": (CHAT, streamed(whole([{"choices": [{"delta": {"content": "hi"}}]}])), "billed"),
    "no text": (CHAT, patched(choices=[{"message": {"content": " "}}]), "generated no text"),
    "no choices": (FIM, patched(choices=[]), "generated no text"),
    "control tokens": (FIM, patched(choices=[{"text": "<|fim_pad|>"}]), "control tokens"),
    "words instead of a tool": (AGENT, patched(choices=[{"message": {"content": "I would"}}]), "called no tool"),
    "another tool": (AGENT, patched(choices=tool_call("rm", "{}")), "it called 'rm'"),
    "arguments that are no JSON": (AGENT, patched(choices=tool_call("read_file", "{path")), "not read_file with"),
    "short vectors": (EMBEDDING, patched(data=[{"embedding": [0.5]}] * 2), "a vector has 1 numbers"),
    "one vector for two texts": (EMBEDDING, patched(data=[{"embedding": [0.5] * 768}]), "2 texts gave 1"),
    "vectors of nothing": (EMBEDDING, patched(data=[{"embedding": [0.0] * 768}] * 2), "nothing but zeros"),
    "numbers that are none": (
        EMBEDDING,
        patched(data=[{"embedding": [float("nan")] * 768}] * 2),
        "not finite",
    ),
    "another shape": (CHAT, patched(usage={"prompt_tokens": "many"}), "another shape: usage.prompt_tokens"),
    "a list": (CHAT, whole(b"[]"), "another shape"),
    "HTML": (CHAT, whole(b"<html>"), "another shape"),
    "a stream that is no JSON": (CHAT, streamed(whole(b"data: {\n\n")), "another shape"),
    "half an answer": (CHAT, lambda _, answer: replace(answer, cut=True), "ended early"),
    "a stream that breaks": (CHAT, streamed(lambda _, answer: replace(answer, cut=True)), "ended early"),
    "silence": (CHAT, lambda asked, answer: replace(answer, delay=10 if asked.body else 0), "within 2 s"),
    "another alias than the key's": (CHAT, refusal(403, "key_model_access_denied"), "403 key_model_access_denied"),
    "over budget": (CHAT, refusal(422, "budget_exceeded"), "422 budget_exceeded: because"),
    "a failing model": (CHAT, refusal(500, "InternalServerError"), "HTTP 500"),
    "an error in another shape": (CHAT, whole({"detail": "Not Found"}, status=404), "HTTP 404: Not Found"),
    "an error that is no JSON": (CHAT, whole(b"bad gateway", status=502), "HTTP 502: bad gateway"),
    "an error with the key in it": (CHAT, refusal(401, "auth_error", f"what is {KEY}?"), "what is ***?"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_answer_fails_the_check_with_its_reason(
    name: str, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    alias, gateway.fault, reason = FAULTS[name]
    assert through(gateway, alias, timeout="2" if name == "silence" else "50") == 1
    out = capsys.readouterr()
    assert reason in out.out
    assert "failed" in [row[-1] for row in rows(out.out)]
    assert KEY not in out.out + out.err


def test_after_a_wrong_answer_a_model_is_not_asked_again(gateway: Server) -> None:
    gateway.fault = FAULTS["no text"][1]
    through(gateway, CHAT)
    assert len([asked for asked in gateway.seen if asked.body]) == 1


def test_a_server_of_another_model_is_not_asked_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    with Server(CATALOG[AGENT]) as server:
        assert smoke(CHAT, "--direct-url", server.url) == 1
    assert f"it serves {CATALOG[AGENT].served_name}, not {CATALOG[CHAT].served_name}" in capsys.readouterr().out
    assert [asked.path for asked in server.seen] == ["/v1/models"]


def test_spend_that_does_not_rise_fails_although_every_answer_was_right(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.charging = False
    assert through(gateway, CHAT, timeout="3") == 1
    out = capsys.readouterr().out
    assert {row[-1] for row in rows(out)} == {"ok"}
    assert f"these requests cost ${2 * cost_of(CATALOG[CHAT]):.6f}: budgets do not bind" in out


def test_spend_that_is_written_late_is_waited_for(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    looks: list[Asked] = []

    def late(asked: Asked, answer: Answer) -> Answer:
        looks.extend([asked] if asked.path == "/key/info" else [])
        return Answer({"info": {"spend": 0.25}}) if asked.path == "/key/info" and len(looks) < 4 else answer

    gateway.fault = late
    gateway.admin = {"/key/info": {"info": {"spend": 0.5}}}
    assert through(gateway, CHAT) == 0
    assert "spent $0.250000 before, $0.500000 after" in capsys.readouterr().out


def test_a_redirect_is_not_followed_with_the_key(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(CATALOG[CHAT]) as other:
        gateway.fault = whole(b"", status=302, headers={"location": f"{other.url}/v1/models"})
        assert through(gateway, CHAT) == 1
    assert not other.seen
    assert "HTTP 302" in capsys.readouterr().out


def test_a_proxy_of_the_environment_does_not_get_requests_for_loopback(
    gateway: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert through(gateway, CHAT) == 0


# --- a model that is off -------------------------------------------------------------------------------------

MESSAGE = "The model is off, so it costs nothing. The operator brings it up with: pulumi config set x:replicas 1"
OFF = refusal(503, "model_off", MESSAGE)


def test_a_named_model_that_is_off_shows_the_gateways_answer_and_fails(
    gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.fault = OFF
    assert through(gateway, CHAT) == 1
    out = capsys.readouterr().out
    assert MESSAGE in out
    assert [row[-1] for row in rows(out)] == ["off"]


def test_a_fallback_that_answers_is_told_from_the_model(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.fault = header("x-litellm-model-group", "coder-mini")
    assert through(gateway, "coder-chat") == 1
    out = capsys.readouterr().out
    assert "coder-mini answered in its place" in out
    assert "pulumi config set coder-chat:replicas 1 && pulumi up" in out
    assert {row[-1] for row in rows(out)} == {"off"}


def test_models_that_are_off_do_not_fail_a_look_at_all_while_one_answers(gateway: Server) -> None:
    gateway.fault = lambda asked, answer: OFF(asked, answer) if asked.body.get("model") != CHAT else answer
    assert through(gateway) == 0
    gateway.fault = OFF
    assert through(gateway) == 1


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([Verdict.OK], 0),
        ([Verdict.OK, Verdict.OFF], 0),
        ([Verdict.OFF], 1),
        ([Verdict.OK, Verdict.FAILED], 1),
        ([Verdict.FAILED, Verdict.UNREACHABLE], 2),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(verdicts: list[Verdict], code: int) -> None:
    assert exit_code(verdicts, off_is_fine=True) == code
    assert exit_code([*verdicts, Verdict.OFF], off_is_fine=False) == max(code, 1)


@pytest.mark.parametrize("alias", SERVED)
def test_the_price_of_a_request_is_the_catalogs(alias: str) -> None:
    tokens = USAGE if CATALOG[alias].task is not Task.EMBEDDING else {"prompt_tokens": USAGE["prompt_tokens"]}
    assert price_usd(CATALOG[alias].price, Usage(**tokens)) == pytest.approx(cost_of(CATALOG[alias]))


# --- arguments -----------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[list[str], str]] = {
    "a misspelt model": (["coder-caht"], "did you mean 'coder-chat'?"),
    "no key": (["--gateway-url", "http://127.0.0.1:9"], "a key is in no argument"),
    "no such variable": (["--gateway-url", "http://127.0.0.1:9", "--key-env", "NO_KEY"], "NO_KEY"),
    "no address": (["--gateway-url", "localhost:4000", "--key-env", "SMOKE_KEY"], "is no address"),
    "no port": (["--gateway-url", "http://127.0.0.1:99999", "--key-env", "SMOKE_KEY"], "is no address"),
    "two places": (["--gateway-url", "http://x", "--key-env", "SMOKE_KEY", "--context", "y"], "two places"),
    "a server of no model": (["--direct-url", "http://127.0.0.1:9"], "no model is named"),
    "a server of two models": ([CHAT, FIM, "--direct-url", "http://127.0.0.1:9"], "2 models are to be checked"),
    "a key for nothing": (["--direct-key-env", "DIRECT_KEY", "--context", "x"], "for --direct-url only"),
    "nobody there": (["--gateway-url", "http://127.0.0.1:9", "--key-env", "SMOKE_KEY"], "cannot be reached"),
    "a cloud stack without a context": ([], "the current context is never used"),
    "no such stack": (["--stack", "nope"], "there is no stack 'nope'"),
    "a file without a context": (["--kubeconfig", "x"], "whatever context is current"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused_with_a_remedy(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kubectl: Kubectl
) -> None:
    monkeypatch.chdir(PROJECT_DIR)
    arguments, reason = WRONG[name]
    assert smoke(*arguments) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert [why_not_typable(remedy) for remedy in remedies(err)] == [None]
    assert "Traceback" not in err
    assert kubectl.calls == []


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_a_timeout_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        smoke(timeout=value)
    assert "no number of seconds" in capsys.readouterr().err


def test_a_key_that_no_header_can_carry_is_refused_unseen(
    gateway: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMOKE_KEY", "sk-one\nsk-two")
    assert through(gateway, CHAT) == 2
    out = capsys.readouterr()
    assert "sk-" not in out.out + out.err
    assert "is no key" in out.err


# --- a cluster -----------------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """Without any cluster."""
    found = Kubectl(tmp_path)
    found.write()
    monkeypatch.setenv("PATH", found.path)
    return found


@pytest.fixture
def cluster(kubectl: Kubectl, gateway: Server) -> Iterator[Kubectl]:
    """One with CHAT up, FIM coming up and AGENT off."""
    with Server(CATALOG[CHAT]) as model:
        kubectl.secrets = {
            "serving/vllm-api-key": {"api-key": SERVING_KEY},
            "gateway/litellm-keys": {"smoke": KEY, "editor": "sk-editor-0123456789abcdef"},
        }
        kubectl.deployments = {CHAT: (1, 1), FIM: (1, 0), AGENT: (0, 0)}
        kubectl.forwards = {f"serving/svc/{CHAT}": model.port, "gateway/svc/litellm": gateway.port}
        kubectl.write()
        yield kubectl
    assert kubectl.running() == []


def in_cluster(*arguments: str) -> int:
    where = ["--context", "somewhere", "--kubeconfig", "some-file"]
    return smoke(*arguments, *where, "--project-dir", str(PROJECT_DIR))


def test_a_model_is_checked_by_forwarded_ports_with_the_keys_of_the_cluster(
    cluster: Kubectl, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_cluster(CHAT) == 0
    out = capsys.readouterr()
    assert [(row[1], row[-1]) for row in rows(out.out)] == [("direct", "ok")] * 3 + [("gateway", "ok")] * 2
    assert {asked.key for asked in gateway.seen} == {KEY}
    assert all(call[:2] == ["--kubeconfig=some-file", "--context=somewhere"] for _, call in cluster.calls)
    for secret in (KEY, SERVING_KEY):
        assert secret not in out.out + out.err + json.dumps(cluster.calls)


def test_another_key_of_the_cluster_can_pay(cluster: Kubectl, gateway: Server) -> None:
    assert in_cluster(CHAT, "--key", "editor") == 0
    assert {asked.key for asked in gateway.seen} == {cluster.secrets["gateway/litellm-keys"]["editor"]}


def test_a_key_that_is_not_there_is_refused_with_those_that_are(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_cluster(CHAT, "--key", "nobody") == 2
    assert "holds no 'nobody'; it has: editor, smoke" in capsys.readouterr().err


def test_without_a_name_what_is_up_is_checked_and_what_is_coming_up_has_failed(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_cluster() == 1
    out = capsys.readouterr().out
    assert {row[0] for row in rows(out)} == {CHAT, FIM}
    assert f"{FIM} is not up yet: 0 of 1 ready" in out


def _crashing(app: str, namespace: str, message: str) -> list[dict[str, Any]]:
    """A pod of an app whose container ends by itself, and its node."""
    owner = {"kind": "ReplicaSet", "name": f"{app}-abc"}
    entry = container({"waiting": {"reason": "CrashLoopBackOff"}}, last=ended(1, message), restarts=3)
    return [node(), pod(f"{app}-abc-x", app, namespace, owner=owner, containerStatuses=[entry])]


def test_a_model_that_does_not_come_up_is_told_in_its_own_last_words_with_a_command(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "api_server.py: error: unrecognized arguments: --swap-space=4"
    cluster.objects = _crashing(FIM, "serving", words)
    cluster.write()
    assert in_cluster(FIM) == 1
    out = capsys.readouterr().out
    assert f"{FIM} is not up yet: 0 of 1 ready: serving/{FIM}-abc-x, container main: CrashLoopBackOff" in out
    assert words in out
    assert "kubectl --kubeconfig some-file --context somewhere -n serving get pod" in out


def test_a_gateway_without_its_database_is_told_in_its_own_last_words_with_a_command(
    cluster: Kubectl, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Error: P1001: Can't reach database server at `litellm-db.gateway.svc`:`5432`"
    cluster.objects = _crashing("litellm", "gateway", words)
    cluster.write()
    look = "kubectl --kubeconfig some-file --context somewhere -n gateway describe pods -l app.kubernetes.io/name="
    away = {"error": {"message": "no db", "type": "no_db_connection"}}
    gateway.fault = lambda _, answer: replace(answer, body=away, status=503)
    assert in_cluster(CHAT) == 1
    out = capsys.readouterr().out
    assert words in out
    assert look in out
    del cluster.forwards["gateway/svc/litellm"]
    cluster.write()
    assert in_cluster(CHAT) == 2
    out = capsys.readouterr().out
    assert "the gateway is not up: gateway/litellm-abc-x, container main: CrashLoopBackOff" in out
    assert look in out
    cluster.secrets["gateway/litellm-master-key"] = {"key": KEY}
    cluster.write()
    where = ["--context", "somewhere", "--kubeconfig", "some-file", "--project-dir", str(PROJECT_DIR)]
    assert main(["keys", *where]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert f"remedy: {look}litellm-db" in told


def test_a_model_at_zero_is_off_directly_and_through_the_gateway(
    cluster: Kubectl, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.fault = OFF
    assert in_cluster(AGENT) == 1
    out = capsys.readouterr().out
    assert [(row[1], row[-1]) for row in rows(out)] == [("direct", "off"), ("gateway", "off")]
    assert f"pulumi config set {AGENT}:replicas 1 && pulumi up" in out
    assert MESSAGE in out
    assert not any(f"svc/{AGENT}" in call for _, call in cluster.calls)


def test_nothing_up_is_no_success(cluster: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.deployments = {AGENT: (0, 0)}
    cluster.write()
    assert in_cluster() == 1
    assert "no model is up" in capsys.readouterr().err


def test_a_model_that_is_not_enabled_is_refused_with_the_command_that_enables_it(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_cluster(EMBEDDING) == 2
    assert f"pulumi config set {EMBEDDING}:enabled true && pulumi up" in capsys.readouterr().err
    assert not any("port-forward" in call for _, call in cluster.calls)


def test_a_gateway_that_cannot_be_forwarded_leaves_the_models_own_server_checked(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    del cluster.forwards["gateway/svc/litellm"]
    cluster.write()
    assert in_cluster(CHAT) == 2
    out = capsys.readouterr().out
    assert [row[-1] for row in rows(out)] == ["ok", "ok", "ok", "unreachable"]
    assert "pod is not running" in out


def test_on_simulated_nodes_it_says_that_nothing_runs_there(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.kubelets = ["kwok-v0.8.0", "kwok-v0.8.0"]
    cluster.forwards = {}
    cluster.write()
    assert in_cluster(CHAT) == 2
    out = capsys.readouterr().out
    assert "its nodes are simulated" in out
    assert "kind create cluster" in out


def test_where_some_nodes_are_real_a_port_that_leads_nowhere_is_told_as_kubectl_does(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.kubelets = ["kwok-v0.8.0", "v1.36.3"]
    cluster.forwards = {}
    cluster.write()
    assert in_cluster(CHAT) == 2
    out = capsys.readouterr().out
    assert "simulated" not in out
    assert "pod is not running" in out


def test_a_port_that_never_listens_is_given_up(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "_FORWARD_S", 0.5)
    cluster.forwards[f"serving/svc/{CHAT}"] = 0
    cluster.write()
    assert in_cluster(CHAT) == 2
    assert "nothing listens after 0.5 s" in capsys.readouterr().out


def test_a_missing_secret_is_refused_with_what_kubectl_says(
    cluster: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    del cluster.secrets["gateway/litellm-keys"]
    cluster.write()
    assert in_cluster(CHAT) == 2
    assert 'secrets "litellm-keys" not found' in capsys.readouterr().err


def test_without_kubectl_the_refusal_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_cluster(CHAT) == 2
    assert "no kubectl on PATH" in capsys.readouterr().err


def test_a_stack_of_a_context_names_it(cluster: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\n")
    (tmp_path / "Pulumi.here.yaml").write_text(
        "config:\n  ai-platform:target: kubernetes\n"
        "  ai-platform:kubeconfig: sub/config\n  ai-platform:kubeContext: kind-ai\n"
    )
    assert smoke(CHAT, "--stack", "here", "--project-dir", str(tmp_path)) == 2  # no such file yet
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config").touch()
    assert smoke(CHAT, "--stack", "here", "--project-dir", str(tmp_path)) == 0
    expected = [f"--kubeconfig={tmp_path}/sub/config", "--context=kind-ai"]
    assert all(call[:2] == expected for _, call in cluster.calls)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_forwarded_ports_end_with_the_command_however_it_ends(
    number: signal.Signals, cluster: Kubectl, gateway: Server, tmp_path: Path
) -> None:
    gateway.fault = lambda _, answer: replace(answer, delay=at_least(30))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from ops.cli import main; raise SystemExit(main(['smoke', '{CHAT}', '--context', 'x']))",
        ],
        cwd=clone(tmp_path / "clone"),
        env={**os.environ, "PATH": cluster.path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        for _ in patient(60, every=0.02):
            if gateway.seen:
                break
        assert cluster.running()
        process.send_signal(number)
        _, err = process.communicate(timeout=at_least(20))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (130 if number is signal.SIGINT else 128 + number)
    assert b"Traceback" not in err
    assert cluster.running() == []
