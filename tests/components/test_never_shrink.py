"""Sizes only grow: the arithmetic, and the hook on the real engine where its CLI is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from components.kubernetes.never_shrink import keep_size, refusal, refused_adoption, shrink, stored_gib
from tests.checkout import CHECKOUT
from tests.patience import at_least


def _claim(size: str) -> dict[str, Any]:
    return {"spec": {"resources": {"requests": {"storage": size}}}}


@pytest.mark.parametrize(
    ("inputs", "gib"),
    [
        (_claim("10Gi"), 10),
        (_claim("1Ti"), 1024),
        (_claim("512Mi"), 0.5),
        (_claim("[unknown]"), None),
        ({"spec": {"capacity": {"storage": "20Gi"}}}, 20),
        ({"size": 30}, 30),
        ({"spec": {"replicas": 1}}, None),
    ],
)
def test_a_size_is_read_from_a_claim_a_volume_and_a_disk(inputs: Mapping[str, Any], gib: float | None) -> None:
    assert stored_gib(inputs) == gib


def test_only_a_smaller_size_is_a_shrink() -> None:
    assert shrink("data", _claim("10Gi"), _claim("20Gi")) is None
    assert shrink("data", _claim("10Gi"), _claim("10240Mi")) is None
    assert "from 10 to 5 GiB" in (shrink("data", _claim("10Gi"), _claim("5Gi")) or "")


def test_the_remedy_asks_for_the_size_that_exists() -> None:
    assert keep_size("coder-chat:claimGib", _claim("10Gi")) == "pulumi config set coder-chat:claimGib 10"


def test_a_claim_of_an_older_version_on_a_disk_of_its_own_is_made_anew_without_its_disk() -> None:
    new = {"metadata": {"name": "data", "namespace": "n"}, "spec": {**_claim("10Gi")["spec"], "volumeName": "disk"}}
    assert refused_adoption(_claim("10Gi"), new) is None
    told = refused_adoption(_claim("20Gi"), new) or ""
    assert "data asks for 20 GiB" in told
    # Whatever the volume says of it, the disk stays.
    assert told.index("Retain") < told.index("delete pvc data") < told.index("delete pv disk")


def test_a_claim_that_is_on_another_volume_is_let_go_of_with_its_data() -> None:
    """Its own volume is the one that is kept: a dynamic one goes with its claim."""
    new = {"metadata": {"name": "data", "namespace": "n"}, "spec": {**_claim("10Gi")["spec"], "volumeName": "disk"}}
    for size in ("10Gi", "20Gi"):
        there = {"spec": {**_claim(size)["spec"], "volumeName": "pvc-1"}}
        told = refused_adoption(there, new) or ""
        assert told.index("patch pv pvc-1") < told.index("Retain") < told.index("delete pvc data")
        assert "delete pv " not in told
    assert refused_adoption({"spec": {**_claim("10Gi")["spec"], "volumeName": "disk"}}, new) is None


def test_what_removes_an_empty_claim_stops_at_one_that_has_a_disk_by_then() -> None:
    claim = {"metadata": {"namespace": "n"}, **_claim("10Gi")}
    told = refusal("c", "m:claimGib", claim, _claim("20Gi"), {"status": {"phase": "Pending"}}) or ""
    assert told.index("wait pvc c --for=jsonpath='{.status.phase}'=Pending") < told.index(
        "&& kubectl -n n delete pvc c"
    )


# The claims of the product's own components, written to files in place of a cluster.
_PROGRAM = """
import pulumi, pulumi_kubernetes as k8s
from components.kubernetes.place import Place
from components.gateway.postgres import Postgres, PostgresArgs
from components.serving.model_workload import ModelArgs
from components.serving.tei_embeddings import TeiEmbeddings
from tests.catalog import CATALOG
from tests.support import cold_start, needs

