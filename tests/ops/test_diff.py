"""`ops plan --against`: what lies between two plans, told so that nobody loses data unseen."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import sys
import typing
from pathlib import Path
from typing import Any

import pulumi
import pulumi_gcp as gcp
import pytest

from ops.cli import main
from ops.plan.data import plan_data
from ops.plan.diff.compare import PlanDiff, compare
from ops.plan.diff.markdown import COMMENT_LIMIT, as_markdown
from ops.plan.diff.resources import Difference, Operation
from ops.plan.diff.text import as_text
from ops.plan.replacements import GCP, PROVIDER, Replaces
from stacks.admission import admit
from tests.checkout import ROOMS
from tests.ops.sandbox import commit, git, sandbox
from tests.support import PROJECT_DIR, config, recorded

Plan = dict[str, Any]


@functools.cache
def _recorded_plan(*assignments: str) -> Plan:
    return plan_data(admit(config(*assignments), rehearsal=True), recorded(*assignments).resources)


def _plan(*assignments: str) -> Plan:
    """The plan of the committed config, free to change."""
    return copy.deepcopy(_recorded_plan(*assignments))


def _resource(plan: Plan, kind: str, name: str) -> dict[str, Any]:
    return next(r for r in plan["resources"] if r["type"].endswith(f":{kind}") and r["name"] == name)


def _edited(kind: str, name: str, path: str, value: object) -> PlanDiff:
    """The committed plan against itself with one property set."""
    new = _plan()
    *parents, last = path.split(".")
    inner = _resource(new, kind, name)["inputs"]
    for key in parents:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return compare(_plan(), new)


def _one(diff: PlanDiff) -> Difference:
    (found,) = diff.differences
    return found


# --- what happens to a resource --------------------------------------------------------------------------------


def test_a_plan_does_not_differ_from_itself() -> None:
    diff = compare(_plan(), _plan())
    assert (diff.differences, diff.models, diff.money.machines, diff.problems) == ((), (), {}, ())


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "operation"),
    [
        ("Deployment", "coder-chat", "spec.replicas", 1, Operation.CHANGED),
        ("Deployment", "coder-chat", "spec.selector.matchLabels.x", "y", Operation.REPLACED),
        ("Deployment", "coder-chat", "metadata.name", "other", Operation.REPLACED),
        ("StatefulSet", "litellm-db", "spec.serviceName", "other", Operation.REPLACED),
        ("Job", "litellm-migrate", "spec.template.spec.nodeName", "n", Operation.RUN_AGAIN),
        ("Job", "litellm-migrate", "spec.backoffLimit", 9, Operation.CHANGED),
        ("Service", "litellm", "spec.clusterIP", "10.0.0.1", Operation.REPLACED),
        ("PersistentVolumeClaim", "litellm-db-data", "spec.storageClassName", "other", Operation.REPLACED),
        ("PersistentVolumeClaim", "litellm-db-backups", "spec.resources.requests.storage", "20Gi", Operation.CHANGED),
        ("ConfigMap", "litellm-config", "data.x", "y", Operation.CHANGED),
        ("Secret", "gateway-litellm-salt-key", "data", "other", Operation.REPLACED),
        ("Secret", "gateway-litellm-master-key", "data", "other", Operation.CHANGED),
        ("Disk", "ai-platform-ai-dev-gateway-db", "size", 20, Operation.CHANGED),
        ("Disk", "ai-platform-ai-dev-gateway-db", "size", 5, Operation.REPLACED),
        ("Disk", "ai-platform-ai-dev-gateway-db", "type", "pd-ssd", Operation.REPLACED),
        ("NodePool", "g2-standard-8-100g", "initialNodeCount", 1, Operation.REPLACED),
        ("NodePool", "g2-standard-8-100g", "nodeConfig.spot", True, Operation.REPLACED),
        ("NodePool", "g2-standard-8-100g", "nodeConfig.diskSizeGb", 200, Operation.CHANGED),
        ("NodePool", "g2-standard-8-100g", "autoscaling.totalMaxNodeCount", 2, Operation.CHANGED),
        ("Cluster", "cluster", "datapathProvider", "LEGACY_DATAPATH", Operation.REPLACED),
        ("Cluster", "cluster", "releaseChannel.channel", "STABLE", Operation.CHANGED),
        ("Subnetwork", "subnetwork", "ipCidrRange", "192.0.2.0/24", Operation.REPLACED),
    ],
)
def test_a_change_replaces_exactly_where_the_provider_replaces(
    kind: str, name: str, path: str, value: object, operation: Operation
) -> None:
    found = next(d for d in _edited(kind, name, path, value).differences if d.kind == kind)
    assert found.operation is operation
    assert [change.path for change in found.changes] == [path]


def test_what_the_program_ignores_is_no_change() -> None:
    assert _edited("Cluster", "cluster", "initialNodeCount", 3).differences == ()


def test_without_a_mutable_provider_a_config_map_is_replaced() -> None:
    old, new = _plan(), _plan()
    for plan in (old, new):
        _resource(plan, "kubernetes", "workloads")["inputs"].pop("enableConfigMapMutable")
    _resource(new, "ConfigMap", "litellm-config")["inputs"]["data"]["x"] = "y"
    assert _one(compare(old, new)).operation is Operation.REPLACED


def test_another_project_replaces_everything_in_it() -> None:
    new = _plan()
    _resource(new, "gcp", "gcp")["inputs"]["project"] = "another-project"
    replaced = {d.urn for d in compare(_plan(), new).differences if d.operation is Operation.REPLACED}
    assert replaced >= {r["urn"] for r in new["resources"] if r["type"].startswith("gcp:compute")}


def test_what_is_made_from_a_replaced_resource_is_replaced_too() -> None:
    diff = _edited("Network", "network", "description", "another")
    replaced = {d.kind for d in diff.differences if d.operation is Operation.REPLACED}
    assert replaced >= {"Network", "Subnetwork", "Router", "Cluster"}


def test_an_element_is_found_by_its_name_wherever_it_stands() -> None:
    new = _plan()
    containers = _resource(new, "Deployment", "coder-chat")["inputs"]["spec"]["template"]["spec"]["containers"]
    containers[0]["env"].insert(0, {"name": "EXTRA", "value": "1"})
    (change,) = _one(compare(_plan(), new)).changes
    assert change.path == "spec.template.spec.containers[vllm].env[EXTRA].value"


def test_a_plan_of_a_version_that_told_less_does_not_look_changed() -> None:
    old = _plan()
    for resource in old["resources"]:
        del resource["provider"], resource["ignoreChanges"]
    for model in old["models"]:
        del model["fit"]
    del old["costs"]
    diff = compare(old, _plan())
    assert (diff.differences, diff.models) == ((), ())


# --- data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "fate"),
    [
        ("PersistentVolumeClaim", "coder-chat-model-cache", "leaves the stack and stays"),
        ("Disk", "ai-platform-ai-dev-gateway-db", "pulumi state unprotect"),
        ("Cluster", "cluster", "pulumi state unprotect"),
    ],
)
def test_a_deletion_of_data_says_where_the_data_goes(kind: str, name: str, fate: str) -> None:
    new = _plan()
    new["resources"].remove(_resource(new, kind, name))
    (found,) = compare(_plan(), new).at_risk
    assert fate in (found.fate or "")


@pytest.mark.parametrize(
    ("path", "value", "fate"),
    [
        ("metadata.name", "other", "stays under its old name"),
        ("spec.storageClassName", "other", "`pulumi up` fails"),
    ],
)
def test_a_replacement_of_a_kept_claim_says_what_becomes_of_both(path: str, value: str, fate: str) -> None:
    (found,) = _edited("PersistentVolumeClaim", "coder-chat-model-cache", path, value).at_risk
    assert fate in (found.fate or "")


def test_another_cluster_keeps_the_data_in_the_old_one() -> None:
    new = _plan()
    for provider in ("data", "workloads"):
        _resource(new, "kubernetes", provider)["inputs"]["clusterIdentifier"] = "another"
    fates = {d.fate for d in compare(_plan(), new).at_risk if d.kind == "PersistentVolumeClaim"}
    assert fates == {"stays in the cluster where it is, and an empty one is made in the other"}


def test_data_that_nothing_protects_is_said_to_be_lost() -> None:
    old, new = _plan(), _plan()
    new["resources"].remove(_resource(new, "PersistentVolumeClaim", "coder-chat-model-cache"))
    _resource(old, "PersistentVolumeClaim", "coder-chat-model-cache")["retainOnDelete"] = False
    (found,) = compare(old, new).at_risk
    assert "is deleted, with the data on it" in (found.fate or "")


def test_a_claim_under_another_urn_is_told_to_need_an_alias() -> None:
    new = _plan()
    claim = _resource(new, "PersistentVolumeClaim", "coder-chat-model-cache")
    claim["urn"] = claim["urn"].replace("VllmModel", "Renamed")
    assert "aliases" in (compare(_plan(), new).at_risk[0].fate or "")


def test_data_comes_first_in_every_form() -> None:
    old, new = _plan(), _plan("ai-platform:groups.baseline=false")
    diff = compare(old, new)
    assert diff.differences[0].where == "serving/qwen-local-model-cache"
    assert as_text(diff, "old", None, new).index("leaves the stack") < as_text(diff, "old", None, new).index("changed:")
    markdown = as_markdown(diff, "old", None, new)
    assert markdown.index("leaves the stack") < markdown.index("<details>")


@pytest.mark.parametrize(
    ("assignment", "remedy"),
    [
        ("embeddings:claimGib=9", "pulumi config set embeddings:claimGib 9"),
        ("ai-platform:gateway.databaseGib=20", "pulumi config set --path gateway.databaseGib 20"),
    ],
)
def test_a_smaller_claim_is_a_problem_told_once_and_a_larger_is_none(assignment: str, remedy: str) -> None:
    (problem,) = compare(_plan(assignment), _plan()).problems
    assert problem.remedy == remedy
    assert "would shrink from" in problem.message
    assert compare(_plan(), _plan(assignment)).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ((), ("storageClass=fast",), "pulumi config rm storageClass   # stays"),
        (("storageClass=fast",), (), "pulumi config set storageClass fast   # stays"),
        (("storageClass=fast",), ("storageClass=slow",), "pulumi config set storageClass fast   # stays"),
    ],
)
def test_claims_keep_their_class_so_another_one_is_a_problem_told_once(
    old: tuple[str, ...], new: tuple[str, ...], remedy: str
) -> None:
    (problem,) = compare(_plan(*old), _plan(*new)).problems
    assert problem.remedy == remedy
    assert "PersistentVolumeClaim gateway/litellm-db-backups and 6 more would have" in problem.message


@pytest.mark.parametrize(
    ("assignment", "remedy", "words"),
    [
        (
            "ai-platform:gateway.database=cloud-sql",
            "pulumi config set --path gateway.database in-cluster",
            "would begin empty",
        ),
        ("gcp:zone=us-central1-b", "pulumi config set gcp:zone us-central1-a", "replaced by empty ones"),
    ],
)
def test_a_step_after_which_the_database_would_begin_empty_is_a_problem(
    assignment: str, remedy: str, words: str
) -> None:
    (problem,) = compare(_plan(), _plan(assignment)).problems
    assert problem.remedy.partition("   #")[0] == remedy
    assert words in problem.message


def test_a_former_database_that_the_stack_never_had_is_a_problem() -> None:
    (problem,) = compare(_plan(), _plan("ai-platform:gateway.formerDatabase=cloud-sql")).problems
    assert "has no cloud-sql database that it had before" in problem.message
    assert problem.remedy == "pulumi config rm --path gateway.formerDatabase"


def test_a_database_that_is_kept_beside_the_new_one_is_no_problem() -> None:
    moved = _plan("ai-platform:gateway.database=cloud-sql", "ai-platform:gateway.formerDatabase=in-cluster")
    found = compare(_plan(), moved)
    assert found.problems == ()
    # Without `protect` its disk is kept all the same, and so is its password.
    assert [each.where for each in found.unguarded] == []
    (password,) = (d for d in found.differences if d.kind == "Secret" and d.operation is Operation.DELETED)
    assert (password.fate or "").startswith("leaves the stack and stays, data and all")


WITHOUT_CODING = "groups.coding-assistant=false"


def test_a_pool_that_auto_makes_anew_under_what_is_up_is_refused_and_one_that_is_asked_for_is_told() -> None:
    up = "qwen-local:replicas=1"
    old, new = _plan(up), _plan(up, WITHOUT_CODING)
    (problem,) = compare(old, new).problems
    assert problem.message.startswith(
        "machineType is auto, and qwen-local is up on g2-standard-8 and would move to a new pool of g2-standard-4: away"
    )
    assert "10 of them until the old node is removed" in problem.message
    stay, move = (f"pulumi config set machineType {shape}" for shape in ("g2-standard-8", "g2-standard-4"))
    assert problem.remedy == f"{stay}   # stays; or, to move: {move}"
    assert compare(old, _plan(up, WITHOUT_CODING, "machineType=g2-standard-8")).problems == ()
    moved = compare(old, _plan(up, WITHOUT_CODING, "machineType=g2-standard-4"))
    assert moved.problems == ()
    (outage,) = (o for o in moved.outages if o.what == "qwen-local")
    assert outage.how == "restarts on another node once the old one is gone"
    # With quota for both nodes nothing waits; and a pool that nothing is up on may become what it likes.
    (problem,) = compare(_plan(up, "gpuQuota=2"), _plan(up, "gpuQuota=2", WITHOUT_CODING)).problems
    assert "old node" not in problem.message
    assert compare(_plan(), new).problems == compare(_plan(), _plan(WITHOUT_CODING)).problems == ()


def test_a_pool_that_does_not_hold_what_is_up_any_more_is_not_offered_to_stay_on() -> None:
    new = _plan("coder-agent:replicas=1")
    old = {**new, "machines": {**new["machines"], "gpu": {**new["machines"]["gpu"], "type": "g2-standard-4"}}}
    (problem,) = compare(old, new).problems
    assert "is up on g2-standard-4 and would move to a new pool of g2-standard-8" in problem.message
    assert problem.remedy == "pulumi config set machineType g2-standard-8   # moves"


@pytest.mark.parametrize(("before", "offered"), [("e2-standard-8", "# stays"), ("e2-standard-2", "# moves")])
def test_a_system_pool_that_auto_makes_anew_under_the_gateway_is_refused(before: str, offered: str) -> None:
    new = _plan()
    system: dict[str, Any] = new["machines"]["system"]
    assert system["type"] == "e2-standard-4"
    old = {**new, "machines": {**new["machines"], "system": {**system, "type": before}}}
    (problem,) = compare(old, new).problems
    assert f"the system pool of {before} would be replaced by one of e2-standard-4" in problem.message
    assert offered in problem.remedy
    assert compare(old, _plan("systemMachineType=e2-standard-4")).problems == ()


def test_a_model_that_leaves_with_the_gpu_that_another_comes_for_is_refused_with_the_step_in_between() -> None:
    old, new = _plan("coder-chat:replicas=1"), _plan(WITHOUT_CODING, "qwen-local:replicas=1")
    (problem,) = compare(old, new).problems
    assert "coder-chat leaves the program while it is up" in problem.message
    assert "qwen-local would wait" in problem.message
    assert problem.remedy.startswith("pulumi config set coder-chat:replicas 0 && pulumi up ")
    # The step in between, and what comes after it.
    assert compare(old, _plan()).problems == compare(_plan(), new).problems == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("coder-chat:replicas=1",), ("coder-agent:replicas=1",)),  # stays, at zero
        (("coder-chat:replicas=1",), (WITHOUT_CODING,)),  # nobody waits
        (("coder-chat:replicas=1",), (WITHOUT_CODING, "embeddings:replicas=1")),  # not for a GPU
        (("coder-chat:replicas=1",), (WITHOUT_CODING, "qwen-local:replicas=1", "gpuQuota=2")),  # there is another
        (
            ("coder-chat:replicas=1", "qwen-local:replicas=1", "gpuQuota=2"),
            (WITHOUT_CODING, "qwen-local:replicas=1", "machineType=g2-standard-8"),
        ),
    ],
)
def test_a_model_whose_gpu_nobody_waits_for_may_leave(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    assert compare(_plan(*old), _plan(*new)).problems == ()


# --- cost and fit ----------------------------------------------------------------------------------------------


def test_bringing_a_model_up_shows_its_state_and_its_price() -> None:
    old, new = _plan(), _plan("coder-chat:replicas=1")
    diff = compare(old, new)
    before, after = diff.money.costs["usdPerHourNow"]
    assert before is not None
    assert after is not None
    assert f"+${after - before:.4f}" in as_text(diff, "old", None, new)
    (model,) = diff.models
    assert (model.alias, model.facts["state"]) == ("coder-chat", ("off", "up"))


def test_less_memory_for_a_model_shows_in_its_fit() -> None:
    (model,) = compare(_plan(), _plan("coder-chat:gpuMemoryUtilization=0.8")).models
    before, after = model.facts["kvCacheTokens"]
    assert after < before


# --- forms -----------------------------------------------------------------------------------------------------


def test_a_comment_is_never_longer_than_github_takes() -> None:
    old, new = _plan(), _plan()
    for resource in new["resources"]:
        if resource["type"].startswith("kubernetes:"):
            resource["inputs"]["metadata"]["annotations"] = {f"key-{i}": "x" * 100 for i in range(100)}
    markdown = as_markdown(compare(old, new), "old", None, new)
    assert len(markdown) < COMMENT_LIMIT + 2000 < 65_536
    assert "more than a comment has room for" in markdown


def test_a_value_cannot_break_out_of_its_section() -> None:
    new = _plan()
    _resource(new, "ConfigMap", "litellm-config")["inputs"]["data"]["x"] = "````\n</details>@everyone"
    lines = as_markdown(compare(_plan(), new), "old", None, new).splitlines()
    fence = next(line for line in lines if line.endswith("diff")).removesuffix("diff")
    assert len(fence) > 4
    assert [line for line in lines if line == fence]


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own: this project as `base`, and a working tree with a model up."""
    folder = sandbox(tmp_path_factory.mktemp("repository"))
    for name in ROOMS:
        shutil.rmtree(folder / name)
    commit(folder, "without a program")
    git(folder, "tag", "without")
    config_file = folder / "Pulumi.ai-dev.yaml"
    config_file.write_text(config_file.read_text().replace("coder-chat:replicas: 0", "coder-chat:replicas: 1"))
    return folder


