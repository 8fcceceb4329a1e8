"""One HTTP request and its answer, whatever the status: bounded in time, and with no key in any text."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import secrets
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ops.errors import OpsError

Json = dict[str, Any]
_SHOWN = 400  # characters of an error that are worth reading


class NoAnswerError(OpsError):
    """No complete answer. `reached` tells a server that fails from one that is not there."""

    def __init__(self, message: str, url: str, *, reached: bool) -> None:
        super().__init__(message, f"curl -sSi {url}   # does it answer?")
        self.reached = reached


@dataclass(frozen=True)
class Reply:
    """An answer. `pieces` are what was read, with the seconds since the request was sent."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: tuple[tuple[float, bytes], ...]
    seconds: float  # until the last byte
    key: str | None = field(repr=False, default=None)

    @property
    def text(self) -> str:
        """The body, without the key that was sent."""
        text = b"".join(piece for _, piece in self.pieces).decode(errors="replace")
        return text.replace(self.key, "***") if self.key else text

    def json(self) -> Any:
        """The body. Raises ValueError if it is not JSON."""
        return _decoded(self.text)

    def events(self) -> Iterator[tuple[float, Any]]:
        """Chunks of a stream, each with the seconds until it was there. Raises ValueError for one that is not JSON."""
        rest = b""
        for seconds, piece in self.pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                data = line.strip().removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    yield seconds, _decoded(data)

    def error(self) -> tuple[str, str]:
        """Type and message, from any of the shapes that LiteLLM, vLLM and TEI give."""
        try:
            body: object = self.json()
        except ValueError:
            body = None
        outer = cast("Json", body) if isinstance(body, dict) else {}
        inner = cast("Json", outer["error"]) if isinstance(outer.get("error"), dict) else outer
        message = inner.get("message") or inner.get("detail") or inner.get("error") or self.text or "no reason given"
        return str(inner.get("type") or ""), " ".join(str(message).split())[:_SHOWN]


def _decoded(text: str | bytes) -> Any:
    """JSON of somebody else's. Raises ValueError, also for what nests too deep to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep to read") from None


@dataclass(frozen=True)
class Endpoint:
    """A server with a key. `url` has no `/v1`."""

    url: str
    timeout: float  # seconds of a whole request
    key: str | None = field(repr=False, default=None)

    def ask(self, route: str, body: Json | None = None, upload: tuple[str, str, bytes] | None = None) -> Reply:
        """POST a body, or GET without one. An `upload`, of a field, a file's name and content, makes it a form.

        Raises NoAnswerError.
        """
        headers = {"content-type": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        if body is not None and upload is not None:
            boundary = secrets.token_hex(16)
            headers["content-type"] = f"multipart/form-data; boundary={boundary}"
            data = _form(boundary, body, upload)
        request = urllib.request.Request(self.url + route, data, headers)  # noqa: S310  checked by `base_url`
        start = time.monotonic()
        try:
            try:
                response = _opener(self.url).open(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                response = error  # an answer like any other
            with response:
                pieces: list[tuple[float, bytes]] = []
                while piece := response.read1(65536):
                    pieces.append((time.monotonic() - start, piece))
                    if pieces[-1][0] > self.timeout:
                        raise TimeoutError
                told = {name.lower(): value for name, value in response.headers.items()}
                if sum(len(piece) for _, piece in pieces) < int(told.get("content-length", 0)):
                    raise http.client.IncompleteRead(b"")  # which `read1` does not tell
                return Reply(cast("int", response.status), told, tuple(pieces), time.monotonic() - start, self.key)
        except TimeoutError:
            raise NoAnswerError(f"no complete answer within {self.timeout:g} s", self.url, reached=True) from None
        except urllib.error.URLError as error:
            raise NoAnswerError(f"{self.url} cannot be reached: {error.reason}", self.url, reached=False) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = error or type(error).__name__
            raise NoAnswerError(f"the connection ended early: {why}", self.url, reached=True) from None


def _form(boundary: str, body: Json, upload: tuple[str, str, bytes]) -> bytes:
    field, name, content = upload
    parts = [(f'name="{key}"', str(value).encode()) for key, value in body.items()]
    parts.append((f'name="{field}"; filename="{name}"', content))
    head = f"--{boundary}\r\nContent-Disposition: form-data; "
    written = b"".join(f"{head}{what}\r\n\r\n".encode() + value + b"\r\n" for what, value in parts)
    return written + f"--{boundary}--\r\n".encode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Past any proxy for loopback, where a forwarded port listens; through the environment's for the rest."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    proxies = [urllib.request.ProxyHandler({})] if local else []
    return urllib.request.build_opener(_NoRedirect, *proxies)


def readiness(url: str) -> str:
    """The command that shows whether a gateway has its database, by its own word."""
    return f"curl -sS {shlex.quote(f'{url}/health/readiness')}"


def base_url(command: str, option: str, text: str) -> str:
    """A base URL as the operator typed it, without `/` or `/v1` at its end.

    Raises OpsError.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in text
    except ValueError:
        usable = False
    if not usable or not text.isascii():
        raise OpsError(f"{option} {text!r} is no address of a server", f"{command} {option} http://127.0.0.1:4000")
    return text.rstrip("/").removesuffix("/v1")


def key_from_environment(name: str) -> str:
    """A key that the operator exported.

    Raises OpsError.
    """
    if not os.environ.get(name):
        raise OpsError(f"the environment has no {name}, which is to hold a key", f"read -rs {name} && export {name}")
    return usable_key(os.environ[name], f"${name}")


def usable_key(value: str, where: str) -> str:
    """A key as a header can carry it.

    Raises OpsError, without the value.
    """
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable():
        raise OpsError(f"{where} (value not shown) is no key: it is empty or not printable ASCII", "pulumi up")
    return value
