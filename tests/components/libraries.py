"""Environments of other programs' Python, each made once and kept outside the tree.

They live in `${XDG_CACHE_HOME:-~/.cache}/ai-platform/<kind>/<name>`. One process makes one while others wait.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

_TRY_AGAIN_S = 600


class UnavailableError(Exception):
    """One that cannot be had here; the text says why."""


def kept(kind: str, name: str, packages: Sequence[str], make: Callable[[Path], None] | None = None) -> Path:
    """The environment `name` with these packages, and with what `make` puts into it. Raises UnavailableError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-platform" / kind
    path = cache / f"{name}-py{sys.version_info[0]}{sys.version_info[1]}"
    done, failed = path / ".complete", path.with_name(path.name + ".failed")
    cache.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return path
        if failed.exists() and time.time() - failed.stat().st_mtime < _TRY_AGAIN_S:
            raise UnavailableError(failed.read_text())
        shutil.rmtree(path, ignore_errors=True)
        try:
            _install(path, packages)
            if make is not None:
                make(path)
        except (UnavailableError, OSError) as error:
            failed.write_text(str(error))
            raise UnavailableError(failed.read_text()) from error
        failed.unlink(missing_ok=True)
        done.touch()
        return path


def python_of(path: Path) -> str:
    """The interpreter of an environment."""
    return str(path / "bin" / "python")


def _install(path: Path, packages: Sequence[str]) -> None:
    venv.create(path, with_pip=True)
    pip = [python_of(path), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    tried = subprocess.run(pip, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise UnavailableError(f"{' '.join(packages)[:80]} cannot be installed: {tried.stderr[-500:]}")
