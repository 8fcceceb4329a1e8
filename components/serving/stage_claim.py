"""What the staging program knows of a claim: which files a revision has, and which of them are there, proven.

Mounted beside `stage_weights.py`, which says what it is for, and run in the images of others: standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

GIB = 2**30
CHUNK = 2**20
COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_INDEX = "model.safetensors.index.json"
_SLACK = 8 * 2**20  # what links, the marker and the file system itself take of a claim
_BAD_JSON = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Permanent(Exception):  # noqa: N818  it ends the program with its text; nothing handles it as an error
    """A failure that waiting does not mend."""

    exit_code = 1


class OutOfTime(Permanent):
    """What was waited for may still come: another run goes on where this one was."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True)
class File:
    """One file of a revision: its path in the repository, its size, and the digest that names its blob."""

    name: str
    size: int
    digest: str  # SHA-256 of a large file's content; git's SHA-1, which is over a header as well, of any other
    changed_ns: int | None = None  # its last change when its content was proven

    @classmethod
    def of(cls, name: Any, size: Any, digest: Any, changed_ns: Any = None) -> File:
        """Raises ValueError for what is no file of a repository: names become paths on the claim."""
        parts = PurePosixPath(name).parts if isinstance(name, str) and name.encode() else ()
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name or type(size) is not int or size < 0:
            raise ValueError(f"no file: {name!r}, {size!r}")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"no digest: {digest!r}")
        return cls("/".join(parts), size, digest, changed_ns if type(changed_ns) is int else None)

    def hasher(self) -> Any:
        """A hash object that makes `digest` of its content."""
        if len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True)
class Listing:
    """The files of a commit: all of them, or those that are staged."""

    commit: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Job:
    """What to stage, and where."""

    alias: str
    repo: str
    revision: str | None
    patterns: tuple[str, ...]
    expected_bytes: int
    deadline_s: float
    cache: Path
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of files, where the catalog has them
    directories: tuple[Path, ...] = ()
    directory_bytes: int = 2 * GIB
    endpoint: str = "https://huggingface.co"
    token: str = ""
    download: bool = True  # False: what is not on the claim is an error
    list_timeout_s: float = 60
    file_timeout_s: float = 60
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def from_environment(cls) -> Job:
        """Raises KeyError, TypeError or ValueError for an environment that says no job."""
        env = os.environ
        return cls(
            alias=env["MODEL_ALIAS"],
            repo=env["MODEL_ID"],
            revision=env.get("MODEL_REVISION") or None,
            patterns=tuple(json.loads(env["MODEL_FILES"])),
            expected_bytes=int(env["MODEL_BYTES"]),
            deadline_s=float(env["STAGE_DEADLINE_S"]),
            cache=Path(env["HF_HUB_CACHE"]),
            digests=dict(json.loads(env.get("MODEL_DIGESTS", "{}"))),
            directories=tuple(Path(name) for name in json.loads(env.get("MODEL_DIRECTORIES", "[]"))),
            directory_bytes=int(env.get("MODEL_DIRECTORY_BYTES", cls.directory_bytes)),
            endpoint=env.get("HF_ENDPOINT", cls.endpoint).rstrip("/"),
            token=env.get("HF_TOKEN", "").strip(),
            download=env.get("STAGE_DOWNLOAD") != "never",
            list_timeout_s=float(env.get("HF_HUB_ETAG_TIMEOUT", cls.list_timeout_s)),
            file_timeout_s=float(env.get("HF_HUB_DOWNLOAD_TIMEOUT", cls.file_timeout_s)),
        )

    @property
    def label(self) -> str:
        return f"{self.repo}@{self.revision or 'default branch'}"

    @property
    def folder(self) -> Path:
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    @property
    def notes(self) -> Path:
        return self.cache / ".staged"

    @property
    def lock(self) -> Path:
        return self.notes / "lock"

    @property
    def marker(self) -> Path:
        return self.notes / f"{self.repo}@{self.revision or 'default'}.json".replace("/", "--")

    @property
    def left_s(self) -> float:
        return self.deadline_s - (time.monotonic() - self.started)

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def blob(self, file: File) -> Path:
        return self.folder / "blobs" / file.digest

    def partial(self, file: File) -> Path:
        return self.folder / "blobs" / f"{file.digest}.incomplete"


