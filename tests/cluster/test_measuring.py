"""Jobs that measure, on a real API server: they are admitted, and what belongs to them goes with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ops.embedded_cluster.control_plane import CONTEXT
from ops.findings.ways import Ways
from ops.kube import Kube
from ops.manifests import manifests
from ops.measuring.job import Measurement
from ops.measuring.task import Site
from stacks.admission import admit
from stacks.sections import SERVING
from tests.cluster.platform import Platform, eventually, planned
from tests.support import config, recorded

ALIAS = "coder-chat"
BENCH = Measurement(name=f"bench-{ALIAS}", programs=("load.py", "asking.py"), environment={}, deadline_s=60)
CODE = Measurement(name=f"code-{ALIAS}", programs=("execute.py",), environment={}, deadline_s=60, asks=False)


@dataclass(frozen=True)
class Simulated(Kube):
    """The embedded cluster, where pods of Jobs end at once, as one whose nodes run them; what it was told to make."""

    def refuse_simulated(self) -> None:
        pass


def site(platform: Platform) -> Site:
    cluster = platform.cluster
    kube = Simulated(CONTEXT, str(cluster.kubeconfig), str(cluster.kubectl_binary))
    plan = admit(config(stack="local"), rehearsal=True).plan
    model = next(m for m in plan.models if m.spec.alias == ALIAS)
    objects = manifests(recorded(stack="local").resources)
    return Site(kube, Ways(kube.typed, kube.context), plan, model, objects, f"ops bench {ALIAS}")


def test_a_restricted_namespace_admits_the_job_and_all_of_it_is_gone_at_the_end(platform: Platform) -> None:
    platform.apply(*[o for o in planned() if o["metadata"].get("namespace", SERVING) == SERVING])
    seen: list[Any] = []

    @dataclass(frozen=True)
    class Watched(Simulated):
        def __call__(self, *arguments: str, stdin: str | None = None) -> str:
            said = super().__call__(*arguments, stdin=stdin)
            seen.extend(json.loads(stdin or "{}").get("items", []) if "apply" in arguments else [])
            return said

    here = site(platform)
    here.kube = Watched(here.kube.context, here.kube.kubeconfig, here.kube.program)
    here.measure(BENCH, lambda _: True)
    assert sorted(item["kind"] for item in seen) == ["ConfigMap", "NetworkPolicy", "NetworkPolicy"]
    here.measure(CODE, lambda _: True)
    assert [item["kind"] for item in seen[3:]] == ["ConfigMap"]
    assert platform.items(SERVING, "jobs") == []
    names = {item["metadata"]["name"] for item in seen}
    for kind in ("configmaps", "networkpolicies"):  # the garbage collector follows
        eventually(lambda kind=kind: not names & {o["metadata"]["name"] for o in platform.items(SERVING, kind)})
