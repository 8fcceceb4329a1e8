"""A way to the API server on which the answers to creates get lost: the object is made, and the caller never knows."""

from __future__ import annotations

import datetime
import http.client
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ops.embedded_cluster.control_plane import EmbeddedCluster

_LOOPBACK = "127.0.0.1"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class LossyProxy:
    """The first create of each object is carried out and its answer dropped, while `losing`."""

    kubeconfig: Path
    losing: bool = True
    lost: list[str] = field(default_factory=list[str])  # UIDs of the objects that were made in silence

    def loses(self, status: int, answer: bytes) -> bool:
        """Whether this answer is one to drop."""
        if not self.losing or status != http.HTTPStatus.CREATED:
            return False
        created: dict[str, Any] = json.loads(answer)
        uid = created["metadata"].get("uid")  # a review of access rights has none
        if uid is None or uid in self.lost:
            return False
        self.lost.append(uid)
        return True


@contextmanager
def lossy_proxy(cluster: EmbeddedCluster, folder: Path) -> Generator[LossyProxy]:
    """A proxy on a free loopback port with a certificate of its own, gone afterwards."""
    folder.mkdir()
    certificate = _certificate(folder)
    proxy = LossyProxy(folder / "kubeconfig")
    upstream = cluster.server.removeprefix("https://")
    trust = ssl.create_default_context(cafile=str(cluster.root / "pki" / "apiserver.crt"))

    class Handler(_Handler):
        """Bound to this proxy."""

        def state(self) -> LossyProxy:
            return proxy

        def upstream(self) -> http.client.HTTPSConnection:
            return http.client.HTTPSConnection(upstream, timeout=600, context=trust)

    server = http.server.ThreadingHTTPServer((_LOOPBACK, 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    config = json.loads(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {
        "server": f"https://{_LOOPBACK}:{server.server_address[1]}",
        "certificate-authority": str(certificate),
    }
    proxy.kubeconfig.write_text(json.dumps(config))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def state(self) -> LossyProxy:
        raise NotImplementedError

    def upstream(self) -> http.client.HTTPSConnection:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Nothing: the engine says what it misses."""

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP | {"accept-encoding"}}
        connection = self.upstream()
        try:
            connection.request(self.command, self.path, body, headers)
            self._answer(connection.getresponse())
        except (OSError, http.client.HTTPException):  # one of the two has gone away
            self.close_connection = True
        finally:
            connection.close()

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        streamed = "watch=" in self.path
        content = b"" if streamed else answer.read()
        if not streamed and self.state().loses(answer.status, content):
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if not streamed:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while chunk := answer.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        with suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815  the base class's names


def _certificate(folder: Path) -> Path:
    """A key and a certificate for loopback that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lossy proxy")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "proxy.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