def say(text: str) -> None:
    """One line to the pod's log."""
    sys.stdout.write(f"stage: {text}\n")
    sys.stdout.flush()


# --- paths -------------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """Whatever is at this path; a link itself, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_directory(path: Path) -> None:
    """A real directory at this path, instead of whatever else lies there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)


def write(path: Path, text: str) -> None:
    """A whole file or none, also after a power cut; a full disk is no reason to fail where it is there already."""
    try:
        if path.read_text() == text:
            return
    except (OSError, ValueError):
        pass
    part = path.with_name(f"{path.name}.part")
    remove(part)
    with part.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    if path.is_dir():
        remove(path)
    part.replace(path)


def _real(path: Path) -> Path:
    """Where a path leads; itself, where that is a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: until Python 3.13
        return path


def disk_bytes(path: Path) -> int:
    """What all below a path takes on the disk; what cannot be looked at counts nothing."""
    total = 0
    for root, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total


# --- which files, and are they there -----------------------------------------------------------------------------


def unmatched(job: Job, files: Iterable[File]) -> list[str]:
    """Patterns that no file matches."""
    names = [file.name for file in files]
    return [pattern for pattern in job.patterns if not any(fnmatchcase(name, pattern) for name in names)]


def differing(job: Job, files: Iterable[File]) -> list[File]:
    """Files that are not those of the catalog, by their digest."""
    return [file for file in files if job.digests.get(file.name, file.digest) != file.digest]


def chosen(job: Job, listing: Listing) -> tuple[File, ...]:
    """The files of the patterns, the weights once: some repositories hold them again, for other programs."""
    files = [f for f in listing.files if any(fnmatchcase(f.name, pattern) for pattern in job.patterns)]
    again = ("consolidated*.safetensors", "original/*", "metal/*")  # for Mistral's own program, Meta's, and on Apple's
    twice = any(fnmatchcase(f.name, "model*.safetensors") and "/" not in f.name for f in files)
    return tuple(f for f in files if not (twice and any(fnmatchcase(f.name, pattern) for pattern in again)))


def indexes(files: Iterable[File]) -> list[File]:
    """Those that say which files are the weights."""
    return [file for file in files if PurePosixPath(file.name).name == _INDEX]


def indexed(job: Job, commit: str, files: tuple[File, ...]) -> tuple[tuple[File, ...], set[str]]:
    """The files without the safetensors that an index beside them passes over; and what an index names in vain.

    Engines read an index in the same way.
    """
    kept, lacking = files, set[str]()
    for index in indexes(files):
        folder = PurePosixPath(index.name).parent
        try:
            weights = json.loads((job.snapshot(commit) / index.name).read_text())["weight_map"].values()
            named = {str(folder / shard) for shard in weights}
        except _BAD_JSON:
            continue  # whatever it is, it is what the repository has
        lacking |= named - {file.name for file in files}
        paths = {file: PurePosixPath(file.name) for file in kept}
        kept = tuple(
            file
            for file, path in paths.items()
            if file.name in named or path.parent != folder or path.suffix != ".safetensors"
        )
    return kept, lacking


def intact(path: Path, file: File) -> bool:
    """Whether this path holds exactly this file. Reads all of it."""
    try:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        digest = file.hasher()
        with path.open("rb") as content:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == file.digest


