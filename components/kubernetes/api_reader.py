"""What is in a cluster already, asked of its API server: whose an object is, how large a claim is, what a Job does.

But for claims and Jobs the answers are metadata only (`PartialObjectMetadata`), so no Secret's value comes here. It
reads what the provider for Kubernetes reads: a kubeconfig as a path or as its content, with tokens, certificates and
exec plugins.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

Json = dict[str, Any]
_Opened = tuple[Json, ssl.SSLContext, Json]  # a cluster, what is trusted of it, headers that say who asks
_TIMEOUT_S = 20
_EXEC_TIMEOUT_S = 60
_TRIES = 3
_AS_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_AS_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class CannotLookError(Exception):
    """The cluster is there and does not say, or its kubeconfig cannot be used; the text says why."""


class ForbiddenError(CannotLookError):
    """The cluster answers, and not to this caller."""


class UnreachableError(CannotLookError):
    """No answer: there may be no cluster."""


@dataclass(frozen=True)
class ApiReader:
    """One context of one kubeconfig. Making the object asks nothing."""

    kubeconfig: str  # a path, or the content
    context: str | None  # None: its current one
    _plurals: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _opened: list[_Opened] = field(default_factory=list[_Opened])  # one, once it was needed
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, namespace: str, name: str) -> Json | None:
        """A PersistentVolumeClaim; None where there is none. Raises CannotLookError."""
        return self._object("/api/v1", namespace, "persistentvolumeclaims", name)

    def job(self, namespace: str, name: str) -> Json | None:
        """A Job; None where there is none. Raises CannotLookError."""
        return self._object("/apis/batch/v1", namespace, "jobs", name)

    def _object(self, api: str, namespace: str, plural: str, name: str) -> Json | None:
        path = f"namespaces/{urllib.parse.quote(namespace)}/{plural}/{urllib.parse.quote(name)}"
        return self._get(f"{api}/{path}", "application/json")

    def metadata(self, api_version: str, kind: str, namespace: str | None, name: str) -> Json | None:
        """An object's metadata; None where there is no such object. Raises CannotLookError."""
        group = _group(api_version)
        where = f"namespaces/{namespace}/" if namespace else ""
        plural = self._plural(api_version, kind)
        if plural is None:  # a kind that the cluster does not know, so nothing of it is there
            return None
        found = self._get(f"{group}/{where}{plural}/{urllib.parse.quote(name)}", _AS_METADATA)
        return None if found is None else found["metadata"]

    def namespaces(self) -> list[Json]:
        """The metadata of every namespace. Raises CannotLookError."""
        found = self._get("/api/v1/namespaces", _AS_LIST) or {}
        return [item["metadata"] for item in found.get("items", ())]

    def _plural(self, api_version: str, kind: str) -> str | None:
        with self._lock:
            if not any(known == api_version for known, _ in self._plurals):
                served = self._get(_group(api_version), "application/json") or {}
                for resource in served.get("resources", ()):
                    if "/" not in resource["name"]:
                        self._plurals[api_version, resource["kind"]] = resource["name"]
            return self._plurals.get((api_version, kind))

    def _get(self, path: str, accept: str) -> Json | None:
        for attempt in range(_TRIES):
            try:
                status, body = self._ask(path, accept)
            except (OSError, http.client.HTTPException) as error:
                if attempt == _TRIES - 1:
                    raise UnreachableError(f"{path}: {error or type(error).__name__}") from error
                continue
            except (KeyError, ValueError) as error:  # no server, no port, a token of two lines, a binary file
                raise CannotLookError(f"the kubeconfig cannot be used: {type(error).__name__}") from None
            if status == http.HTTPStatus.NOT_FOUND:
                return None
            if status == http.HTTPStatus.UNAUTHORIZED and attempt == 0:
                # An update outlives tokens: a plugin gives a fresh one, and a file may hold one.
                self._opened.clear()
                continue
            if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR and attempt < _TRIES - 1:
                continue
            if status == http.HTTPStatus.FORBIDDEN:
                raise ForbiddenError(f"{path}: HTTP 403: {body.decode(errors='replace')[:200]}")
            if status != http.HTTPStatus.OK:
                raise CannotLookError(f"{path}: HTTP {status}: {body.decode(errors='replace')[:200]}")
            try:
                answer: object = json.loads(body)
            except (ValueError, RecursionError):
                answer = None
            if not isinstance(answer, dict):
                raise CannotLookError(f"{path}: the answer is no object of JSON; is that an API server?")
            return cast("Json", answer)
        return None

    def _ask(self, path: str, accept: str) -> tuple[int, bytes]:
        opened = self._opened[0] if self._opened else _connect(self.kubeconfig, self.context)
        self._opened[:] = [opened]
        cluster, trust, headers = opened
        server = urllib.parse.urlsplit(str(cluster["server"]))
        host, port = server.hostname or "", server.port or (443 if server.scheme == "https" else 80)
        proxy = urllib.parse.urlsplit(str(cluster.get("proxy-url") or _proxy(server.scheme, host)))
        at = (proxy.hostname, proxy.port) if proxy.hostname else (host, port)
        if server.scheme == "https":
            connection: http.client.HTTPConnection = _Connection(
                at[0], at[1], timeout=_TIMEOUT_S, context=trust, name=cluster.get("tls-server-name")
            )
        else:
            connection = http.client.HTTPConnection(at[0], at[1], timeout=_TIMEOUT_S)
        if proxy.hostname:
            connection.set_tunnel(host, port)
        try:
            connection.request("GET", server.path.rstrip("/") + path, headers={"Accept": accept, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class _Connection(http.client.HTTPSConnection):
    """With another name in the certificate than in the address, where a kubeconfig says so."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext, name: str | None):
        super().__init__(host, port, timeout=timeout, context=context)
        self._named, self._trust = name, context

    def connect(self) -> None:
        if self._named is None:
            super().connect()
            return
        http.client.HTTPConnection.connect(self)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._named)


def _group(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _proxy(scheme: str, host: str) -> str:
    return "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, "")


# --- kubeconfig ------------------------------------------------------------------------------------------------


def _connect(kubeconfig: str, context: str | None) -> _Opened:
    """Raises CannotLookError."""
    content, folder = _read(kubeconfig)
    try:
        chosen = _named(content, "context", context or content.get("current-context"))
        cluster = _named(content, "cluster", chosen["cluster"])
        user = _named(content, "user", chosen["user"]) if chosen.get("user") else {}
        return _open(cluster, user, folder)
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
        raise CannotLookError(f"the kubeconfig has no complete context '{context or ''}'") from None


def _open(cluster: Json, user: Json, folder: Path) -> _Opened:
    unknown = [key for key in ("auth-provider", "as", "as-user-extra") if user.get(key)]
    if unknown:
        raise CannotLookError(f"the kubeconfig's user has {unknown[0]}, which is not understood here")
    if "exec" in user:
        user = {**user, **_credential(user["exec"], cluster, folder)}
    headers: Json = {}
    if token := user.get("token") or _text(user, "tokenFile", folder):
        headers["Authorization"] = f"Bearer {token.strip()}"
    elif user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return cluster, _trust(cluster, user, folder), headers


def _read(kubeconfig: str) -> tuple[Json, Path]:
    text, folder = kubeconfig, Path()
    if "\n" not in kubeconfig and not kubeconfig.lstrip().startswith("{"):
        path = Path(kubeconfig).expanduser()
        try:
            text, folder = path.read_text(), path.parent
        except OSError as error:
            raise UnreachableError(f"{path}: {error.strerror}") from error
    try:
        content: object = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        raise CannotLookError("the kubeconfig is no object of YAML")
    return cast("Json", content), folder


def _named(content: Json, what: str, name: object) -> Json:
    return next(entry[what] for entry in content[f"{what}s"] if entry["name"] == name)


def _text(holder: Mapping[str, Any], key: str, folder: Path) -> str:
    return (folder / holder[key]).read_text() if holder.get(key) else ""


def _pem(holder: Mapping[str, Any], key: str, folder: Path) -> str:
    """From the file that a kubeconfig names, or from itself: its data beats the file."""
    if data := holder.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return _text(holder, key, folder)


def _trust(cluster: Json, user: Json, folder: Path) -> ssl.SSLContext:
    try:
        trust = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority", folder) or None)
        # Python 3.13 also wants extensions that certificates of clusters do not all have.
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if cluster.get("insecure-skip-tls-verify"):
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        certificate, key = (_pem(user, name, folder) for name in ("client-certificate", "client-key"))
        if certificate and key:
            with tempfile.NamedTemporaryFile("w") as file:  # readable by its owner alone
                file.write(f"{certificate}\n{key}\n")
                file.flush()
                trust.load_cert_chain(file.name)
    except (OSError, ValueError) as error:
        raise CannotLookError(f"a certificate of the kubeconfig cannot be used: {error}") from error
    return trust


def _credential(plugin: Json, cluster: Json, folder: Path) -> Json:
    """What an exec plugin answers, in the terms of a user of a kubeconfig (client.authentication.k8s.io)."""
    asked: Json = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    if plugin.get("provideClusterInfo"):
        shown = ("server", "certificate-authority-data")
        asked["spec"]["cluster"] = {key: cluster[key] for key in shown if key in cluster}
    command = str(plugin["command"])
    given = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
    try:
        done = subprocess.run(
            [str(folder / command) if "/" in command else command, *(plugin.get("args") or ())],
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_EXEC_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise CannotLookError(f"the kubeconfig's plugin {command}: {done.stderr.decode(errors='replace')[-200:]}")
        status = cast("dict[str, str]", json.loads(done.stdout)["status"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise CannotLookError(f"the kubeconfig's plugin {command}: {type(error).__name__}") from error
    pems = {"clientCertificateData": "client-certificate-data", "clientKeyData": "client-key-data"}
    found: Json = {name: base64.b64encode(status[key].encode()).decode() for key, name in pems.items() if key in status}
    return {**found, **({"token": status["token"]} if "token" in status else {})}
