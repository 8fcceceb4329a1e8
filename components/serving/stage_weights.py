"""Put one model's weights on its claim, before the engine starts. Runs as an init container.

Local first: a claim that holds the pinned revision complete is recognised by a marker, without any network.
Else the revision is downloaded, waiting out rate limits (429), server errors and lost connections until a
deadline. What waiting cannot mend (an unknown revision, a gated model, a full claim) fails at once, with the
remedy.

The marker is ours because `snapshot_download(local_files_only=True)` accepts an incomplete snapshot in some of
the versions of huggingface_hub that the images carry (0.36 to 1.21).

Environment:
  MODEL_ALIAS, MODEL_ID, MODEL_REVISION (commit, or none for the default branch),
  MODEL_FILES (JSON list of patterns), MODEL_BYTES (expected size),
  MODEL_DIRECTORIES (JSON list of directories to make for the engine),
  STAGE_DEADLINE_S (give up after), HF_HUB_CACHE (directory on the claim), HF_TOKEN (gated models only).
Leaves: the snapshot in the hub's cache layout, and `served`, a link to it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_GIB = 2**30
_LONGEST_WAIT_S = 120.0
_LOST_CONNECTION_MODULES = ("requests", "urllib3", "httpx", "httpcore", "http", "socket", "ssl")


class Permanent(Exception):  # noqa: N818  it ends the program with its text; nothing handles it as an error
    """A failure that waiting does not mend."""


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
    directories: tuple[Path, ...] = ()

    @classmethod
    def from_environment(cls) -> Job:
        env = os.environ
        return cls(
            alias=env["MODEL_ALIAS"],
            repo=env["MODEL_ID"],
            revision=env.get("MODEL_REVISION") or None,
            patterns=tuple(json.loads(env["MODEL_FILES"])),
            expected_bytes=int(env["MODEL_BYTES"]),
            deadline_s=float(env["STAGE_DEADLINE_S"]),
            cache=Path(env["HF_HUB_CACHE"]),
            directories=tuple(Path(name) for name in json.loads(env.get("MODEL_DIRECTORIES", "[]"))),
        )

    @property
    def label(self) -> str:
        return f"{self.repo}@{self.revision or 'default branch'}"

    @property
    def marker(self) -> Path:
        name = f"{self.repo}@{self.revision or 'default'}".replace("/", "--")
        return self.cache / ".staged" / f"{name}.json"

    @property
    def begun(self) -> Path:
        """There from the start of a download to its end: what an interrupted one leaves is not what was copied."""
        return self.marker.with_suffix(".begun")


def say(text: str) -> None:
    """One line to the pod's log."""
    sys.stdout.write(f"stage: {text}\n")
    sys.stdout.flush()


