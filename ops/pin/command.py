"""`ops pin`: look up the commits and digests that the catalog does not have yet, or check those that it has.

A tag or a branch can be pointed at other content; a digest and a commit cannot. The catalog never invents one, so
this is where they come from. It needs the network; without `--write` it only prints what it found.
"""

from __future__ import annotations

import argparse
import ast
import http.client
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models import catalog, images
from models.facts import Image
from models.weights import HUB
from ops.endpoint import base_url
from ops.errors import OpsError

_TIMEOUT_S = 20
_MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OTHER_REGISTRY = "ops pin --registry URL   # a mirror that asks for no login"


@dataclass(frozen=True)
class Pin:
    """One thing that can be pinned, and the place in the sources where its pin stands."""

    what: str  # "weights of coder-mini" or "image docker.io/vllm/vllm-openai:v0.23.0"
    current: str | None
    lookup: Callable[[], str]
    file: Path | None  # None: of this checkout's own entries, where nobody but their author writes
    anchor: tuple[str, str]  # keyword argument and its value that identify the call: ("alias", "coder-mini")
    keyword: str  # keyword argument that holds the pin: "revision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--write", action="store_true", help="put what is missing into models/ (nothing is replaced)")
    parser.add_argument("--hub", default=HUB, help="address of the model hub")
    parser.add_argument("--registry", metavar="URL", help="ask this registry for every image, e.g. a mirror")


def run(args: argparse.Namespace) -> int:
    """0 if everything is pinned and agrees with its source, 1 if not, 2 if something could not be looked up."""
    worst = 0
    hub = base_url("ops pin", "--hub", args.hub)
    registry = base_url("ops pin", "--registry", args.registry) if args.registry else None
    for pin in _pins(hub, registry):
        try:
            found = pin.lookup()
        except OpsError as error:
            sys.stdout.write(f"?  {pin.what}: {error.problem.message} ({error.problem.remedy})\n")
            worst = 2
            continue
        if pin.current == found:
            sys.stdout.write(f"ok {pin.what}: {found}\n")
        elif pin.current:
            # Not rewritten: newer weights or a rebuilt image are a decision, not a repair.
            sys.stdout.write(f"!  {pin.what}: pinned {pin.current}, its source now says {found}\n")
            worst = max(worst, 1)
        elif pin.file is None:
            sys.stdout.write(f"+  {pin.what}: {found} (to be written there, as revision of its weights)\n")
            worst = max(worst, 1)
        elif args.write:
            write_pin(pin, found)
            sys.stdout.write(f"+  {pin.what}: {found} (written to {pin.file.name})\n")
        else:
            sys.stdout.write(f"+  {pin.what}: {found} (not pinned yet: ops pin --write)\n")
            worst = max(worst, 1)
    return worst


def _pins(hub: str, registry: str | None) -> Iterator[Pin]:
    for entry in catalog.CATALOG.values():
        if entry.weights is not None:
            yield Pin(
                what=f"weights of {entry.alias} ({entry.model_id}{_own(entry.alias)})",
                current=entry.weights.revision,
                lookup=lambda model=entry.model_id: hub_commit(hub, model),
                file=None if entry.alias in catalog.OVERLAID else _file_of(entry.alias),
                anchor=("alias", entry.alias),
                keyword="revision",
            )
    for image in (value for value in vars(images).values() if isinstance(value, Image)):
        yield Pin(
            what=f"image {image.registry}/{image.repository}:{image.tag}",
            current=image.digest,
            lookup=lambda image=image: image_digest(image, registry),
            file=Path(images.__file__),
            anchor=("repository", image.repository),
            keyword="digest",
        )


def _own(alias: str) -> str:
    """Where it stands, of an entry of this checkout alone."""
    return f", {catalog.OVERLAID[alias]}" if alias in catalog.OVERLAID else ""


def _file_of(alias: str) -> Path:
    """The file of a family that has an entry."""
    folder = Path(catalog.__file__).parent
    return next(
        (path for path in sorted(folder.glob("*.py")) if f'alias="{alias}"' in path.read_text()), Path(catalog.__file__)
    )


# --- looking up ----------------------------------------------------------------------------------------------


