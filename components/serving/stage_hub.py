"""How the staging program asks the hub: the list of a revision's files, and the files, each taken up where it ended.

Mounted beside `stage_weights.py`, which says what it is for, and run in the images of others: standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # what lies beside it, however this file is run or imported

from stage_claim import (
    CHUNK,
    COMMIT,
    GIB,
    File,
    Job,
    Listing,
    Permanent,
    intact,
    make_directory,
    remove,
    say,
)

_AT_ONCE = 4  # files, each over its own connection
_WORTH_A_LINE = GIB // 16


class Passing(Exception):  # noqa: N818  a reason to wait
    """A failure that may be over after `pause` seconds; 0 where nobody says how long."""

    def __init__(self, text: str, pause: float = 0) -> None:
        super().__init__(text)
        self.pause = pause


class _TokenStaysHome(urllib.request.HTTPRedirectHandler):
    """The hub sends small files from another path of its own, which wants the token, and large ones from elsewhere."""

    def redirect_request(  # noqa: PLR0917  the base class's
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and urllib.parse.urlsplit(newurl)[:2] == urllib.parse.urlsplit(req.full_url)[:2]:
            request.add_unredirected_header("Authorization", token)
        return request


@cache
def _opener() -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    try:
        import certifi  # noqa: PLC0415  where an image has no certificates of its own

        context.load_verify_locations(certifi.where())
    except (ImportError, OSError):
        pass
    if own := os.environ.get("HUB_CA_FILE"):
        context.load_verify_locations(own)
    return urllib.request.build_opener(_TokenStaysHome, urllib.request.HTTPSHandler(context=context))


def ask(job: Job, path: str, timeout: float, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """The hub's answer to one request. Raises Passing or Permanent."""
    address = path if "://" in path else job.endpoint + path
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "ai-platform-stage", **(headers or {})})  # noqa: S310
        if job.token and address.startswith(f"{job.endpoint}/"):
            request.add_unredirected_header("Authorization", f"Bearer {job.token}")
        return _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (408, 416, 425, 429) or error.code >= 500 or error.code < 400:
            raise Passing(f"the hub answers {error.code} {error.reason}", _asked_pause(error.headers)) from error
        raise Permanent(_refused(job, error.code)) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
            raise Permanent(_untrusted(error)) from error
        raise Passing(f"the hub cannot be reached: {_words(error)}") from error
    except ValueError as error:  # without its text, which may have the token in it
        raise Permanent("HF_ENDPOINT is no address, or the token of the hub no token; then: pulumi up") from error


def _untrusted(error: BaseException) -> str:
    """Waiting makes no certificate trusted."""
    return (
        f"the certificate that answers for the hub is not trusted here: {_words(error)}. If a proxy opens TLS, or a "
        'mirror has a CA of its own, then: pulumi config set --path hub.ca -- "$(cat ca.pem)" && pulumi up'
    )


def _asked_pause(headers: Any) -> float:
    """Seconds until the hub answers again, by Retry-After or RateLimit; 0 if it does not say."""
    after, limit = str(headers.get("Retry-After", "")), re.search(r"\bt=(\d+)", str(headers.get("RateLimit", "")))
    return float(after) if after.isdecimal() else float(limit[1]) if limit else 0.0


def _words(error: BaseException) -> str:
    """An error in one line."""
    text = str(getattr(error, "reason", None) or error)
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0][:200]}"


def _refused(job: Job, status: int) -> str:
    """What a refusal means here, and the command that mends it."""
    if status in (401, 403) and job.token:
        return (
            f"the hub refuses {job.label} ({status}) to the token it was shown: that is invalid, may not read it, or "
            "its account has not accepted the licence. Accept it on the hub, then: "
            "pulumi config set --secret huggingFaceToken && pulumi up"
        )
    if status in (401, 403):
        return (
            f"the hub refuses {job.label} ({status}): it is gated, private, or misspelt in models/catalog. If gated, "
            f"set gated=True in the weights of {job.alias} there and accept its licence on the hub, then: "
            "pulumi config set --secret huggingFaceToken && pulumi up"
        )
    if status == 404:
        return (
            f"the hub does not know {job.label} (404). Correct model_id or revision in models/catalog "
            "(`ops pin` looks revisions up), then: pulumi up"
        )
    return f"the hub refuses {job.label} ({status}), or a proxy on the way does; then: pulumi up"


def listed(job: Job) -> Listing:
    """What the hub says of the revision. Raises Passing or Permanent."""
    api = f"/api/models/{urllib.parse.quote(job.repo)}"
    try:
        info, _ = _answer(job, f"{api}/revision/{job.revision or 'main'}?blobs=true")
        commit = job.revision or str(info["sha"])
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"no commit: {commit!r}")
        try:
            files = [_file(entry["rfilename"], entry, "blobId", "sha256") for entry in info["siblings"]]
        except (ValueError, KeyError, TypeError):  # a mirror that passes over `blobs`
            files = _tree(job, f"{api}/tree/{commit}?recursive=true")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Passing(f"the hub's answer is no list of files: {_words(error)}") from error
    return Listing(commit, tuple(files))