def _target(job: Job, commit: str, file: File) -> Path | None:
    """Where the snapshot's entry of this file leads, under any mount path, if that has its size."""
    entry = job.snapshot(commit) / file.name
    try:
        if entry.is_symlink() and entry.readlink().is_absolute():
            return None
        target = entry.resolve(strict=True)
        here = target.is_relative_to(job.cache.resolve()) and target.is_file()
        return target if here and target.stat().st_size == file.size else None
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, until Python 3.13
        return None


def held(job: Job, commit: str, file: File) -> bool:
    """Whether the snapshot has this file; read where it changed since it was proven."""
    target = _target(job, commit, file)
    return target is not None and (target.stat().st_mtime_ns == file.changed_ns or intact(target, file))


def complete(job: Job, listing: Listing) -> Listing | None:
    """What the engine reads of a list, if the claim holds all of it."""
    commit, wanted = listing.commit, chosen(job, listing)
    if unmatched(job, wanted) or differing(job, wanted) or not all(held(job, commit, file) for file in indexes(wanted)):
        return None
    wanted, lacking = indexed(job, commit, wanted)
    # All sizes before any content: a look at each file is cheap, reading one is not.
    if lacking or not all(_target(job, commit, file) for file in wanted):
        return None
    return Listing(commit, wanted) if all(held(job, commit, file) for file in wanted) else None


# --- proofs on the claim -----------------------------------------------------------------------------------------


def marked(job: Job) -> Listing | None:
    """What the marker proves of this job; None for one of an older program, of another job, or no marker at all."""
    try:
        marker = json.loads(job.marker.read_text())
        files = tuple(
            File.of(name, entry["size"], entry["digest"], entry["changed_ns"])
            for name, entry in marker["files"].items()
        )
        commit = str(marker["commit"])
        if marker["patterns"] != list(job.patterns):
            return None
    except _BAD_JSON:
        return None
    return Listing(commit, files) if COMMIT.fullmatch(commit) and commit == (job.revision or commit) else None


def brought(job: Job) -> Listing | None:
    """The hub's list as its library keeps it beside the files (from 1.33 on), where somebody copied both here."""
    try:
        commit = job.revision or (job.folder / "refs" / "main").read_text().strip()
        tree = json.loads((job.folder / "trees" / f"{commit}.json").read_text())
        files = tuple(
            File.of(name, entry["size"], entry.get("lfs_sha256") or entry["blob_id"])
            for name, entry in tree["files"].items()
        )
        known = tree["format_version"] == 1 and COMMIT.fullmatch(commit)
    except _BAD_JSON:
        return None
    return Listing(commit, files) if known else None


def mark(job: Job, listing: Listing) -> None:
    """Keep the proof, last and atomically."""
    snapshot, files = job.snapshot(listing.commit), dict[str, object]()
    for file in listing.files:
        # To the disk before the proof: a node that goes down would leave zeros of the right size.
        with (snapshot / file.name).open("rb") as content:
            os.fsync(content.fileno())
            changed = os.fstat(content.fileno()).st_mtime_ns
        files[file.name] = {"size": file.size, "digest": file.digest, "changed_ns": changed}
    write(job.marker, json.dumps({"commit": listing.commit, "patterns": list(job.patterns), "files": files}))


def settle(job: Job, commit: str) -> None:
    """What engines look for: the default branch's commit where none is pinned, and `served`, under any mount path."""
    if job.revision is None:
        make_directory(job.folder / "refs")
        write(job.folder / "refs" / "main", commit)
    # Offline the hub's library would miss every file of this list, also those that nobody wants.
    remove(job.folder / "trees")
    part, served, target = job.cache / ".served.part", job.cache / "served", job.snapshot(commit)
    if served.is_symlink() and served.readlink() == target.relative_to(job.cache):
        return
    remove(part)
    part.symlink_to(target.relative_to(job.cache))
    if served.is_dir() and not served.is_symlink():
        say("removing a directory called served: the link of this name is where engines look")
        remove(served)
    part.replace(served)


# --- room --------------------------------------------------------------------------------------------------------


