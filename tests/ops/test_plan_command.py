"""`ops plan` as it is typed: exit codes, formats, manifests, and what it says to somebody who typed it wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.cli import main
from ops.config_files import load
from ops.console import output
from ops.engine import Recording, run_main
from ops.plan.screen import first_screen
from ops.plan_speed import catalog_of
from stacks.admission import admit
from stacks.settings import RawConfig
from tests.checkout import clone
from tests.patience import at_least
from tests.support import PROJECT_DIR, SERVED_ALIASES, strings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
UP = ("--set", "coder-chat:replicas=1")
REFUSED = ("--set", "coder-chat:replicas=1", "--set", "coder-fim:replicas=1")


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(PROJECT_DIR)

    def typed(*words: object) -> Answer:
        capsys.readouterr()
        code = main(["plan", *map(str, words)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Answer(code, captured.out, captured.err)

    return typed


# --- the committed examples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["ai-dev", "local"])
def test_the_committed_stacks_would_deploy(plan: Any, stack: str) -> None:
    answer = plan("--stack", stack)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"ai-platform / {stack}")


def test_full_shows_the_tree_every_model_the_bill_and_the_totals(plan: Any) -> None:
    out = plan(*UP, "--full").out
    for part in ("coder-chat  VllmModel", "Deployment  coder-chat (x1)", "NodePool  g2-standard-8", "kept on destroy"):
        assert part in out
    header = next(line for line in out.splitlines() if line.startswith("ALIAS"))
    assert header.split()[:5] == ["ALIAS", "GROUP", "ENGINE", "REPLICAS", "GPU"]
    table = out[out.index(header) :].split("\n\n")[0]
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert rows["coder-chat"][3] == "1"
    assert "up" in rows["coder-chat"]
    assert "off" in rows["coder-fim"]
    assert "disabled" in rows["claude-haiku"]
    assert "GPU slots: 1 of 1 held" in out
    assert "resources to create" in out
    assert "BILLED WHILE IDLE" in out


def test_full_says_what_has_to_be_done_before_the_first_update(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = plan("--full").out
    assert "before `pulumi up`: gcp:project is the example's" in out
    assert "pulumi config set --secret litellmMasterKey" in out
    assert "ops pin" in out


# --- the first screen ----------------------------------------------------------------------------------------------

COMMANDS = ("ops ", "pulumi ", "openssl ", "(printf ", "read ", "kubectl ")
CASES = {
    "as committed": (),
    "one model up": UP,
    "local": ("--stack", "local"),
    "a model that would not fit": ("--set", "machineType=g2-standard-4"),
    "a disabled group": (*UP, "--set", "groups.retrieval=false"),
    "everything else": (
        *UP,
        "--set",
        "gateway.database=cloud-sql",
        "--set",
        "gpuSharingClients=2",
        "--set",
        "spot=true",
    ),
    "no budget": ("--set", "maxMonthlyUsd=100000", "--set", "gpuQuota=8", "--set", "systemNodes=3"),
}


def prose(out: str) -> list[str]:
    """Lines that are no command to copy: those may be as long as they are, since a break would break them."""
    return [line for line in out.splitlines() if not line.strip().removeprefix("more").strip().startswith(COMMANDS)]


def words(out: str) -> Counter[str]:
    """What is said, wherever its lines break."""
    return Counter(re.sub("[│├└─]", " ", out).split())


_MADE: dict[str, Recording] = {}


def _once(raw: RawConfig, project_dir: Path) -> Recording:
    if repr(raw) not in _MADE:
        _MADE[repr(raw)] = run_main(raw, project_dir)
    return _MADE[repr(raw)]


@pytest.fixture
def at(plan: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    # The same plan at several widths is made once.
    monkeypatch.setattr("ops.plan.command.run_main", _once)

    def printed(columns: int, *said: str) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        answer = plan(*said)
        assert answer.code == 0, answer.err
        return answer.out

    return printed


@pytest.mark.parametrize("full", [(), ("--full",)], ids=["first screen", "full"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_cut_or_broken_at_any_width(at: Callable[..., str], case: str, full: tuple[str, ...]) -> None:
    out = {columns: at(columns, *CASES[case], *full) for columns in (80, 120, 200)}
    for columns, text in out.items():
        assert max(map(len, (line for line in prose(text) if "ops plan" not in line))) <= columns
        assert "…" not in text
        assert words(text) == words(out[200])


@pytest.mark.parametrize("case", CASES)
def test_the_first_screen_is_one_screen(at: Callable[..., str], case: str) -> None:
    lines = at(80, *CASES[case]).splitlines()
    assert len(lines) <= 36 if "--set" in CASES[case] else len(lines) <= 30


def test_the_first_screen_says_what_is_up_what_it_costs_what_is_wrong_and_how_to_see_more(plan: Any) -> None:
    out, data = plan(*UP).out, plan(*UP, "--format", "json").json
    bill = data["costs"]
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "ai-platform / ai-dev: coder-chat up, 5 off; GPU slots: 1 of 1 held" in out
    assert {m["alias"] for m in data["models"] if m["state"] != "disabled"} <= rows.keys()
    for model in (m for m in data["models"] if m["cost"]):
        row = rows[model["alias"]].split()
        assert model["state"] in row
        assert row[-1] == f"{model['cost']['usdPerHour']:.4f}"
        assert "fits" in row if model["fit"] else "CPU" in row
    for figure in (
        f"${bill['idleUsdPerMonth']:,.2f} a month idle",
        f"${bill['usdPerHourNow']:,.4f} an hour now",
        f"${bill['worstCaseUsdPerMonth']:,.2f} a month at worst",
        f"prices: us-central1, {bill['pricesAsOf']}",
    ):
        assert figure in out
    custom = [r for r in data["resources"] if not r["type"].startswith(("pulumi:", "ai-platform:"))]
    assert f"{len(custom)} resources to create" in out
    unset = sum(notice["message"].startswith("before `pulumi up`") for notice in data["notices"])
    assert f"{unset} settings and secrets before `pulumi up`" in out
    first = data["notices"][unset]
    assert first["remedy"] in out
    assert first["message"].split()[0] in rows["wrong"]
    assert "ops plan --stack ai-dev --set coder-chat:replicas=1 --full" in out


@pytest.mark.parametrize("case", ["as committed", "one model up", "local", "a disabled group"])
def test_every_command_of_ops_on_the_first_screen_works_as_typed(
    at: Callable[..., str], capsys: pytest.CaptureFixture[str], case: str
) -> None:
    shown = re.findall(r"ops (?:plan|fit) .*", at(80, *CASES[case]))
    assert len(shown) >= 4
    for command in shown:
        assert main(shlex.split(command)[1:]) == 0, command
    capsys.readouterr()


def test_a_model_of_a_disabled_group_is_in_full_only(plan: Any) -> None:
    said = ("--set", "groups.retrieval=false")
    shown = [line.split()[0] for line in plan(*said).out.splitlines() if line]
    assert "qwen-local" in shown
    assert not {"embeddings", "claude-haiku"} & set(shown)
    assert {"embeddings", "claude-haiku"} <= {
        line.split()[0] for line in plan(*said, "--full").out.splitlines() if line
    }


def test_what_was_asked_and_what_it_changes_come_first(at: Callable[..., str], plan: Any) -> None:
    old = plan("--format", "json").json["costs"]["usdPerHourNow"]
    new = plan(*UP, "--format", "json").json["costs"]["usdPerHourNow"]
    for full in ((), ("--full",)):
        first, second = at(200, *UP, *full).splitlines()[:2]
        assert first == "asked: coder-chat:replicas=1"
        assert second == (
            "beside Pulumi.ai-dev.yaml alone: coder-chat off -> up; "
            f"${old:.4f} -> ${new:.4f} an hour now (+${new - old:.4f})"
        )


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("coder-chat:maxModelLen=8192", "coder-chat context 16,384 -> 8,192"),
        ("groups.retrieval=false", "embeddings off -> disabled"),
        ("machineType=g2-standard-12", "GPU pool g2-standard-8 -> g2-standard-12"),
        ("gpuQuota=0", "GPU pool g2-standard-8 -> none"),
        ("spot=true", "a month at worst (-$"),
        ("keys.editor.models[0]=coder-chat", "alone: access differs: key editor"),
        ("teams.platform.maxBudgetUsd=5000", "alone: access differs: team platform"),
        ("gateway.replicas=1", "alone: no model, machine, cost, team or key differs"),
    ],
)
def test_every_kind_of_change_is_told(at: Callable[..., str], assignment: str, told: str) -> None:
    assert told in at(200, "--set", assignment, "--set", "maxMonthlyUsd=100000").splitlines()[1]


def test_of_a_cluster_that_is_there_no_pool_of_machines_is_told(plan: Any) -> None:
    told = plan("--stack", "local", "--set", "gateway.replicas=10").out.partition("ai-platform / local")[0]
    assert "beside Pulumi.local.yaml alone: " in told
    assert "pool" not in told


def test_a_stack_file_that_is_refused_alone_is_told_so(plan: Any, tmp_path: Path) -> None:
    for name in ("Pulumi.yaml", "__main__.py"):
        (tmp_path / name).write_text((PROJECT_DIR / name).read_text())
    file = (PROJECT_DIR / "Pulumi.ai-dev.yaml").read_text()
    (tmp_path / "Pulumi.ai-dev.yaml").write_text(f"{file}  coder-fim:replicas: 5\n")
    out = plan("--project-dir", tmp_path, "--set", "coder-fim:replicas=0").out
    assert "beside Pulumi.ai-dev.yaml alone, which is refused: coder-fim up -> off;" in out


def test_a_secret_that_is_tried_out_is_not_shown(plan: Any, tmp_path: Path) -> None:
    for name in ("Pulumi.yaml", "Pulumi.ai-dev.yaml", "__main__.py"):
        (tmp_path / name).write_text((PROJECT_DIR / name).read_text())
    with (tmp_path / "Pulumi.ai-dev.yaml").open("a") as file:
        file.write("  ai-platform:keyValues: {editor: {secure: v1:CIPHER}}\n")
    answer = plan("--project-dir", tmp_path, "--set", "keyValues.smoke=CANARYCANARY")
    assert answer.code == 0, answer.err
    assert "asked: keyValues.smoke=..." in answer.out
    assert "CANARY" not in answer.out


def test_sixty_models_are_one_screen_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    raw = load(PROJECT_DIR, "ai-dev", ["maxMonthlyUsd=1000000"])
    raw = replace(raw, values={key: value for key, value in raw.values.items() if not key.startswith("coder-chat:")})
    admission = admit(raw, catalog_of(60), rehearsal=True)
    assert not admission.problems
    first_screen(output(), admission, [])
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 40
    assert "and 48 more that are not up: --full" in out


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_json_lists_resources_models_and_problems(plan: Any) -> None:
    found = plan(*UP, "--format", "json").json
    for resource in found["resources"]:
        assert {"urn", "type", "name", "parent", "inputs", "dependencies"} <= resource.keys()
        assert isinstance(resource["dependencies"], list)
    models = {m["alias"]: m for m in found["models"]}
    assert [*SERVED_ALIASES, "claude-haiku"] == list(models)
    assert {"alias", "group", "engine", "replicas"} <= models["coder-chat"].keys()
    assert (models["coder-chat"]["replicas"], models["coder-fim"]["replicas"]) == (1, 0)
    assert models["embeddings"]["engine"] == "tei"
    assert found["problems"] == []


def test_every_urn_of_json_is_unique_and_every_reference_leads_somewhere(plan: Any) -> None:
    resources = plan("--format", "json").json["resources"]
    urns = [r["urn"] for r in resources]
    assert len(urns) == len(set(urns))
    for resource in resources:
        assert {u for u in [resource["parent"], *resource["dependencies"]] if u} <= set(urns)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_same_plan_is_written_the_same_way_each_time(plan: Any, form: str) -> None:
    assert plan(*UP, "--format", form).out == plan(*UP, "--format", form).out


def test_a_refusal_in_json_has_the_problems_and_no_resources(plan: Any) -> None:
    answer = plan(*REFUSED, "--format", "json")
    assert answer.code == 2
    assert answer.json["resources"] == []
    assert [set(p) for p in answer.json["problems"]] == [{"message", "remedy"}]
    assert "GPUs asked for: 2" in answer.json["problems"][0]["message"]


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json", "yaml"])
def test_a_refused_plan_exits_2_with_every_problem_on_standard_error(plan: Any, form: str) -> None:
    answer = plan(*REFUSED, "--set", "coder-chatt:replicas=1", "--format", form)
    assert answer.code == 2
    assert "refused: 2 problems, nothing would be deployed" in answer.err
    assert "GPUs asked for: 2" in answer.err
    assert "did you mean 'coder-chat'?" in answer.err
    assert "pulumi config set coder-fim:replicas 0" in answer.err
    assert form == "json" or answer.out == ""


def test_a_refused_plan_writes_no_manifests(plan: Any, tmp_path: Path) -> None:
    assert plan(*REFUSED, "--out", tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stack", "ai-prod"), "there is no stack 'ai-prod'"),
        (("--stack", "../../etc/passwd"), "there is no stack"),
        (("--set", "novalue"), "not of the form namespace:key=value"),
        (("--set", "[bold]x[/bold]"), "text of 14 characters"),
        (("--project-dir", "/nonexistent"), "there is no Pulumi.yaml in /nonexistent or above it"),
    ],
)
def test_a_mistyped_command_is_answered_with_a_fact_and_a_remedy(plan: Any, words: tuple[str, ...], said: str) -> None:
    answer = plan(*words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert [line.split(": ")[0] for line in answer.err.splitlines()] == ["refused", "  remedy"]


def test_broken_yaml_is_answered_with_a_fact_and_a_remedy(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\n")
    (tmp_path / "Pulumi.ai-dev.yaml").write_text("config: [\n")
    answer = plan("--project-dir", tmp_path)
    assert answer.code == 2
    assert "Pulumi.ai-dev.yaml is not valid YAML" in answer.err
    assert [line.split(": ")[0] for line in answer.err.splitlines()] == ["refused", "  remedy"]


def test_names_with_markup_are_shown_as_they_are(plan: Any) -> None:
    answer = plan("--stack", "1 [red]x[/red]")
    assert answer.code == 2
    assert "'1 [red]x[/red]'" in answer.err


@pytest.mark.parametrize("words", [["--format", "xml"], ["--nonsense"], ["--out", ""]])
def test_an_unknown_option_exits_2(plan: Any, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        plan(*words)
    assert end.value.code == 2


# --- manifests -----------------------------------------------------------------------------------------------------


def documents(text: str) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(text) if d]


def test_yaml_is_every_kubernetes_object_but_secrets_in_the_order_to_apply(plan: Any) -> None:
    resources = plan("--format", "json").json["resources"]
    wanted = {
        (r["inputs"]["kind"], r["inputs"]["metadata"].get("namespace"), r["inputs"]["metadata"]["name"])
        for r in resources
        if r["type"].startswith("kubernetes:") and not r["type"].endswith(":Secret")
    }
    found = documents(plan("--format", "yaml").out)
    assert {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in found} == wanted
    kinds = [d["kind"] for d in found]
    assert "Secret" not in kinds
    assert kinds.index("Namespace") == 0
    for earlier, later in [("PersistentVolumeClaim", "Deployment"), ("ConfigMap", "Deployment"), ("Job", "Deployment")]:
        assert max(i for i, k in enumerate(kinds) if k == earlier) < min(i for i, k in enumerate(kinds) if k == later)
    for document in found:
        assert list(document)[:3] == ["apiVersion", "kind", "metadata"]


def test_manifests_carry_nothing_that_only_pulumi_reads_and_nothing_unknown(plan: Any) -> None:
    answer = plan(*UP, "--format", "yaml")
    for text in strings(documents(answer.out)):
        assert "pulumi.com/" not in text
        assert "[unknown]" not in text
        assert "[secret]" not in text
    assert "warning" not in answer.err


def test_the_secrets_to_create_first_are_named_with_every_key_that_pods_read(plan: Any) -> None:
    out = plan("--format", "yaml").out
    head = out.split("---")[0]
    for line in (
        "gateway/litellm-database: password",
        "gateway/litellm-master-key: key",
        "gateway/litellm-salt-key: key",
        "gateway/vllm-api-key: api-key",
        "serving/vllm-api-key: api-key",
    ):
        assert line in head
    keys = next(r for r in documents(out) if r["metadata"]["name"] == "litellm-keys" and r["kind"] == "ConfigMap")
    for key in json.loads(keys["data"]["keys.json"])["keys"]:
        assert key["alias"] in next(line for line in head.splitlines() if "litellm-keys" in line)


def test_a_manifest_that_only_an_update_can_complete_is_warned_of(plan: Any) -> None:
    answer = plan("--set", "gateway.database=cloud-sql", "--format", "yaml")
    assert answer.code == 0
    assert "is known only to `pulumi up`" in answer.err


def test_out_writes_a_file_an_object_and_removes_its_own_leftovers_only(plan: Any, tmp_path: Path) -> None:
    out = tmp_path / "manifests"
    assert plan("--out", out).code == 0
    (out / "mine.yaml").write_text("kept: true\n")
    (out / "kustomization.yaml").write_text("kept: true\n")
    first = {p.name for p in out.glob("*.yaml")}
    for path in out.glob("[0-9]*.yaml"):
        assert len(documents(path.read_text())) == 1
    assert (out / "SECRETS.txt").exists()
    assert plan("--set", "groups.retrieval=false", "--out", out).code == 0
    second = {p.name for p in out.glob("*.yaml")}
    assert {"mine.yaml", "kustomization.yaml"} <= second
    assert any("embeddings" in name for name in first)
    assert not any("embeddings" in name for name in second)


def test_files_sort_in_the_order_to_apply(plan: Any, tmp_path: Path) -> None:
    plan("--out", tmp_path)
    kinds = [documents(p.read_text())[0]["kind"] for p in sorted(tmp_path.glob("*.yaml"))]
    assert kinds == [d["kind"] for d in documents(plan("--format", "yaml").out)]


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json", "yaml"])
def test_secrets_are_never_shown(plan: Any, tmp_path: Path, form: str) -> None:
    for name in ("Pulumi.yaml", "Pulumi.ai-dev.yaml", "__main__.py"):
        (tmp_path / name).write_text((PROJECT_DIR / name).read_text())
    with (tmp_path / "Pulumi.ai-dev.yaml").open("a") as file:
        file.write("  ai-platform:litellmMasterKey: {secure: v1:CANARY}\n  ai-platform:litellmSaltKey: CANARYCANARY\n")
    refused = plan("--project-dir", tmp_path, "--format", form)
    assert refused.code == 2
    assert "CANARY" not in refused.out + refused.err
    text = (tmp_path / "Pulumi.ai-dev.yaml").read_text().replace("litellmSaltKey: CANARYCANARY", "spot: false")
    (tmp_path / "Pulumi.ai-dev.yaml").write_text(text.replace("  ai-platform:spot: false\n", "", 1))
    shown = plan("--project-dir", tmp_path, "--format", form, "--out", tmp_path / "out")
    assert shown.code == 0, shown.err
    written = "".join(p.read_text() for p in (tmp_path / "out").iterdir())
    for text in (shown.out, shown.err, written):
        assert "CANARY" not in text
        assert "placeholderplaceholder" not in text


# --- as a process --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


def test_as_a_process_it_needs_no_cli_no_account_and_no_cluster(cloned: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/nonexistent", "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "plan", "--format", "json"],
        cwd=cloned,
        env=environment,
        capture_output=True,
        text=True,
        timeout=at_least(60),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["resources"]
    assert list(tmp_path.iterdir()) == []


def test_a_reader_who_has_seen_enough_gets_no_traceback(cloned: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "plan", "--format", "yaml"],
        cwd=cloned,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
