"""The program on what is shipped: every entry of the catalog comes up, and every stack would deploy.

Whoever cloned this has other models, zones, teams and keys: nothing here names one.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

import models.catalog
from components.serving.vllm_model import vllm_arguments
from models.engines.vllm import VllmEngine
from ops.config_files import load
from ops.pin import command as pin
from ops.policies import RULES, Resource
from ops.schema.command import FILES
from stacks.admission import Admission, admit
from stacks.costs import costs
from stacks.plan import State
from stacks.settings import RawConfig
from tests.checkout import CHECKOUT
from tests.components.test_vllm_arguments import mistakes, variants
from tests.docs.snippets import commands
from tests.pod_security import violations
from tests.shipped import CATALOG, GROUPS, STACKS
from tests.stacks.remedies import follow
from tests.support import Records, object_name, recorded_with_catalog

HERE = [alias for alias, spec in CATALOG.items() if spec.engine.runs_here]
# A new model may need a larger node; whether it is worth that is for whoever runs `ops plan`, and not for a test.
WHATEVER_IT_COSTS = ("maxHourlyUsd=100000", "maxMonthlyUsd=100000000")
every_model = pytest.mark.parametrize("alias", HERE)
every_stack = pytest.mark.parametrize("stack", STACKS)


def judged(raw: RawConfig) -> Admission:
    return admit(raw, CATALOG, GROUPS, rehearsal=True)


def refusal(admission: Admission) -> str:
    return "\n".join(str(problem) for problem in admission.problems)


# --- the catalog ---------------------------------------------------------------------------------------------------


def on_gke(**values: object) -> RawConfig:
    """A stack of a test with every group that can be enabled, at whatever cost."""
    groups = {name: group.unavailable is None for name, group in GROUPS.items()}
    platform = {f"ai-platform:{key}": json.dumps(value) for key, value in {"groups": groups, **values}.items()}
    cost = {f"ai-platform:{key}": value for key, _, value in (a.partition("=") for a in WHATEVER_IT_COSTS)}
    place = {"gcp:project": "some-project", "gcp:zone": "us-central1-a"}
    return RawConfig("ai-platform", "test", place | platform | cost)


def up(*aliases: str) -> dict[str, str]:
    """Config that brings models up, and says yes to those that have to be asked for."""
    asked = [alias for alias in aliases if (held := CATALOG[alias].weights) and held.format == "pickle"]
    return {f"{alias}:replicas": "1" for alias in aliases} | {f"{alias}:allowPickle": "true" for alias in asked}


@functools.cache
def everything() -> Records:
    """What the program registers with every model of the catalog up."""
    raw = on_gke(gpuQuota=sum(CATALOG[alias].gpus for alias in HERE), systemNodes=3)
    return recorded_with_catalog(RawConfig(raw.project, raw.stack, {**raw.values, **up(*HERE)}), CATALOG, GROUPS)


@every_model
def test_a_model_can_come_up_alone(alias: str) -> None:
    raw = on_gke(gpuQuota=max(1, CATALOG[alias].gpus))
    admission = judged(RawConfig(raw.project, raw.stack, {**raw.values, **up(alias)}))
    assert not admission.problems, refusal(admission)
    assert [model.spec.alias for model in admission.plan.models if model.state is State.UP] == [alias]


@every_model
def test_an_entry_is_all_that_a_model_needs_to_be_deployed_and_registered(alias: str) -> None:
    records, spec = everything(), CATALOG[alias]
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        assert records.one(kind, alias, "serving")
    assert records.one("PersistentVolumeClaim", f"{alias}-model-cache", "serving")
    config = yaml.safe_load(records.manifest("ConfigMap", "litellm-config")["data"]["config.yaml"])
    (registered,) = (entry for entry in config["model_list"] if entry["model_name"] == alias)
    assert registered["litellm_params"]["model"].endswith(f"/{spec.served_name}")
    assert violations(records.pod(alias).spec) == []


def test_no_object_of_one_model_has_the_name_of_another_object() -> None:
    names = [(r.type, r.inputs["metadata"].get("namespace"), object_name(r)) for r in everything().kubernetes]
    assert len(names) == len(set(names)), f"twice: {sorted({name for name in names if names.count(name) > 1})}"


def test_with_every_model_up_the_policies_hold() -> None:
    resources = [
        Resource(type=r.type, name=r.name, urn=r.urn, properties=r.inputs, protect=r.protect)
        for r in everything().resources
    ]
    assert [str(problem) for rule in RULES for resource in resources for problem in rule.check(resource)] == []


@pytest.mark.parametrize("alias", [alias for alias in HERE if isinstance(CATALOG[alias].engine, VllmEngine)])
def test_every_argument_of_an_entry_is_one_of_vllm_s(alias: str) -> None:
    for spec in variants(CATALOG[alias]):
        assert mistakes(vllm_arguments(spec)) == []


@pytest.mark.parametrize("alias", [a for a in HERE if (held := CATALOG[a].weights) and held.revision is None])
def test_a_missing_revision_can_be_written_where_its_entry_stands(
    alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.catalog, "CATALOG", CATALOG)
    (missing,) = (found for found in pin._pins("", None) if found.anchor == ("alias", alias))  # pyright: ignore[reportPrivateUsage]
    assert missing.file is not None  # of a file of the catalog: nothing lies over it here
    commit, copy = "c0ffee" + "0" * 34, tmp_path / missing.file.name
    copy.write_text(missing.file.read_text())
    pin.write_pin(replace(missing, file=copy), commit)
    assert copy.read_text().count(commit) == 1


@pytest.mark.parametrize("alias", [alias for alias in HERE if CATALOG[alias].group == "gguf"])
def test_a_model_on_cpu_is_sold_for_what_it_costs_on_the_machine_of_its_plan(alias: str) -> None:
    bill = costs(judged(on_gke()).plan)
    assert bill
    (cost,) = (model for model in bill.models if model.alias == alias)
    assert cost.usd_per_mtok is not None
    assert cost.price_usd_per_mtok is not None
    assert cost.usd_per_mtok <= cost.price_usd_per_mtok <= 2 * cost.usd_per_mtok, cost.told


# --- the stacks ----------------------------------------------------------------------------------------------------


@every_stack
def test_a_stack_of_this_checkout_would_deploy_with_all_of_its_models(stack: str) -> None:
    raw = load(CHECKOUT, stack, WHATEVER_IT_COSTS)
    admission = judged(raw)
    assert not admission.problems, f"Pulumi.{stack}.yaml is refused:\n{refusal(admission)}"
    records = recorded_with_catalog(raw, CATALOG, GROUPS)
    deployed = {model.spec.alias for model in admission.plan.models if model.state in (State.UP, State.OFF)}
    assert deployed <= {object_name(deployment) for deployment in records.all("Deployment")}
    assert set(records.outputs["models"]) == deployed
    if projects := [r.inputs["project"] for r in records.resources if r.type == "pulumi:providers:gcp"]:
        assert projects == [raw.values["gcp:project"]]


@pytest.mark.skipif("gguf" not in GROUPS or "ai-dev" not in STACKS, reason="what the page is about is not here")
def test_the_way_of_the_page_of_gguf_models_is_admitted_as_it_is_typed() -> None:
    config = load(CHECKOUT, "ai-dev")
    for command in commands(CHECKOUT / "docs" / "gguf.md"):
        for one in command.text.split(" && ") if command.block == 1 else []:
            config = follow(config, one) if one.startswith("pulumi config") else config
            assert not judged(config).problems, f"{one}:\n{refusal(judged(config))}"
    assert [model.spec.group for model in judged(config).plan.models if model.state is State.UP] == ["gguf"]


@every_stack
def test_a_stack_of_this_checkout_is_planned_by_the_command(stack: str) -> None:
    command = [sys.executable, "-m", "ops.cli", "plan", "--stack", stack, "--format", "json"]
    command += [word for assignment in WHATEVER_IT_COSTS for word in ("--set", assignment)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [model["alias"] for model in json.loads(done.stdout)["models"]] == list(CATALOG)


@every_stack
def test_a_stack_file_stands_as_the_cli_writes_it_so_that_a_change_is_one_line(stack: str) -> None:
    """It takes out blank lines, quotes plain values, puts one space before a comment, and one line after the last."""
    text = (CHECKOUT / f"Pulumi.{stack}.yaml").read_text()
    lines = text.splitlines()
    assert [line for line in lines if not line.strip() or re.search(r"\S {2,}#", line)] == []
    assert not lines[-1].lstrip().startswith("#")
    values = cast("dict[str, object]", yaml.safe_load(text)["config"])
    assert {key: value for key, value in values.items() if not isinstance(value, str | dict | list)} == {}


@every_stack
@pytest.mark.skipif(shutil.which("pulumi") is None, reason="no `pulumi` on PATH to write the file")
def test_the_real_cli_changes_the_lines_that_it_is_asked_to_change(stack: str, tmp_path: Path) -> None:
    file = tmp_path / f"Pulumi.{stack}.yaml"
    for source in (CHECKOUT / "Pulumi.yaml", CHECKOUT / file.name):
        shutil.copy(source, tmp_path)
    for folder in ("home", "state"):
        (tmp_path / folder).mkdir()
    env = {**os.environ, "PULUMI_HOME": str(tmp_path / "home"), "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}"}
    env |= {"PULUMI_CONFIG_PASSPHRASE": "x", "PULUMI_SKIP_UPDATE_CHECK": "true"}

    def changed(*words: str) -> list[str]:
        before = file.read_text().splitlines()
        subprocess.run(["pulumi", *words], cwd=tmp_path, env=env, check=True, capture_output=True)
        lines = difflib.ndiff(before, file.read_text().splitlines())
        return [line for line in lines if line[0] in "+-" and not line.startswith("+ encryptionsalt: ")]

    assert changed("stack", "init", stack) == []
    raw = load(CHECKOUT, stack)
    key, value = next((k, v) for k, v in raw.values.items() if not v.startswith(("{", "[")))
    assert changed("config", "set", key, value) == []
    assert changed("config", "set", "gpuBootDiskGib", "150") == ['+   ai-platform:gpuBootDiskGib: "150"']
    first, group = next(iter(json.loads(raw.values["ai-platform:groups"]).items()))
    old, new = f"    {first}: {json.dumps(group)}", f"    {first}: {json.dumps(not group)}"
    assert changed("config", "set", "--path", f"ai-platform:groups.{first}", json.dumps(not group)) == [
        f"- {old}",
        f"+ {new}",
    ]
    assert changed("config", "rm", "gpuBootDiskGib") == ['-   ai-platform:gpuBootDiskGib: "150"']
    secret, encrypted = changed("config", "set", "--secret", "litellmMasterKey", "sk-of-a-test")
    assert secret == "+   ai-platform:litellmMasterKey:"
    assert encrypted.startswith("+     secure: ")


def test_default_providers_are_off_and_every_update_refreshes() -> None:
    project = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    assert project["options"]["refresh"] == "always"
    assert project["config"]["pulumi:disable-default-providers"]["value"] == ["*"]
    # The CLI would abort on a declared type alone, first, and without a remedy.
    assert not any(key in entry for entry in project["config"].values() for key in ("type", "items", "default"))


# --- schemas ---------------------------------------------------------------------------------------------------


@functools.cache
def schema(of: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ops.cli", "schema", of]
    return json.loads(subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout)


def test_the_committed_schemas_are_what_the_types_say() -> None:
    """A model or group added since is no reason to fail: `make test` writes them anew, and CI sees that they are so."""
    assert json.loads((CHECKOUT / FILES["catalog"]).read_text()) == schema("catalog"), "make schemas"
    committed, made = (
        whole["$defs"]["config"]["properties"]
        for whole in (json.loads((CHECKOUT / FILES["config"]).read_text()), schema("config"))
    )
    named = {key for key in committed if key.endswith((":fallback", ":groups"))}  # they list models and groups
    assert {key: committed[key] for key in committed.keys() & made.keys() - named} == {
        key: made[key] for key in committed.keys() & made.keys() - named
    }, "make schemas"


@every_stack
def test_a_stack_names_its_schema_and_keeps_to_it(stack: str) -> None:
    text = (CHECKOUT / f"Pulumi.{stack}.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema={FILES['config']}\n")
    validator = cast("Any", jsonschema).Draft7Validator(schema("config"))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
