"""The real Pulumi engine on the real Kubernetes API: what a plan promises is what an update does.

Skipped without `pulumi` on PATH. The GCP half of `ai-dev` is the stand-in of gcp_provider/, the rest is real.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from pulumi.runtime import rpc

from models.images import LITELLM
from models.machines import G2_MACHINES
from ops.config_files import load
from ops.embedded_cluster.control_plane import CONTEXT, EmbeddedCluster
from ops.embedded_cluster.nodes import DEFAULT_NODES, NodeShape
from ops.engine import SECRET_TEXT, UNKNOWN_TEXT, Registered, run_main
from stacks.secrets import MASTER_KEY, SALT_KEY, SERVING_API_KEY, SecretKey, key_value
from stacks.sections import GATEWAY, SERVING
from tests.cluster.conftest import eventually
from tests.cluster.engine import Engine, State, secret_of_test
from tests.cluster.lossy_proxy import lossy_proxy
from tests.cluster.platform import GPU_NODE, NAMESPACES, SYSTEM_NODE, Platform
from tests.patience import kubectl_timeout

Deploys = Callable[[str], Engine]
_STACKS = ("local", "ai-dev")
_PROTECTED_DISK = "ai-platform-ai-dev-gateway-db"


def names(resources: list[State], kind: str) -> set[str]:
    """Names in the program of all resources of a kind, `Deployment`."""
    return {r["urn"].rsplit("::", 1)[1] for r in resources if r["type"].rsplit(":", 1)[-1] == kind}


def shown(changes: Mapping[str, str]) -> dict[str, str]:
    """Changes by kind and name."""
    parts = ((urn.split("::")[2].rsplit(":", 1)[-1], urn.split("::")[3], op) for urn, op in changes.items())
    return {f"{kind} {name}": op for kind, name, op in parts}


def assert_converged(engine: Engine, platform: Platform) -> None:
    """Nothing is lost or doubled: the state is what lives, each object once, and nothing is left to do."""
    resources = engine.resources()
    assert max(Counter(r["urn"] for r in resources).values()) == 1
    for resource in resources:
        if resource["type"].startswith("kubernetes:") and resource.get("custom"):
            metadata = resource["outputs"]["metadata"]
            kind = resource["type"].rsplit(":", 1)[-1].lower()
            live = platform.get(metadata.get("namespace", "default"), kind, metadata["name"])
            assert live["metadata"]["uid"] == metadata["uid"], resource["urn"]
    assert engine.changes() == {}
    for namespace in NAMESPACES:
        wanted = {
            o["metadata"]["name"]: o["spec"]["replicas"]
            for kind in ("deployment", "statefulset")
            for o in platform.items(namespace, kind)
        }
        for app, replicas in wanted.items():
            eventually(lambda app=app, replicas=replicas, n=namespace: len(platform.pods(app, n)) == replicas)
    ours = [job for job in platform.items(GATEWAY, "job") if not job["metadata"].get("ownerReferences")]
    assert len(ours) == len(names(resources, "Job"))  # beside those of the CronJob


# --- what a plan promises ------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value of the engine's JSON as a plan writes it."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return {key: plain(inner) for key, inner in mapping.items() if inner is not None}
    if isinstance(value, list):
        return [plain(inner) for inner in cast("list[Any]", value)]
    return UNKNOWN_TEXT if value == rpc.UNKNOWN else value


def promised(resource: Registered) -> dict[str, Any]:
    """Inputs of a plan, less what the engine adds to a provider on its way."""
    return {key: value for key, value in resource.inputs.items() if value is not None}


def delivered(resource: State) -> dict[str, Any]:
    """Inputs at the engine. It gives a provider the version of its SDK."""
    inputs = plain(resource.get("inputs", {}))
    if resource["type"].startswith("pulumi:providers:"):
        inputs = {key: value for key, value in inputs.items() if key not in ("version", "__internal")}
    return inputs


def plan_of(engine: Engine) -> dict[str, Registered]:
    """`ops plan` of the engine's own copy of the project, with its config."""
    project = engine.folder / "project"
    return {r.urn: r for r in run_main(load(project, engine.stack), project).resources}


