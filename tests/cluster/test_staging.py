"""Staging by a Job on a real API server: it is admitted and ends, and no model comes up beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.embedded_cluster.control_plane import CONTEXT
from ops.errors import OpsError
from ops.findings.ways import Ways
from ops.kube import Kube
from ops.manifests import manifests
from ops.stage.command import _Task  # pyright: ignore[reportPrivateUsage]
from ops.stage.job import staging_job
from ops.up.site import Kubectl
from ops.up.staging import refuse_while_staged
from stacks.admission import admit
from stacks.sections import SERVING
from tests.cluster.engine import Engine
from tests.cluster.platform import Manifest, Platform, eventually, planned
from tests.support import config, recorded

ALIAS = "coder-chat"
JOB = f"stage-{ALIAS}"


@dataclass(frozen=True)
class Simulated(Kube):
    """The embedded cluster, where pods of Jobs end at once, as one whose nodes run them."""

    def refuse_simulated(self) -> None:
        pass


def job(alias: str = ALIAS) -> Manifest:
    return staging_job(manifests(recorded(stack="local").resources), alias, None)


def held(manifest: Manifest) -> Manifest:
    """A Job whose pod finds no node."""
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "true"}
    return manifest


def test_a_restricted_namespace_admits_the_job_and_it_ends_and_is_gone(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [o for o in planned(f"{ALIAS}:replicas=0") if o["metadata"].get("namespace", SERVING) == SERVING]
    platform.apply(*objects)
    eventually(lambda: platform.get(SERVING, "deployment", ALIAS)["spec"]["replicas"] == 0)
    cluster = platform.cluster
    kube = Simulated(CONTEXT, str(cluster.kubeconfig), str(cluster.kubectl_binary))
    plan = admit(config(stack="local"), rehearsal=True).plan
    model = next(m for m in plan.models if m.spec.alias == ALIAS)
    task = _Task(kube, Ways(kube.typed, kube.context), plan, model, f"ops stage {ALIAS}")
    assert task.run(job()) == 0
    assert f"{ALIAS} is staged" in capsys.readouterr().out
    assert platform.items(SERVING, "jobs") == []


def test_ops_up_refuses_a_model_whose_claim_is_being_filled(platform: Platform, tmp_path: Path) -> None:
    platform.apply(*planned(f"{ALIAS}:replicas=0"))
    platform.apply(held(job()))
    cluster = platform.cluster
    kubectl = Kubectl(str(cluster.kubectl_binary), cluster.kubeconfig, CONTEXT, tmp_path)
    up = admit(config(f"{ALIAS}:replicas=1", stack="local"), rehearsal=True).plan
    with pytest.raises(OpsError) as refused:
        refuse_while_staged(up, kubectl)
    assert "while its weights are being staged" in refused.value.problem.message
    refuse_while_staged(admit(config(f"{ALIAS}:replicas=0", stack="local"), rehearsal=True).plan, kubectl)


def test_the_real_engine_refuses_it_too_in_a_preview_and_goes_on_once_the_job_is_over(
    deploys: Callable[[str], Engine], platform: Platform
) -> None:
    stack = deploys("local")
    stack.up(f"{ALIAS}:replicas=0")
    platform.apply(held(job()))
    stack.set(f"{ALIAS}:replicas=1")
    preview = stack.run("preview", check=False)
    assert preview.code != 0
    assert "while its weights are being staged" in preview.text
    assert f"ops stage {ALIAS} --stack local --stop" in preview.text
    assert "Traceback" not in preview.text
    platform.cluster.kubectl("-n", SERVING, "delete", "job", JOB)
    stack.up()
    assert platform.is_up(ALIAS)
