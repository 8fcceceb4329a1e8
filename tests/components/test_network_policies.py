"""Who reaches whom: the policies of the whole deployment, evaluated as the API defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.network import Endpoint, allowed
from tests.support import NAME_LABEL, SERVED_ALIASES, recorded

LOCAL_DNS, METADATA, PUBLIC = "169.254.20.10", "169.254.169.254", "18.64.0.1"


def policies(*assignments: str) -> list[Mapping[str, Any]]:
    return [r.inputs for r in recorded(*assignments).all("NetworkPolicy")]


def app(namespace: str, name: str) -> Endpoint:
    return Endpoint(namespace, {NAME_LABEL: name})


GATEWAY = app("gateway", "litellm")
MIGRATION = app("gateway", "litellm-migrate")
KEYS = app("gateway", "litellm-keys")
DATABASE = app("gateway", "litellm-db")
BACKUP = app("gateway", "litellm-db-backup")
COLLECTOR = app("gmp-system", "collector")
STRANGER = app("default", "anything")
every_model = pytest.mark.parametrize("model", [app("serving", alias) for alias in SERVED_ALIASES], ids=SERVED_ALIASES)


@pytest.mark.parametrize("namespace", ["serving", "gateway"])
def test_a_pod_that_nobody_described_reaches_nothing_and_is_reached_by_nothing(namespace: str) -> None:
    unknown = app(namespace, "unknown")
    for other in (STRANGER, GATEWAY, DATABASE, Endpoint(address=PUBLIC)):
        for port in (80, 443, 4000, 5432, 8000):
            assert not allowed(policies(), unknown, other, port)
            if other.namespace:
                assert not allowed(policies(), other, unknown, port)


@pytest.mark.parametrize("namespace", ["serving", "gateway"])
def test_denial_is_in_both_directions_and_selects_every_pod(namespace: str) -> None:
    denial = recorded().manifest("NetworkPolicy", "default-deny", namespace)["spec"]
    assert set(denial["policyTypes"]) == {"Ingress", "Egress"}
    assert denial.get("podSelector", {}) == {}
    assert "ingress" not in denial
    assert "egress" not in denial


@every_model
def test_only_gateway_and_metrics_collection_reach_a_model(model: Endpoint) -> None:
    assert allowed(policies(), GATEWAY, model, 8000)
    assert allowed(policies(), COLLECTOR, model, 8000)
    others = [STRANGER, DATABASE, MIGRATION, KEYS, *(app("serving", a) for a in SERVED_ALIASES)]
    for other in others:
        assert not allowed(policies(), other, model, 8000), other
    assert not allowed(policies(), GATEWAY, model, 8001)


@every_model
def test_a_model_reaches_out_to_public_https_only(model: Endpoint) -> None:
    assert allowed(policies(), model, Endpoint(address=PUBLIC), 443)
    assert not allowed(policies(), model, Endpoint(address=PUBLIC), 80)
    for private in ("10.4.0.9", "172.16.0.1", "192.168.1.1", "100.64.0.1", METADATA):
        assert not allowed(policies(), model, Endpoint(address=private), 443), private
    for other in (GATEWAY, DATABASE, STRANGER):
        assert not allowed(policies(), model, other, 443)


@pytest.mark.parametrize("source", [GATEWAY, MIGRATION, DATABASE, app("serving", "coder-chat")])
def test_every_pod_resolves_names_however_the_cluster_answers_dns(source: Endpoint) -> None:
    kube_dns = Endpoint("kube-system", {"k8s-app": "kube-dns"})
    node_local = Endpoint("kube-system", {"k8s-app": "node-local-dns"})
    for protocol in ("UDP", "TCP"):
        for server in (kube_dns, node_local, Endpoint(address=LOCAL_DNS), Endpoint(address=METADATA)):
            assert allowed(policies(), source, server, 53, protocol), server
    assert not allowed(policies(), source, kube_dns, 443)


def test_no_pod_gets_credentials_from_the_metadata_server() -> None:
    for pod in recorded().pods:
        source = Endpoint(pod.namespace, pod.labels)
        for port in (80, 988, 443):
            assert not allowed(policies(), source, Endpoint(address=METADATA), port)


def test_the_gateway_serves_the_cluster_and_reaches_models_and_its_database_alone() -> None:
    assert allowed(policies(), STRANGER, GATEWAY, 4000)
    assert allowed(policies(), GATEWAY, DATABASE, 5432)
    assert not allowed(policies(), GATEWAY, Endpoint(address=PUBLIC), 443)
    assert not allowed(policies(), GATEWAY, STRANGER, 8000)


def test_only_gateway_migration_and_backup_reach_the_database() -> None:
    assert allowed(policies(), MIGRATION, DATABASE, 5432)
    assert allowed(policies(), BACKUP, DATABASE, 5432)
    assert not allowed(policies(), BACKUP, GATEWAY, 4000)
    assert not allowed(policies(), BACKUP, Endpoint(address=PUBLIC), 443)
    for other in (STRANGER, COLLECTOR, KEYS, app("serving", "coder-chat")):
        assert not allowed(policies(), other, DATABASE, 5432), other
    assert not allowed(policies(), DATABASE, Endpoint(address=PUBLIC), 443)


def test_a_managed_database_is_reached_in_its_address_range_only() -> None:
    managed = policies("gateway.database=cloud-sql")
    assert allowed(managed, GATEWAY, Endpoint(address="10.16.3.4"), 5432)
    assert allowed(managed, MIGRATION, Endpoint(address="10.16.3.4"), 5432)
    assert not allowed(managed, GATEWAY, Endpoint(address="10.17.0.1"), 5432)
    assert not allowed(managed, GATEWAY, Endpoint(address="10.16.3.4"), 443)