def staged(job: Job) -> Path | None:
    """The snapshot on the claim if it is complete, judged by its marker and the files' sizes."""
    try:
        marker = json.loads(job.marker.read_text())
        snapshot = job.cache / marker["snapshot"]
        complete = marker["patterns"] == list(job.patterns) and all(
            (snapshot / name).stat().st_size == size for name, size in marker["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return snapshot if complete else None


def brought(job: Job) -> Path | None:
    """A snapshot that somebody copied onto the claim, if nothing of it is missing.

    Complete means: every pattern matches, every shard that an index names is there, and the size is the catalog's,
    whose figures are rounded.
    """
    folder = job.cache / f"models--{job.repo.replace('/', '--')}"
    try:
        commit = job.revision or (folder / "refs" / "main").read_text().strip()
        snapshot = folder / "snapshots" / commit
        files = _files(snapshot)
        shards = {
            shard
            for name in files
            if name.endswith(".index.json")
            for shard in json.loads((snapshot / name).read_text())["weight_map"].values()
        }
    except (OSError, ValueError, KeyError):
        return None
    complete = not _unmatched(job, files) and shards <= files.keys() and sum(files.values()) > job.expected_bytes * 0.98
    return snapshot if complete else None


def _files(snapshot: Path) -> dict[str, int]:
    """Sizes of a snapshot's files; raises OSError for a link that leads nowhere."""
    return {
        path.relative_to(snapshot).as_posix(): path.stat().st_size
        for path in sorted(snapshot.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def _unmatched(job: Job, files: Mapping[str, int]) -> list[str]:
    """Patterns that no file matches."""
    return [pattern for pattern in job.patterns if not any(fnmatch(name, pattern) for name in files)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def wait_hint(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (0 if it does not say), or None if waiting does not help."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            if status in (408, 429) or status >= 500:
                after = str(getattr(response, "headers", {}).get("retry-after", ""))
                return float(after) if after.isdigit() else 0.0
            return None
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            return None
        # A truncated body, a reset, a time-out, a name that did not resolve.
        if isinstance(link, ConnectionError | TimeoutError) or type(link).__module__.startswith(
            _LOST_CONNECTION_MODULES
        ):
            return 0.0
        if isinstance(link, OSError) and "Consistency check failed" in str(link):
            return 0.0
    return None


def explain(job: Job, error: BaseException) -> str:
    """What a permanent error means here, and the command that mends it."""
    status = next(
        (s for link in _chain(error) if (s := getattr(getattr(link, "response", None), "status_code", None))), None
    )
    if status in (401, 403):
        return (
            f"the hub refuses {job.label} ({status}): it is gated, private, or misspelt in models/catalog. Accept "
            "its licence on the hub, then: pulumi config set --secret huggingFaceToken && pulumi up"
        )
    if status == 404:
        return (
            f"the hub does not know {job.label} (404). Correct model_id or revision in models/catalog "
            "(`ops pin` looks revisions up), then: pulumi up"
        )
    if any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in _chain(error)):
        return no_space(job)
    return f"{job.label} cannot be staged: {type(error).__name__}: {error}"


def no_space(job: Job) -> str:
    """The claim is too small for what has to be on it."""
    total = shutil.disk_usage(job.cache).total
    wanted = -(-job.expected_bytes * 5 // 4 // _GIB) + 1
    return (
        f"the claim of {job.alias} ({total / _GIB:.1f} GiB) has no room for {job.label} "
        f"({job.expected_bytes / _GIB:.1f} GiB); then: "
        f"pulumi config set {job.alias}:claimGib {max(wanted, round(total / _GIB) + wanted)} && pulumi up"
    )


def prune(job: Job, keep: Path | None) -> None:
    """Remove other models and revisions: the claim is sized for one."""
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415  a warm start needs no hub library

    info = scan_cache_dir(job.cache)
    others = [
        revision.commit_hash
        for repo in info.repos
        for revision in repo.revisions
        if keep is None or revision.snapshot_path.resolve() != keep.resolve()
    ]
    if others:
        strategy = info.delete_revisions(*others)
        say(f"removing {len(others)} other revision(s), {strategy.expected_freed_size / _GIB:.2f} GiB")
        strategy.execute()
    for marker in (job.cache / ".staged").glob("*"):
        if marker not in (job.marker, job.begun):
            marker.unlink()


def download(job: Job) -> Path:
    """One attempt at the whole snapshot; resumes what an earlier one left."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # pyright: ignore[reportUnknownVariableType]

    return Path(
        snapshot_download(
            job.repo,
            revision=job.revision,
            allow_patterns=list(job.patterns),
            cache_dir=job.cache,
            max_workers=4,
        )
    )


def download_patiently(job: Job) -> Path:
    """Download, waiting out what passes. Raises Permanent for the rest and at the deadline."""
    started = time.monotonic()
    wait = 5.0
    while True:
        try:
            return download(job)
        except Exception as error:
            hint = wait_hint(error)
            if hint is None:
                raise Permanent(explain(job, error)) from error
            pause = max(hint, wait * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret
            left = job.deadline_s - (time.monotonic() - started)
            cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if pause > left:
                raise Permanent(
                    f"gave up on {job.label} after {job.deadline_s:.0f} s; last: {cause}. The pod starts again by "
                    "itself; if the hub keeps limiting this address, copy the weights onto the claim from "
                    "elsewhere (README, 'When the hub limits you')"
                ) from error
            say(f"{cause}; trying again in {pause:.0f} s")
            time.sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT_S)


def finish(job: Job, snapshot: Path) -> None:
    """Check the snapshot against the patterns and write its marker, last and atomically."""
    files = _files(snapshot)
    for pattern in _unmatched(job, files):
        raise Permanent(
            f"{job.label} has no file '{pattern}', which the engine needs: correct `files` of {job.alias} in "
            "models/catalog, then: pulumi up"
        )
    total = sum(files.values())
    say(f"{len(files)} files, {total / _GIB:.2f} GiB (catalog: {job.expected_bytes / _GIB:.2f} GiB)")
    job.marker.parent.mkdir(parents=True, exist_ok=True)
    part = job.marker.with_suffix(".part")
    part.write_text(
        json.dumps(
            {
                "snapshot": snapshot.relative_to(job.cache).as_posix(),
                "patterns": list(job.patterns),
                "files": files,
            }
        )
    )
    part.replace(job.marker)
    job.begun.unlink(missing_ok=True)


def link(job: Job, snapshot: Path) -> None:
    """Point `served` at the snapshot, relative so that it holds under any mount path."""
    target = snapshot.relative_to(job.cache)
    part = job.cache / ".served.part"
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(job.cache / "served")


def stage(job: Job) -> None:
    """Everything, in order."""
    for directory in (job.cache, *job.directories):
        directory.mkdir(parents=True, exist_ok=True)
    snapshot = staged(job)
    if snapshot:
        say(f"{job.label} is on the claim; nothing to download")
    elif not job.begun.exists() and (snapshot := brought(job)):
        say(f"{job.label} was copied onto the claim; nothing to download")
        finish(job, snapshot)
    else:
        if shutil.disk_usage(job.cache).free < job.expected_bytes:
            prune(job, keep=None)
        if shutil.disk_usage(job.cache).total < job.expected_bytes:
            raise Permanent(no_space(job))
        say(f"downloading {job.label}, {job.expected_bytes / _GIB:.2f} GiB")
        job.begun.parent.mkdir(exist_ok=True)
        job.begun.touch()
        snapshot = download_patiently(job)
        finish(job, snapshot)
        prune(job, keep=snapshot)
    link(job, snapshot)


def main() -> int:
    """0 when the weights are there; 1 with the reason on the last line of the log."""
    try:
        stage(Job.from_environment())
    except Permanent as reason:
        say(str(reason))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
