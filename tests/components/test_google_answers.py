"""What Google Cloud answers while it is not ready: how long it is waited for, and what is told."""

from __future__ import annotations

import asyncio

import pulumi
import pytest

from components.gke import answers
from components.gke.answers import Google, id_of, not_yet
from tests.support import recorded

_NEW_API = (
    "googleapi: Error 403: Compute Engine API has not been used in project 1 before or it is disabled. Enable it by "
    "visiting https://console.developers.google.com/apis/api/compute.googleapis.com/overview?project=1 then retry."
)
_CLUSTER = "gcp:container/cluster:Cluster"
_URN = f"urn:pulumi:ai-dev::ai-platform::ai-platform:gke:GkeCluster${_CLUSTER}::cluster"
_INPUTS = {"name": "ai-platform-ai-dev", "location": "us-central1-a"}
# A second create of these is no error to Google: it sets what is set already.
_SETTINGS = {
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    "gcp:projects/iAMMember:IAMMember",
    "gcp:projects/service:Service",
    "gcp:servicenetworking/connection:Connection",
}


def failed(*errors: str, operation: str = "create") -> pulumi.ErrorHookArgs:
    return pulumi.ErrorHookArgs(
        _URN, "", "cluster", _CLUSTER, new_inputs=_INPUTS, failed_operation=operation, errors=list(errors)
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program logs."""
    found: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", found.append)
    return found


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(answers.asyncio, "sleep", sleep)
    return found


def test_an_api_that_stays_off_is_waited_for_five_minutes_and_then_told_with_the_command(
    told: list[str], slept: list[float]
) -> None:
    google, tries = Google("a-project"), 1
    while asyncio.run(google.answer(failed(*[_NEW_API] * tries))):
        tries += 1
    assert 240 <= sum(slept) <= 360
    (said,) = told
    assert "remedy: gcloud services enable compute.googleapis.com --project a-project && pulumi up" in said


def test_what_apis_are_enabled_by_is_asked_for_whole(told: list[str], slept: list[float]) -> None:
    error = _NEW_API.replace("compute", "cloudresourcemanager")
    assert not asyncio.run(Google("p").answer(failed(*[error] * 99)))
    assert "gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com" in told[0]


@pytest.mark.parametrize(
    "error",
    [
        "googleapi: Error 403: Required 'compute.networks.create' permission for 'projects/p', forbidden",
        "googleapi: Error 400: Invalid value for field",
        "googleapi: Error 409: Already exists: but this is an update",
    ],
)
def test_other_errors_are_the_engine_s_to_tell_and_are_not_waited_for(
    error: str, told: list[str], slept: list[float]
) -> None:
    assert not asyncio.run(Google("p").answer(failed(error, operation="update")))
    assert told == slept == []
    assert not_yet(error) is None


def test_what_exists_already_is_told_with_its_id_and_the_way_into_the_state(told: list[str]) -> None:
    error = "googleapi: Error 409: Already exists: projects/p/zones/us-central1-a/clusters/ai-platform-ai-dev."
    assert not asyncio.run(Google("p").answer(failed(error)))
    cluster = "projects/p/locations/us-central1-a/clusters/ai-platform-ai-dev"
    assert f"pulumi import --yes --generate-code=false {_CLUSTER} cluster {cluster}" in told[0]
    assert "--provider 'gcp=urn:pulumi:ai-dev::ai-platform::pulumi:providers:gcp::gcp'" in told[0]
    assert "somebody else's" in told[0]


@pytest.mark.parametrize("database", ["in-cluster", "cloud-sql"])
def test_whatever_the_program_makes_in_the_cloud_has_an_id_to_go_on_with(database: str) -> None:
    made = [r for r in recorded(f"gateway.database={database}").resources if r.type.startswith("gcp:")]
    for resource in made:
        found = id_of(resource.type, resource.inputs, "p")
        assert (found is None) == (resource.type in _SETTINGS), resource.type
        assert found is None or "{" not in found
