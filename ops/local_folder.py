"""The private folder of a checkout, `.local`: one command at a time works on what is in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from ops.checkout import LOCAL
from ops.embedded_cluster.binaries import locked

_LOCK = "up.lock"


@contextmanager
def alone(project_dir: Path, say: Callable[[str], None]) -> Generator[Path]:
    """The folder, made if need be, while no other command brings something up or takes it down."""
    folder = project_dir.absolute() / LOCAL
    with locked(folder / _LOCK, lambda: say(f"another `ops up` or `ops cluster` works in {LOCAL}: waiting for it")):
        folder.chmod(0o700)
        yield folder


def remove(folder: Path) -> None:
    """Remove it and all that is in it; the lock last, for those who wait for it. To be called while alone there."""
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / _LOCK).unlink()
    folder.rmdir()
