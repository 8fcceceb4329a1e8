"""Up and down against each other, interrupted, and after a pause: what was asked for last is what is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.embedded_cluster.control_plane import EmbeddedCluster
from tests.checkout import CHECKOUT
from tests.cluster.conftest import eventually
from tests.cluster.test_embedded_cluster import processes_naming
from tests.patience import at_least, patient
from tests.support import PROJECT_DIR


@pytest.fixture
def project(can_start: None, tmp_path: Path) -> Iterator[Path]:
    """A checkout of its own, whose cluster is gone afterwards."""
    for name in ("__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(PROJECT_DIR / name, tmp_path / name)
    yield tmp_path
    EmbeddedCluster(tmp_path / ".local" / "cluster").down(wipe=True)


def ops(project: Path, *words: str) -> subprocess.Popen[str]:
    """A command of `ops cluster` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "cluster", f"--project-dir={project}", *words],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=at_least(120))
    assert "Traceback" not in out + err
    return out + err


@pytest.mark.parametrize("moment", [".local/up.lock", ".local/cluster/state.json"])
def test_down_during_up_waits_and_then_takes_everything_away(project: Path, moment: str) -> None:
    up = ops(project, "up")
    for _ in patient(60):
        if (project / moment).exists():
            break
    down = ops(project, "down", "--everything")
    assert "is removed" in ended(down)
    assert "is up" in ended(up)
    assert (up.returncode, down.returncode) == (0, 0)
    assert not processes_naming(project)
    assert not (project / ".local").exists()


def test_two_interrupts_during_up_leave_no_process(project: Path) -> None:
    up = ops(project, "up")
    state = project / ".local" / "cluster" / "state.json"
    eventually(lambda: state.exists() and "kube-apiserver" in json.loads(state.read_text())["processes"], 60)
    for _ in range(2):
        up.send_signal(signal.SIGINT)
        time.sleep(0.05)
    ended(up)
    assert up.returncode in (130, -signal.SIGINT)
    assert not processes_naming(project)


def test_a_cluster_that_was_paused_heals_with_the_next_up(project: Path) -> None:
    """kwok is stopped until the node controller has given its nodes and their pods up."""
    cluster = EmbeddedCluster(project / ".local" / "cluster")
    cluster.up()
    pod = {"containers": [{"name": "app", "image": "app"}]}
    labels = {"app": "app"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": "default"}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({**made, "spec": spec}))
    cluster.kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    kwok = cluster.processes["kwok"]
    assert kwok
    os.kill(kwok, signal.SIGSTOP)

    def available() -> int:
        status = json.loads(cluster.kubectl("get", "deployment", "app", "-o", "json"))["status"]
        return status.get("availableReplicas", 0)

    eventually(lambda: available() == 0, 120)
    cluster.up()
    eventually(lambda: available() == 1, 30)
    cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=30s")
