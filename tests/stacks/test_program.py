"""The program as a whole: providers, names, secrets, data that stays, and a catalog entry that brings all of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
import yaml
from google.protobuf import json_format

from components.gke.answers import PREREQUISITES
from components.kubernetes.secrets import READS
from components.serving.engines import COMPONENTS
from models.catalog import Group
from models.engines import ENGINES
from models.facts import Evidence, Licence, PerToken, Source
from models.spec import ModelSpec
from ops import engine
from ops.manifests import manifests, pod_template
from ops.up.by_kubectl import reads
from ops.up.secrets import rehearse
from stacks.admission import admit
from stacks.ownership import MARK
from stacks.secrets import SECRETS
from tests.catalog import CATALOG, GROUPS, gated
from tests.checkout import CHECKOUT
from tests.support import (
    NAME_LABEL,
    PROJECT_DIR,
    SERVED_ALIASES,
    Records,
    config,
    object_name,
    recorded,
    recorded_with_catalog,
    strings,
)

UP = ("coder-chat:replicas=1", "embeddings:replicas=1", "gateway.replicas=2")
EVERY_SHAPE = [(), UP, ("gateway.database=cloud-sql",), ("gpuQuota=0",), ("retainWeights=false",)]
CLUSTER_SCOPED = {"Namespace", "PersistentVolume"}

in_every_shape = pytest.mark.parametrize("assignments", EVERY_SHAPE, ids=lambda a: " ".join(a) or "as committed")
on_every_stack = pytest.mark.parametrize("stack", ["ai-dev", "local"])


# --- nothing is left to an engine to make up -------------------------------------------------------------------


@in_every_shape
def test_every_kubernetes_object_has_name_namespace_and_provider(assignments: tuple[str, ...]) -> None:
    records = recorded(*assignments)
    assert records.kubernetes
    for resource in records.kubernetes:
        metadata = resource.inputs["metadata"]
        assert metadata["name"]
        assert ("namespace" in metadata) != (resource.short_type in CLUSTER_SCOPED), resource.name
        assert records.provider_of(resource) in ("data", "workloads"), resource.name
        assert "generateName" not in metadata


@in_every_shape
def test_every_cloud_object_has_an_explicit_provider_of_the_stack_s_project(assignments: tuple[str, ...]) -> None:
    records = recorded(*assignments)
    for resource in records.resources:
        if resource.type.startswith("gcp:"):
            assert records.provider_of(resource) == "gcp", resource.name
    provider = next(r for r in records.resources if r.type == "pulumi:providers:gcp")
    assert provider.inputs["project"] == config().values["gcp:project"]


@on_every_stack
def test_objects_of_one_kind_have_names_of_their_own(stack: str) -> None:
    records = recorded(stack=stack)
    names = [
        (r.type, r.inputs.get("metadata", {}).get("namespace"), object_name(r)) for r in records.resources if r.custom
    ]
    assert len(names) == len(set(names))


def test_the_program_asks_nothing_of_a_provider() -> None:
    """The recording monitor refuses every invoke and call, and a run succeeds."""
    with pytest.raises(NotImplementedError, match="cannot answer calls"):
        engine._NoMocks().call(cast("Any", type("Args", (), {"token": "t"})))  # pyright: ignore[reportPrivateUsage]
    assert recorded().resources


@on_every_stack
def test_data_and_workloads_go_through_two_providers_of_one_fixed_cluster(stack: str) -> None:
    records = recorded(stack=stack)
    data, workloads = (
        next(r.inputs for r in records.resources if r.type == "pulumi:providers:kubernetes" and r.name == name)
        for name in ("data", "workloads")
    )
    flags = ("enablePatchForce", "enableConfigMapMutable", "enableSecretMutable")
    for flag in flags:
        assert flag not in data
        assert workloads[flag] == "true"
    assert data["upsertExistingObjects"] == workloads["upsertExistingObjects"] == "true"
    assert data["clusterIdentifier"] == workloads["clusterIdentifier"]
    assert "[unknown]" not in data["clusterIdentifier"]  # a changed endpoint replaces nothing
    assert data["kubeconfig"] == workloads["kubeconfig"]


def test_the_local_stack_never_uses_the_current_context() -> None:
    records = recorded(stack="local")
    for provider in (r for r in records.resources if r.type == "pulumi:providers:kubernetes"):
        assert provider.inputs["context"] == "ai-platform-embedded"
        assert provider.inputs["kubeconfig"].endswith("kubeconfig")
    assert not [r.name for r in records.resources if r.type.startswith("gcp:")]


# --- order -----------------------------------------------------------------------------------------------------


def test_objects_wait_for_their_namespace_and_namespaces_for_nodes() -> None:
    records = recorded()
    namespaces = {r.inputs["metadata"]["name"]: r for r in records.all("Namespace")}
    assert set(namespaces) == {"serving", "gateway"}
    for resource in records.kubernetes:
        if namespace := resource.inputs["metadata"].get("namespace"):
            assert records.waits_for(resource, namespaces[namespace]), resource.name
    for pool in records.all("NodePool"):
        assert all(records.waits_for(namespace, pool) for namespace in namespaces.values())


@on_every_stack
def test_another_namespace_is_another_one_everywhere_and_nothing_else_changes(stack: str) -> None:
    """Policies, addresses, claims, outputs, commands: who reads the plan with the names back in place sees the same."""
    named = recorded("namespaces.gateway=team-gw", "namespaces.models=team-ml", stack=stack)
    text = json.dumps([[r.type, r.inputs] for r in named.resources] + [named.outputs], sort_keys=True)
    assert not re.search(r"gateway\.svc|serving\.svc|-n (gateway|serving)", text)
    plain = recorded(stack=stack)
    assert {r.inputs["metadata"].get("namespace") for r in named.kubernetes} == {"team-gw", "team-ml", None}
    before = {r.inputs["metadata"].get("namespace"): r for r in plain.kubernetes}
    assert before.keys() == {"gateway", "serving", None}
    back = {"team-gw": "gateway", "team-ml": "serving"}
    # The gateway's pods start anew with another configuration: its digest is in their annotations.
    digest = re.compile(r'"ai-platform/config": "[0-9a-f]+"')

    def told(records: Records) -> list[str]:
        lines = [json.dumps(r.inputs, sort_keys=True) for r in records.kubernetes]
        return sorted(digest.sub("", re.sub("team-gw|team-ml", lambda m: back[m[0]], line)) for line in lines)

    assert told(named) == told(plain)
    assert named.outputs["gatewayUrl"] == "http://litellm.team-gw.svc.cluster.local:4000/v1"
    assert str(named.outputs["gatewayForward"]).startswith("kubectl -n team-gw port-forward ")
    urns = {r.urn for r in named.resources if r.short_type == "Namespace"}
    assert urns == {r.urn for r in plain.resources if r.short_type == "Namespace"}


@on_every_stack
def test_every_object_carries_the_mark_of_project_and_stack(stack: str) -> None:
    records = recorded(stack=stack)
    assert records.kubernetes
    for resource in records.kubernetes:
        assert resource.inputs["metadata"]["annotations"][MARK] == f"ai-platform/{stack}", resource.name
        template = pod_template(resource.inputs) or {"metadata": {}}  # or a renamed stack would restart its models
        assert MARK not in template["metadata"].get("annotations", {})


def test_a_plan_that_adopts_says_so_until_it_is_taken_back() -> None:
    notices = admit(config("adopt=true", stack="local"), rehearsal=True).notices
    (notice,) = (n for n in notices if "adopt is true" in n.message)
    assert (notice.remedy or "").startswith("pulumi config rm ai-platform:adopt")
    assert not [n for n in admit(config(stack="local"), rehearsal=True).notices if "adopt" in n.message]


# --- what stays ------------------------------------------------------------------------------------------------


@on_every_stack
def test_a_destroy_takes_neither_namespaces_nor_claims_nor_what_reads_the_database(stack: str) -> None:
    records = recorded(stack=stack)
    kept = {(r.short_type, object_name(r)) for r in records.resources if r.retain_on_delete}
    assert kept >= {
        *(("PersistentVolumeClaim", f"{alias}-model-cache") for alias in SERVED_ALIASES),
        *{("Namespace", "serving"), ("Namespace", "gateway"), ("PersistentVolumeClaim", "litellm-db-data")},
        *{("Secret", "litellm-database"), ("Secret", "litellm-salt-key")},
        ("PersistentVolumeClaim", "litellm-db-backups"),
    }
    for resource in records.resources:
        if resource.retain_on_delete:
            assert records.provider_of(resource) == "data", resource.name


def test_what_is_kept_is_adopted_and_never_imported() -> None:
    """`import` of a claim plans a replacement: the engine's upsert adopts it instead."""
    source = "".join(p.read_text() for room in ("components", "stacks") for p in (CHECKOUT / room).rglob("*.py"))
    assert "import_=" not in source


