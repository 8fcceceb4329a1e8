"""A Hugging Face hub on loopback: as much of its protocol as a snapshot download uses, and the ways it fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.quiet_server import QuietServer

REPO = "some-org/some-model"


@dataclass
class Failure:
    """How requests fail whose path contains `where`, for so many times."""

    where: str
    status: int = 429  # 0: the connection is cut in the middle of the body
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Hub:
    """Serves one repository, whose revisions are commits with their files. Use as a context manager."""

    def __init__(self, revisions: Mapping[str, Mapping[str, bytes]], *, default: str, failures: list[Failure]) -> None:
        self.revisions = dict(revisions)
        self.default = default
        self.failures = failures
        self.requests: list[str] = []  # "GET /some-org/some-model/resolve/<commit>/config.json"
        self.authorizations: set[str] = set()
        self._lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def downloaded(self) -> list[str]:
        """Names of files whose content was asked for."""
        return [r.rsplit("/", 1)[1] for r in self.requests if r.startswith("GET") and "/resolve/" in r]

    def take_failure(self, line: str) -> Failure | None:
        """The failure that this request is due."""
        with self._lock:
            for failure in self.failures:
                if failure.times > 0 and failure.where in line:
                    failure.times -= 1
                    return failure
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
                pass

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                line = f"{self.command} {path}"
                hub.requests.append(line)
                hub.authorizations.add(self.headers.get("Authorization", ""))
                failure = hub.take_failure(line)
                if failure and failure.status:
                    self.answer(failure.status, b'{"error": "no"}', failure.headers)
                elif path.startswith("/api/"):
                    self.api(path)
                else:
                    self.file(path, cut=failure is not None)

            do_HEAD = do_GET  # noqa: N815

            def api(self, path: str) -> None:
                kind, _, reference = path.removeprefix(f"/api/models/{REPO}").strip("/").partition("/")
                commit = hub.default if reference in ("", "main") else reference
                files = hub.revisions.get(commit)
                if files is None or REPO not in path:
                    self.answer(404, b'{"error": "not found"}', {"X-Error-Code": "RevisionNotFound"})
                elif kind == "tree":
                    entries = [
                        {"type": "file", "path": name, "size": len(body), "oid": _sha1(body)}
                        for name, body in files.items()
                    ]
                    self.answer(200, json.dumps(entries).encode())
                else:
                    info = {"id": REPO, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
                    self.answer(200, json.dumps(info).encode())

            def file(self, path: str, *, cut: bool) -> None:
                reference, _, name = path.partition("/resolve/")[2].partition("/")
                commit = hub.default if reference == "main" else reference
                body = hub.revisions.get(commit, {}).get(name)
                if body is None:
                    self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                    return
                start = 0
                if span := self.headers.get("Range"):
                    start = int(span.removeprefix("bytes=").split("-")[0])
                headers = {"ETag": f'"{_sha1(body)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self.answer(206 if start else 200, body[start:], headers, cut=cut)

            def answer(
                self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, cut: bool = False
            ) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.wfile.flush()
                    self.close_connection = True

        return Handler


def _sha1(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()
