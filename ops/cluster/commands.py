"""`ops cluster up | down | status`: the embedded cluster from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ops.console import output
from ops.embedded_cluster.control_plane import EmbeddedCluster
from ops.embedded_cluster.nodes import DEFAULT_NODES, NodeShape

_console = output(soft_wrap=True)


def up(root: Path, nodes: Sequence[NodeShape] = DEFAULT_NODES) -> int:
    """Start the cluster in `root`, or say that it runs. Raises FailedError if it cannot."""
    cluster = EmbeddedCluster(root)
    started = cluster.up(nodes, _console.print)
    news = "is up" if started else "was up already"
    _console.print(f"the embedded cluster {news}: Kubernetes {cluster.version} on {cluster.server}")
    for node in nodes:
        gpus = f", {node.gpus} x {node.accelerator}" if node.gpus else ""
        _console.print(f"  node {node.name}: {node.instance_type}, simulated{gpus}")
    _console.print(f"to look at it:\n  export KUBECONFIG={cluster.kubeconfig}")
    _console.print(f"  {cluster.kubectl_binary} get pods -A")
    return 0


def down(root: Path, *, wipe: bool) -> int:
    """Stop the cluster in `root`; with `wipe`, remove its folder. Nothing to stop is no error."""
    did = EmbeddedCluster(root).down(wipe=wipe, say=_console.print)
    kept = f"its folder {root} is removed" if wipe else f"its data is kept in {root}"
    _console.print(f"the embedded cluster is down; {kept}" if did else f"no embedded cluster runs in {root}")
    return 0


def status(root: Path) -> int:
    """Print what runs in `root`; exit code 1 unless all of it does."""
    cluster = EmbeddedCluster(root)
    complete = cluster.running
    for name, pid in cluster.processes.items():
        _console.print(f"  {name}: {f'process {pid}' if pid else 'not running'}")
    if complete:
        _console.print(f"  server: {cluster.server}\n  export KUBECONFIG={cluster.kubeconfig}")
    else:
        _console.print("  remedy: make cluster-up")
    return int(not complete)
