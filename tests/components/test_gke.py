"""The cloud half: network, cluster, pools, image mirror, disks, managed database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from components.gke.cluster import exec_kubeconfig
from components.gke.data_place import losses
from models.engines.external import ExternalProvider
from models.images import VLLM
from models.machines import G2_MACHINES, GPU_TAINT
from tests.catalog import CATALOG
from tests.support import Records, recorded

CLOUD_SQL = ("gateway.database=cloud-sql",)


def gpu_pool(records: Records) -> Mapping[str, Any]:
    return next(p.inputs for p in records.all("NodePool") if "autoscaling" in p.inputs)


def system_pool(records: Records) -> Mapping[str, Any]:
    return next(p.inputs for p in records.all("NodePool") if "autoscaling" not in p.inputs)


# --- for the bill and the log ------------------------------------------------------------------------------------


def test_whatever_is_billed_carries_project_and_stack() -> None:
    labels = {"project": "ai-platform", "stack": "ai-dev"}
    records = recorded(*CLOUD_SQL)
    cloud = next(r for r in records.resources if r.type == "pulumi:providers:gcp")
    assert json.loads(cloud.inputs["defaultLabels"]) == labels  # disks and repositories take theirs from it
    assert records.all("Cluster")[0].inputs["resourceLabels"] == labels
    assert [pool.inputs["nodeConfig"]["resourceLabels"] for pool in records.all("NodePool")] == [labels, labels]
    assert records.all("DatabaseInstance")[0].inputs["settings"]["userLabels"] == labels


def test_connections_are_logged_and_no_statement_of_the_database_is() -> None:
    records = recorded(*CLOUD_SQL)
    assert records.all("Subnetwork")[0].inputs["logConfig"]["flowSampling"] > 0
    flags = {f["name"]: f["value"] for f in records.all("DatabaseInstance")[0].inputs["settings"]["databaseFlags"]}
    assert flags["log_connections"] == flags["log_disconnections"] == "on"
    assert not flags.keys() & {"log_statement", "log_min_duration_statement"}


# --- GPU pool --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", [1, 3])
def test_the_gpu_pool_scales_from_zero_to_the_quota_in_total(quota: int) -> None:
    pool = gpu_pool(recorded(f"gpuQuota={quota}"))
    scaling = pool["autoscaling"]
    assert (scaling["totalMinNodeCount"], scaling["totalMaxNodeCount"]) == (0, quota)
    assert not scaling.keys() & {"minNodeCount", "maxNodeCount"}  # per zone; never beside totals
    assert pool["initialNodeCount"] == 0
    assert "nodeCount" not in pool


def test_a_pool_of_machines_with_several_gpus_counts_machines() -> None:
    pool = gpu_pool(recorded("gpuQuota=4", "machineType=g2-standard-24"))
    assert pool["autoscaling"]["totalMaxNodeCount"] == 2
    assert pool["nodeConfig"]["guestAccelerators"][0]["count"] == 2


def test_the_gpu_taint_is_declared() -> None:
    taints = gpu_pool(recorded())["nodeConfig"]["taints"]
    assert taints == [{"key": GPU_TAINT, "value": "present", "effect": "NO_SCHEDULE"}]


def test_the_gpu_pool_comes_after_the_system_pool() -> None:
    records = recorded()
    gpu = next(p for p in records.all("NodePool") if "autoscaling" in p.inputs)
    system = next(p for p in records.all("NodePool") if "autoscaling" not in p.inputs)
    assert system.urn in gpu.dependencies


def test_an_image_of_cuda_13_gets_the_latest_driver() -> None:
    assert VLLM.min_driver == "580.65"
    accelerator = gpu_pool(recorded())["nodeConfig"]["guestAccelerators"][0]
    assert accelerator["type"] == "nvidia-l4"
    assert accelerator["gpuDriverInstallationConfig"] == {"gpuDriverVersion": "LATEST"}


def test_an_upgrade_of_the_gpu_pool_needs_no_spare_quota() -> None:
    assert gpu_pool(recorded())["upgradeSettings"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_gpu_nodes_boot_from_pd_balanced_since_g2_refuses_pd_standard() -> None:
    node = gpu_pool(recorded("gpuBootDiskGib=150"))["nodeConfig"]
    assert (node["diskType"], node["diskSizeGb"]) == ("pd-balanced", 150)


@pytest.mark.parametrize("wanted", [True, False])
def test_gpu_nodes_are_spot_only_if_asked(wanted: bool) -> None:
    assert gpu_pool(recorded(f"spot={str(wanted).lower()}"))["nodeConfig"]["spot"] is wanted


def test_time_sharing_is_off_unless_asked() -> None:
    def sharing(*assignments: str) -> Any:
        return gpu_pool(recorded(*assignments))["nodeConfig"]["guestAccelerators"][0].get("gpuSharingConfig")

    assert sharing() is None
    assert sharing("gpuSharingClients=2") == {"gpuSharingStrategy": "TIME_SHARING", "maxSharedClientsPerGpu": 2}


@pytest.mark.parametrize("shape", list(G2_MACHINES))
def test_the_machine_type_from_config_is_the_pool_s(shape: str) -> None:
    assert gpu_pool(recorded(f"machineType={shape}"))["nodeConfig"]["machineType"] == shape


def test_whatever_cannot_be_changed_in_place_is_part_of_the_pool_s_name() -> None:
    names = [
        gpu_pool(recorded(*assignments))["name"]
        for assignments in [
            (),
            ("machineType=g2-standard-12",),
            ("spot=true",),
            ("gpuBootDiskGib=200",),
            ("gpuSharingClients=4",),
            ("machineType=g2-standard-96", "gpuBootDiskGib=10000", "spot=true", "gpuSharingClients=48"),
        ]
    ]
    assert len(set(names)) == len(names)
    assert names[0].startswith("g2-standard-8")
    assert all(len(name) <= 40 for name in names)  # GKE's limit


def test_a_quota_in_another_number_keeps_the_pool() -> None:
    assert gpu_pool(recorded("gpuQuota=2"))["name"] == gpu_pool(recorded())["name"]


def test_without_quota_there_is_no_gpu_pool() -> None:
    assert [p.name for p in recorded("gpuQuota=0").all("NodePool")] == [system_pool(recorded())["name"]]


@pytest.mark.parametrize("pool", [gpu_pool, system_pool])
def test_nodes_stream_images_and_use_workload_identity_metadata(pool: Any) -> None:
    node = pool(recorded())["nodeConfig"]
    assert node["gcfsConfig"] == {"enabled": True}
    assert node["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    assert node["imageType"] == "COS_CONTAINERD"


# --- cluster ---------------------------------------------------------------------------------------------------


def test_the_cluster_is_zonal_and_enforces_network_policy() -> None:
    cluster = recorded("gcp:zone=europe-west4-a").all("Cluster")[0].inputs
    assert cluster["location"] == "europe-west4-a"
    assert cluster["datapathProvider"] == "ADVANCED_DATAPATH"
    assert "networkPolicy" not in cluster  # Dataplane V2 refuses it beside


def test_the_cluster_has_workload_identity_of_its_own_project() -> None:
    cluster = recorded("gcp:project=some-project").all("Cluster")[0].inputs
    assert cluster["workloadIdentityConfig"] == {"workloadPool": "some-project.svc.id.goog"}


def test_nodes_are_private_and_the_control_plane_answers_on_its_dns_name_only() -> None:
    cluster = recorded().all("Cluster")[0].inputs
    assert cluster["privateClusterConfig"]["enablePrivateNodes"] is True
    endpoints = cluster["controlPlaneEndpointsConfig"]
    assert endpoints["ipEndpointsConfig"] == {"enabled": False}
    assert endpoints["dnsEndpointConfig"]["allowExternalTraffic"] is True


def test_the_cluster_is_protected_until_config_says_otherwise() -> None:
    guarded, free = (recorded(*a).all("Cluster")[0] for a in [(), ("deletionProtection=false",)])
    assert (guarded.protect, guarded.inputs["deletionProtection"]) == (True, True)
    assert (free.protect, free.inputs["deletionProtection"]) == (False, False)


def test_the_pool_that_a_cluster_is_born_with_goes_and_is_not_looked_at_again() -> None:
    cluster = recorded().all("Cluster")[0]
    assert cluster.inputs["removeDefaultNodePool"] is True
    assert set(cluster.ignore_changes) == {
        "initialNodeCount",
        "nodeConfig",
        "privateClusterConfig.enablePrivateEndpoint",
    }


def test_metrics_are_collected_by_managed_prometheus() -> None:
    assert recorded().all("Cluster")[0].inputs["monitoringConfig"]["managedPrometheus"] == {"enabled": True}


def test_nodes_run_as_an_account_of_their_own_with_the_least_role() -> None:
    records = recorded()
    roles = [r.inputs["role"] for r in records.all("IAMMember")]
    assert roles == ["roles/container.defaultNodeServiceAccount"]
    account = records.all("Account")[0]
    for resource in (*records.all("Cluster"), *records.all("NodePool")):
        assert records.waits_for(resource, account)
        assert resource.inputs["nodeConfig"]["serviceAccount"] == "[unknown]"  # the account's, known after creation


def test_nodes_start_after_their_role_is_granted() -> None:
    records = recorded()
    role = records.all("IAMMember")[0]
    assert all(records.waits_for(r, role) for r in (*records.all("Cluster"), *records.all("NodePool")))


def test_an_account_id_is_one_that_google_accepts() -> None:
    account: str = recorded().all("Account")[0].inputs["accountId"]
    assert 6 <= len(account) <= 30
    assert not account.endswith("-")


def test_the_shape_of_the_system_pool_is_part_of_its_name() -> None:
    pool = system_pool(recorded("systemMachineType=e2-standard-8", "systemNodes=2"))
    assert pool["name"] == "system-e2-standard-8"
    assert (pool["nodeConfig"]["machineType"], pool["nodeCount"]) == ("e2-standard-8", 2)
    assert "taints" not in pool["nodeConfig"]


def test_the_kubeconfig_asks_a_plugin_for_each_token_and_holds_none() -> None:
    text = exec_kubeconfig("demo", "gke-0123.us-central1-a.gke.goog")
    document = json.loads(text)
    user = document["users"][0]["user"]
    assert list(user) == ["exec"]
    assert user["exec"]["command"] == "gke-gcloud-auth-plugin"
    assert user["exec"]["interactiveMode"] == "Never"
    assert document["clusters"][0]["cluster"] == {"server": "https://gke-0123.us-central1-a.gke.goog"}
    assert not any(word in text for word in ("token", "password", "client-key"))


# --- what has to be there first --------------------------------------------------------------------------------


def test_every_cloud_object_waits_for_the_apis() -> None:
    """On an empty project a call to an API that is not enabled yet fails the first `pulumi up`."""
    for records in (recorded(), recorded(*CLOUD_SQL)):
        apis = [r for r in records.all("Service") if r.type.startswith("gcp:")]
        for resource in records.resources:
            if resource.type.startswith("gcp:") and resource not in apis:
                assert all(records.waits_for(resource, api) for api in apis), resource.name


def test_the_apis_stay_enabled_when_the_stack_goes() -> None:
    apis = {r.inputs["service"]: r.inputs for r in recorded().all("Service") if r.type.startswith("gcp:")}
    assert {"container.googleapis.com", "containerfilesystem.googleapis.com", "artifactregistry.googleapis.com"} <= set(
        apis
    )
    assert all(api["disableOnDestroy"] is False for api in apis.values())


def test_managed_postgresql_brings_its_apis() -> None:
    added = {r.inputs["service"] for r in recorded(*CLOUD_SQL).all("Service") if r.type.startswith("gcp:")} - {
        r.inputs["service"] for r in recorded().all("Service") if r.type.startswith("gcp:")
    }
    assert added == {"servicenetworking.googleapis.com", "sqladmin.googleapis.com"}


# --- network ---------------------------------------------------------------------------------------------------


def test_private_nodes_reach_out_by_nat_and_google_directly() -> None:
    records = recorded("gcp:zone=europe-west4-b")
    assert records.all("RouterNat")[0].inputs["sourceSubnetworkIpRangesToNat"] == "ALL_SUBNETWORKS_ALL_IP_RANGES"
    subnetwork = records.all("Subnetwork")[0].inputs
    assert subnetwork["privateIpGoogleAccess"] is True
    assert {r.inputs["region"] for r in records.resources if "region" in r.inputs} == {"europe-west4"}


def test_the_cluster_uses_the_named_ranges_of_its_subnetwork() -> None:
    records = recorded()
    ranges = {r["rangeName"] for r in records.all("Subnetwork")[0].inputs["secondaryIpRanges"]}
    policy = records.all("Cluster")[0].inputs["ipAllocationPolicy"]
    assert set(policy.values()) == ranges
    assert records.all("Cluster")[0].inputs["networkingMode"] == "VPC_NATIVE"
    assert records.all("Network")[0].inputs["autoCreateSubnetworks"] is False


# --- image mirror ----------------------------------------------------------------------------------------------


def test_every_registry_that_a_pod_pulls_from_has_a_remote_repository() -> None:
    records = recorded()
    repositories = {r.inputs["repositoryId"]: r.inputs for r in records.all("Repository")}
    pulled = {c["image"].split("/")[2] for pod in records.pods for c in pod.containers}
    assert pulled == set(repositories)
    for repository in repositories.values():
        assert (repository["mode"], repository["format"]) == ("REMOTE_REPOSITORY", "DOCKER")
    expected = {
        "ai-platform-ai-dev-" + spec.engine.image.registry.replace(".", "-")
        for spec in CATALOG.values()
        if not isinstance(spec.engine, ExternalProvider)
    }
    assert expected <= pulled


def test_nodes_may_read_every_repository() -> None:
    records = recorded()
    readers = records.all("RepositoryIamMember")
    assert len(readers) == len(records.all("Repository"))
    for reader in readers:
        assert reader.inputs["role"] == "roles/artifactregistry.reader"
        assert records.waits_for(reader, records.all("Account")[0])


# --- data that survives the cluster ----------------------------------------------------------------------------


def test_the_database_s_disk_is_a_protected_resource_of_its_own() -> None:
    disk = recorded("gateway.databaseGib=20").all("Disk")[0]
    assert disk.protect
    assert disk.inputs["size"] == 20


def test_the_database_s_claim_binds_exactly_the_volume_on_that_disk() -> None:
    records = recorded("gateway.databaseGib=20")
    disk = records.all("Disk")[0]
    volume = records.all("PersistentVolume")[0]
    claim = records.one("PersistentVolumeClaim", "litellm-db-data")
    assert volume.inputs["spec"]["csi"]["volumeHandle"].endswith(f"/disks/{disk.inputs['name']}")
    assert volume.inputs["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    reference = volume.inputs["spec"]["claimRef"]
    assert (reference["namespace"], reference["name"]) == ("gateway", "litellm-db-data")
    assert claim.inputs["spec"]["volumeName"] == volume.inputs["metadata"]["name"]
    assert claim.inputs["spec"]["storageClassName"] == volume.inputs["spec"]["storageClassName"] == ""
    # The API server changes no such claim, so its request is what any disk has; the disk is what grows.
    assert volume.inputs["spec"]["capacity"]["storage"] == "20Gi"
    assert claim.inputs["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert claim.ignore_changes == ("spec.resources.requests",)
    pods = [recorded(f"gateway.databaseGib={gib}").pod("litellm-db").annotations for gib in (10, 20)]
    assert pods[0] != pods[1]
    assert volume.retain_on_delete
    assert records.waits_for(volume, disk)
    zone = volume.inputs["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
    assert zone == {"key": "topology.gke.io/zone", "operator": "In", "values": [disk.inputs["zone"]]}


def test_managed_postgresql_is_protected_private_encrypted_and_backed_up() -> None:
    records = recorded(*CLOUD_SQL)
    instance = records.all("DatabaseInstance")[0]
    assert instance.protect
    assert instance.inputs["deletionProtection"] is True
    settings = instance.inputs["settings"]
    assert settings["deletionProtectionEnabled"] is True
    assert settings["ipConfiguration"]["ipv4Enabled"] is False
    assert settings["ipConfiguration"]["sslMode"] == "ENCRYPTED_ONLY"
    kept = {"retainedBackups": 7, "retentionUnit": "COUNT"}
    backups = {"enabled": True, "pointInTimeRecoveryEnabled": True, "backupRetentionSettings": kept}
    assert settings["backupConfiguration"] == backups
    # While the disk grows by itself, less than there is is no change.
    assert not instance.ignore_changes
    unlocked = recorded(*CLOUD_SQL, "deletionProtection=false")
    instance = unlocked.all("DatabaseInstance")[0]
    assert instance.protect
    assert not instance.inputs["deletionProtection"]
    assert not instance.inputs["settings"]["deletionProtectionEnabled"]
    for records_, policy in ((recorded(*CLOUD_SQL), "PREVENT"), (unlocked, "ABANDON")):
        for kind in ("Database", "User"):
            (found,) = (r for r in records_.all(kind) if r.type.startswith("gcp:sql"))
            assert (found.inputs["deletionPolicy"], found.protect) == (policy, True)
    assert records.waits_for(instance, records.all("Connection")[0])


def test_a_database_that_is_kept_beside_another_one_keeps_its_size() -> None:
    """Its disk is found again on the way back, and a smaller one would be another disk."""
    place = {"project": "p", "zone": "z", "stack": "s"}
    within = {**place, "database": "in-cluster", "formerDatabase": "none", "databaseGib": 20}
    managed = {**place, "database": "cloud-sql", "formerDatabase": "in-cluster", "databaseGib": 20}
    for before, after in ((within, managed), (managed, {**within, "formerDatabase": "cloud-sql"})):
        assert not list(losses(before, after))
        (smaller,) = losses(before, {**after, "databaseGib": 10})
        assert smaller.remedy == "pulumi config set --path gateway.databaseGib 20"


def test_the_password_of_a_managed_database_is_not_in_the_secret_of_one_in_the_cluster() -> None:
    """That one is immutable, and stays in the cluster where a stack had such a database before."""
    within, managed = (
        recorded(f"gateway.database={kind}").one("Secret", name, "gateway")
        for kind, name in (("in-cluster", "litellm-database"), ("cloud-sql", "litellm-cloud-sql"))
    )
    assert within.inputs["immutable"]
    assert "immutable" not in managed.inputs
    # Written by a manager of its own, an older version's: taken back, or no other password would ever arrive.
    assert managed.inputs["metadata"]["annotations"]["pulumi.com/patchForce"] == "true"
    assert managed.retain_on_delete


def test_a_connection_to_a_network_that_was_there_before_is_taken_up_again() -> None:
    assert recorded(*CLOUD_SQL).all("Connection")[0].inputs["updateOnCreationFail"] is True


def test_managed_postgresql_replaces_the_one_in_the_cluster_and_the_gateway_goes_there_with_tls() -> None:
    records = recorded(*CLOUD_SQL)
    assert not records.all("StatefulSet")
    assert not records.all("Disk")
    assert records.one("Database", "litellm").protect
    assert records.all("User")[0].inputs["password"] == "[secret]"
    environment = {e["name"]: e.get("value") for e in records.pod("litellm").containers[0]["env"]}
    assert environment["DATABASE_URL"] == "[unknown]"  # the address is known after creation
    assert records.waits_for(records.one("Job", _job(records)), records.all("User")[0])


def _job(records: Records) -> str:
    return records.all("Job")[0].inputs["metadata"]["name"]
