"""The staging program on other ways to the hub: a mirror, a proxy, a CA of one's own, and no way at all."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.components.hub import Hub
from tests.components.staging import Claim, wanted
from tests.quiet_server import QuietServer


class Proxy:
    """A forward proxy on loopback that takes whole addresses, and keeps them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.asked.append(self.path)
                with urlopen(self.path, timeout=10) as answer:  # noqa: S310  of the hub on loopback
                    body = answer.read()
                    self.send_response(answer.status)
                    for name in ("Content-Type", "Content-Length"):
                        if value := answer.headers.get(name):
                            self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_everything_goes_through_the_proxy_also_what_the_hub_sends_from_elsewhere(claim: Claim, hub: Hub) -> None:
    with Proxy() as proxy:
        result = claim.stage(HTTP_PROXY=proxy.url, HTTPS_PROXY=proxy.url)
    assert result.code == 0, result.output
    assert claim.served == wanted()
    assert any(asked.startswith(hub.url) for asked in proxy.asked)
    assert len([asked for asked in proxy.asked if "/resolve/" in asked]) == len(wanted())


# --- TLS ----------------------------------------------------------------------------------------------------------


class Tls:
    """A server of TLS in front of the hub, with a certificate that nobody knows."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.certificate, key = folder / "ca.pem", folder / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(self.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._behind = ("127.0.0.1", urlsplit(hub.url).port or 0)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as tls,
            socket.create_connection(self._behind) as behind,
        ):
            back = threading.Thread(target=_pump, args=(behind, tls), daemon=True)
            back.start()
            _pump(tls, behind)
            back.join(5)

    def close(self) -> None:
        self._socket.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def tls(hub: Hub, tmp_path: Path) -> Iterator[Tls]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    server = Tls(hub, tmp_path)
    yield server
    server.close()


def test_a_mirror_with_a_ca_of_its_own_is_trusted_once_that_is_given(claim: Claim, tls: Tls) -> None:
    refused = claim.stage(HF_ENDPOINT=tls.url)
    assert (refused.code, refused.waits) == (1, []), refused.output  # waiting makes no certificate trusted
    assert "pulumi config set --path hub.ca" in refused.last_line
    trusted = claim.stage(HF_ENDPOINT=tls.url, HUB_CA_FILE=str(tls.certificate))
    assert trusted.code == 0, trusted.output
    assert claim.served == wanted()


# --- none ---------------------------------------------------------------------------------------------------------


def test_where_downloads_are_off_a_start_asks_nobody_and_says_what_stages(claim: Claim, hub: Hub) -> None:
    refused = claim.stage(STAGE_DOWNLOAD="never")
    assert (refused.code, hub.requests) == (1, [])
    assert "hub.download is false" in refused.last_line
    assert refused.last_line.endswith("ops stage some-alias")
    assert claim.stage().code == 0  # as the Job of `ops stage` does
    hub.forget()
    started = claim.stage(STAGE_DOWNLOAD="never")
    assert (started.code, hub.requests) == (0, []), started.output


def test_where_downloads_are_off_what_is_damaged_is_refused_too(claim: Claim, hub: Hub) -> None:
    assert claim.stage().code == 0
    weights = (claim.cache / "served" / "model.safetensors").resolve()
    weights.write_bytes(b"X" * len(weights.read_bytes()))
    hub.forget()
    refused = claim.stage(STAGE_DOWNLOAD="never")
    assert (refused.code, hub.requests) == (1, [])
    assert "is not whole" in refused.last_line
