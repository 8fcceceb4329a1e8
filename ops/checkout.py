"""What is private to a checkout and ignored by git."""

from __future__ import annotations

from pathlib import Path

LOCAL = ".local"  # folder of a checkout: clusters, state, secrets


PROJECT_FILE = "Pulumi.yaml"


def nearest_project(folder: Path) -> Path:
    """The folder itself or the nearest one above it that has a Pulumi.yaml, as the Pulumi CLI finds its project."""
    above = (folder, *folder.absolute().parents)
    return next((path for path in above if (path / PROJECT_FILE).is_file()), folder)


def cluster_root(project_dir: Path) -> Path:
    """Where a checkout's embedded cluster lives."""
    return project_dir.absolute() / LOCAL / "cluster"
