"""Each component on its own: typed arguments in, its own parts and typed outputs out."""

from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping

import pulumi
import pulumi_gcp as gcp
import pytest

import components
from components.gateway.backup import DatabaseBackup, DatabaseBackupArgs
from components.gateway.database import Database
from components.gateway.keys import GatewayKeys, GatewayKeysArgs
from components.gateway.litellm_gateway import NEEDS, LiteLlmGateway, LiteLlmGatewayArgs
from components.gateway.postgres import Postgres, PostgresArgs
from components.gke.cloud_sql import CloudSql, CloudSqlArgs
from components.gke.cluster import GkeCluster, GkeClusterArgs
from components.gke.data_place import DataPlace, DataPlaceArgs
from components.gke.image_mirror import ImageMirror, ImageMirrorArgs
from components.gke.l4_node_pool import GkeL4NodePool, GkeL4NodePoolArgs
from components.gke.network import GkeNetwork, GkeNetworkArgs
from components.gke.persistent_disk import PersistentDisk, PersistentDiskArgs
from components.kubernetes.network_policies import app_peer
from components.serving.llama_cpp import LlamaCppModel
from components.serving.model_workload import ModelArgs
from components.serving.namespace import ServingNamespace, ServingNamespaceArgs
from components.serving.tei_embeddings import TeiEmbeddings
from components.serving.vllm_model import VllmModel, VllmModelArgs
from models.machines import G2_MACHINES, SYSTEM_MACHINES
from tests.gguf_entries import WITH_GGUF
from tests.support import cluster_provider, cold_start, needs, place, recorded_alone, strings


def in_gcp() -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(provider=gcp.Provider("gcp", project="some-project"))


def model_args(alias: str) -> ModelArgs:
    spec = WITH_GGUF[alias]
    return ModelArgs(
        spec=spec,
        place=place("models"),
        replicas=1,
        needs=needs(spec),
        cold_start=cold_start(spec),
        claim_gib=20,
        api_key_mark="some-mark",
        gateway_namespace="proxy",
    )


def cluster() -> GkeCluster:
    args = GkeClusterArgs(
        name="c",
        node_account="c-nodes",
        labels={"stack": "some"},
        project="some-project",
        zone="us-central1-a",
        network_id="n",
        subnetwork_id="s",
        system_machine_type="e2-standard-4",
        system_nodes=1,
        deletion_protection=True,
    )
    return GkeCluster("c", args, opts=in_gcp())


def pool() -> GkeL4NodePool:
    args = GkeL4NodePoolArgs(
        cluster="c",
        zone="us-central1-a",
        machine=G2_MACHINES["g2-standard-8"],
        max_nodes=1,
        min_driver="580.65",
        service_account="nodes@example.iam",
        labels={"stack": "some"},
        after=[],
    )
    return GkeL4NodePool("l4", args, opts=in_gcp())


def mirror() -> ImageMirror:
    args = ImageMirrorArgs(
        project="some-project",
        region="us-central1",
        repositories={"docker.io": "c-docker-io", "ghcr.io": "c-ghcr-io"},
        reader="serviceAccount:x",
    )
    return ImageMirror("m", args, opts=in_gcp())


def disk() -> PersistentDisk:
    args = PersistentDiskArgs(
        name="d",
        project="some-project",
        zone="us-central1-a",
        gib=10,
        claim="c",
        place=place("data"),
        deletion_protection=True,
    )
    return PersistentDisk("d", args, opts=in_gcp())


def data_place() -> DataPlace:
    args = DataPlaceArgs(
        database="in-cluster",
        former_database="none",
        database_gib=10,
        project="some-project",
        zone="us-central1-a",
        stack="dev",
    )
    return DataPlace("data", args)


def cloud_sql() -> CloudSql:
    args = CloudSqlArgs(
        name="db",
        addresses="db-sql",
        region="us-central1",
        network_id="n",
        gib=10,
        backups_kept=7,
        password="p" * 20,
        deletion_protection=True,
        place=place("proxy"),
        labels={"stack": "some"},
    )
    return CloudSql("db", args, opts=in_gcp())


def postgres() -> Postgres:
    args = PostgresArgs(
        place=place("proxy"),
        image="postgres:17",
        gib=10,
        backups_kept=7,
        password="some-password",
        clients=("litellm",),
    )
    return Postgres("db", args, opts=cluster_provider())


def backup() -> DatabaseBackup:
    args = DatabaseBackupArgs(
        place=place("proxy"), image="postgres:17", app="db", host="db.proxy", gib=10, kept=7, after=()
    )
    return DatabaseBackup("b", args, opts=cluster_provider())


def gateway() -> LiteLlmGateway:
    args = LiteLlmGatewayArgs(
        place=place("proxy"),
        image="litellm:1",
        replicas=2,
        needs=NEEDS,
        models=[],
        serving_namespaces=("models",),
        spend_log_days=30,
        database=Database(
            host="db", ssl_mode="disable", max_connections=100, peer=app_peer("db"), secret="db", ready=()
        ),
        master_key="some-master-key",
        salt_key="some-salt-key",
        upstream_api_key="some-upstream-key",
        model_state={},
    )
    return LiteLlmGateway("g", args, opts=cluster_provider())