@pytest.mark.parametrize("sets", [(), ("coder-chat:replicas=1", "gateway.replicas=2")], ids=["idle", "busy"])
@pytest.mark.parametrize("stack", _STACKS)
def test_a_plan_registers_what_the_engine_registers(
    platform: Platform, deploys: Deploys, stack: str, sets: tuple[str, ...]
) -> None:
    """Same URNs, parents and inputs in a preview; same dependencies and options in the state after an update."""
    engine = deploys(stack)
    if sets:
        engine.set(*sets)
    plan = plan_of(engine)
    previewed = {step["urn"]: step["newState"] for step in engine.preview()}
    assert previewed.keys() == plan.keys()
    for urn, resource in plan.items():
        assert previewed[urn].get("parent", "") == resource.parent, urn
        assert delivered(previewed[urn]) == promised(resource), urn

    engine.up()
    # For its own kind of resource, the one that keeps a shape, the engine has a provider that nobody registers.
    state = {r["urn"]: r for r in engine.resources() if r["type"] != "pulumi:providers:pulumi"}
    assert state.keys() == plan.keys()
    for urn, resource in plan.items():
        found = state[urn]
        assert set(found.get("dependencies") or ()) == set(resource.dependencies), urn
        provider = found.get("provider", "").rpartition("::")[0]
        assert ("" if provider.endswith("pulumi:providers:pulumi::default") else provider) == (
            resource.provider.rpartition("::")[0]
        ), urn
        assert found.get("protect", False) == resource.protect, urn
        assert found.get("retainOnDelete", False) == resource.retain_on_delete, urn
        assert tuple(found.get("ignoreChanges") or ()) == resource.ignore_changes, urn
        seconds = found.get("customTimeouts", {}).get("create")
        assert (f"{seconds}s" if seconds else "") == resource.timeout, urn


