"""What every served model wires, and what its engine adds: parametrised over the catalog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.serving.tei_embeddings import tei_arguments
from components.serving.vllm_model import vllm_arguments
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine
from models.spec import ModelSpec
from models.weights import Quantization, Weights
from tests.catalog import CATALOG, gated
from tests.support import (
    NAME_LABEL,
    SERVED_ALIASES,
    TEI_ALIASES,
    VLLM_ALIASES,
    Records,
    cold_start,
    config,
    env_of,
    machine_of,
    quantity,
    recorded,
    recorded_with_catalog,
)

every_model = pytest.mark.parametrize("alias", SERVED_ALIASES)
every_vllm = pytest.mark.parametrize("alias", VLLM_ALIASES)
every_tei = pytest.mark.parametrize("alias", TEI_ALIASES)

ALL_UP = (*(f"{alias}:replicas=1" for alias in SERVED_ALIASES), f"gpuQuota={len(SERVED_ALIASES)}")


def all_up() -> Records:
    return recorded(*ALL_UP)


def weights(alias: str) -> Weights:
    found = CATALOG[alias].weights
    assert found is not None
    return found


# --- names that others rely on ---------------------------------------------------------------------------------


@every_model
def test_the_names_of_the_model_contract_hold(alias: str) -> None:
    records = recorded()
    service = records.manifest("Service", alias, "serving")
    assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    assert service["spec"]["selector"] == {NAME_LABEL: alias}
    assert service["spec"]["type"] == "ClusterIP"
    deployment = records.manifest("Deployment", alias, "serving")
    assert deployment["spec"]["selector"]["matchLabels"] == {NAME_LABEL: alias}
    assert deployment["spec"]["template"]["metadata"]["labels"][NAME_LABEL] == alias
    ports = records.pod(alias).containers[-1]["ports"]
    assert [p["containerPort"] for p in ports if p["name"] == "http"] == [8000]
    volumes = {v["name"]: v for v in records.pod(alias).spec["volumes"]}
    assert volumes["model-cache"]["persistentVolumeClaim"]["claimName"] == f"{alias}-model-cache"
    assert records.one("PersistentVolumeClaim", f"{alias}-model-cache", "serving")


@every_model
def test_the_engine_gets_the_shared_key_by_environment_and_never_in_arguments(alias: str) -> None:
    engine = all_up().pod(alias).containers[-1]
    reference = {"secretKeyRef": {"name": "vllm-api-key", "key": "api-key"}}
    assert env_of(engine)["VLLM_API_KEY" if alias in VLLM_ALIASES else "API_KEY"] == reference
    assert not any("key" in argument for argument in [*engine["args"], *engine.get("command", [])])
    assert recorded().one("Secret", "vllm-api-key", "serving")


# --- replicas, rollout, deadlines ------------------------------------------------------------------------------


@every_model
def test_a_model_is_at_zero_until_config_brings_it_up(alias: str) -> None:
    assert recorded().manifest("Deployment", alias)["spec"]["replicas"] == 0
    assert all_up().manifest("Deployment", alias)["spec"]["replicas"] == 1


@every_model
def test_a_rollout_never_surges_a_second_pod(alias: str) -> None:
    assert recorded().manifest("Deployment", alias)["spec"]["strategy"] == {"type": "Recreate"}


@every_model
def test_no_probe_kills_a_pod_that_is_loading(alias: str) -> None:
    budget = cold_start(CATALOG[alias])
    engine = recorded().pod(alias).containers[-1]
    startup = engine["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= budget.load
    # Kubernetes runs no other probe before the first one has passed.
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["httpGet"] == {"path": "/health", "port": "http"}


@every_model
def test_deadlines_contain_each_other(alias: str) -> None:
    deployment = recorded().one("Deployment", alias)
    engine, stage = (recorded().pod(alias).containers[i] for i in (-1, 0))
    loading = engine["startupProbe"]["periodSeconds"] * engine["startupProbe"]["failureThreshold"]
    staging = int(env_of(stage)["STAGE_DEADLINE_S"])
    deadline = deployment.inputs["spec"]["progressDeadlineSeconds"]
    period = engine["startupProbe"]["periodSeconds"]
    assert deadline > staging + loading - period
    assert int(deployment.timeout.removesuffix("s")) > deadline


@every_model
@pytest.mark.parametrize(("kind", "up"), [("Deployment", True), ("Deployment", False), ("Service", False)])
def test_a_model_that_comes_up_is_waited_for_and_one_at_zero_is_not(alias: str, kind: str, up: bool) -> None:
    metadata = (all_up() if up else recorded()).manifest(kind, alias)["metadata"]
    assert (metadata.get("annotations", {}).get("pulumi.com/skipAwait") == "true") is not up


@pytest.mark.parametrize("rising", VLLM_ALIASES)
def test_a_model_going_up_waits_for_every_gpu_model_at_zero_and_for_none_going_up(rising: str) -> None:
    records = recorded(f"{rising}:replicas=1")
    deployments = {alias: records.one("Deployment", alias) for alias in VLLM_ALIASES}
    for alias, deployment in deployments.items():
        if alias != rising:
            assert deployment.urn in deployments[rising].dependencies
            assert not records.waits_for(deployment, deployments[rising])


def test_two_models_going_up_do_not_wait_for_each_other() -> None:
    records = all_up()
    for alias in VLLM_ALIASES:
        others = [records.one("Deployment", other).urn for other in VLLM_ALIASES if other != alias]
        assert not set(others) & set(records.one("Deployment", alias).dependencies)


@every_tei
def test_a_cpu_model_waits_for_no_gpu_model(alias: str) -> None:
    deployment = recorded(f"{alias}:replicas=1").one("Deployment", alias)
    assert [r.split("::")[-1] for r in deployment.dependencies] == [f"{alias}-model-cache"]


# --- weights ---------------------------------------------------------------------------------------------------


@every_model
def test_a_claim_is_read_write_once_and_sized_from_the_weights(alias: str) -> None:
    claim = recorded().manifest("PersistentVolumeClaim", f"{alias}-model-cache")["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    size = quantity(claim["resources"]["requests"]["storage"])
    assert size == CATALOG[alias].engine.claim_gib(CATALOG[alias]) * 2**30
    assert size > weights(alias).bytes_on_disk


def test_a_claim_may_be_larger_by_config() -> None:
    claim = recorded("coder-chat:claimGib=64").manifest("PersistentVolumeClaim", "coder-chat-model-cache")
    assert claim["spec"]["resources"]["requests"]["storage"] == "64Gi"


@every_model
def test_a_claim_outlives_the_stack_unless_config_says_otherwise(alias: str) -> None:
    kept = recorded().one("PersistentVolumeClaim", f"{alias}-model-cache")
    assert kept.retain_on_delete
    assert recorded().provider_of(kept) == "data"
    assert not recorded("retainWeights=false").one("PersistentVolumeClaim", f"{alias}-model-cache").retain_on_delete


@every_model
def test_nobody_waits_for_the_claim_of_a_model_at_zero(alias: str) -> None:
    claim = recorded().manifest("PersistentVolumeClaim", f"{alias}-model-cache")
    assert claim["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"


@every_model
def test_exactly_the_pinned_revision_is_staged(alias: str) -> None:
    stage = recorded().pod(alias).spec["initContainers"][0]
    found, environment = weights(alias), env_of(stage)
    assert environment["MODEL_ID"] == CATALOG[alias].model_id
    assert environment.get("MODEL_REVISION") == found.revision
    assert tuple(json.loads(environment["MODEL_FILES"])) == found.files
    assert int(environment["MODEL_BYTES"]) == found.bytes_on_disk
    for timeout in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        assert int(environment[timeout]) > 10  # the hub library's own, too short


@every_model
def test_the_program_that_stages_is_the_one_in_the_repository(alias: str) -> None:
    from tests.checkout import CHECKOUT

    pod = recorded().pod(alias)
    command: list[str] = pod.spec["initContainers"][0]["command"]
    volumes = {v["name"]: v for v in pod.spec["volumes"]}
    program = recorded().manifest("ConfigMap", volumes["stage"]["configMap"]["name"], "serving")["data"]
    directory, name = command[1].rsplit("/", 1)
    mounts = {m["mountPath"]: m for m in pod.spec["initContainers"][0]["volumeMounts"]}
    assert mounts[directory]["name"] == "stage"
    assert program[name] == (CHECKOUT / "components" / "serving" / name).read_text()


@every_model
def test_the_program_that_stages_runs_from_what_is_mounted_and_the_standard_library(alias: str, tmp_path: Path) -> None:
    stage = recorded().pod(alias).spec["initContainers"][0]
    for name, text in recorded().manifest("ConfigMap", "stage-weights", "serving")["data"].items():
        (tmp_path / name).write_text(text)
    # -S: without the packages of this environment; -P is not set, so it finds what lies beside it, as in the pod.
    command = [sys.executable, "-S", str(tmp_path / stage["command"][1].rsplit("/", 1)[1])]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "the environment says no job (KeyError: 'MODEL_ALIAS')" in done.stdout


@every_model
def test_every_container_of_a_model_has_a_user_with_a_name_and_a_home_that_it_can_write(alias: str) -> None:
    """A uid that the image's passwd does not list crashes vLLM, torch and FlashInfer otherwise."""
    for container in recorded().pod(alias).containers:
        environment = env_of(container)
        assert environment["USER"]
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert {environment["HOME"], "/tmp"} <= writable  # noqa: S108


