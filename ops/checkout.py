"""What is private to a checkout and ignored by git."""

from __future__ import annotations

from pathlib import Path

LOCAL = ".local"  # folder of a checkout: clusters, state, secrets


def cluster_root(project_dir: Path) -> Path:
    """Where a checkout's embedded cluster lives."""
    return project_dir.absolute() / LOCAL / "cluster"