def prune(job: Job, commit: str, wanted: Iterable[File]) -> None:
    """Remove other models, other revisions and leftovers of downloads: the claim is sized for one."""
    snapshot, keep = job.snapshot(commit), set[Path]()
    for file in wanted:
        keep |= {_real(path) for path in (job.blob(file), job.partial(file), snapshot / file.name)}
    others = [
        *(path for path in job.cache.glob("models--*") if path != job.folder),
        *(path for path in job.folder.glob("snapshots/*") if path != snapshot),
        *(path for path in job.folder.glob("blobs/*") if _real(path) not in keep),
        *(path for path in job.notes.glob("*") if path not in (job.marker, job.lock)),
    ]
    free = shutil.disk_usage(job.cache).free
    discard(others)
    freed = shutil.disk_usage(job.cache).free - free
    if freed > _SLACK:
        say(f"removed other revisions and leftovers, {freed / GIB:.2f} GiB")


def tidy(job: Job) -> None:
    """Directories for the engine's caches, made by the user who writes there, and emptied where they outgrew theirs.

    The engine's cache holds one entry for each of its versions and settings that ever ran, and never lets go of one.
    """
    for directory in job.directories:
        make_directory(directory)
        taken = disk_bytes(directory)
        if taken > job.directory_bytes:
            say(
                f"emptying {directory}: {taken / GIB:.2f} GiB of compiled code, more than the "
                f"{job.directory_bytes / GIB:.2f} GiB kept for it; the engine compiles anew"
            )
            empty(directory)


def empty(directory: Path) -> None:
    """All in a directory, which stays: a container mounts it."""
    discard(directory.iterdir())


def discard(paths: Iterable[Path]) -> None:
    """Remove what can be removed; nothing that is served needs it gone."""
    for path in paths:
        try:
            remove(path)
        except OSError as error:
            say(f"cannot remove {path}: {error.strerror}")


def make_room(job: Job, listing: Listing, missing: Iterable[File]) -> None:
    """Room for what is missing, where something else holds it. Raises Permanent where that is not enough."""
    if shutil.disk_usage(job.cache).free >= _needed(job, missing):
        return
    prune(job, listing.commit, listing.files)
    # What is whole needs no room, and what is not is in the way.
    missing = [file for file in missing if not intact(job.blob(file), file)]
    discard(job.blob(file) for file in missing)
    discard(job.snapshot(listing.commit) / file.name for file in missing)
    needed = _needed(job, missing)
    for directory in job.directories:
        if shutil.disk_usage(job.cache).free < needed:
            say(f"emptying {directory}: its room is needed for the weights")
            empty(directory)
    if shutil.disk_usage(job.cache).free < needed:
        raise Permanent(no_space(job, needed))


def _needed(job: Job, missing: Iterable[File]) -> int:
    """Bytes that are still to come."""
    here = {job.partial(file): file.size for file in missing}
    return _SLACK + sum(size - (min(size, path.stat().st_size) if path.is_file() else 0) for path, size in here.items())


def no_space(job: Job, needed: int) -> str:
    """The claim is too small for so many bytes more: what is on it, and the size that is enough."""
    total, used, free = shutil.disk_usage(job.cache)
    weights, caches = disk_bytes(job.folder), sum(map(disk_bytes, job.directories))
    lacking = -(-max(needed - free, 1) // GIB)
    size = max(-(-total // GIB) + lacking, -(-job.expected_bytes * 5 // 4 // GIB) + 2)
    return (
        f"the claim of {job.alias} has no room for {job.label}: {needed / GIB:.2f} GiB more, and {free / GIB:.2f} of "
        f"{total / GIB:.2f} GiB are free; it holds {weights / GIB:.2f} GiB of this model, {caches / GIB:.2f} of "
        f"compiled code, {max(0, used - weights - caches) / GIB:.2f} of other files; then: "
        f"pulumi config set {job.alias}:claimGib {size} && pulumi up"
    )