def hub_commit(hub: str, model_id: str) -> str:
    """Commit at the head of a model's default branch. Raises OpsError."""
    body, _ = _get(f"{hub}/api/models/{model_id}", {"accept": "application/json"})
    try:
        commit = str(json.loads(body)["sha"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = type(error).__name__
        raise OpsError(
            f"the answer of {hub} names no commit ({why})", "ops pin --hub https://huggingface.co"
        ) from error
    return _checked(_COMMIT, commit, hub)


def image_digest(image: Image, registry: str | None = None) -> str:
    """Digest that a tag points at, by the registry's HTTP API. Raises OpsError."""
    # The image names of the public hub live on another host than its API.
    host = "https://registry-1.docker.io" if image.registry == "docker.io" else f"https://{image.registry}"
    url = f"{(registry or host).rstrip('/')}/v2/{image.repository}/manifests/{image.tag}"
    try:
        _, headers = _get(url, {"accept": _MANIFEST_TYPES}, method="HEAD")
    except _UnauthorizedError as error:
        token = _token(error.challenge)
        _, headers = _get(url, {"accept": _MANIFEST_TYPES, "authorization": f"Bearer {token}"}, method="HEAD")
    return _checked(_DIGEST, headers.get("docker-content-digest", ""), url)


def _token(challenge: str) -> str:
    """An anonymous token, as a registry's challenge says where to get it."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith(("https://", "http://127.0.0.1")):
        raise OpsError(
            f"the registry wants a login that this program cannot do: {challenge or 'no challenge'}", _OTHER_REGISTRY
        )
    body, _ = _get(f"{realm}?{urllib.parse.urlencode(fields)}", {})
    try:
        answer: dict[str, object] = json.loads(body)
        return str(answer.get("token") or answer.get("access_token") or "")
    except (ValueError, AttributeError, RecursionError) as error:
        raise OpsError(f"{realm} gives no token ({type(error).__name__})", _OTHER_REGISTRY) from error


class _UnauthorizedError(OpsError):
    def __init__(self, challenge: str) -> None:
        super().__init__("it wants a login (401)", _OTHER_REGISTRY)
        self.challenge = challenge


def _get(url: str, headers: dict[str, str], *, method: str = "GET") -> tuple[bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  http(s), from the catalog or a flag
    host, look = urllib.parse.urlsplit(url).netloc, f"curl -sSi {url}"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            return response.read(), {key.lower(): value for key, value in response.headers.items()}
    except urllib.error.HTTPError as error:
        if error.code == 401 and "authorization" not in headers:
            raise _UnauthorizedError(error.headers.get("www-authenticate", "")) from error
        raise OpsError(f"{host} answered {error.code} {error.reason}", look) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OpsError(f"{host} cannot be reached: {getattr(error, 'reason', error)}", look) from error


def _checked(pattern: re.Pattern[str], value: str, url: str) -> str:
    if not pattern.fullmatch(value):
        raise OpsError(f"the answer {value[:80]!r} is not what was asked for", f"curl -sSi {url}")
    return value


# --- writing -------------------------------------------------------------------------------------------------


def write_pin(pin: Pin, value: str) -> None:
    """Replace the None of a pin in its source file, and nothing else.

    Raises OpsError if the place is not found, so that nothing is guessed.
    """
    if pin.file is None:
        raise OpsError(f"{pin.what} has no place in the catalog", f'{pin.keyword}: "{value}"')
    source = pin.file.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _keyword(node, pin.anchor[0]) == pin.anchor[1]:
            for inner in ast.walk(node):
                if isinstance(inner, ast.keyword) and inner.arg == pin.keyword and _is_none(inner.value):
                    pin.file.write_text(_replaced(source, inner.value, f'"{value}"'))
                    return
    raise OpsError(
        f"no {pin.keyword}=None of {pin.anchor[1]} in {pin.file}, so the pin has no place", f'{pin.keyword}="{value}"'
    )


def _keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _replaced(source: str, node: ast.expr, text: str) -> str:
    lines = source.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + text.encode() + line[node.end_col_offset :]).decode()
    return "".join(lines)
