"""Put one model's weights on its claim, before the engine starts. Runs as an init container.

Nothing is served that is not proven. What a revision consists of, the size and the digest of each file, says the hub;
a file counts where its content has that digest. The proof is kept in a marker on the claim: a later start looks at
sizes and times of change, reads again only what changed since, and asks nobody. A marker of an older program proves
nothing, and the weights are checked like those that somebody copied: by the list that the hub's library left beside
them, or the hub's. What is missing or wrong is downloaded, from where an earlier start ended.

The hub's library is not used. Its version is the image's: those that images carry return half a snapshot when the hub
does not answer (0.36 to 1.21), or begin each file anew (from 1.18). Its cache layout is what every version reads.

What passes is waited out until a deadline, which a watchdog keeps over the whole run: rate limits (429), server errors,
lost connections, content that is not what it should be. What waiting cannot mend (an unknown revision, a gated model, a
full claim) fails at once, with the remedy.

Environment:
  MODEL_ALIAS, MODEL_ID, MODEL_REVISION (commit, or none for the default branch),
  MODEL_FILES (JSON list of patterns), MODEL_BYTES (size by the catalog), MODEL_DIGESTS (JSON object: SHA-256 by file),
  MODEL_DIRECTORIES (JSON list of directories to make for the engine's caches), MODEL_DIRECTORY_BYTES (of each),
  STAGE_DEADLINE_S (give up after), HF_HUB_CACHE (directory on the claim), HF_TOKEN (gated models only),
  HF_ENDPOINT (the hub), HTTPS_PROXY and HTTP_PROXY (the way there), HUB_CA_FILE (PEM that is trusted as well),
  STAGE_DOWNLOAD ("never": what is not on the claim is an error),
  HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT (seconds without a byte: of lists, of files).
Leaves: the snapshot in the hub's cache layout, and `served`, a link to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent))  # what lies beside it, however this file is run or imported

from stage_claim import (
    GIB,
    File,
    Job,
    Listing,
    OutOfTime,
    Permanent,
    brought,
    chosen,
    complete,
    differing,
    held,
    indexed,
    indexes,
    make_directory,
    make_room,
    mark,
    marked,
    no_space,
    prune,
    remove,
    say,
    settle,
    tidy,
    unmatched,
)
from stage_hub import Passing, fetch, listed

_LONGEST_WAIT_S = 120.0
_LOCK_EVERY_S = 0.5
_FAR_OFF = 0.05  # of the catalog's size, which is rounded
_T = TypeVar("_T")


class Watchdog:
    """Ends the program at its deadline, whatever it is doing, with the last reason for waiting."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.cause = ""
        timer = threading.Timer(min(job.deadline_s, threading.TIMEOUT_MAX), self._end)
        timer.daemon = True
        timer.start()

    @property
    def text(self) -> str:
        job, last = self._job, f"; last: {self.cause}" if self.cause else ""
        spent = job.deadline_s - job.left_s
        return (
            f"gave up on {job.label} after {spent:.0f} of {job.deadline_s:.0f} s{last}. The pod starts again by itself "
            "and goes on where this one was; if the hub keeps limiting this address, copy the weights onto the claim "
            "from elsewhere (README, 'Weights beforehand')"
        )

    def _end(self) -> None:
        say(self.text)
        os._exit(OutOfTime.exit_code)  # other threads may sit in a read that no exception ends


def patiently(job: Job, watchdog: Watchdog, attempt: Callable[[], _T]) -> _T:
    """Its result, waiting out what passes. Raises Permanent for the rest, and where the deadline leaves no time."""
    wait = 5.0
    while True:
        try:
            return attempt()
        except Passing as error:
            pause = max(error.pause, wait * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret
            watchdog.cause = str(error)
            if pause > job.left_s:
                raise OutOfTime(watchdog.text) from error
            say(f"{error}; trying again in {pause:.0f} s")
            time.sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT_S)


@contextmanager
def alone(job: Job, watchdog: Watchdog) -> Generator[None]:
    """One program at a time on a claim; the kernel lets go of the lock of one that was killed."""
    if job.lock.is_dir():
        remove(job.lock)
    with job.lock.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not watchdog.cause:
                    watchdog.cause = "another pod stages on this claim"
                    say(f"{watchdog.cause}; waiting for it")
                time.sleep(_LOCK_EVERY_S)
            except OSError:  # a file system without locks
                break
        yield


