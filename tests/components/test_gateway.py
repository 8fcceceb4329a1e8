"""The gateway: its rendered config, its order of start, its secrets, and its database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.gateway.config import gateway_config, model_entry, price_fields
from components.gateway.database import Database
from components.gateway.litellm_gateway import NEEDS, LiteLlmGateway, LiteLlmGatewayArgs
from components.gateway.reconcile_keys import ROUTES
from components.kubernetes.network_policies import app_peer
from components.serving.registration import registration
from models.facts import PerAudioSecond, PerQuery, PerToken
from models.gateway_database import (
    CLOUD_SQL_CONNECTIONS,
    IN_CLUSTER_CONNECTIONS,
    MAX_REPLICAS,
    most_connections,
    pool_size,
)
from models.tasks import TASKS, Task
from tests.catalog import CATALOG
from tests.support import (
    SERVED_ALIASES,
    Records,
    cluster_provider,
    env_of,
    place,
    recorded,
    recorded_alone,
)


def rendered(records: Records) -> dict[str, Any]:
    return yaml.safe_load(records.manifest("ConfigMap", "litellm-config", "gateway")["data"]["config.yaml"])


def migration(records: Records) -> Any:
    return next(r for r in records.all("Job") if r.name == "litellm-migrate")


# --- config ----------------------------------------------------------------------------------------------------


def test_the_model_list_is_the_catalog_s_enabled_models_in_its_order() -> None:
    assert [m["model_name"] for m in rendered(recorded())["model_list"]] == SERVED_ALIASES


@pytest.mark.parametrize("group", ["baseline", "coding-assistant", "retrieval"])
def test_an_alias_of_a_disabled_group_is_not_registered_and_nothing_of_it_exists(group: str) -> None:
    records = recorded(f"groups.{group}=false")
    off = {alias for alias in SERVED_ALIASES if CATALOG[alias].group == group}
    assert [m["model_name"] for m in rendered(records)["model_list"]] == [a for a in SERVED_ALIASES if a not in off]
    assert off
    assert not off & {r.inputs["metadata"]["name"] for r in records.kubernetes}


@pytest.mark.parametrize("alias", SERVED_ALIASES)
def test_a_registration_leads_to_the_model_s_service_under_the_engine_s_name(alias: str) -> None:
    spec = CATALOG[alias]
    entry = next(m for m in rendered(recorded())["model_list"] if m["model_name"] == alias)
    parameters = entry["litellm_params"]
    service = recorded().manifest("Service", alias)
    namespace, port = service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]
    assert parameters["api_base"] == f"http://{alias}.{namespace}.svc.cluster.local:{port}/v1"
    assert parameters["api_key"] == "os.environ/UPSTREAM_API_KEY"
    assert parameters["model"].split("/", 1)[1] == spec.served_name
    assert entry["model_info"]["max_input_tokens"] == spec.context


@pytest.mark.parametrize("alias", SERVED_ALIASES)
def test_prices_are_the_catalog_s_so_that_budgets_bind(alias: str) -> None:
    price = CATALOG[alias].price
    assert isinstance(price, PerToken)
    parameters = next(m for m in rendered(recorded())["model_list"] if m["model_name"] == alias)["litellm_params"]
    assert parameters["input_cost_per_token"] * 1e6 == pytest.approx(price.input_usd_per_mtok)
    assert parameters["output_cost_per_token"] * 1e6 == pytest.approx(price.output_usd_per_mtok)


def test_each_kind_of_price_has_its_own_fields() -> None:
    cached = PerToken(input_usd_per_mtok=1, output_usd_per_mtok=5, cached_input_usd_per_mtok=0.1)
    assert price_fields(cached)["cache_read_input_token_cost"] == pytest.approx(1e-7)
    assert price_fields(PerAudioSecond(usd_per_second=0.0001)) == {
        "input_cost_per_second": 0.0001,
        "output_cost_per_second": 0.0,
    }
    assert price_fields(PerQuery(usd_per_query=0.002)) == {"input_cost_per_query": 0.002}


@pytest.mark.parametrize(
    ("alias", "provider", "mode"),
    [
        ("coder-chat", "openai", "chat"),
        ("coder-agent", "openai", "chat"),
        ("coder-fim", "text-completion-openai", "completion"),
        ("embeddings", "openai", "embedding"),
    ],
)
def test_the_task_of_a_model_decides_its_route(alias: str, provider: str, mode: str) -> None:
    entry = model_entry(registration(CATALOG[alias], "serving"))
    assert entry["litellm_params"]["model"].startswith(f"{provider}/")
    assert entry["model_info"]["mode"] == mode


def test_only_an_agent_s_model_offers_tools() -> None:
    for alias in SERVED_ALIASES:
        info = model_entry(registration(CATALOG[alias], "serving"))["model_info"]
        assert info.get("supports_function_calling", False) == (CATALOG[alias].task is Task.AGENT)


def test_every_task_has_a_route() -> None:
    for task in Task:
        spec = CATALOG["coder-chat"].model_copy(update={"task": task})
        assert model_entry(registration(spec, "serving"))["model_info"]["mode"]


def test_a_tenant_s_key_reaches_every_route_of_every_task() -> None:
    for answers in TASKS.values():
        for route in (answers.route, *answers.also):
            assert {route, route.removeprefix("/v1")} <= set(ROUTES)


def test_the_config_names_secrets_and_holds_none() -> None:
    config = gateway_config([], pool=10, spend_log_days=30)
    general = config["general_settings"]
    assert general["store_model_in_db"] is True
    assert general["master_key"] == "os.environ/LITELLM_MASTER_KEY"
    assert general["database_url"] == "os.environ/DATABASE_URL"


@pytest.mark.parametrize("most", [IN_CLUSTER_CONNECTIONS, CLOUD_SQL_CONNECTIONS])
def test_every_number_of_replicas_that_config_takes_gets_a_pool(most: int) -> None:
    pools = {replicas: pool_size(most, replicas) for replicas in range(1, MAX_REPLICAS + 1)}
    assert all(2 <= pool <= 10 and most_connections(pool, number) <= most for number, pool in pools.items()), pools
    assert pools[1] == 10


@pytest.mark.parametrize("replicas", [1, MAX_REPLICAS])
@pytest.mark.parametrize("database", ["in-cluster", "cloud-sql"])
def test_what_replicas_and_jobs_may_hold_is_never_more_than_the_database_lets_in(database: str, replicas: int) -> None:
    records = recorded(f"gateway.replicas={replicas}", f"gateway.database={database}")
    pool = rendered(records)["general_settings"]["database_connection_pool_limit"]
    if database == "cloud-sql":
        flags = records.all("DatabaseInstance")[0].inputs["settings"]["databaseFlags"]
        given = {flag["name"]: int(flag["value"]) for flag in flags if flag["name"] == "max_connections"}
    else:
        _, setting = records.pod("litellm-db").containers[0]["args"]
        name, _, value = setting.partition("=")
        given = {name: int(value)}
    assert 2 <= pool <= 10
    assert most_connections(pool, replicas) <= given["max_connections"]


def test_a_pool_that_is_one_larger_would_not_fit_the_most_replicas() -> None:
    pool = pool_size(CLOUD_SQL_CONNECTIONS, MAX_REPLICAS)
    assert most_connections(pool + 1, MAX_REPLICAS) > CLOUD_SQL_CONNECTIONS


def test_the_log_of_calls_has_the_end_that_config_gives_it() -> None:
    general = rendered(recorded("gateway.spendLogDays=5"))["general_settings"]
    assert general["maximum_spend_logs_retention_period"] == "5d"
    assert rendered(recorded())["general_settings"]["maximum_spend_logs_retention_period"] == "30d"


# --- backup ------------------------------------------------------------------------------------------------------


def test_the_dumps_are_on_a_claim_of_their_own_that_outlives_the_stack() -> None:
    for stack in ("ai-dev", "local"):
        records = recorded("gateway.databaseGib=20", stack=stack)
        claim = records.one("PersistentVolumeClaim", "litellm-db-backups", "gateway")
        assert claim.retain_on_delete
        assert records.provider_of(claim) == "data"
        assert claim.inputs["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_it_is_dumped_every_night_and_restored_only_by_hand() -> None:
    records = recorded("gateway.backupsKept=14")
    nightly, way_back = (
        records.manifest("CronJob", name, "gateway") for name in ("litellm-db-backup", "litellm-db-restore")
    )
    assert (nightly["spec"]["suspend"], way_back["spec"]["suspend"]) == (False, True)
    assert nightly["spec"]["startingDeadlineSeconds"]
    assert way_back["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    for job, program in ((nightly, "back_up.sh"), (way_back, "restore.sh")):
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["command"][-1].rpartition("/")[2] == program
        assert env_of(container)["KEPT"] == "14"
        assert program in records.manifest("ConfigMap", "litellm-db-backup", "gateway")["data"]
    assert not [r for r in recorded("gateway.database=cloud-sql").all("CronJob") if "backup" in r.name]


# --- scaling a model does not touch the gateway ------------------------------------------------------------------


@pytest.mark.parametrize("alias", SERVED_ALIASES)
def test_a_model_scaled_up_or_down_does_not_roll_the_gateway(alias: str) -> None:
    before, after = recorded(), recorded(f"{alias}:replicas=1")
    assert after.manifest("Deployment", alias)["spec"]["replicas"] == 1
    assert after.manifest("Deployment", "litellm") == before.manifest("Deployment", "litellm")
    assert after.manifest("ConfigMap", "litellm-config") == before.manifest("ConfigMap", "litellm-config")


def test_another_config_is_another_pod_since_litellm_reads_it_at_start_only() -> None:
    template = recorded().manifest("Deployment", "litellm")["spec"]["template"]
    other = recorded("groups.retrieval=false").manifest("Deployment", "litellm")["spec"]["template"]
    assert template["metadata"]["annotations"] != other["metadata"]["annotations"]
    assert template["spec"] == other["spec"]


# --- start -------------------------------------------------------------------------------------------------------


def test_the_schema_is_migrated_before_the_proxy_rolls_and_after_the_database_is_up() -> None:
    records = recorded()
    job, proxy = migration(records), records.one("Deployment", "litellm")
    assert job.urn in proxy.dependencies
    assert records.waits_for(job, records.one("StatefulSet", "litellm-db"))
    assert records.waits_for(job, records.one("Secret", "litellm-database"))


def test_only_the_migration_touches_the_schema() -> None:
    records = recorded()
    job, proxy = (records.pod(name).containers[0] for name in ("litellm-migrate", "litellm"))
    assert env_of(job)["DISABLE_SCHEMA_UPDATE"] == "false"
    assert job["args"] == ["--skip_server_startup"]
    assert env_of(proxy)["DISABLE_SCHEMA_UPDATE"] == "true"


def gateway(image: str, replicas: int = 1, **state: object) -> Records:
    def program() -> LiteLlmGateway:
        args = LiteLlmGatewayArgs(
            place=place("gateway"),
            image=image,
            replicas=replicas,
            needs=NEEDS,
            models=[registration(CATALOG["coder-chat"], "serving")],
            serving_namespaces=("serving",),
            spend_log_days=30,
            database=Database(
                host="db.example", ssl_mode="require", max_connections=100, peer=app_peer("db"), secret="db", ready=()
            ),
            master_key="a",
            salt_key="b",
            upstream_api_key="c",
            model_state=state,
        )
        return LiteLlmGateway("gateway", args, opts=cluster_provider())

    return recorded_alone(program)


def test_no_idle_connection_is_kept_until_the_model_s_server_closes_it() -> None:
    """Else a request meets the close and is a 500: uvicorn, and so vLLM, closes what is idle for 5 s."""
    (proxy,) = recorded().pod("litellm").containers
    assert 0 < int(env_of(proxy)["AIOHTTP_KEEPALIVE_TIMEOUT"]) < 4


def test_another_image_is_another_migration_and_the_same_image_is_the_same() -> None:
    first, same, other = (migration(gateway(f"litellm:{tag}")).inputs["metadata"]["name"] for tag in ("1", "1", "2"))
    assert first == same != other
    assert len(other) <= 63


def test_a_job_that_failed_is_replaced_by_the_next_update() -> None:
    for job in recorded().all("Job"):
        assert job.inputs["metadata"]["annotations"]["pulumi.com/replaceUnready"] == "true"


def test_the_job_of_the_keys_has_every_file_that_its_program_needs(tmp_path: Path) -> None:
    for name, text in recorded().manifest("ConfigMap", "litellm-keys", "gateway")["data"].items():
        (tmp_path / name).write_text(text)
    program = recorded().pod("litellm-keys").spec["containers"][0]["command"][-1]
    done = subprocess.run(
        [sys.executable, "-P", tmp_path / Path(program).name],
        cwd="/",
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "not set in the environment: GATEWAY_URL" in done.stdout


def test_the_await_of_a_job_and_of_the_proxy_is_longer_than_their_own_deadline() -> None:
    records = recorded("gateway.replicas=2")
    job, proxy = migration(records), records.one("Deployment", "litellm")
    assert int(job.timeout.removesuffix("s")) > job.inputs["spec"]["activeDeadlineSeconds"]
    assert int(proxy.timeout.removesuffix("s")) > 2 * proxy.inputs["spec"]["progressDeadlineSeconds"]


def test_no_probe_kills_a_proxy_that_is_starting() -> None:
    """Measured: up to 26 s on two whole cores; the request is a quarter of one."""
    startup = recorded().pod("litellm").containers[0]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 26 * 2 / 0.25


def test_the_proxy_starts_with_its_database_and_stays_in_service_without_it() -> None:
    """Its own readiness fails while the database is away, and would take every replica out at once."""
    container = recorded().pod("litellm").containers[0]
    assert container["startupProbe"]["httpGet"]["path"] == "/health/readiness"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/liveliness"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/liveliness"


# --- replicas ----------------------------------------------------------------------------------------------------


def test_two_replicas_roll_without_a_gap_and_are_not_drained_together() -> None:
    records = recorded("gateway.replicas=2")
    spec = records.manifest("Deployment", "litellm")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = records.manifest("PodDisruptionBudget", "litellm", "gateway")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == spec["selector"]


def test_one_replica_can_be_drained() -> None:
    """A budget of one pod would block every upgrade of its node."""
    assert not recorded().all("PodDisruptionBudget")


# --- secrets and data ----------------------------------------------------------------------------------------------


def test_salt_and_database_password_outlive_the_stack_and_cannot_be_overwritten() -> None:
    records = recorded()
    for name in ("litellm-salt-key", "litellm-database"):
        secret = records.one("Secret", name, "gateway")
        assert secret.retain_on_delete, name
        assert secret.inputs["immutable"] is True, name
        assert records.provider_of(secret) == "data", name


def test_keys_that_may_be_rotated_can_be() -> None:
    records = recorded()
    for name, namespace in (
        ("litellm-master-key", "gateway"),
        ("vllm-api-key", "gateway"),
        ("vllm-api-key", "serving"),
    ):
        secret = records.one("Secret", name, namespace)
        assert not secret.inputs.get("immutable"), name
        assert records.provider_of(secret) == "workloads"


def test_the_database_s_claim_outlives_the_stack_on_any_target() -> None:
    for records in (recorded(), recorded(stack="local")):
        claim = records.one("PersistentVolumeClaim", "litellm-db-data", "gateway")
        assert claim.retain_on_delete
        assert records.provider_of(claim) == "data"
        assert claim.inputs["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_database_url_is_put_together_in_the_pod() -> None:
    for name in ("litellm", "litellm-migrate"):
        environment = env_of(recorded().pod(name).containers[0])
        assert environment["DATABASE_PASSWORD"] == {"secretKeyRef": {"name": "litellm-database", "key": "password"}}
        assert environment["DATABASE_URL"] == (
            "postgresql://litellm:$(DATABASE_PASSWORD)@litellm-db.gateway.svc.cluster.local:5432/litellm?sslmode=disable"
        )
        # The kubelet expands only what stands above.
        assert list(environment).index("DATABASE_PASSWORD") < list(environment).index("DATABASE_URL")


def test_a_managed_database_is_reached_with_tls() -> None:
    environment = env_of(gateway("litellm:1").pod("litellm").containers[0])
    assert environment["DATABASE_URL"].endswith("@db.example:5432/litellm?sslmode=require")


# --- PostgreSQL in the cluster ---------------------------------------------------------------------------------------


def test_postgres_keeps_its_data_below_the_mount_and_can_write_its_socket() -> None:
    pod = recorded().pod("litellm-db")
    container = pod.containers[0]
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    data = next(path for path, name in mounts.items() if name == "data")
    assert env_of(container)["PGDATA"].startswith(f"{data}/")  # a fresh disk has a lost+found there
    writable = {v["name"] for v in pod.spec["volumes"] if "emptyDir" in v}
    assert mounts["/var/run/postgresql"] in writable
    assert pod.spec["securityContext"]["runAsUser"] == pod.spec["securityContext"]["fsGroup"] == 999


def test_postgres_reads_its_password_from_a_file_that_its_group_may_read() -> None:
    pod = recorded().pod("litellm-db")
    path: str = env_of(pod.containers[0])["POSTGRES_PASSWORD_FILE"]
    mount = next(m for m in pod.containers[0]["volumeMounts"] if path.startswith(m["mountPath"]))
    volume = next(v for v in pod.spec["volumes"] if v["name"] == mount["name"])
    assert volume["secret"]["secretName"] == "litellm-database"
    assert volume["secret"]["defaultMode"] == 0o440
    assert path == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"


def test_postgres_is_pinned_to_a_major_version_and_is_one() -> None:
    records = recorded()
    assert records.pod("litellm-db").containers[0]["image"].rsplit("/", 1)[1].startswith("postgres:17.")
    assert records.manifest("StatefulSet", "litellm-db")["spec"]["replicas"] == 1


def test_postgres_is_not_taken_for_ready_while_it_initialises() -> None:
    """The server that initialises the data answers on its socket only."""
    container = recorded().pod("litellm-db").containers[0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = container[probe]["exec"]["command"]
        assert command[command.index("-h") + 1] == "127.0.0.1"
