"""The folder of `ops plan --out`: a file for each object, and never a file that something else wrote.

FILES.txt there lists what a plan wrote, with checksums (`sha256sum --check FILES.txt` reads it). Only a file that is
listed and has the content that was written is overwritten or removed. Symbolic links are never followed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from ops.engine import Registered
from ops.errors import OpsError
from ops.manifests import numbered, secrets_note, to_yaml

LIST = "FILES.txt"
NOTE = "SECRETS.txt"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n\0]+)")
_HEAD = "# What `ops plan --out` wrote here; it changes and removes these files and no others.\n"
_SHOWN = 8
_REMEDIES = {errno.ENOSPC: "df -h", errno.EDQUOT: "df -h"}


def write(resources: Sequence[Registered], directory: Path) -> list[str]:
    """One file an object, named in the order to apply, and SECRETS.txt; returns their names.

    Files of an earlier plan that this one no longer has are removed. Raises OpsError, before anything is changed, for
    a file in the way that no plan wrote; and for what cannot be written.
    """
    wanted = {name: to_yaml([manifest]).encode() for name, manifest in numbered(resources)}
    wanted[NOTE] = secrets_note(resources).encode()
    try:
        with _opened(directory) as folder:
            _write(folder, wanted, directory)
    except OSError as error:
        there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
        raise OpsError(
            f"the manifests cannot be written to {directory}: {error.strerror}; what is there is whole, and the same "
            "command goes on with it",
            f"{_REMEDIES.get(error.errno or 0, 'ls -ld')} {shlex.quote(str(there))}",
        ) from None
    return list(wanted)


def _write(folder: int, wanted: Mapping[str, bytes], directory: Path) -> None:
    listed = _listed(folder, directory)
    there = {name: _content(folder, name) for name in {*wanted, *listed}}
    others = sorted(
        name
        for name, content in there.items()
        if content is not None and _digest(content) not in listed.get(name, set()) and content != wanted.get(name)
    )
    in_the_way = [name for name in others if name in wanted or name in listed]
    if in_the_way:
        raise _others(directory, in_the_way)
    digests = {name: {_digest(content)} for name, content in wanted.items()}
    # Both, while either may be there: an interrupted run knows its own files again.
    _replace(folder, LIST, _list({name: digests.get(name, set()) | listed.get(name, set()) for name in there}))
    for name, content in wanted.items():
        if there[name] != content:
            _replace(folder, name, content)
    for name in listed.keys() - wanted.keys():
        if there[name] is not None:
            os.unlink(name, dir_fd=folder)
    _replace(folder, LIST, _list(digests))


@contextmanager
def _opened(directory: Path) -> Generator[int]:
    """The folder, made if need be and locked for the length of the block; no link, whoever changes the path now."""
    if directory.is_symlink():
        raise OpsError(
            f"{directory} is a symbolic link, and those are not followed",
            f"ops plan --out {shlex.quote(os.path.realpath(directory))}   # with your other options",
        )
    if directory.exists() and not directory.is_dir():
        raise OpsError(
            f"{directory} is a file, and --out wants a folder", f"ops plan --out {shlex.quote(f'{directory}.d')}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _listed(folder: int, directory: Path) -> dict[str, set[str]]:
    """Digests by name, as the list there has them."""
    content = _content(folder, LIST)
    if content is None:
        return {}
    lines = content.decode(errors="replace").removeprefix(_HEAD).splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    if not content.startswith(_HEAD.encode()) or not all(matches):
        raise _others(directory, [LIST])
    listed: dict[str, set[str]] = {}
    for match in matches:
        if match is not None:
            listed.setdefault(match[2], set()).add(match[1])
    return listed


def _list(digests: Mapping[str, set[str]]) -> bytes:
    lines = (f"{digest}  {name}\n" for name, found in sorted(digests.items()) for digest in sorted(found))
    return (_HEAD + "".join(lines)).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(folder: int, name: str) -> bytes | None:
    """What a file holds; something that no plan writes for a link, a folder or a pipe; None where nothing is."""
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return b"not a file"
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return None


def _replace(folder: int, name: str, content: bytes) -> None:
    """In one step: a reader, and a run that ends here, find the old file or the new one."""
    partial = f".{name}.{token_hex(4)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(partial, flags, 0o666, dir_fd=folder), "wb") as file:  # noqa: PTH123
            file.write(content)
        os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise


def _others(directory: Path, names: Sequence[str]) -> OpsError:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    files = shlex.join(str(directory / name) for name in names[:_SHOWN])
    return OpsError(
        f"{directory} has {shown}, which no plan wrote, or which was changed since: nothing was written",
        f"ops plan --out {shlex.quote(f'{directory}.new')}   # or, if they may go: rm -r {files}",
    )