def gateway_keys() -> GatewayKeys:
    args = GatewayKeysArgs(
        namespace="proxy",
        image="litellm:1",
        desired={"keys": []},
        values={"a": "some-key-value"},
        master_key="some-master-key",
        salt_key="some-salt-key",
        after=[],
    )
    return GatewayKeys("k", args, opts=cluster_provider())


def serving() -> ServingNamespace:
    args = ServingNamespaceArgs(namespace="models", api_key="some-api-key", hugging_face_token="some-hub-token")
    return ServingNamespace("s", args, opts=cluster_provider())


# Component: how one is made, and the kinds of what it consists of.
ALONE: Mapping[type[pulumi.ComponentResource], tuple[Callable[[], pulumi.ComponentResource], set[str]]] = {
    CloudSql: (cloud_sql, {"GlobalAddress", "Connection", "DatabaseInstance", "Database", "User", "Secret"}),
    GatewayKeys: (gateway_keys, {"ConfigMap", "Secret", "NetworkPolicy", "Job", "CronJob"}),
    GkeCluster: (cluster, {"Account", "IAMMember", "Cluster", "NodePool"}),
    GkeL4NodePool: (pool, {"NodePool"}),
    GkeNetwork: (
        lambda: GkeNetwork("n", GkeNetworkArgs(name="n", region="us-central1"), opts=in_gcp()),
        {"Network", "Subnetwork", "Router", "RouterNat"},
    ),
    ImageMirror: (mirror, {"Repository", "RepositoryIamMember"}),
    LiteLlmGateway: (
        gateway,
        {"Secret", "ConfigMap", "Job", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"},
    ),
    PersistentDisk: (disk, {"Disk", "PersistentVolume"}),
    DatabaseBackup: (backup, {"PersistentVolumeClaim", "ConfigMap", "CronJob", "NetworkPolicy"}),
    Postgres: (
        postgres,
        {
            *("PersistentVolumeClaim", "Secret", "StatefulSet", "Service", "NetworkPolicy", "DatabaseBackup"),
        },
    ),
    DataPlace: (data_place, set()),
    ServingNamespace: (serving, {"Secret", "ConfigMap", "NetworkPolicy"}),
    LlamaCppModel: (
        lambda: LlamaCppModel("small-gguf", model_args("small-gguf"), opts=cluster_provider()),
        {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"},
    ),
    TeiEmbeddings: (
        lambda: TeiEmbeddings("embeddings", model_args("embeddings"), opts=cluster_provider()),
        {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"},
    ),
    VllmModel: (
        lambda: VllmModel(
            "coder-chat",
            VllmModelArgs(model=model_args("coder-chat"), machine_type="g2-standard-8"),
            opts=cluster_provider(),
        ),
        {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"},
    ),
}

every_component = pytest.mark.parametrize("component", list(ALONE), ids=lambda c: c.__name__)


def test_every_component_is_tried_alone_and_has_a_file_of_its_own() -> None:
    found: dict[type, str] = {}
    for module in pkgutil.walk_packages(components.__path__, "components."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, pulumi.ComponentResource) and cls.__module__ == module.name:
                found[cls] = module.name
    assert set(found) == set(ALONE)
    assert len(set(found.values())) == len(found)


@every_component
def test_a_component_works_alone_and_is_the_parent_of_all_its_parts(
    component: type[pulumi.ComponentResource],
) -> None:
    make, kinds = ALONE[component]
    records = recorded_alone(make)
    whole = records.all(component.__name__)
    assert len(whole) == 1
    parts = [r for r in records.resources if r.parent == whole[0].urn]
    assert {p.short_type for p in parts} == kinds
    parents = {whole[0].urn, *(part.urn for part in parts)}  # a part may be a component itself
    strays = [
        r.name for r in records.resources if r.custom and r.parent not in parents and r.type.split(":")[0] != "pulumi"
    ]
    assert strays == []


@every_component
def test_a_component_gives_every_output_that_it_declares(component: type[pulumi.ComponentResource]) -> None:
    declared: set[str] = set(vars(component).get("__annotations__", {}))

    def program() -> None:
        made = ALONE[component][0]()
        missing = [name for name in declared if getattr(made, name, None) is None]
        assert missing == []

    recorded_alone(program)


@every_component
def test_a_component_marks_what_it_is_given_as_a_secret_even_if_its_caller_did_not(
    component: type[pulumi.ComponentResource],
) -> None:
    given = ("some-password", "some-master-key", "some-salt-key", "some-upstream-key", "some-key-value")
    given += ("some-api-key", "some-hub-token")
    forms = [form for value in given for form in (value, base64.b64encode(value.encode()).decode())]
    for resource in recorded_alone(ALONE[component][0]).resources:
        for text in strings(resource.inputs):
            assert not any(form in text for form in forms), resource.name


def test_a_pool_of_machines_without_a_gpu_is_refused() -> None:
    args = GkeL4NodePoolArgs(
        cluster="c",
        zone="us-central1-a",
        machine=SYSTEM_MACHINES["e2-standard-4"],
        max_nodes=1,
        min_driver="580.65",
        service_account="nodes@example.iam",
        labels={"stack": "some"},
        after=[],
    )
    with pytest.raises(ValueError, match="e2-standard-4 has no GPU"):
        recorded_alone(lambda: GkeL4NodePool("l4", args, opts=in_gcp()))
