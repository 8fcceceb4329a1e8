"""`ops pin` against a hub and a registry on loopback."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from models.images import LITELLM
from ops.errors import OpsError
from ops.pin import command as pin
from tests.catalog import CATALOG
from tests.quiet_server import QuietServer

COMMIT = "c0ffee" + "0" * 34
DIGEST = "sha256:" + "ab" * 32
ANONYMOUS = "anonymous-token"


class _Sources(BaseHTTPRequestHandler):
    """Answers as the hub for /api/, as a registry that wants an anonymous token for /v2/."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Silent."""

    def _answer(self, code: int, body: object = None, **headers: str) -> None:
        payload = json.dumps(body).encode() if body is not None else b""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/gone/"):
            self._answer(404)
        elif self.path.startswith("/api/models/"):
            self._answer(200, {"sha": COMMIT})
        elif self.path.startswith("/token"):
            assert "scope=" in self.path
            self._answer(200, {"token": ANONYMOUS})

    def do_HEAD(self) -> None:
        host = self.headers["host"]
        if self.headers.get("authorization") != f"Bearer {ANONYMOUS}":
            challenge = f'Bearer realm="http://{host}/token",service="r",scope="repository:x:pull"'
            self._answer(401, www_authenticate=challenge)
        else:
            self._answer(200, docker_content_digest=DIGEST)


@pytest.fixture
def sources() -> Iterator[str]:
    server = QuietServer(("127.0.0.1", 0), _Sources)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_head_of_a_models_default_branch_is_its_commit(sources: str) -> None:
    assert pin.hub_commit(sources, "Qwen/Qwen2.5-0.5B-Instruct") == COMMIT


def test_a_registry_that_wants_an_anonymous_token_gets_one(sources: str) -> None:
    assert pin.image_digest(LITELLM, sources) == DIGEST


def test_a_model_that_the_hub_does_not_know_is_reported_with_its_status(sources: str) -> None:
    with pytest.raises(OpsError, match="404"):
        pin.hub_commit(sources, "gone/model")


def test_an_unreachable_source_is_one_line_and_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "http://127.0.0.1:9"
    assert pin.run(argparse.Namespace(write=False, hub=nowhere, registry=nowhere)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("?") and "cannot be reached" in line for line in lines)


def test_what_differs_from_its_source_is_shown_and_not_rewritten(
    sources: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pin.run(argparse.Namespace(write=False, hub=sources, registry=sources)) == 1
    out = capsys.readouterr().out
    pinned = next(m.weights.revision for m in CATALOG.values() if m.weights and m.weights.revision)
    assert f"pinned {pinned}, its source now says {COMMIT}" in out
    missing = [m.alias for m in CATALOG.values() if m.weights and m.weights.revision is None]
    for alias in missing:
        assert f"+  weights of {alias}" in out


def test_writing_replaces_the_none_of_exactly_one_entry(tmp_path: Path) -> None:
    source = tmp_path / "catalog.py"
    source.write_text(
        'A = Model(alias="one", weights=Weights(revision=None, note="ü", size=None))\n'
        'B = Model(alias="two", weights=Weights(revision=None))\n'
    )
    entry = pin.Pin(
        what="weights of two",
        current=None,
        lookup=lambda: COMMIT,
        file=source,
        anchor=("alias", "two"),
        keyword="revision",
    )
    pin.write_pin(entry, COMMIT)
    assert source.read_text().splitlines() == [
        'A = Model(alias="one", weights=Weights(revision=None, note="ü", size=None))',
        f'B = Model(alias="two", weights=Weights(revision="{COMMIT}"))',
    ]
    with pytest.raises(OpsError, match="no revision=None"):
        pin.write_pin(entry, COMMIT)