sizes = pulumi.Config()
files = k8s.Provider("files", render_yaml_to_directory="out")
place = Place(namespace="n", data=files)
spec = CATALOG["embeddings"]
args = ModelArgs(
    spec=spec, place=place, replicas=0, needs=needs(spec), cold_start=cold_start(spec),
    claim_gib=sizes.require_int("model"), gateway_namespace="g",
)
TeiEmbeddings("embeddings", args, opts=pulumi.ResourceOptions(provider=files))
Postgres(
    "postgres",
    PostgresArgs(place=place, image="postgres", gib=sizes.require_int("database"), password="p" * 20, clients=()),
    opts=pulumi.ResourceOptions(provider=files),
)
"""

Pulumi = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Pulumi:
    """The real CLI with a state of its own, on a stack with claims of 20 GiB."""
    cli = shutil.which("pulumi")
    if cli is None:
        pytest.skip("no pulumi CLI on PATH")
    tmp_path = tmp_path_factory.mktemp("engine")
    for folder in ("home", "state", "tmp", "program"):
        (tmp_path / folder).mkdir()
    program = tmp_path / "program"
    (program / "__main__.py").write_text(_PROGRAM)
    environment = sys.prefix
    (program / "Pulumi.yaml").write_text(
        f"name: sizes\nruntime: {{name: python, options: {{virtualenv: {environment}}}}}\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "x",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "TMPDIR": str(tmp_path / "tmp"),
    }

    def pulumi(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [cli, *arguments, "--non-interactive"]
        return subprocess.run(
            command, cwd=program, env=env, capture_output=True, text=True, timeout=at_least(120), check=False
        )

    assert pulumi("stack", "init", "dev").returncode == 0
    for key in ("model", "database"):
        pulumi("config", "set", key, "20")
    up = pulumi("up", "--yes", "--skip-preview")
    assert up.returncode == 0, up.stdout + up.stderr
    return pulumi


@pytest.mark.parametrize(
    ("key", "claim", "setting"),
    [
        ("model", "embeddings-model-cache", "embeddings:claimGib"),
        ("database", "litellm-db-data", "--path gateway.databaseGib"),
    ],
)
def test_the_engine_refuses_a_smaller_claim_with_the_remedy_and_no_traceback(
    engine: Pulumi, key: str, claim: str, setting: str
) -> None:
    engine("config", "set", key, "10")
    for attempt in (engine("preview"), engine("up", "--yes", "--skip-preview")):
        shown = attempt.stdout + attempt.stderr
        assert attempt.returncode != 0
        assert f"{claim} would shrink from 20 to 10 GiB" in shown
        assert f"remedy: pulumi config set {setting} 20" in shown
        assert "Traceback" not in shown
    engine("config", "set", key, "20")
    assert engine("preview").returncode == 0


def test_the_engine_lets_claims_grow_and_be_destroyed(engine: Pulumi) -> None:
    for key in ("model", "database"):
        engine("config", "set", key, "30")
    assert engine("preview").returncode == 0
    up = engine("up", "--yes", "--skip-preview")
    assert up.returncode == 0, up.stdout + up.stderr
    assert engine("destroy", "--yes", "--skip-preview").returncode == 0


def classed(size: str, name: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"resources": {"requests": {"storage": size}}}
    metadata = {"name": "c", "annotations": {"ai-platform/sized-by": "m:claimGib"}}
    return {"metadata": metadata, "spec": {**spec, **({"storageClassName": name} if name else {})}}


def test_a_claim_that_is_found_again_keeps_the_class_that_it_was_given() -> None:
    there = {**classed("10Gi", "standard-rwo"), "status": {"phase": "Bound"}}
    assert refused_adoption(there, classed("10Gi", None)) is None
    assert refused_adoption(there, classed("10Gi", "standard-rwo")) is None
    told = refused_adoption(there, classed("10Gi", "fast")) or ""
    assert "c is there with storage class standard-rwo and is to have fast" in told
    assert "remedy: pulumi config rm storageClass && pulumi up" in told
