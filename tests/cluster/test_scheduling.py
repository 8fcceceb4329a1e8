"""Where the real scheduler puts the platform's pods, and how models take turns on one GPU."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from models.machines import GPU_TAINT
from ops.embedded_cluster.nodes import DEFAULT_NODES
from stacks.sections import GATEWAY, SERVING
from tests.cluster.conftest import eventually
from tests.cluster.engine import Engine
from tests.cluster.platform import GPU_NODE, NAMESPACES, SYSTEM_NODE, Manifest, Platform, planned
from tests.support import VLLM_ALIASES

_SWAPS = 50
# A real update takes ten seconds. `ENGINE_SWAPS=50 pytest tests/cluster/test_scheduling.py` runs as many.
_ENGINE_SWAPS = int(os.environ.get("ENGINE_SWAPS", "4"))


def waiting_reason(pod: Manifest) -> str:
    """What the scheduler says of a pod that it cannot place."""
    conditions = pod["status"].get("conditions", ())
    return " ".join(c.get("message", "") for c in conditions if c["type"] == "PodScheduled")


def changed(before: list[Manifest], after: list[Manifest]) -> list[Manifest]:
    """What another plan changes."""
    return [manifest for manifest in after if manifest not in before]


def test_each_gpu_model_runs_on_the_l4_node_when_its_turn_comes(platform: Platform) -> None:
    before: list[Manifest] = []
    for alias in VLLM_ALIASES:
        plan = planned(f"{alias}:replicas=1")
        platform.apply(*changed(before, plan))
        platform.rolled_out(f"deployment/{alias}")
        assert platform.nodes_of(alias) == [GPU_NODE]
        before = plan


def test_a_gpu_model_runs_on_no_node_but_that_of_its_machine_type(platform: Platform) -> None:
    """Another GPU and a smaller machine with the same one are there, and stay empty."""
    g2, system = DEFAULT_NODES
    t4 = dataclasses.replace(g2, name="t4", accelerator="nvidia-tesla-t4", instance_type="n1-standard-8")
    small = dataclasses.replace(g2, name="small", instance_type="g2-standard-4")
    platform.cluster.up([g2, system, t4, small])
    with platform.cordoned(GPU_NODE):
        platform.apply(*planned("coder-chat:replicas=1"))
        eventually(lambda: "node affinity/selector" in waiting_reason(platform.pods("coder-chat")[0]))
        assert platform.nodes_of("coder-chat") == [None]
    platform.rolled_out("deployment/coder-chat")
    assert platform.nodes_of("coder-chat") == [GPU_NODE]


def test_pods_without_a_gpu_wait_rather_than_land_on_the_l4_node(platform: Platform) -> None:
    """The L4 node is empty and the only one that takes pods: settled there, they would keep it billed."""
    with platform.cordoned(SYSTEM_NODE):
        platform.apply(*planned("embeddings:replicas=1"))

        def all_wait() -> bool:
            pods = [pod for namespace in NAMESPACES for pod in platform.items(namespace, "pods")]
            # PostgreSQL, migration, gateway, keys, embeddings.
            return len(pods) >= 5 and all("untolerated taint" in waiting_reason(pod) for pod in pods)

        eventually(all_wait)
    platform.rolled_out("deployment/embeddings")
    platform.rolled_out("deployment/litellm", GATEWAY)
    platform.rolled_out("statefulset/litellm-db", GATEWAY)
    assert platform.nodes_of("embeddings") == [SYSTEM_NODE]
    assert platform.nodes_of("litellm", GATEWAY) == platform.nodes_of("litellm-db", GATEWAY) == [SYSTEM_NODE]


def test_a_second_gpu_model_that_is_forced_past_the_gate_waits_and_harms_nothing(platform: Platform) -> None:
    platform.apply(*planned("coder-chat:replicas=1"))
    platform.rolled_out("deployment/coder-chat")
    (serving,) = platform.pods("coder-chat")
    platform.scale("coder-agent", 1)
    eventually(lambda: f"Insufficient {GPU_TAINT}" in waiting_reason(platform.pods("coder-agent")[0]))
    assert platform.pods("coder-chat")[0]["metadata"]["uid"] == serving["metadata"]["uid"]
    # What a plan says is what an apply of it restores.
    platform.apply(*planned("coder-chat:replicas=1"))
    eventually(lambda: not platform.pods("coder-agent"))


def test_fifty_swaps_in_one_update_each_complete_without_a_deadlock(platform: Platform) -> None:
    plans = [planned("coder-chat:replicas=1"), planned("coder-agent:replicas=1")]
    platform.apply(*plans[1])
    for turn in range(_SWAPS):
        alias = ("coder-chat", "coder-agent")[turn % 2]
        platform.apply(*changed(plans[turn % 2 - 1], plans[turn % 2]))
        platform.rolled_out(f"deployment/{alias}")
    assert platform.nodes_of("coder-agent") == [GPU_NODE]
    assert not platform.pods("coder-chat")


def test_a_new_version_of_a_running_model_takes_the_gpu_over_from_the_old_one(platform: Platform) -> None:
    """A surge would wait for ever for a second GPU."""
    before, after = planned("coder-chat:replicas=1"), planned("coder-chat:replicas=1", "coder-chat:maxModelLen=4096")
    platform.apply(*before)
    platform.rolled_out("deployment/coder-chat")
    platform.apply(*changed(before, after))
    platform.rolled_out("deployment/coder-chat")
    (pod,) = platform.pods("coder-chat")
    assert "--max-model-len=4096" in pod["spec"]["containers"][0]["args"]


def test_the_engine_swaps_models_in_one_update_as_often_as_asked(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    engine = deploys("local")
    engine.up("coder-agent:replicas=1")
    aliases = ["coder-chat", "coder-agent"]
    for _ in range(_ENGINE_SWAPS):
        up, down = aliases
        engine.up(f"{up}:replicas=1", f"{down}:replicas=0")
        assert platform.is_up(up)
        assert platform.nodes_of(up) == [GPU_NODE]
        assert platform.items(SERVING, "pods") == platform.pods(up)
        aliases.reverse()


def test_a_swap_whose_new_model_comes_first_in_line_completes_one_operation_at_a_time(
    platform: Platform, deploys: Callable[[str], Engine]
) -> None:
    """The new one would be awaited for ever if the old one were not scaled down before it."""
    engine = deploys("local")
    engine.up("coder-agent:replicas=1")
    for up, down in (("coder-chat", "coder-agent"), ("coder-agent", "coder-chat")):
        engine.set(f"{up}:replicas=1", f"{down}:replicas=0")
        engine.run("up", "--yes", "--skip-preview", "--parallel=1")
        assert platform.is_up(up)
