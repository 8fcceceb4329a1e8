"""Names in the cloud: whatever Pulumi takes for a stack, Google takes what becomes of it, or the plan is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from components.gke.names import CloudNames
from ops.engine import run
from stacks.admission import Admission, admit
from stacks.program import main
from tests.stacks.remedies import raw

# As the APIs' references have them, written by hand: a name that passes ours has to pass these.
GOOGLE = {
    "gcp:container/cluster:Cluster": ("name", r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?"),
    "gcp:serviceaccount/account:Account": ("accountId", r"[a-z](?:[a-z0-9-]{4,28}[a-z0-9])"),
    "gcp:compute/network:Network": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/subnetwork:Subnetwork": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/router:Router": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/routerNat:RouterNat": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/disk:Disk": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/globalAddress:GlobalAddress": ("name", r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:artifactregistry/repository:Repository": ("repositoryId", r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    "gcp:sql/databaseInstance:DatabaseInstance": ("name", r"[a-z](?:[a-z0-9-]{0,65}[a-z0-9])?"),
    "gcp:container/nodePool:NodePool": ("name", r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?"),
}


def admitted(stack: str, database: str = "in-cluster") -> Admission:
    config = raw()
    values = {**config.values, "ai-platform:gateway": f'{{"database": "{database}"}}'}
    return admit(replace(config, stack=stack, values=values))


def named(stack: str, database: str) -> dict[str, list[str]]:
    config = raw()
    values = {**config.values, "ai-platform:gateway": f'{{"database": "{database}"}}'}
    found: dict[str, list[str]] = {}
    for resource in run(replace(config, stack=stack, values=values), main).resources:
        if resource.type in GOOGLE:
            found.setdefault(resource.type, []).append(resource.inputs[GOOGLE[resource.type][0]])
    return found


@pytest.mark.parametrize("database", ["in-cluster", "cloud-sql"])
@pytest.mark.parametrize("stack", ["a", "ai-dev", "staging-europe-west4", "x" * 28])
def test_what_is_admitted_has_names_that_google_takes(stack: str, database: str) -> None:
    assert admitted(stack, database).problems == ()
    names = named(stack, database)
    assert len(names) >= 8
    for kind, values in names.items():
        assert all(re.fullmatch(GOOGLE[kind][1], value) for value in values), (kind, values)


@pytest.mark.parametrize(
    "stack", ["MyDev", "team_a.dev", "a-", "dev.", "x" * 29, "x" * 46, "x" * 100, "A" * 60, "prod_EU.west4-2"]
)
def test_a_stack_whose_names_google_refuses_is_refused_and_its_remedy_is_another_name(stack: str) -> None:
    (problem,) = admitted(stack).problems
    assert f"ai-platform-{stack}" in problem.message
    match = re.match(r"pulumi stack rename ([a-z0-9-]+)   # or", problem.remedy)
    assert match
    assert f"mv Pulumi.{stack}.yaml Pulumi.{match[1]}.yaml" in problem.remedy
    assert admitted(match[1]).problems == ()


@pytest.mark.parametrize("stack", ["_", "...", "-"])
def test_a_stack_of_no_letters_is_refused(stack: str) -> None:
    (problem,) = admitted(stack).problems
    assert problem.remedy.startswith("pulumi stack rename dev ")


def test_a_project_whose_name_is_the_fault_is_told_so() -> None:
    config = raw()
    own = {k.replace("ai-platform:", "My_Platform:"): v for k, v in config.values.items()}
    secrets = {k.replace("ai-platform:", "My_Platform:"): v for k, v in config.secrets.items()}
    (problem,) = admit(replace(config, project="My_Platform", values=own, secrets=secrets)).problems
    assert problem.remedy.startswith("grep -n '^name:' Pulumi.yaml")


def test_a_cluster_of_ones_own_has_no_names_in_the_cloud() -> None:
    config = raw()
    values = {
        **{k: v for k, v in config.values.items() if not k.startswith("gcp:")},
        "ai-platform:target": "kubernetes",
        "ai-platform:kubeconfig": "k",
        "ai-platform:kubeContext": "c",
    }
    assert admit(replace(config, stack="My_Dev.1", values=values)).problems == ()


def test_two_long_stacks_share_no_service_account() -> None:
    first, second = (CloudNames(f"ai-platform-a-long-name-{n}").node_account for n in (1, 2))
    assert first != second
    assert max(len(first), len(second)) <= 30


def test_two_stacks_of_a_project_share_no_name() -> None:
    """But those of node pools, which are a cluster's own."""
    first, second = named("dev", "cloud-sql"), named("prod", "cloud-sql")
    for kind in GOOGLE.keys() - {"gcp:container/nodePool:NodePool"}:
        assert not set(first.get(kind, ())) & set(second.get(kind, ())), kind