def obtain(job: Job, watchdog: Watchdog, listing: Listing, files: list[File]) -> None:
    """Some files of a list into the snapshot, those that are not there. Raises Permanent."""
    missing = dict[str, list[File]]()
    for file in files:
        if not held(job, listing.commit, file):
            missing.setdefault(file.digest, []).append(file)
    if missing:
        first = [group[0] for group in missing.values()]
        make_room(job, listing, first)
        say(f"downloading {len(first)} files of {job.label}, {sum(file.size for file in first) / GIB:.2f} GiB")
        patiently(job, watchdog, lambda: fetch(job, listing.commit, missing))


def bring(job: Job, watchdog: Watchdog) -> Listing:
    """What the engine reads of the revision, as the hub lists it, all of it proven. Raises Permanent."""
    if shutil.disk_usage(job.cache).total < job.expected_bytes:
        raise Permanent(no_space(job, job.expected_bytes))
    listing = patiently(job, watchdog, lambda: listed(job))
    listing = Listing(listing.commit, chosen(job, listing))
    where = f"correct `files` of {job.alias} in models/catalog, then: pulumi up"
    for pattern in unmatched(job, listing.files):
        raise Permanent(f"{job.label} has no file '{pattern}', which the engine needs: {where}")
    for file in differing(job, listing.files):
        raise Permanent(
            f"{job.label} has another {file.name} than the catalog: SHA-256 {file.digest}, not "
            f"{job.digests[file.name]}. If it is the right one, correct `sha256` of {job.alias} in models/catalog, "
            "then: pulumi up"
        )
    obtain(job, watchdog, listing, indexes(listing.files))
    files, lacking = indexed(job, listing.commit, listing.files)
    if lacking:
        raise Permanent(f"{job.label} names {min(lacking)} in an index, and no file of it is staged: {where}")
    listing = Listing(listing.commit, files)
    obtain(job, watchdog, listing, list(files))
    return listing


def proven(job: Job) -> Listing | None:
    """What is on the claim, if it is all there and there is a proof of it on the claim as well."""
    for proof, said in ((marked(job), "on the claim"), (brought(job), "copied onto the claim")):
        if proof and (listing := complete(job, proof)):
            say(f"{job.label} is {said}; nothing to download")
            return listing
    return None


def stage(job: Job, watchdog: Watchdog) -> None:
    """Everything, in order. Raises Permanent, or OSError where the claim cannot be written."""
    if not job.cache.is_dir():
        make_directory(job.cache)
    make_directory(job.notes)
    with alone(job, watchdog):
        tidy(job)
        listing = proven(job)
        if listing is None:
            if not job.download:
                raise Permanent(
                    f"{job.label} is not whole on the claim of {job.alias}, and hub.download is false, so a start "
                    f"fetches nothing; at zero replicas: ops stage {job.alias}"
                )
            listing = bring(job, watchdog)
            prune(job, listing.commit, listing.files)
        total = sum(file.size for file in listing.files)
        say(f"{len(listing.files)} files, {total / GIB:.2f} GiB (catalog: {job.expected_bytes / GIB:.2f} GiB)")
        if abs(total - job.expected_bytes) > job.expected_bytes * _FAR_OFF:
            say(f"the plan reckons with another size: bytes_on_disk of {job.alias} should be {total:_}")
        mark(job, listing)
        settle(job, listing.commit)


def main() -> int:
    """0 when the weights are there; else the reason is the log's last line: 75 if its time was over, 1 for good."""
    # The first process of a container is not ended by a signal that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    try:
        job = Job.from_environment()
    except (KeyError, TypeError, ValueError) as error:
        say(f"the environment says no job ({type(error).__name__}: {error}); its head has what it takes")
        return 1
    try:
        stage(job, Watchdog(job))
    except Permanent as reason:
        say(str(reason))
        return reason.exit_code
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            say(no_space(job, 0))
        else:
            owner = f"{os.getuid()}:{os.getgid()}"
            say(
                f"the claim of {job.alias} cannot be used: {error}. If its files are another user's, in a root pod "
                f"that mounts it: chown -R {owner} {job.cache.parent}"
            )
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