@every_model
def test_staging_writes_where_the_engine_reads(alias: str) -> None:
    pod = recorded().pod(alias)
    stage, engine = pod.containers[0], pod.containers[-1]
    whole = next(m for m in stage["volumeMounts"] if m["name"] == "model-cache")
    part = next(m for m in engine["volumeMounts"] if m.get("subPath") == "hub")
    assert env_of(stage)["HF_HUB_CACHE"] == f"{whole['mountPath']}/hub" == part["mountPath"]
    assert part["readOnly"] is True
    assert not whole.get("readOnly")


@pytest.mark.parametrize("alias", ["coder-chat", "embeddings"])
def test_a_gated_model_is_staged_with_the_token_and_no_other_is(alias: str) -> None:
    records = recorded_with_catalog(config(), {**CATALOG, alias: gated(CATALOG[alias])})
    reference = {"secretKeyRef": {"name": "hugging-face-token", "key": "token"}}
    for other in SERVED_ALIASES:
        token = env_of(records.pod(other).containers[0]).get("HF_TOKEN")
        assert token == (reference if other == alias else None)
        assert "HF_TOKEN" not in env_of(records.pod(other).containers[-1])
    assert records.one("Secret", "hugging-face-token", "serving")
    assert "hugging-face-token" not in [r.inputs["metadata"]["name"] for r in recorded().all("Secret")]


