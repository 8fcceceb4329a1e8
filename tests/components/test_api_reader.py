"""A kubeconfig, whatever is in it: the reader asks by it, or says that it cannot look; it never guesses."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.kubernetes.api_reader import ApiReader, CannotLookError, UnreachableError

TOKEN = "of-a-test"
NAMES = {"resources": [{"name": "secrets", "kind": "Secret"}, {"name": "secrets/status", "kind": "Secret"}]}


class Server(BaseHTTPRequestHandler):
    """An API server with one Secret, which answers who has the token, and metadata alone to who asks for that."""

    def do_GET(self) -> None:
        asked = self.headers.get("Accept", "")
        answers: Mapping[str, Any] = {
            "/api/v1": NAMES,
            "/api/v1/namespaces/there/secrets/mine": {"metadata": {"name": "mine"}},
            "/api/v1/namespaces/there/secrets/forbidden": None,
        }
        status = 200 if self.path in answers else 404
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 401
        elif "/secrets/" in self.path and "PartialObjectMetadata" not in asked:
            status = 406
        elif self.path.endswith("/forbidden"):
            status = 403
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answers.get(self.path)).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        del format, args


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def kubeconfig(address: str, user: Mapping[str, Any], **cluster: Any) -> str:
    return json.dumps(
        {
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": address, **cluster}}],
            "users": [{"name": "u", "user": dict(user)}],
        }
    )


def plugin(answer: str) -> Mapping[str, Any]:
    program = ["-c", f"import os; assert os.environ['KUBERNETES_EXEC_INFO']; print({answer!r})"]
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": program}}


def test_it_tells_what_is_there_from_what_is_not_by_token_file_and_plugin(address: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    credential = json.dumps({"status": {"token": TOKEN}})
    for user in ({"token": TOKEN}, {"tokenFile": str(tmp_path / "token")}, plugin(credential)):
        reader = ApiReader(kubeconfig(address, user), "c")
        assert reader.metadata("v1", "Secret", "there", "mine") == {"name": "mine"}
        assert reader.metadata("v1", "Secret", "there", "other") is None
        assert reader.metadata("v1", "Unheard", "there", "of") is None
        assert reader.metadata("unheard.of/v1", "Thing", "there", "of") is None
    file = tmp_path / "config"
    file.write_text(kubeconfig(address, {"tokenFile": "token"}))  # beside the file that names it
    assert ApiReader(str(file), "c").metadata("v1", "Secret", "there", "mine")


@pytest.mark.parametrize(
    "user",
    [
        *({}, {"token": "another"}, {"username": "me"}, {"auth-provider": {"name": "gcp"}}, {"as": "somebody"}),
        *(plugin("{}"), plugin("no json"), plugin("[]"), {"exec": {"command": "no-such-plugin"}}),
        {"exec": {"apiVersion": "v1", "command": "no-such-plugin"}},
        {"exec": {"apiVersion": "v1", "command": "false"}},
        {"tokenFile": "/nonexistent"},
        {"client-certificate-data": "!", "client-key-data": "!"},
    ],
    ids=lambda user: str(user)[:50],
)
def test_who_is_not_let_in_cannot_look_and_that_is_no_absence(address: str, user: Mapping[str, Any]) -> None:
    with pytest.raises(CannotLookError):
        ApiReader(kubeconfig(address, user), "c").metadata("v1", "Secret", "there", "mine")


@pytest.mark.parametrize("text", ["", "{", "[]\n", "a: b\n", '{"contexts": 3}', '{"contexts": [], "x": "\\n"}', "{}"])
def test_a_kubeconfig_that_is_none_cannot_be_used(text: str) -> None:
    with pytest.raises(CannotLookError):
        ApiReader(text or "{\n", "c").namespaces()


def test_what_is_forbidden_and_what_does_not_answer_are_told_apart(address: str) -> None:
    with pytest.raises(CannotLookError, match="HTTP 403"):
        ApiReader(kubeconfig(address, {"token": TOKEN}), "c").metadata("v1", "Secret", "there", "forbidden")
    with pytest.raises(UnreachableError):
        ApiReader(kubeconfig("http://127.0.0.1:9", {}), "c").namespaces()
    with pytest.raises(UnreachableError):
        ApiReader("/no/such/kubeconfig", "c").namespaces()


def test_a_token_that_ran_out_in_the_middle_of_an_update_is_asked_for_anew(address: str, tmp_path: Path) -> None:
    given = tmp_path / "token"
    program = "import json, sys; print(json.dumps({'status': {'token': open(sys.argv[1]).read()}}))"
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", program, str(given)],
        }
    }
    given.write_text(TOKEN)
    reader = ApiReader(kubeconfig(address, user), "c")
    assert reader.metadata("v1", "Secret", "there", "mine") == {"name": "mine"}
    reader._opened[0][2]["Authorization"] = "Bearer of-an-hour-ago"  # pyright: ignore[reportPrivateUsage]
    assert reader.metadata("v1", "Secret", "there", "mine") == {"name": "mine"}
    given.write_text("refused")
    with pytest.raises(CannotLookError, match="401"):
        ApiReader(kubeconfig(address, user), "c").metadata("v1", "Secret", "there", "mine")


@pytest.mark.parametrize("said", [b"<html>log in</html>", b"[]", b"null", b"[" * 200_000], ids=lambda said: said[:9])
def test_an_answer_that_is_none_of_an_api_server_is_no_permission(
    said: bytes, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> tuple[int, bytes]:
        return 200, said

    monkeypatch.setattr(ApiReader, "_ask", answer)
    with pytest.raises(CannotLookError, match="no object of JSON"):
        ApiReader(kubeconfig(address, {"token": TOKEN}), "c").namespaces()


@pytest.mark.parametrize(
    ("server", "user"),
    [("https://a:bad", {"token": TOKEN}), (None, {"token": TOKEN}), ("http://127.0.0.1:1", {"token": "two\nlines"})],
)
def test_a_kubeconfig_that_leads_nowhere_cannot_be_used(server: str | None, user: Mapping[str, Any]) -> None:
    config = json.loads(kubeconfig("x", user))
    config["clusters"][0]["cluster"] = {"server": server} if server else {}
    with pytest.raises(CannotLookError):
        ApiReader(json.dumps(config), "c").metadata("v1", "Secret", "there", "mine")
