"""The versions of the hub's library that images carry, each in an environment of its own.

They live outside the tree, in `${XDG_CACHE_HOME:-~/.cache}/ai-platform/hub-library/<version>`, and are made on first
use; `python_with` says why a machine cannot have one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import venv
from importlib.metadata import version as installed
from pathlib import Path

LOCKED = installed("huggingface_hub")
# Of vLLM's images; of LiteLLM's, one that begins files anew at each start; ours, which keeps the hub's list.
VERSIONS = ("0.36.2", "1.21.0", LOCKED)
_TRY_AGAIN_S = 600


class UnavailableError(Exception):
    """A version that cannot be had here."""


def python_with(version: str) -> str:
    """An interpreter that has this version of huggingface_hub. Raises UnavailableError."""
    if version == LOCKED:
        return sys.executable
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-platform" / "hub-library"
    path = cache / f"{version}-py{sys.version_info[0]}{sys.version_info[1]}"
    done, failed, python = path / ".complete", path.with_suffix(".failed"), path / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return str(python)
        if failed.exists() and time.time() - failed.stat().st_mtime < _TRY_AGAIN_S:
            raise UnavailableError(failed.read_text())
        shutil.rmtree(path, ignore_errors=True)
        venv.create(path, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"huggingface_hub=={version}"]
        tried = subprocess.run(pip, capture_output=True, text=True, check=False)
        if tried.returncode:
            failed.write_text(f"huggingface_hub {version} cannot be installed: {tried.stderr[-500:]}")
            raise UnavailableError(failed.read_text())
        failed.unlink(missing_ok=True)
        done.touch()
        return str(python)
