"""A repository of its own with this project in it, to commit edits to and to plan."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.checkout import CHECKOUT, clone

_FILES = ("Makefile", "pyproject.toml", "requirements.lock")


def git(folder: Path, *arguments: str) -> None:
    """As nobody in particular."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def commit(folder: Path, message: str) -> None:
    """Everything that is in the working tree."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def sandbox(folder: Path) -> Path:
    """The working tree as it is, with the catalog and the stacks of the tests, committed as `base`."""
    clone(folder)
    for name in _FILES:
        shutil.copy(CHECKOUT / name, folder)
    git(folder, "init", "--quiet")
    commit(folder, "base")
    git(folder, "tag", "base")
    return folder


def edit(folder: Path, file: str, old: str, new: str) -> None:
    """Replace one place of a file; it has to be there."""
    path = folder / file
    text = path.read_text()
    assert text.count(old) == 1, f"{text.count(old)} of {old!r} in {file}"
    path.write_text(text.replace(old, new))