def test_both_namespaces_enforce_pod_security_restricted_and_say_why() -> None:
    for namespace in recorded().all("Namespace"):
        metadata = namespace.inputs["metadata"]
        for mode in ("enforce", "audit", "warn"):
            assert metadata["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert metadata["annotations"]["ai-platform/pod-security"].startswith("restricted, since ")


# --- secrets ---------------------------------------------------------------------------------------------------

KEY_CANARY = "sk-canary-of-an-editor-0123456789"


def _canary(key: str) -> str:
    return f"{SECRETS[key].prefix}canary-{key}-0123456789"


class _Wire(engine.RecordingMonitor):
    """Keeps what goes over the wire, wrappers and all."""

    seen: list[tuple[Any, Any]] = []  # noqa: RUF012  one per test

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        _Wire.seen.append((request, json_format.MessageToDict(request.object)))
        return super().RegisterResource(request)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Registrations of a run in which every secret has a value of its own."""
    return _registrations(monkeypatch, {"editor": KEY_CANARY, "smoke": KEY_CANARY})


def _registrations(
    monkeypatch: pytest.MonkeyPatch, key_values: Mapping[str, str], *sets: str, **others: str
) -> list[tuple[Any, Any]]:
    real = engine.engine_config

    def with_canaries(raw: Any) -> tuple[dict[str, str], list[str]]:
        values, keys = real(raw)
        editors = json.dumps(key_values)
        secrets = {**{key: _canary(key) for key in SECRETS}, "keyValues": editors, **others}
        secret = {f"{raw.project}:{key}": value for key, value in secrets.items()}
        return {**values, **secret}, sorted({*keys, *secret})

    monkeypatch.setattr(engine, "engine_config", with_canaries)
    monkeypatch.setattr(engine, "RecordingMonitor", _Wire)
    _Wire.seen.clear()
    recorded_with_catalog(config("images.login=true", *sets), {**CATALOG, "coder-chat": gated(CATALOG["coder-chat"])})
    return list(_Wire.seen)


def _clear(value: Any) -> Iterator[str]:
    """Texts outside of secret wrappers."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        if "1b47061264138c4ac30d75fd1eb44270" in mapping.values():  # the signature of a secret on Pulumi's wire
            return
        for inner in mapping.values():
            yield from _clear(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _clear(inner)
    elif isinstance(value, str):
        yield value


def test_no_secret_leaves_the_program_outside_of_a_secret_wrapper(wire: list[tuple[Any, Any]]) -> None:
    values = [*(_canary(key) for key in SECRETS), KEY_CANARY]
    forms = {form for v in values for form in (v, base64.b64encode(v.encode()).decode())}
    everything = " ".join(text for _, inputs in wire for text in strings(inputs))
    for value in values:
        assert base64.b64encode(value.encode()).decode() in everything  # it does arrive, wrapped
    for request, inputs in wire:
        for text in _clear(inputs):
            assert not any(form in text for form in forms), request.name


@pytest.mark.parametrize(
    ("name", "key", "secret"),
    [
        ("gateway-litellm-master-key", "key", "litellmMasterKey"),
        ("gateway-litellm-salt-key", "key", "litellmSaltKey"),
        ("gateway-litellm-database", "password", "databasePassword"),
        ("gateway-vllm-api-key", "api-key", "servingApiKey"),
        ("serving-vllm-api-key", "api-key", "servingApiKey"),
        ("serving-hugging-face-token", "token", "huggingFaceToken"),
        ("serving-registry-login", ".dockerconfigjson", "registryLogin"),
        ("gateway-registry-login", ".dockerconfigjson", "registryLogin"),
    ],
)
def test_every_secret_holds_its_own_value(wire: list[tuple[Any, Any]], name: str, key: str, secret: str) -> None:
    inputs = next(inputs for request, inputs in wire if request.name == name)
    data = inputs["data"].get("value", inputs["data"])
    value = data[key]["value"] if isinstance(data[key], dict) else data[key]
    assert base64.b64decode(value).decode() == _canary(secret)


def _fingerprints(registrations: list[tuple[Any, Any]]) -> dict[str, str]:
    """What each workload was told of the secrets that its pods read."""
    found: dict[str, str] = {}
    for request, inputs in registrations:
        if template := pod_template(inputs):
            wrapped = template["metadata"].get("annotations", {}).get(READS)
            if wrapped:
                found[f"{request.type.rpartition(':')[2]} {request.name}"] = wrapped["value"]
    return found


_KEYS = {"Job litellm-keys", "CronJob litellm-keys"}
_MODELS = {f"Deployment {alias}" for alias in SERVED_ALIASES}


@pytest.mark.parametrize(
    ("key", "restarted"),
    [
        ("litellmMasterKey", {"Deployment litellm", *_KEYS}),
        ("servingApiKey", {"Deployment litellm", *_MODELS}),
        ("huggingFaceToken", set[str]()),
        ("keyValues", _KEYS),
    ],
)
def test_another_value_of_a_secret_restarts_what_reads_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, key: str, restarted: set[str]
) -> None:
    def run(**others: str) -> dict[str, str]:
        with monkeypatch.context() as patch:
            return _fingerprints(_registrations(patch, {"editor": KEY_CANARY, "smoke": KEY_CANARY}, **others))

    before = run()
    assert run() == before
    value = json.dumps({"editor": KEY_CANARY + "0", "smoke": KEY_CANARY}) if key == "keyValues" else _canary(key) + "0"
    after = run(**{key: value})
    assert {name for name in after if after[name] != before[name]} == restarted


@pytest.mark.parametrize(("database", "restarted"), [("in-cluster", set[str]()), ("cloud-sql", {"Deployment litellm"})])
def test_another_password_restarts_the_proxy_where_the_database_takes_it(
    monkeypatch: pytest.MonkeyPatch, database: str, restarted: set[str]
) -> None:
    def run(password: str) -> dict[str, str]:
        with monkeypatch.context() as patch:
            sets, keys = f"gateway.database={database}", {"editor": KEY_CANARY, "smoke": KEY_CANARY}
            return _fingerprints(_registrations(patch, keys, sets, databasePassword=password))

    before, after = run("one-password-of-a-database"), run("another-password-of-a-database")
    assert {name for name in after if after[name] != before[name]} == restarted


def test_without_pulumi_a_workload_is_told_the_same_of_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that another engine on the same cluster restarts nothing."""
    with monkeypatch.context() as patch:
        by_pulumi = _fingerprints(_registrations(patch, {"editor": KEY_CANARY, "smoke": KEY_CANARY}))
    raw = config("gcp:project=my-project-1")
    recording, secrets = rehearse(raw, admit(raw, rehearsal=True).plan, PROJECT_DIR)
    values = {
        key: KEY_CANARY if key.startswith("keyValues.") else _canary(key) for s in secrets for key in s.sources.values()
    }
    told = manifests(recording.resources, lambda manifest: reads(manifest, secrets, values))
    found = {
        f"{manifest['kind']} {manifest['metadata']['name']}": template["metadata"]["annotations"][READS]
        for manifest in told
        if (template := pod_template(manifest)) and READS in template["metadata"].get("annotations", {})
    }
    # A Job's name in the cluster has a digest.
    assert {re.sub(r"^(Job .*)-[0-9a-f]{10}$", r"\1", name): mark for name, mark in found.items()} == by_pulumi


def test_a_recording_shows_no_secret() -> None:
    for secret in recorded().all("Secret"):
        assert secret.inputs["data"] == "[secret]"
    texts = list(strings([recorded().outputs, *(r.inputs for r in recorded().resources)]))
    assert not [t for t in texts if "placeholder" in t and t != config().values["gcp:project"]]


# --- outputs, and refusals -------------------------------------------------------------------------------------


def test_the_stack_says_where_the_gateway_is_and_what_runs() -> None:
    outputs = recorded(*UP).outputs
    assert outputs["gatewayUrl"] == "http://litellm.gateway.svc.cluster.local:4000/v1"
    assert outputs["models"] == SERVED_ALIASES
    assert outputs["modelsUp"] == ["coder-chat", "embeddings"]
    assert "--dns-endpoint" in outputs["kubectlLogin"]


def test_a_refused_config_registers_nothing_and_exits_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("pulumi.log.error", said.append)
    monkeypatch.setattr(engine, "RecordingMonitor", _Wire)
    _Wire.seen.clear()
    with pytest.raises(SystemExit) as end:
        engine.run_main(config("coder-chatt:replicas=1", "gpuQuota=-1"), PROJECT_DIR)
    assert end.value.code == 1
    assert len(said) == 2  # one line of the engine's log a problem
    assert {request.type for request, _ in _Wire.seen} <= {"pulumi:pulumi:Stack"}
    assert "Traceback" not in capsys.readouterr().err


# --- one entry is all a model needs ----------------------------------------------------------------------------


def entry(alias: str, like: str) -> ModelSpec:
    """A model that nobody wrote code for."""
    source = Source(facts="all", where="a test", evidence=Evidence.MEMORY)
    return CATALOG[like].model_copy(
        update={
            "alias": alias,
            "group": "new-group",
            "model_id": f"org/{alias}",
            "served_name": f"{alias}-engine",
            "price": PerToken(input_usd_per_mtok=3, output_usd_per_mtok=7),
            "licence": Licence(name="MIT", commercial_use=True, source=source),
            "sources": (source,),
        }
    )


@pytest.mark.parametrize("like", ["coder-chat", "embeddings"])
def test_a_new_catalog_entry_deploys_everything_without_another_line_of_code(like: str) -> None:
    catalog = {**CATALOG, "newcomer": entry("newcomer", like)}
    groups = {**GROUPS, "new-group": Group(summary="new")}
    raw = config("groups.new-group=true", "newcomer:replicas=1")
    records = recorded_with_catalog(raw, catalog, groups)
    before = {r.urn for r in recorded().resources}
    added = [r for r in records.resources if r.urn not in before]
    component = next(r for r in added if not r.custom)
    assert (component.name, component.type) == ("newcomer", _component_of(like))
    assert sorted(r.short_type for r in added if r.custom) == [
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Service",
    ]
    assert {r.parent for r in added if r.custom} == {component.urn}
    config_map = records.manifest("ConfigMap", "litellm-config")["data"]["config.yaml"]
    registered = yaml.safe_load(config_map)["model_list"][-1]
    assert registered["model_name"] == "newcomer"
    assert registered["litellm_params"]["model"] == "openai/newcomer-engine"
    assert registered["litellm_params"]["input_cost_per_token"] == pytest.approx(3e-6)
    assert records.pod("newcomer").labels[NAME_LABEL] == "newcomer"


def _component_of(alias: str) -> str:
    records = recorded()
    return next(r.type for r in records.resources if r.name == alias and not r.custom)


def test_every_engine_that_runs_here_has_a_component() -> None:
    assert {engine for engine in ENGINES if engine.runs_here} == set(COMPONENTS)


def test_the_order_of_the_catalog_is_the_order_of_the_gateway_whatever_is_up() -> None:
    def order(records: Records) -> list[str]:
        rendered = yaml.safe_load(records.manifest("ConfigMap", "litellm-config")["data"]["config.yaml"])
        return [m["model_name"] for m in rendered["model_list"]]

    assert order(recorded()) == order(recorded("qwen-local:replicas=1")) == SERVED_ALIASES


def test_the_api_that_is_asked_about_all_others_comes_first_and_the_readme_enables_it() -> None:
    services = {
        service.name: service
        for service in recorded("gateway.database=cloud-sql").all("Service")
        if service.type.startswith("gcp:")
    }
    first = services.pop(PREREQUISITES[0])
    assert not first.dependencies
    assert all(first.urn in service.dependencies for service in services.values())
    (command,) = re.findall(r"gcloud services enable (.*)", (CHECKOUT / "README.md").read_text())
    enabled = {api.removesuffix(".googleapis.com") for api in command.split()}
    assert enabled == {*PREREQUISITES, "compute"}  # which the provider asks for its regions before all else
