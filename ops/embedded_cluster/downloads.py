"""The control plane's programs as their projects publish them: with the right checksum, or not at all.

etcd, the API server and kubectl come in the archive that setup-envtest takes; its checksum is pinned here. The
controller manager and the scheduler are not in it: they come from the server of the same release, with the checksum
that stands beside them there. kwok publishes none, so it is built.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import platform
import shlex
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ops.errors import OpsError

SOURCE = "AI_PLATFORM_DOWNLOADS"  # "off", or a mirror that has the paths of both hosts
RELEASE = "v1.36.2"
# Source: envtest-releases.yaml of kubernetes-sigs/controller-tools.
ENVTEST_SHA512 = {
    "amd64": "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc"
    "f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08",
    "arm64": "2d72ee985a8e262a3c57dc9f7f0fd891f6a8c7bf7ebaa2db6dc6d8eac8ae2818"
    "1afe51c1f368b67756cdb40b10de9b205609e1726e5f27f7c6d824dd9c6649ac",
}
_ARCHIVED = ("etcd", "kube-apiserver", "kubectl")
_ALONE = ("kube-controller-manager", "kube-scheduler")
NAMES = (*_ARCHIVED, *_ALONE)
SILENCE_S = 5  # that a server may take to connect, and between two pieces
GRACE_S, _SLOWEST = 10, 300_000  # bytes a second, after the grace: below it a build is sooner done
_PIECE = 1 << 20


class _NotTakenError(Exception):
    """Why a download is of no use."""


class _UnreachableError(_NotTakenError):
    """There is nobody to ask, so the next one need not be tried."""


@dataclass(frozen=True)
class _File:
    """One download."""

    tools: tuple[str, ...]
    host: str
    path: str
    sha512: str | None  # None: in the file beside it

    @property
    def url(self) -> str:
        return (os.environ.get(SOURCE) or f"https://{self.host}").rstrip("/") + self.path


def folder(cache: Path) -> Path:
    """Where they are kept: another release is another folder."""
    return cache / f"kubernetes-{RELEASE}-{platform.machine()}"


def take(
    tools: Collection[str], cache: Path, say: Callable[[str], None], unfit: Callable[[str, Path], str | None]
) -> None:
    """Put those of the tools that can be had into the folder, and say in a line why the others cannot.

    `unfit` runs a program and says why it is of no use, or None. Raises OpsError for a mirror with a password in it.
    """
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    if os.environ.get(SOURCE) == "off" or arch is None or sys.platform != "linux":
        return
    _refuse_password(os.environ.get(SOURCE, ""))
    kept = folder(cache)
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        say(f"  not downloaded, so built here: {_trouble(error)}")
        return
    for file in _files(arch):
        wanted = [tool for tool in file.tools if tool in tools]
        if not wanted:
            continue
        started = time.monotonic()
        say(f"  {', '.join(wanted)}: downloading from {os.environ.get(SOURCE) or file.host} ...")
        try:
            _take(file, wanted, kept, unfit)
            say(f"  {', '.join(wanted)}: {RELEASE}, checksum verified, {time.monotonic() - started:.0f} s")
        except _UnreachableError as reason:
            say(f"  not downloaded, so built here: {reason}")
            return
        except _NotTakenError as reason:
            say(f"  not downloaded, so built here: {reason}")
        except OSError as error:  # a folder in the way, a full disk
            say(f"  not downloaded, so built here: {_trouble(error)}")


def _refuse_password(mirror: str) -> None:
    """An address is shown with all that is told of it, so a secret may not be in it."""
    before, at, host = mirror.rpartition("@")
    if at:
        scheme = "http" if before.startswith("http://") else "https"
        raise OpsError(
            f"{SOURCE} has a user or a password in it (all before the @), which would be shown; it is not used",
            f"export {SOURCE}={shlex.quote(f'{scheme}://{host}')}",
        )


def _trouble(error: OSError) -> str:
    """What is wrong with which place on disk."""
    place = error.filename2 or error.filename
    return f"{place}: {error.strerror}" if place else str(error)


def _files(arch: str) -> list[_File]:
    name = f"envtest-{RELEASE}-linux-{arch}.tar.gz"
    releases = f"/kubernetes-sigs/controller-tools/releases/download/envtest-{RELEASE}"
    return [
        _File(_ARCHIVED, "github.com", f"{releases}/{name}", ENVTEST_SHA512[arch]),
        *(_File((tool,), "dl.k8s.io", f"/{RELEASE}/bin/linux/{arch}/{tool}", None) for tool in _ALONE),
    ]


def _take(file: _File, wanted: Collection[str], kept: Path, unfit: Callable[[str, Path], str | None]) -> None:
    """Download aside, verify, try, and only then give it its name."""
    scratch = kept / "partial"
    try:
        expected = file.sha512 or _published(f"{file.url}.sha512")
        if (found := _fetch(file.url, scratch)) != expected:
            raise _NotTakenError(f"{file.url} has the SHA-512 {found[:12]}..., and {expected[:12]}... is published")
        for tool in wanted:
            program = kept / f"{tool}.partial"
            if file.path.endswith(".tar.gz"):
                _unpack(scratch, tool, program)
            else:
                scratch.rename(program)
            program.chmod(0o755)
            if problem := unfit(tool, program):
                raise _NotTakenError(problem)
            program.rename(kept / tool)
    finally:
        for left in kept.glob("*partial"):
            if not left.is_dir():  # none of this project's making
                left.unlink()


def _published(url: str) -> str:
    try:
        with _open(url) as answer:
            text = answer.read(1024).decode(errors="replace").split()
    except (OSError, http.client.HTTPException) as error:
        raise _NotTakenError(f"{url} cannot be read ({error})") from error
    if not text or len(text[0]) != hashlib.sha512().digest_size * 2:
        raise _NotTakenError(f"{url} holds no SHA-512")
    return text[0].lower()


def _open(url: str) -> http.client.HTTPResponse:
    try:
        answer = urllib.request.urlopen(url, timeout=SILENCE_S)  # noqa: S310  https, or the operator's own mirror
    except urllib.error.HTTPError as error:
        raise _NotTakenError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _UnreachableError(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from error
    if str(answer.url).partition(":")[0] != url.partition(":")[0]:
        raise _NotTakenError(f"{url} leads away from {url.partition(':')[0]}")
    return answer


def _fetch(url: str, target: Path) -> str:
    """The SHA-512 of what was written."""
    digest, size, started = hashlib.sha512(), 0, time.monotonic()
    with _open(url) as answer, target.open("wb") as out:
        try:
            while piece := answer.read1(_PIECE):
                out.write(piece)
                digest.update(piece)
                size += len(piece)
                passed = time.monotonic() - started
                if passed > GRACE_S and size < passed * _SLOWEST:
                    raise _NotTakenError(f"{url} is slow: {size / 1e6:.1f} MB in {passed:.0f} s")
            if size < int(answer.headers.get("content-length", size)):
                raise http.client.IncompleteRead(b"")  # which `read1` does not tell
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _NotTakenError(f"{url} ended after {size / 1e6:.1f} MB ({error})") from error
    return digest.hexdigest()


def _unpack(archive: Path, tool: str, target: Path) -> None:
    try:
        with tarfile.open(archive) as files:
            member = next((m for m in files if m.isfile() and Path(m.name).name == tool), None)
            content = files.extractfile(member) if member else None
            if content is None:
                raise _NotTakenError(f"the archive has no {tool}")
            with target.open("wb") as out:
                while piece := content.read(_PIECE):
                    out.write(piece)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _NotTakenError(f"the archive cannot be read ({error})") from error