# --- vLLM ------------------------------------------------------------------------------------------------------


@every_vllm
def test_vllm_serves_the_staged_revision_offline_under_the_engine_s_name(alias: str) -> None:
    spec = CATALOG[alias]
    engine = recorded().pod(alias).containers[-1]
    arguments: list[str] = engine["args"]
    revision = weights(alias).revision
    assert f"--model={spec.model_id}" in arguments
    assert f"--served-model-name={spec.served_name}" in arguments
    assert spec.served_name != alias
    assert f"--max-model-len={spec.context}" in arguments
    # vLLM takes the tokenizer from the same revision.
    assert [a for a in arguments if "revision" in a] == ([f"--revision={revision}"] if revision else [])
    environment = env_of(engine)
    assert (environment["HF_HUB_OFFLINE"], environment["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def changed(**fields: object) -> ModelSpec:
    spec = CATALOG["coder-chat"]
    return spec.model_copy(update={"engine": spec.engine.model_copy(update=fields)})


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ({"prefix_caching": True}, "--enable-prefix-caching", "--no-enable-prefix-caching"),
        ({"prefix_caching": False}, "--no-enable-prefix-caching", "--enable-prefix-caching"),
        ({"eager": True}, "--enforce-eager", ""),
        ({"eager": False}, "--port=8000", "--enforce-eager"),
        ({"tool_call_parser": "hermes"}, "--enable-auto-tool-choice", ""),
        ({"tool_call_parser": None}, "--port=8000", "--enable-auto-tool-choice"),
        ({"chat_template": "a.jinja"}, "--chat-template=/opt/engine/a.jinja", "--tool-parser-plugin"),
        ({"tool_parser_plugin": "a.py"}, "--tool-parser-plugin=/opt/engine/a.py", "--chat-template"),
        ({"gpus": 2}, "--tensor-parallel-size=2", ""),
        ({"kernel": None}, "--dtype=float16", "--quantization"),
        ({"gpu_memory_utilization": 0.5}, "--gpu-memory-utilization=0.5", ""),
        ({"max_num_seqs": 7}, "--max-num-seqs=7", ""),
        ({"max_num_batched_tokens": 512}, "--max-num-batched-tokens=512", ""),
        ({"stream_interval": 8}, "--stream-interval=8", ""),
        ({"stream_interval": 1}, "--port=8000", "--stream-interval"),  # old releases do not know it
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype=fp8", ""),
        ({"kv_cache_dtype": "auto"}, "--port=8000", "--kv-cache-dtype"),
        ({"max_loras": 2}, "--enable-lora", ""),
        ({"max_loras": 2}, "--max-loras=2", ""),
        ({"max_loras": 2, "max_lora_rank": 64}, "--max-lora-rank=64", ""),
        ({"max_loras": 0}, "--port=8000", "--enable-lora"),
        (
            {"speculative_method": "ngram", "speculative_tokens": 3},
            '--speculative-config={"method": "ngram", "num_speculative_tokens": 3}',
            "",
        ),
        ({"speculative_method": None}, "--port=8000", "--speculative-config"),
    ],
)
def test_each_field_of_the_engine_shows_in_its_arguments(fields: dict[str, object], present: str, absent: str) -> None:
    arguments = vllm_arguments(changed(**fields))
    assert present in arguments
    assert not absent or not any(a.split("=")[0] == absent for a in arguments)