def _run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", "--project-dir", str(folder), *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_revision_is_planned_by_its_own_code_and_the_checkout_is_left_alone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(repository.iterdir())
    code, out, err = _run(capsys, repository, "--against", "base", "--format", "json")
    assert (code, err) == (0, "")
    (model,) = json.loads(out)["models"]
    assert model["facts"]["state"] == {"old": "off", "new": "up"}
    assert sorted(repository.iterdir()) == before


def test_against_a_revision_without_a_program_everything_is_new(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _run(capsys, repository, "--against", "without")
    assert code == 0
    assert "has no ops/cli.py, so everything is new" in out
    assert "changed" not in out.splitlines()[0]


def test_a_stack_file_and_a_saved_plan_compare_like_a_revision(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "Pulumi.other.yaml"
    other.write_text((PROJECT_DIR / "Pulumi.ai-dev.yaml").read_text())
    saved = tmp_path / "old.json"
    _, plan, _ = _run(capsys, PROJECT_DIR, "--format", "json")
    saved.write_text(plan)
    headlines = set[str]()
    for against in (other, saved):
        code, out, _ = _run(capsys, repository, "--against", str(against))
        assert code == 0
        headlines.add(out.splitlines()[0].rpartition(": ")[2])
    assert len(headlines) == 1
    assert "changed" in headlines.pop()


def test_a_shrinking_claim_is_refused_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "old.json"
    saved.write_text(json.dumps(_plan("embeddings:claimGib=9")))
    code, out, err = _run(capsys, PROJECT_DIR, "--against", str(saved), "--format", "markdown")
    assert code == 2
    assert "pulumi config set embeddings:claimGib 9" in out
    assert "pulumi config set embeddings:claimGib 9" in err


def test_a_refused_new_side_shows_its_problems_in_markdown(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--against", "base", "--format", "markdown", "--set", "coder-fim:replicas=1")
    code, out, err = _run(capsys, repository, *arguments)
    assert code == 2
    assert "refused, 1 problem" in out
    assert "coder-fim:replicas 0" in out
    assert "coder-fim:replicas 0" in err


def test_an_old_side_that_is_refused_is_told_and_does_not_stop_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "old.json"
    refused = plan_data(admit(config("coder-chat:replicas=2"), rehearsal=True), [])
    saved.write_text(json.dumps(refused))
    code, out, _ = _run(capsys, PROJECT_DIR, "--against", str(saved))
    assert code == 0
    assert "is itself refused" in out


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("origin/nowhere", "git fetch origin nowhere"),
        ("missing.json", "ops plan --format json > missing.json"),
        ("Pulumi.missing.yaml", "ls Pulumi.*.yaml"),
    ],
)
def test_nothing_to_compare_with_is_refused_with_the_way_to_get_it(
    repository: Path, capsys: pytest.CaptureFixture[str], against: str, said: str
) -> None:
    code, _, err = _run(capsys, repository, "--against", against)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


# --- the table -------------------------------------------------------------------------------------------------


def _sdk_class(kind: str) -> type:
    """The SDK's args of `container/cluster:Cluster`."""
    module, _, name = kind.partition(":")
    return getattr(getattr(gcp, module.partition("/")[0]), f"{name}Args")


def _is_property(cls: Any, path: list[str]) -> bool:
    names = {wire: own for own, wire in pulumi._types.input_type_py_to_pulumi_names(cls).items()}  # pyright: ignore
    if path[0] not in names:
        return False
    if len(path) == 1:
        return True
    hint = typing.get_type_hints(cls.__init__, vars(sys.modules[cls.__module__]))[names[path[0]]]
    return any(_is_property(inner, path[1:]) for inner in _args_in(hint))


def _args_in(hint: Any) -> list[Any]:
    if isinstance(hint, type) and hint.__name__.endswith("Args"):
        return [hint]
    return [found for inner in typing.get_args(hint) for found in _args_in(inner)]


@pytest.mark.parametrize("kind", GCP)
def test_every_path_of_the_table_is_a_property_of_the_sdk(kind: str) -> None:
    table: Replaces = GCP[kind]
    for path in (*table.always, *table.smaller, *table.removed):
        if not path.startswith(f"{PROVIDER}."):
            assert _is_property(_sdk_class(kind), path.split(".")), path


@pytest.mark.parametrize("assignments", [(), ("ai-platform:gateway.database=cloud-sql",)])
def test_the_table_knows_every_cloud_resource_of_the_program(assignments: tuple[str, ...]) -> None:
    kinds = {r.type.partition(":")[2] for r in recorded(*assignments).resources if r.type.startswith("gcp:")}
    assert kinds <= GCP.keys()
