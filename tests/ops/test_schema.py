"""The JSON Schemas: as the types are, and of one mind with the program that reads the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

from ops.cli import main
from ops.config_files import load
from ops.schema.command import FILES, rendered
from stacks.admission import admit
from tests.catalog import CATALOG, GROUPS
from tests.checkout import CHECKOUT

GKE = {"gcp:project": "some-project", "gcp:zone": "us-central1-a"}
GPU = "coder-chat"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(rendered("config", CHECKOUT))


def complaints(schema: dict[str, Any], content: object) -> list[str]:
    validator = cast("Any", jsonschema).Draft7Validator(schema)
    return [error.message for error in validator.iter_errors(content)]


def problems(project: Path, config: dict[str, Any]) -> list[str]:
    (project / "Pulumi.yaml").write_text((CHECKOUT / "Pulumi.yaml").read_text())
    (project / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    return [problem.message for problem in admit(load(project, "dev"), rehearsal=True).problems]


@pytest.mark.parametrize("of", FILES)
def test_a_schema_is_one(of: str) -> None:
    made = json.loads(rendered(of, CHECKOUT))
    cast("Any", jsonschema).validators.validator_for(made).check_schema(made)


def test_printed_is_what_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert main(["schema", "config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / FILES["config"]).parent.mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text((CHECKOUT / "Pulumi.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "config", "--write"]) == 0
    assert (tmp_path / FILES["config"]).read_text() == printed


def test_an_editor_finds_every_alias_every_group_and_every_unit(schema: dict[str, Any]) -> None:
    config = schema["$defs"]["config"]["properties"]
    assert {key.partition(":")[0] for key in config} >= {
        alias for alias, spec in CATALOG.items() if spec.weights is not None
    }
    assert set(config["ai-platform:groups"]["anyOf"][0]["properties"]) == set(GROUPS)
    assert config["ai-platform:gpuQuota"]["description"] == "what GPUS_ALL_REGIONS allows"
    assert config["ai-platform:gpuQuota"]["default"] == 1


def test_every_entry_of_the_catalog_is_as_the_schema_says() -> None:
    made = json.loads(rendered("catalog", CHECKOUT))
    validator = cast("Any", jsonschema).Draft202012Validator(made)
    for spec in CATALOG.values():
        validator.validate(spec.model_dump(mode="json"))
    broken = next(iter(CATALOG.values())).model_dump(mode="json") | {"served_names": "x"}
    assert not validator.is_valid(broken)


def test_an_entry_of_a_checkout_is_as_its_schema_says_whole_or_in_part() -> None:
    validator = cast("Any", jsonschema).Draft202012Validator(json.loads(rendered("overlay", CHECKOUT)))
    for spec in CATALOG.values():
        validator.validate({"models": [spec.model_dump(mode="json")]})
    validator.validate(
        {"models": [{"alias": GPU, "engine": {"max_num_seqs": 8}}, {"price": {"input_usd_per_mtok": 1}}]}
    )
    validator.validate({"models": None})
    for broken in (
        {"contxt": 1},
        {"context": "long"},
        {"engine": {"max_seqs": 8}},
        {"group": "mine"},
        {"task": "sing"},
    ):
        assert not validator.is_valid({"models": [{"alias": GPU, **broken}]}), broken


GOOD: list[dict[str, Any]] = [
    {},
    {f"{GPU}:replicas": 0},
    {f"{GPU}:replicas": "0"},
    {f"{GPU}:enabled": "true"},
    {f"{GPU}:enabled": False},
    {"ai-platform:config:groups": {"baseline": True}},
    {"groups": {"baseline": "true"}},
    {"ai-platform:groups": '{"baseline": true, "providers": false}'},
    {"ai-platform:spot": "true"},
    {"ai-platform:machineType": "g2-standard-8"},
    {"ai-platform:maxHourlyUsd": "1.5", "ai-platform:maxMonthlyUsd": 800},
    {"ai-platform:gateway": {"replicas": "2", "database": "cloud-sql"}},
    {"ai-platform:gateway": {"databaseGib": 20}},
    {f"{GPU}:maxModelLen": "8192", f"{GPU}:gpuMemoryUtilization": 0.9},
    {f"{GPU}:tokensPerSecond": 300, f"{GPU}:fallback": "qwen-local", "ai-platform:groups": {"baseline": True}},
    {"ai-platform:teams": {"a": {"models": ["baseline"], "maxBudgetUsd": 5, "budgetPeriod": "7d"}}},
    {
        "ai-platform:keys": {"ci": {"models": [GPU], "tokensPerMinute": "100", "maxBudgetUsd": 1, "team": None}},
        "ai-platform:groups": {"coding-assistant": True},
        "ai-platform:keyValues": {"ci": {"secure": "v1:x"}},
    },
    {"ai-platform:litellmMasterKey": {"secure": "v1:x"}},
    {"ai-platform:prices": {"asOf": "2026-08-20", "spot": {"g2-standard-8": 0.3}}},
    {"pulumi:disable-default-providers": ["*"]},
]
BAD: list[dict[str, Any]] = [
    {f"{GPU}:replicas": "one"},
    {f"{GPU}:replicas": -1},
    {f"{GPU}:replicas": 1.5},
    {f"{GPU}:replicas": True},
    {f"{GPU}:replcas": 1},
    {f"{GPU}:enabled": "yes"},
    {"claude-haiku:enabled": True},
    {"coder-chatt:replicas": 1},
    {f"{GPU}:maxModelLen": "0"},
    {f"{GPU}:gpuMemoryUtilization": 1.2},
    {f"{GPU}:fallback": "nobody"},
    {"claude-haiku:replicas": 1},
    {"embeddings:maxModelLen": 512},
    {"ai-platform:spot": "yes"},
    {"ai-platform:spot": 1},
    {"ai-platform:gpuQuota": -1},
    {"ai-platform:gpuQuotas": 1},
    {"gpuQuotas": 1},
    {"ai-platform:machineType": "n1-standard-8"},
    {"ai-platform:target": "aks"},
    {"gcp:zone": "mars-a"},
    {"gcp:project": "X"},
    {"gcp:region": "us-central1"},
    {"ai-platform:groups": {"no-such-group": True}},
    {"ai-platform:groups": {"providers": True}},
    {"ai-platform:groups": ["baseline"]},
    {"ai-platform:groups": {"baseline": "on"}},
    {"ai-platform:gateway": {"redis": "redis:6379"}},
    {"ai-platform:gateway": {"replicas": 11}},
    {"ai-platform:gateway": 5},
    {"ai-platform:teams": {"A": {"models": ["baseline"]}}},
    {"ai-platform:teams": {"a": {}}},
    {"ai-platform:teams": {"a": {"models": []}}},
    {"ai-platform:teams": {"a": {"models": "baseline"}}},
    {"ai-platform:teams": {"a": {"models": ["baseline"], "budgetPeriod": "48h"}}},
    {"ai-platform:teams": {"a": {"models": ["baseline"], "maxBudgetUsd": 0}}},
    {"ai-platform:keys": {"ci": {"models": ["no-such-model"]}}},
    {"ai-platform:maxHourlyUsd": "much"},
    {"ai-platform:prices": {"onDemand": {"m5.large": 1}}},
    {"ai-platform:litellmMasterKey": "sk-in-clear-text-000000"},
    {"ai-platform:keyValues": {"ci": "sk-in-clear-text-000000"}},
    {"ai-platform:keyValues": {"secure": "v1:x"}},
    {"ai-platform:nonsense": {"secure": "v1:x"}},
]


@pytest.mark.parametrize("config", GOOD, ids=str)
def test_what_the_program_takes_the_schema_takes(
    schema: dict[str, Any], tmp_path: Path, config: dict[str, Any]
) -> None:
    config = GKE | config
    assert problems(tmp_path, config) == []
    assert complaints(schema, {"config": config}) == []


@pytest.mark.parametrize("config", BAD, ids=str)
def test_what_the_schema_refuses_the_program_refuses(
    schema: dict[str, Any], tmp_path: Path, config: dict[str, Any]
) -> None:
    config = GKE | config
    assert complaints(schema, {"config": config})
    assert problems(tmp_path, config)