@every_vllm
def test_quantised_weights_get_their_kernel_and_only_they(alias: str) -> None:
    quantised = weights(alias).quantization is not Quantization.NONE
    assert any(a.startswith("--quantization=") for a in vllm_arguments(CATALOG[alias])) == quantised


@every_vllm
def test_a_gpu_pod_goes_to_the_pool_that_it_was_proven_on(alias: str) -> None:
    records = recorded("machineType=g2-standard-12")
    spec = records.pod(alias).spec
    assert spec["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "node.kubernetes.io/instance-type": "g2-standard-12",
    }
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@every_vllm
def test_a_gpu_is_asked_of_the_engine_alone(alias: str) -> None:
    stage, engine = recorded().pod(alias).containers
    for part in ("requests", "limits"):
        assert engine["resources"][part]["nvidia.com/gpu"] == "1"
        assert "nvidia.com/gpu" not in stage["resources"][part]


@every_vllm
def test_shared_memory_is_in_memory_and_counts_in_the_limit(alias: str) -> None:
    pod = recorded().pod(alias)
    engine = pod.containers[-1]
    mounted = next(m for m in engine["volumeMounts"] if m["name"] == "shm")
    volume = next(v["emptyDir"] for v in pod.spec["volumes"] if v["name"] == mounted["name"])
    assert mounted["mountPath"] == "/dev/shm"  # noqa: S108
    assert volume["medium"] == "Memory"
    assert 0 < quantity(volume["sizeLimit"]) < quantity(engine["resources"]["limits"]["memory"])


@every_vllm
def test_vllm_can_write_its_home_and_its_compile_cache(alias: str) -> None:
    engine_spec = CATALOG[alias].engine
    assert isinstance(engine_spec, VllmEngine)
    engine = recorded().pod(alias).containers[-1]
    writable = {m["mountPath"]: m for m in engine["volumeMounts"] if not m.get("readOnly")}
    assert {engine_spec.image.home, "/tmp", "/dev/shm"} <= set(writable)  # noqa: S108
    cache = env_of(engine)["VLLM_CACHE_ROOT"]
    assert writable[cache]["name"] == "model-cache"  # kept, so that the second start compiles nothing