def test_a_plan_shows_no_secret_where_the_engine_has_one(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("local")
    masked = {urn for urn, resource in plan_of(engine).items() if SECRET_TEXT in json.dumps(dict(resource.inputs))}
    engine.up()
    encrypted = {r["urn"] for r in engine.resources() if "ciphertext" in json.dumps(r.get("inputs", {}))}
    assert masked == encrypted
    assert encrypted


# --- the ordinary life of a stack ----------------------------------------------------------------------------


@pytest.mark.parametrize("stack", _STACKS)
def test_an_update_leaves_nothing_for_a_second_one(platform: Platform, deploys: Deploys, stack: str) -> None:
    engine = deploys(stack)
    engine.up()
    assert_converged(engine, platform)
    assert "unchanged" in engine.up().text
    assert_converged(engine, platform)


def test_a_first_update_brings_a_model_up_at_once(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("ai-dev")
    engine.up("coder-chat:replicas=1", "embeddings:replicas=1")
    assert platform.nodes_of("coder-chat") == [GPU_NODE]
    assert platform.nodes_of("embeddings") == [SYSTEM_NODE]
    assert_converged(engine, platform)


def test_bringing_a_model_up_changes_nothing_else_but_what_the_gateway_knows_of_it(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("local")
    engine.up()
    engine.set("coder-chat:replicas=1")
    assert shown(engine.changes()) == {"Deployment coder-chat": "update", "ConfigMap litellm-model-state": "update"}
    before = platform.uids(GATEWAY, "pods")
    engine.up()
    assert platform.is_up("coder-chat")
    assert platform.uids(GATEWAY, "pods") == before


def test_another_value_of_a_key_is_taken_over_by_the_update_that_brings_it(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("local")
    engine.up()
    before = platform.uids(GATEWAY, "job")
    rotate(engine, key_value("smoke"))
    assert shown(engine.changes()) == {
        "Secret gateway-litellm-keys": "update",
        "Job litellm-keys": "replace",
        "CronJob litellm-keys": "update",
    }
    engine.up()
    after = platform.uids(GATEWAY, "job")  # and perhaps one that the CronJob has just made
    assert {name.rpartition("-")[0] for name in before if after[name] != before[name]} == {"litellm-keys"}
    assert_converged(engine, platform)


@pytest.mark.parametrize(
    ("secret", "restarted"),
    [(MASTER_KEY, {(GATEWAY, "litellm")}), (SERVING_API_KEY, {(GATEWAY, "litellm"), (SERVING, "coder-chat")})],
    ids=lambda value: getattr(value, "key", ""),
)
def test_another_value_of_a_secret_restarts_the_pods_that_read_it(
    platform: Platform, deploys: Deploys, secret: SecretKey, restarted: set[tuple[str, str]]
) -> None:
    def pods() -> dict[tuple[str, str], set[str]]:
        apps = [(GATEWAY, "litellm"), (GATEWAY, "litellm-db"), (SERVING, "coder-chat")]
        return {app: {pod["metadata"]["uid"] for pod in platform.pods(app[1], app[0])} for app in apps}

    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    before = pods()
    rotate(engine, secret)
    engine.up()
    eventually(lambda: {app for app, uids in pods().items() if not uids & before[app]} == restarted)
    assert_converged(engine, platform)


def rotate(engine: Engine, secret: SecretKey) -> None:
    """Another value in the config."""
    engine.run("config", "set-all", "--path", f"--secret={secret.key}={secret_of_test(secret)}again")


def test_the_gateway_scales_to_two_and_back(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("local")
    engine.up("gateway.replicas=2")
    assert len(platform.pods("litellm", GATEWAY)) == 2
    assert platform.uids(GATEWAY, "poddisruptionbudget").keys() == {"litellm"}
    engine.up("gateway.replicas=1")
    assert not platform.uids(GATEWAY, "poddisruptionbudget")
    assert_converged(engine, platform)


def test_a_new_gateway_image_migrates_the_database_before_the_proxy_rolls(platform: Platform, deploys: Deploys) -> None:
    """While the migration waits for a node, the old proxy serves."""
    engine = deploys("local")
    engine.up()
    (old,) = platform.uids(GATEWAY, "job").keys() & {j for j in platform.uids(GATEWAY, "job") if "migrate" in j}
    images = engine.folder / "project" / "models" / "images.py"
    images.write_text(images.read_text().replace(f'"{LITELLM.tag}"', '"v9.9.9"'))

    def image() -> str:
        return platform.get(GATEWAY, "deployment", "litellm")["spec"]["template"]["spec"]["containers"][0]["image"]

    with platform.cordoned(SYSTEM_NODE), engine.running("up", "--yes", "--skip-preview") as update:
        eventually(lambda: any("migrate" in j and j != old for j in platform.uids(GATEWAY, "job")), 60)
        time.sleep(2)
        assert LITELLM.tag in image()
        assert platform.get(GATEWAY, "deployment", "litellm")["status"]["availableReplicas"] == 1
        platform.cluster.kubectl("uncordon", SYSTEM_NODE)
        assert update.wait(120) == 0, engine.printed
    assert "v9.9.9" in image()
    assert old not in platform.uids(GATEWAY, "job")
    assert_converged(engine, platform)


def test_another_machine_type_under_a_running_model_moves_it_to_a_new_pool(
    platform: Platform, deploys: Deploys
) -> None:
    larger = NodeShape.of("g2-larger", G2_MACHINES["g2-standard-12"], zone="us-central1-a", boot_disk_gib=100)
    platform.cluster.up([*DEFAULT_NODES, larger])
    engine = deploys("ai-dev")
    engine.up("machineType=g2-standard-8", "coder-chat:replicas=1")
    assert platform.nodes_of("coder-chat") == [GPU_NODE]
    engine.up("machineType=g2-standard-12", "maxMonthlyUsd=2000")
    assert platform.nodes_of("coder-chat") == [larger.name]
    pools = names(engine.resources(), "NodePool")
    assert {p for p in pools if p.startswith("g2")} == {"g2-standard-12-100g"}
    assert_converged(engine, platform)


def test_auto_leaves_what_is_up_where_it_is_until_config_names_the_machine(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("ai-dev")
    engine.up("qwen-local:replicas=1")
    before = platform.uids(SERVING, "pods")
    engine.set("groups.coding-assistant=false", "groups.retrieval=false")
    moves = {
        "systemMachineType e2-standard-4": "the system pool of e2-standard-4 would be replaced by one of e2-standard-2",
        "machineType g2-standard-8": "qwen-local is up on g2-standard-8 and would move to a new pool of g2-standard-4",
    }
    for stay, told in moves.items():
        preview = engine.run("preview", check=False)
        assert preview.code != 0, preview.text
        assert "Traceback" not in preview.text
        assert told in preview.text
        remedy = re.search(rf"remedy: pulumi (config set {stay})   # stays; or, to move: ", preview.text)
        assert remedy, preview.text
        engine.run(*remedy[1].split())
    engine.up()
    assert platform.uids(SERVING, "pods") == before
    assert set(names(engine.resources(), "NodePool")) == {"g2-standard-8-100g", "system-e2-standard-4"}
    # Asked for, a move is told and done; `auto` moves a pool that nothing is up on.
    engine.set("machineType=g2-standard-4")
    assert "qwen-local is up on g2-standard-8 and would move" in engine.run("preview").text
    engine.up("machineType=auto", "qwen-local:replicas=0")
    assert "g2-standard-4-100g" in names(engine.resources(), "NodePool")


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("preview",), ("up", "--yes", "--skip-preview")], ids=["preview", "up"])
def test_a_missing_secret_and_bad_config_are_told_together_and_nothing_is_made(
    platform: Platform, deploys: Deploys, command: tuple[str, ...]
) -> None:
    engine = deploys("local")
    engine.run("config", "rm", SALT_KEY.key)
    engine.set("coder-chat:replicas=1", "coder-agent:replicas=1", "coder-chatt:replicas=1", "gpuQuotta=1")
    outcome = engine.run(*command, check=False)
    assert outcome.code != 0
    for told in (
        f"the secret ai-platform:{SALT_KEY.key}",
        SALT_KEY.command,
        "GPUS_ALL_REGIONS",
        "'coder-chatt' is no model",
        "ai-platform:gpuQuotta is not a setting",
    ):
        assert told in outcome.text
    assert "Traceback" not in outcome.text
    assert not [r for r in engine.resources() if r["type"] != "pulumi:pulumi:Stack"]
    assert not set(NAMESPACES) & platform.uids("default", "namespace").keys()


def test_a_cluster_that_cannot_be_reached_is_said_without_a_traceback(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("local")
    engine.up()
    platform.cluster.stop_api_server()
    outcome = engine.try_up("coder-chat:replicas=1")
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    platform.cluster.start_api_server()
    engine.up()
    assert platform.is_up("coder-chat")
    assert_converged(engine, platform)


@pytest.mark.parametrize("app", ["litellm-migrate", "litellm-keys"])
def test_a_job_that_failed_is_made_anew_by_the_next_update(platform: Platform, deploys: Deploys, app: str) -> None:
    engine = deploys("local")
    engine.up()
    proxy = platform.uids(GATEWAY, "deployment")["litellm"]

    def job() -> str:
        jobs = [job for job in platform.items(GATEWAY, "job") if not job["metadata"].get("ownerReferences")]
        return next((job["metadata"]["name"] for job in jobs if app in job["metadata"]["name"]), "")

    name = job()
    platform.cluster.kubectl("-n", GATEWAY, "delete", "job", name, "--cascade=foreground")
    with platform.cordoned(SYSTEM_NODE), engine.running("up", "--yes", "--skip-preview") as update:
        eventually(lambda: job() == name, 60)
        # It waits for a node for longer than it may.
        spec = '{"spec": {"activeDeadlineSeconds": 1}}'
        platform.cluster.kubectl("-n", GATEWAY, "patch", "job", name, "--type=merge", "-p", spec)
        assert update.wait(120) != 0, engine.printed
    failed = platform.get(GATEWAY, "job", name)
    assert [c["reason"] for c in failed["status"]["conditions"] if c["type"] == "Failed"] == ["DeadlineExceeded"]
    engine.up()
    assert platform.get(GATEWAY, "job", name)["status"]["succeeded"] == 1
    assert platform.uids(GATEWAY, "deployment")["litellm"] == proxy
    assert_converged(engine, platform)


# --- interruptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_an_interrupted_bring_up_is_taken_back_by_replicas_zero(
    platform: Platform, deploys: Deploys, stop: signal.Signals
) -> None:
    """The cost trap: the state says zero, and the Deployment would hold a GPU for ever."""
    engine = deploys("local")
    engine.up()
    with platform.cordoned(GPU_NODE):
        engine.set("coder-chat:replicas=1")
        with engine.running("up", "--yes", "--skip-preview") as update:
            eventually(lambda: platform.wanted("coder-chat") == 1 and platform.pods("coder-chat"), 60)
            update.send_signal(stop)
            assert update.wait(60) != 0
    if stop == signal.SIGKILL:
        assert "pulumi cancel" in engine.try_up("coder-chat:replicas=0").text
        engine.run("cancel", "--yes")
    engine.up("coder-chat:replicas=0")
    assert platform.wanted("coder-chat") == 0
    eventually(lambda: not platform.pods("coder-chat"))
    assert_converged(engine, platform)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_first_update_that_is_interrupted_is_finished_by_the_next(
    platform: Platform, deploys: Deploys, stop: signal.Signals
) -> None:
    engine = deploys("local")
    engine.set("coder-chat:replicas=1")
    with platform.cordoned(GPU_NODE), engine.running("up", "--yes", "--skip-preview") as update:
        eventually(lambda: platform.pods("coder-chat"), 60)
        update.send_signal(stop)
        assert update.wait(60) != 0
    made = {n: platform.uids(n, "pvc") for n in NAMESPACES}
    if stop == signal.SIGKILL:
        engine.run("cancel", "--yes")
    engine.up()
    assert platform.is_up("coder-chat")
    assert all(made[n].items() <= platform.uids(n, "pvc").items() for n in NAMESPACES)
    assert_converged(engine, platform)


@pytest.mark.parametrize("after", [3, 20, 40])
def test_an_api_server_that_goes_in_the_middle_of_an_update_costs_nothing_but_another_update(
    platform: Platform, deploys: Deploys, after: int
) -> None:
    """Gone once so many objects are there, back two seconds later."""
    engine = deploys("local")
    engine.set("coder-chat:replicas=1")
    kinds = "secret,configmap,service,networkpolicy,pvc,deployment,statefulset,job"
    with engine.running("up", "--yes", "--skip-preview") as update:
        eventually(lambda: sum(len(platform.items(n, kinds)) for n in NAMESPACES) >= after, 60)
        platform.cluster.stop_api_server()
        time.sleep(2)
        platform.cluster.start_api_server()
        update.wait(240)
    made = {n: platform.uids(n, "pvc") for n in NAMESPACES}
    engine.up()
    assert platform.is_up("coder-chat")
    assert all(made[n].items() <= platform.uids(n, "pvc").items() for n in NAMESPACES)
    assert_converged(engine, platform)


def test_creates_whose_answers_are_lost_are_found_again_and_not_made_twice(
    platform: Platform, deploys: Deploys, tmp_path: Path
) -> None:
    """Every object's first: each update gets one step further, and none is made a second time."""
    engine = deploys("local")
    with lossy_proxy(platform.cluster, tmp_path / "proxy") as proxy:
        engine.configure(kubeconfig=proxy.kubeconfig)
        engine.set("coder-chat:replicas=1")
        failures = 0
        while engine.try_up().code != 0:
            failures += 1
            assert failures < 20
        assert failures
        assert len(proxy.lost) >= len([r for r in engine.resources() if r["type"].startswith("kubernetes:")])
    # The same cluster on another address.
    proxy.kubeconfig.write_text(platform.cluster.kubeconfig.read_text())
    engine.up()
    live = {r["outputs"]["metadata"]["uid"] for r in engine.resources() if r["type"].startswith("kubernetes:")}
    assert live <= set(proxy.lost)
    assert platform.is_up("coder-chat")
    assert_converged(engine, platform)


def test_a_cluster_on_another_address_is_the_same_one_and_nothing_is_replaced(
    platform: Platform, deploys: Deploys, tmp_path: Path
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    before = {namespace: platform.uids(namespace, "pods,services,pvc") for namespace in NAMESPACES}
    with lossy_proxy(platform.cluster, tmp_path / "proxy") as proxy:
        proxy.losing = False
        engine.configure(kubeconfig=proxy.kubeconfig)
        engine.up()
        assert {namespace: platform.uids(namespace, "pods,services,pvc") for namespace in NAMESPACES} == before
        assert_converged(engine, platform)


def test_another_context_is_another_cluster_where_everything_is_made_and_the_old_data_stays(
    platform: Platform, deploys: Deploys, tmp_path: Path
) -> None:
    engine = deploys("local")
    engine.up("coder-chat:replicas=1")
    before = {namespace: platform.uids(namespace, "pvc") for namespace in NAMESPACES}
    with EmbeddedCluster.started(tmp_path / "other") as cluster:
        other = Platform(cluster)
        config = engine.folder / "kubeconfig"
        config.write_text(cluster.kubeconfig.read_text().replace(CONTEXT, "other"))
        engine.configure(kubeconfig=config, kubeContext="other")
        engine.up()
        assert other.is_up("coder-chat")
        assert_converged(engine, other)
        assert not platform.uids(SERVING, "deployment")
        assert {namespace: platform.uids(namespace, "pvc") for namespace in NAMESPACES} == before


# --- the end of `ai-dev` -------------------------------------------------------------------------------------


def test_a_destroy_keeps_the_protected_cluster_and_disk(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("ai-dev")
    engine.up()
    engine.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    left = engine.resources()
    assert names(left, "Cluster") == {"cluster"}
    assert names(left, "Disk") == {_PROTECTED_DISK}
    assert not names(left, "Deployment")
    assert not platform.uids(GATEWAY, "deployment")
    engine.up()
    assert_converged(engine, platform)


def test_a_cluster_without_protection_is_destroyed_and_the_disk_waits_for_the_next_one(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("ai-dev")
    engine.up()
    disk = next(r for r in engine.resources() if r["type"].endswith(":Disk"))
    engine.up("deletionProtection=false")
    engine.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    left = engine.resources()
    assert not names(left, "Cluster")
    assert next(r for r in left if r["type"].endswith(":Disk"))["id"] == disk["id"]
    # A new cluster has none of the old one's objects.
    for namespace in NAMESPACES:
        platform.cluster.kubectl("delete", "namespace", namespace, kubectl_timeout(60))
    platform.cluster.kubectl("delete", "pv", "--all", kubectl_timeout(60))
    engine.up()
    volume = json.loads(platform.cluster.kubectl("get", "pv", _PROTECTED_DISK, "-o", "json"))
    assert volume["spec"]["csi"]["volumeHandle"].endswith(f"/disks/{_PROTECTED_DISK}")
    assert volume["status"]["phase"] == "Bound"
    assert_converged(engine, platform)


def test_a_cluster_under_protection_survives_a_plain_destroy(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("ai-dev")
    engine.up()
    outcome = engine.run("destroy", "--yes", "--skip-preview", check=False)
    assert outcome.code != 0
    assert re.search(r"cluster.* cannot be deleted\s+because it is protected", outcome.text)
    assert names(engine.resources(), "Cluster") == {"cluster"}
    engine.up()
    assert_converged(engine, platform)