def _tree(job: Job, page: str) -> list[File]:
    """The same list as the hub's library asks for it, page by page."""
    files = list[File]()
    while page:
        entries, page = _answer(job, page)
        files += (_file(entry["path"], entry, "oid", "oid") for entry in entries if entry["type"] == "file")
    return files


def _file(name: Any, entry: dict[str, Any], small: str, large: str) -> File:
    """A file as the hub states it: what git has of a large one is a pointer, and `lfs` says what that points at."""
    lfs = entry.get("lfs")
    return File.of(name, lfs["size"], lfs[large]) if lfs else File.of(name, entry["size"], entry[small])


def _answer(job: Job, path: str) -> tuple[Any, str]:
    """The JSON of an answer, and the address of its next page. Raises Passing, Permanent or ValueError."""
    with ask(job, path, job.list_timeout_s) as response:
        following = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
        try:
            return json.loads(response.read()), following[1] if following else ""
        except (OSError, http.client.HTTPException, RecursionError) as error:
            raise Passing(f"the hub's list is lost on the way: {_words(error)}") from error


def fetch(job: Job, commit: str, missing: dict[str, list[File]]) -> None:
    """Bring blobs that are missing, by digest, and link them into the snapshot; those that came are taken out.

    Raises Passing, Permanent or OSError of the claim; not before all that goes on beside is in or stopped.
    """
    for directory in (job.folder, job.folder / "blobs"):
        make_directory(directory)
    stop = threading.Event()

    def task(digest: str) -> Exception | None:
        try:
            _obtain(job, commit, missing[digest][0], stop)
        except Passing as error:
            return error
        except Exception as error:
            stop.set()
            return error
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        failures = dict(zip(missing, pool.map(task, missing), strict=True))
    for digest in [digest for digest, failure in failures.items() if failure is None]:
        for file in missing.pop(digest):
            _link(job, commit, file)
    for failure in sorted(filter(None, failures.values()), key=lambda failure: isinstance(failure, Passing)):
        raise failure


def _obtain(job: Job, commit: str, file: File, stop: threading.Event) -> None:
    """The blob of a file. Raises Passing or Permanent."""
    blob, partial = job.blob(file), job.partial(file)
    if not blob.is_symlink() and intact(blob, file):
        return
    started = time.monotonic()
    _download(job, commit, file, stop)
    remove(blob)
    partial.replace(blob)
    if file.size > _WORTH_A_LINE:
        say(f"{file.name}: {file.size / GIB:.2f} GiB in {time.monotonic() - started:.0f} s")


def _download(job: Job, commit: str, file: File, stop: threading.Event) -> None:
    """A file into its partial, from where an earlier attempt ended. Raises Passing or Permanent."""
    partial = job.partial(file)
    if partial.is_symlink() or not partial.is_file() or partial.stat().st_size > file.size:
        remove(partial)
        partial.touch()
    digest = file.hasher()
    with partial.open("r+b") as out:
        while chunk := out.read(CHUNK):
            digest.update(chunk)
        done = out.tell()
        if done < file.size:
            path = f"/{urllib.parse.quote(job.repo)}/resolve/{commit}/{urllib.parse.quote(file.name)}"
            rest = {"Range": f"bytes={done}-"} if done else None
            with ask(job, path, job.file_timeout_s, rest) as response:
                if response.status != 206:
                    done, digest = 0, file.hasher()
                    out.seek(0)
                    out.truncate()
                stated = response.headers.get("Content-Length", "")
                if stated and stated != str(file.size - done):
                    raise Passing(f"{file.name}: the hub sends {stated} bytes, and {file.size - done} are missing")
                for chunk in _chunks(response, file, stop):
                    out.write(chunk)
                    out.flush()  # not kept back: the watchdog ends the program without a word to it
                    digest.update(chunk)
                    done += len(chunk)
    if done < file.size:
        raise Passing(f"{file.name}: the hub's answer ended at {done:,} of {file.size:,} bytes")
    if digest.hexdigest() != file.digest:
        remove(partial)
        raise Passing(f"{file.name}: what the hub sent is not the file of this revision")


def _chunks(response: http.client.HTTPResponse, file: File, stop: threading.Event) -> Iterator[bytes]:
    """A body as it comes, until its end or until another file failed for good. Raises Passing."""
    while not stop.is_set():
        try:
            chunk = response.read1(CHUNK)  # what is there: of a slow body, what came is kept
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Passing(f"{file.name}: the connection was lost: {_words(error)}") from error
        if not chunk:
            return
        yield chunk


def _link(job: Job, commit: str, file: File) -> None:
    """A file's place in the snapshot, relative so that it holds under any mount path."""
    entry = job.snapshot(commit) / file.name
    for parent in reversed(entry.relative_to(job.folder).parents):
        make_directory(job.folder / parent)
    target = os.path.relpath(job.blob(file), entry.parent)
    if not (entry.is_symlink() and str(entry.readlink()) == target):
        remove(entry)
        entry.symlink_to(target)
