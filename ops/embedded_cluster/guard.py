"""Wipe an embedded cluster when the process that started it is gone: see `EmbeddedCluster.started`."""

from __future__ import annotations

import sys
from pathlib import Path

from ops.embedded_cluster.control_plane import EmbeddedCluster

if __name__ == "__main__":
    sys.stdin.read()  # ends when the last holder of the other end does
    EmbeddedCluster(Path(sys.argv[1])).down(wipe=True)
