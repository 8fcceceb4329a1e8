"""A Hugging Face hub on loopback: as much of its protocol as downloads use, and the ways it fails.

Like the real one it states a git SHA-1 for small files and a SHA-256 for large ones, sends small files from another
path of its own, and large ones from another address (its CDN), which must not see a token.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.quiet_server import QuietServer

REPO = "some-org/some-model"
LARGE = (".safetensors", ".bin")  # kept outside of git, as the hub does
_PAGE = 4  # entries of a listing in one answer; the real hub has 1,000


@dataclass
class Failure:
    """How requests fail whose path contains `where`, for so many times."""

    where: str
    status: int = 429  # 0: of the content, the first half comes and the connection is cut
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None  # sent in place of what was asked for; with 200, a proxy's page
    pace: float = 0  # bytes a second; without a body of its own, of the content that was asked for


class Hub:
    """Serves one repository, whose revisions are commits with their files. Use as a context manager."""

    def __init__(self, revisions: Mapping[str, Mapping[str, bytes]], *, default: str, failures: list[Failure]) -> None:
        self.revisions = dict(revisions)
        self.default = default
        self.failures = failures
        self.repo = REPO
        self.about: dict[str, object] = {}  # what it says of the model beside its files
        self.stated: dict[str, int] = {}  # sizes of files that are larger than what is sent of them
        self.states_blobs = True  # sizes and digests where they are asked for; a mirror may not
        self.requests: list[str] = []  # "GET /some-org/some-model/resolve/<commit>/config.json"
        self.downloaded: list[str] = []  # names of files whose content was asked for
        self.sent: dict[str, int] = {}  # bytes of each file's content
        self.authorizations: set[str] = set()
        self.seen_elsewhere: set[str] = set()  # authorizations that the CDN was shown
        self._lock = threading.Lock()
        self._servers = [QuietServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def __enter__(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def forget(self) -> None:
        """What was asked until now."""
        self.requests.clear()
        self.downloaded.clear()
        self.sent.clear()

    def take_failure(self, line: str, *, content: bool) -> Failure | None:
        """The failure that this request is due; a slow or a cut body befalls content alone."""
        with self._lock:
            for failure in self.failures:
                of_content = failure.status == 0 or (failure.pace and failure.body is None)
                if failure.times > 0 and failure.where in line and (content or not of_content):
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
                at_cdn = self.server.server_address == hub._servers[1].server_address
                seen = hub.seen_elsewhere if at_cdn else hub.authorizations
                seen.add(self.headers.get("Authorization", ""))
                hub.requests.append(line)
                moved = path.startswith("/api/resolve-cache/") or at_cdn
                failure = hub.take_failure(line, content=moved and self.command == "GET")
                if failure and failure.status and (failure.body is not None or not failure.pace):
                    body = b'{"error": "no"}' if failure.body is None else failure.body
                    self.answer(failure.status, body, failure.headers, failure=failure)
                elif "/resolve/" in path or moved:
                    self.file(path, moved=moved, failure=failure)
                else:
                    self.api(path)

            do_HEAD = do_GET  # noqa: N815

            def api(self, path: str) -> None:
                kind, _, reference = path.removeprefix(f"/api/models/{hub.repo}").strip("/").partition("/")
                commit = hub.default if reference in ("", "main") else reference
                files = hub.revisions.get(commit)
                if files is None or hub.repo not in path:
                    self.answer(404, b'{"error": "not found"}', {"X-Error-Code": "RevisionNotFound"})
                elif kind == "tree":
                    self.tree(files)
                else:
                    blobs = "blobs=true" in self.path and hub.states_blobs
                    siblings = [_sibling(name, body, blobs=blobs) for name, body in files.items()]
                    for sibling in siblings:
                        if size := hub.stated.get(str(sibling["rfilename"])):
                            sibling["size"] = size
                            sibling["lfs"] = {"sha256": "a" * 64, "size": size, "pointerSize": 134}
                    info = {"id": hub.repo, "sha": commit, "siblings": siblings, **hub.about}
                    self.answer(200, json.dumps(info).encode())

            def tree(self, files: Mapping[str, bytes]) -> None:
                """A page of the listing, and where the next one is."""
                folders = sorted({name.rpartition("/")[0] for name in files} - {""})
                entries = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in folders]
                entries += [_entry(name, body) for name, body in files.items()]
                start = int(urlsplit(self.path).query.rpartition("cursor=")[2] or 0) if "cursor=" in self.path else 0
                headers = dict[str, str]()
                if start + _PAGE < len(entries):
                    address = f"{hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + _PAGE}"
                    headers["Link"] = f'<{address}>; rel="next"'
                self.answer(200, json.dumps(entries[start : start + _PAGE]).encode(), headers)

            def file(self, path: str, *, moved: bool, failure: Failure | None) -> None:
                reference, _, name = path.partition(f"{hub.repo}/")[2].removeprefix("resolve/").partition("/")
                commit = hub.default if reference == "main" else reference
                body = hub.revisions.get(commit, {}).get(name)
                if body is None:
                    self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                    return
                large = name.endswith(LARGE)
                etag = sha256(body) if large else git_sha1(body)
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
                if not moved:
                    headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(body))} if large else {}
                    place = f"{hub.cdn}/{hub.repo}" if large else f"/api/resolve-cache/models/{hub.repo}"
                    self.answer(302 if large else 307, b"", {**headers, "Location": f"{place}/{commit}/{name}"})
                    return
                start = 0
                if span := self.headers.get("Range"):
                    start = int(span.removeprefix("bytes=").split("-")[0])
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                if self.command == "GET":
                    hub.downloaded.append(name)
                self.answer(206 if start else 200, body[start:], headers, failure=failure, name=name)

            def answer(
                self,
                status: int,
                body: bytes,
                headers: Mapping[str, str] | None = None,
                *,
                failure: Failure | None = None,
                name: str = "",
            ) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut = failure is not None and failure.status == 0
                step = max(1, int(failure.pace / 10)) if failure and failure.pace else len(body) or 1
                rest = memoryview(body[: len(body) // 2] if cut else body)
                while rest:
                    self.wfile.write(rest[:step])
                    self.wfile.flush()
                    if name:
                        hub.sent[name] = hub.sent.get(name, 0) + len(rest[:step])
                    rest = rest[step:]
                    if rest:
                        time.sleep(0.1)
                if cut:
                    self.close_connection = True

        return Handler


def _entry(name: str, body: bytes) -> dict[str, object]:
    """A file in a listing. Of a large one `oid` is git's, of the pointer that git has in its place."""
    if not name.endswith(LARGE):
        return {"type": "file", "path": name, "size": len(body), "oid": git_sha1(body)}
    lfs = {"oid": sha256(body), "size": len(body), "pointerSize": 134}
    return {"type": "file", "path": name, "size": len(body), "oid": git_sha1(sha256(body).encode()), "lfs": lfs}


def _sibling(name: str, body: bytes, *, blobs: bool) -> dict[str, object]:
    """The same in the words of a revision's answer."""
    if not blobs:
        return {"rfilename": name}
    if not name.endswith(LARGE):
        return {"rfilename": name, "size": len(body), "blobId": git_sha1(body)}
    lfs = {"sha256": sha256(body), "size": len(body), "pointerSize": 134}
    return {"rfilename": name, "size": len(body), "blobId": git_sha1(sha256(body).encode()), "lfs": lfs}


def sha256(body: bytes) -> str:
    """As the hub states it for large files."""
    return hashlib.sha256(body).hexdigest()


def git_sha1(body: bytes) -> str:
    """As git names a blob, and the hub a small file."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