@every_vllm
def test_nothing_overrides_the_library_path_of_the_image(alias: str) -> None:
    assert "LD_LIBRARY_PATH" not in env_of(recorded().pod(alias).containers[-1])


@every_model
def test_requests_fit_what_the_machine_leaves_for_pods(alias: str) -> None:
    records = all_up()
    requests = [c["resources"]["requests"] for c in records.pod(alias).containers]
    cpu, memory = (max(quantity(r[name]) for r in requests) for name in ("cpu", "memory"))
    if alias in VLLM_ALIASES:
        machine = machine_of(records)
    else:
        from models.machines import SYSTEM_MACHINES

        pool = next(p for p in records.all("NodePool") if "autoscaling" not in p.inputs)
        machine = SYSTEM_MACHINES[pool.inputs["nodeConfig"]["machineType"]]
    assert cpu <= machine.pod_cpu < machine.allocatable_cpu
    assert memory / 2**30 <= machine.pod_gib < machine.allocatable_gib


# --- TEI -------------------------------------------------------------------------------------------------------


@every_tei
def test_tei_serves_a_local_directory_so_that_no_reference_is_looked_up(alias: str) -> None:
    pod = recorded().pod(alias)
    argument = next(a for a in pod.containers[-1]["args"] if a.startswith("--model-id="))
    mounted = next(m["mountPath"] for m in pod.containers[-1]["volumeMounts"] if m.get("subPath") == "hub")
    assert argument == f"--model-id={mounted}/served"


@every_tei
def test_batch_and_truncation_limits_of_tei_come_from_the_catalog(alias: str) -> None:
    spec = CATALOG[alias]
    assert isinstance(spec.engine, TeiEngine)
    assert {
        f"--max-batch-tokens={spec.engine.max_batch_tokens}",
        f"--max-client-batch-size={spec.engine.max_client_batch_size}",
        f"--max-concurrent-requests={spec.engine.max_concurrent_requests}",
        f"--auto-truncate={str(spec.engine.auto_truncate).lower()}",
        f"--pooling={spec.engine.pooling}",
        f"--served-model-name={spec.served_name}",
        "--port=8000",
        "--hostname=0.0.0.0",
    } <= set(tei_arguments(spec))


@every_tei
def test_a_larger_batch_asks_for_more_memory(alias: str) -> None:
    def memory(*assignments: str) -> float:
        return quantity(recorded(*assignments).pod(alias).containers[-1]["resources"]["limits"]["memory"])

    assert memory(f"{alias}:maxBatchTokens=8192") > memory()


@every_tei
def test_tei_needs_no_gpu_node(alias: str) -> None:
    spec = recorded().pod(alias).spec
    assert "nodeSelector" not in spec
    assert "tolerations" not in spec


@every_tei
def test_tei_is_staged_by_an_image_that_has_python(alias: str) -> None:
    stage, engine = recorded().pod(alias).containers
    assert stage["command"][0] == "python3"
    assert stage["image"] != engine["image"]
    assert stage["image"] == recorded().pod("litellm").containers[0]["image"]  # on the node already


# --- overrides and mistakes ------------------------------------------------------------------------------------


def test_overrides_reach_the_command_line() -> None:
    records = recorded("coder-chat:maxModelLen=8192", "coder-chat:maxNumSeqs=16", "embeddings:maxClientBatchSize=8")
    arguments = records.pod("coder-chat").containers[-1]["args"]
    assert {"--max-model-len=8192", "--max-num-seqs=16"} <= set(arguments)
    assert "--max-client-batch-size=8" in records.pod("embeddings").containers[-1]["args"]


def test_an_entry_of_another_engine_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="embeddings runs on tei, not on vllm"):
        vllm_arguments(CATALOG["embeddings"])
    with pytest.raises(TypeError, match="coder-chat runs on vllm, not on tei"):
        tei_arguments(CATALOG["coder-chat"])
