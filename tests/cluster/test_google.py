"""Google Cloud as its provider answers: slow to enable, interrupted, asked to shrink, and taken down.

On the real engine and the stand-in of gcp_provider/, which answers as the real provider does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from components.gateway.postgres import CLAIM
from stacks.sections import GATEWAY
from tests.cluster.conftest import eventually
from tests.cluster.engine import Engine
from tests.cluster.platform import Platform

Deploys = Callable[[str], Engine]
_DISK = "projects/stand-in/zones/us-central1-a/disks/ai-platform-ai-dev-gateway-db"
_CLUSTER = "projects/stand-in/locations/us-central1-a/clusters/ai-platform-ai-dev"
_FIRST_POOL = f"{_CLUSTER}/nodePools/default-pool"
_INSTANCE = "projects/stand-in/instances/ai-platform-ai-dev-gateway"


def with_habits(engine: Engine, **habits: str) -> Engine:
    """The same stack, where Google Cloud behaves otherwise; see gcp_provider/provider.py."""
    set_ = {f"GCP_STAND_IN_{name.upper()}": value for name, value in habits.items()}
    return replace(engine, environment={**engine.environment, **set_})


def cloud(engine: Engine) -> Mapping[str, Any]:
    """What is in Google Cloud, by id."""
    path = engine.folder / "cloud.json"
    return json.loads(path.read_text())["objects"] if path.exists() else {}


def changed(engine: Engine, change: Callable[[dict[str, Any]], object]) -> None:
    """What somebody does in Google Cloud, past the program."""
    path = engine.folder / "cloud.json"
    content = json.loads(path.read_text())
    change(content["objects"])
    path.write_text(json.dumps(content))


def remedies(text: str) -> list[str]:
    """What the program says to type, each up to its comment."""
    return [found.partition("   #")[0] for found in re.findall(r"remedy: (.*)", text)]


def type_in(engine: Engine, command: str) -> None:
    """Each `pulumi` of a remedy, with the flags that tests add."""
    for part in command.split(" && "):
        program, *arguments = shlex.split(part)
        assert program == "pulumi"
        engine.run(*arguments, *(["--yes", "--skip-preview"] if arguments == ["up"] else []))


# --- the first update ------------------------------------------------------------------------------------------


def test_an_api_that_was_enabled_a_moment_ago_is_waited_for(platform: Platform, deploys: Deploys) -> None:
    engine = with_habits(deploys("ai-dev"), lag="5")
    outcome = engine.up()
    assert "retrying create" in outcome.text
    assert engine.changes() == {}


def test_a_cluster_that_an_interrupted_update_made_is_gone_on_with(platform: Platform, deploys: Deploys) -> None:
    """A kill leaves a pending create, and each later create of it is a 409."""
    slow = with_habits(deploys("ai-dev"), cluster="600")
    with slow.running("up", "--yes", "--skip-preview") as process:
        eventually(lambda: _CLUSTER in cloud(slow), 120)
        os.killpg(process.pid, signal.SIGKILL)
    engine = with_habits(slow, cluster="0")
    engine.run("cancel", "--yes")
    outcome = engine.try_up()
    assert outcome.code != 0
    assert "there is a Cluster called 'ai-platform-ai-dev' in the cloud, and the state does not have it" in outcome.text
    (remedy,) = {told for told in remedies(outcome.text) if "pulumi import" in told}
    type_in(engine, remedy)
    assert engine.changes() == {}
    assert _FIRST_POOL not in cloud(engine)  # the update after an import removes it


def test_one_interrupt_lets_the_cluster_be_made_to_its_end_and_the_next_update_goes_on(
    platform: Platform, deploys: Deploys
) -> None:
    engine = with_habits(deploys("ai-dev"), cluster="10")
    with engine.running("up", "--yes", "--skip-preview") as process:
        eventually(lambda: _FIRST_POOL in cloud(engine), 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) != 0, engine.printed
    assert _FIRST_POOL not in cloud(engine)
    engine.up()
    assert engine.changes() == {}


def test_a_first_pool_that_was_left_is_told_until_it_is_removed(platform: Platform, deploys: Deploys) -> None:
    engine = deploys("ai-dev")
    engine.up()
    changed(engine, lambda objects: objects.update({_FIRST_POOL: {"name": "default-pool"}}))
    (remedy,) = {told for told in remedies(engine.run("preview").text) if "default-pool" in told}
    assert remedy == (
        "gcloud container node-pools delete default-pool --cluster ai-platform-ai-dev --zone us-central1-a "
        "--project stand-in --quiet"
    )
    changed(engine, lambda objects: objects.pop(_FIRST_POOL))
    assert "default-pool" not in engine.run("preview").text
    assert engine.changes() == {}


def test_whatever_google_says_of_an_endpoint_that_is_off_nothing_is_left_to_do(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("ai-dev")
    engine.up()
    for answer in ("true", "false"):
        assert with_habits(engine, private=answer).changes() == {}


# --- data is never replaced ------------------------------------------------------------------------------------


def test_what_would_replace_the_database_is_refused_in_a_preview_even_when_nothing_is_protected(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("ai-dev")
    engine.up("gateway.databaseGib=20", "deletionProtection=false")
    engine.run("state", "unprotect", "--all", "--yes")
    before = cloud(engine)
    for setting, back, words in (
        ("gateway.databaseGib=10", "pulumi config set --path gateway.databaseGib 20", "from 20 to 10 GiB"),
        ("gcp:zone=us-central1-b", "pulumi config set gcp:zone us-central1-a", "from us-central1-a to us-central1-b"),
        ("gcp:project=another-one", "pulumi config set gcp:project stand-in", "from stand-in to another-one"),
        ("gateway.database=cloud-sql", "pulumi config set --path gateway.database in-cluster", "would begin empty"),
    ):
        engine.set(setting)
        outcome = engine.run("preview", check=False)
        assert outcome.code != 0
        assert words in outcome.text
        assert "marked for protection" not in outcome.text
        assert "Traceback" not in outcome.text
        assert back in remedies(outcome.text)
        if words == "would begin empty":
            assert engine.try_up().code != 0
            assert cloud(engine) == before
        type_in(engine, back)
    assert engine.changes() == {}


def test_a_former_database_that_the_stack_never_had_is_refused(platform: Platform, deploys: Deploys) -> None:
    """It would be made, empty and billed: on a stack that begins, and on one that is there."""
    engine = deploys("ai-dev")
    for _ in range(2):
        before = cloud(engine)
        engine.set("gateway.formerDatabase=cloud-sql")
        for outcome in (engine.run("preview", check=False), engine.try_up()):
            assert outcome.code != 0
            assert "the stack has no cloud-sql database that it had before" in outcome.text
            assert "Traceback" not in outcome.text
        assert _INSTANCE not in cloud(engine)
        assert before.items() <= cloud(engine).items()
        (remedy,) = {told for told in remedies(outcome.text) if "formerDatabase" in told}
        type_in(engine, remedy)
        engine.up()
    assert engine.changes() == {}


# --- another database ------------------------------------------------------------------------------------------


def test_a_stack_goes_to_cloud_sql_and_back_and_each_database_stays_until_it_is_let_go(
    platform: Platform, deploys: Deploys
) -> None:
    engine = deploys("ai-dev")
    engine.up("gateway.databaseGib=20")
    claim = platform.uids(GATEWAY, "pvc")[CLAIM]

    # The disk that stays keeps its size: on the way back a smaller one would be an empty one.
    smaller = engine.try_up("gateway.database=cloud-sql", "gateway.formerDatabase=in-cluster", "gateway.databaseGib=10")
    assert smaller.code != 0
    assert "remedy: pulumi config set --path gateway.databaseGib 20" in smaller.text
    engine.up("gateway.databaseGib=20")
    assert {_DISK, _INSTANCE} < cloud(engine).keys()
    assert "litellm-db" not in platform.uids(GATEWAY, "statefulset")
    assert engine.changes() == {}

    engine.up("gateway.database=in-cluster", "gateway.formerDatabase=cloud-sql")
    assert {_DISK, _INSTANCE} < cloud(engine).keys()
    assert platform.uids(GATEWAY, "pvc")[CLAIM] == claim
    assert engine.changes() == {}

    engine.set("gateway.formerDatabase=none")
    outcome = engine.try_up()
    assert outcome.code == 0, outcome.text
    assert "the cloud-sql database that the stack had before is let go: it stays in the cloud" in outcome.text
    assert {_DISK, _INSTANCE} < cloud(engine).keys()
    assert not [r for r in engine.resources() if r["type"].startswith("gcp:sql")]


# --- taken down ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["in-cluster", "cloud-sql"])
def test_the_readme_s_way_down_ends_with_an_empty_project(platform: Platform, deploys: Deploys, database: str) -> None:
    engine = deploys("ai-dev")
    engine.up(f"gateway.database={database}")
    data = _DISK if database == "in-cluster" else _INSTANCE
    down = ("destroy", "--yes", "--skip-preview")

    engine.run(*down, "--exclude-protected")
    assert {data, _CLUSTER} < cloud(engine).keys()

    # Out of order: two locks, and this opens one.
    engine.run("state", "unprotect", "--all", "--yes")
    assert engine.run(*down, check=False).code != 0
    assert {data, _CLUSTER} < cloud(engine).keys()

    engine.up("deletionProtection=false")
    engine.run(*down, "--exclude-protected")
    assert data in cloud(engine)
    assert _CLUSTER not in cloud(engine)

    engine.run("state", "unprotect", "--all", "--yes")
    engine.run(*down)
    # APIs stay enabled; the peering goes with its network.
    assert not [key for key in cloud(engine) if "/" in key]
    assert not engine.resources()

    # Google remembers more of a network than it shows.
    engine.up("deletionProtection=true")
    assert engine.changes() == {}
