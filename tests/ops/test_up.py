"""The parts of `ops up` that need no cluster: its config, its secrets, its order, and what it makes of the CLI."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from ops import cli
from ops.config_files import load
from ops.embedded_cluster.planned_nodes import nodes_of
from ops.engine import run_main
from ops.errors import FailedError, OpsError
from ops.manifests import manifests
from ops.up import leash
from ops.up.by_kubectl import Identity, follows
from ops.up.by_pulumi import PulumiStack, readable, updating
from ops.up.command import config_of
from ops.up.ours import refuse_what_is_not_ours
from ops.up.report import report
from ops.up.secrets import SecretObject, needed, rehearse, settle
from ops.up.site import Kubectl, Object, Site
from stacks.admission import admit
from stacks.plan import Plan
from stacks.settings import RawConfig
from tests.checkout import CHECKOUT
from tests.ops.cluster import NOBODY
from tests.patience import at_least
from tests.support import PROJECT_DIR, recorded

LITELLM: Identity = ("Deployment", "gateway", "litellm")


def local(*assignments: str) -> RawConfig:
    return load(PROJECT_DIR, "local", assignments)


def plan_of(*assignments: str) -> Plan:
    return admit(local(*assignments), rehearsal=True).plan


# --- which model


@pytest.mark.parametrize(
    ("assignments", "model", "expected"),
    [
        ((), None, {"coder-chat": "1"}),
        ((), "embeddings", {"embeddings": "1"}),
        (("coder-chat:replicas=0",), None, {"coder-chat": "0"}),
        (("coder-agent:replicas=1",), None, {"coder-agent": "1"}),
        (("embeddings:replicas=1",), "coder-chat", {"embeddings": "1", "coder-chat": "1"}),
        (("coder-chat:replicas=0",), "coder-chat", {"coder-chat": "0"}),
    ],
)
def test_the_default_model_comes_up_unless_something_else_is_asked_for(
    assignments: tuple[str, ...], model: str | None, expected: dict[str, str]
) -> None:
    values = config_of(PROJECT_DIR, "local", assignments, model).values
    assert {k.removesuffix(":replicas"): v for k, v in values.items() if k.endswith(":replicas")} == expected


def test_a_model_that_is_asked_for_replaces_the_one_of_the_file(tmp_path: Path) -> None:
    shutil.copy(PROJECT_DIR / "Pulumi.yaml", tmp_path)
    text = (PROJECT_DIR / "Pulumi.local.yaml").read_text()
    (tmp_path / "Pulumi.local.yaml").write_text(text + "  coder-mini:replicas: 1\n")
    assert "coder-chat:replicas" not in config_of(tmp_path, "local", (), None).values
    values = config_of(tmp_path, "local", (), "coder-chat").values
    assert (values["coder-mini:replicas"], values["coder-chat:replicas"]) == ("0", "1")


def test_a_stack_whose_cluster_only_pulumi_makes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--stack=ai-dev", f"--project-dir={PROJECT_DIR}"]) == 1
    assert "pulumi up --stack ai-dev" in capsys.readouterr().err


# --- its nodes


@pytest.mark.parametrize(
    ("size", "cls", "words"), [("99Gi", "standard-rwo", "would shrink"), ("99Gi", "fast", "would shrink")]
)
def test_a_claim_that_cannot_be_had_is_refused_before_anything_is_written(size: str, cls: str, words: str) -> None:
    setting = "storageClass=fast"
    resources = recorded(setting, stack="local").resources
    (claim,) = [m for m in manifests(resources) if m["metadata"]["name"] == "coder-chat-model-cache"]
    there = {**claim, "spec": {"storageClassName": cls, "resources": {"requests": {"storage": size}}}}

    class Asked:
        def get(self, *words: str) -> list[dict[str, Any]]:
            return [{"metadata": {"name": "serving"}}] if words == ("namespaces",) else []

        def __call__(self, *arguments: str, stdin: str | None = None) -> str:
            assert arguments[0] == "get"
            return json.dumps({"items": [there]})

    plan = admit(local(setting, "adopt=true"), rehearsal=True).plan
    with pytest.raises(OpsError, match=f"coder-chat-model-cache .*{words}"):
        refuse_what_is_not_ours(plan, resources, [], cast("Any", Asked()))


def test_simulated_nodes_are_the_machines_of_the_plan() -> None:
    plan = plan_of("machineType=g2-standard-16", "gpuQuota=2", "systemNodes=2")
    nodes = nodes_of(plan)
    assert [node.name for node in nodes] == ["g2", "g2-2", "system", "system-2"]
    assert [node.instance_type for node in nodes] == ["g2-standard-16"] * 2 + [plan.system.machine.name] * 2
    assert [node.gpus for node in nodes] == [1, 1, 0, 0]


def test_no_quota_is_no_gpu_node_and_sharing_offers_each_gpu_many_times() -> None:
    assert [node.name for node in nodes_of(plan_of("gpuQuota=0"))] == ["system"]
    assert nodes_of(plan_of("gpuSharingClients=4"))[0].gpus == 4


# --- secrets


@dataclass(frozen=True)
class FakeKubectl(Kubectl):
    """A cluster that holds these Secrets."""

    held: dict[tuple[str, str], Object] = field(default_factory=dict[tuple[str, str], Object])

    def get(self, *arguments: str) -> list[Object]:
        _, namespace, _, *names = arguments
        return [self.held[namespace, name] for name in names if (namespace, name) in self.held]


def cluster(held: dict[tuple[str, str], Object] | None = None) -> FakeKubectl:
    return FakeKubectl("kubectl", Path("kubeconfig"), "context", Path("cache"), held or {})


@pytest.fixture(scope="module")
def objects() -> list[SecretObject]:
    return rehearse(local(), plan_of(), PROJECT_DIR)[1]


def test_every_secret_of_the_plan_is_traced_to_the_config_that_it_comes_from(objects: list[SecretObject]) -> None:
    sources = {(s.namespace, s.name): dict(s.sources) for s in objects}
    assert sources["gateway", "litellm-salt-key"] == {"key": "litellmSaltKey"}
    assert sources["gateway", "litellm-database"] == {"password": "databasePassword"}
    assert sources["gateway", "vllm-api-key"] == sources["serving", "vllm-api-key"] == {"api-key": "servingApiKey"}
    assert sources["gateway", "litellm-keys"] == {"smoke": "keyValues.smoke"}
    assert {key for s in objects for key in s.sources.values()} == needed(plan_of()).keys()


def test_secrets_are_made_once_into_a_file_for_its_owner_alone(tmp_path: Path, objects: list[SecretObject]) -> None:
    plan = plan_of()
    values = settle(plan, objects, cluster(), tmp_path)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    for key, secret in needed(plan).items():
        assert re.fullmatch(secret.pattern, values[key])
    assert len(set(values.values())) == len(values)
    assert settle(plan, objects, cluster(), tmp_path) == values


def test_a_value_of_the_file_wins_and_one_that_only_the_cluster_has_is_taken_over(
    tmp_path: Path, objects: list[SecretObject]
) -> None:
    def held(name: str, key: str, value: str) -> tuple[tuple[str, str], Object]:
        data = {key: base64.b64encode(value.encode()).decode()}
        return ("gateway", name), {"metadata": {"name": name}, "data": data}

    there = dict(
        [
            held("litellm-database", "password", "the-password-of-the-data"),
            held("litellm-master-key", "key", "sk-the-former-admin-key"),
        ]
    )
    (tmp_path / "secrets.json").write_text('{"litellmMasterKey": "sk-the-present-admin-key"}')
    values = settle(plan_of(), objects, cluster(there), tmp_path)
    assert values["databasePassword"] == "the-password-of-the-data"
    assert values["litellmMasterKey"] == "sk-the-present-admin-key"
    (tmp_path / "secrets.json").write_text('{"databasePassword": "not-the-password-of-the-data"}')
    with pytest.raises(FailedError, match="remove databasePassword"):
        settle(plan_of(), objects, cluster(there), tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object of strings"),
        ('{"litellmSaltKey": 1}', "not an object of strings"),
        ('{"litellmSalt": "x"}', "did you mean 'litellmSaltKey'"),
        ('{"litellmMasterKey": "short"}', "must start with sk-"),
    ],
)
def test_a_file_of_secrets_that_cannot_be_used_is_refused_without_showing_a_value(
    tmp_path: Path, objects: list[SecretObject], text: str, complaint: str
) -> None:
    (tmp_path / "secrets.json").write_text(text)
    with pytest.raises(FailedError, match=complaint) as refused:
        settle(plan_of(), objects, cluster(), tmp_path)
    assert '"short"' not in str(refused.value)
    assert (tmp_path / "secrets.json").read_text() == text


# --- order


def test_an_object_follows_the_workloads_that_it_depends_on_and_no_others() -> None:
    recording, _ = rehearse(local("coder-chat:replicas=1"), plan_of(), PROJECT_DIR)
    blockers = follows(recording.resources)
    (migration,) = (i for i in blockers if i[0] == "Job" and "migrate" in i[2])
    (keys,) = (i for i in blockers if i[0] == "Job" and "keys" in i[2])
    chat: Identity = ("Deployment", "serving", "coder-chat")
    assert blockers[migration] == {("StatefulSet", "gateway", "litellm-db")}
    assert migration in blockers[LITELLM]
    assert chat not in blockers[LITELLM]  # a model that loads for half an hour does not keep the gateway down
    assert LITELLM in blockers[keys]
    assert blockers[chat] == set()  # models at zero are no workloads to wait for
    assert chat in blockers["ConfigMap", "gateway", "litellm-model-state"]


# --- the CLI


def test_the_clis_progress_is_told_once_for_each_thing_done_or_awaited() -> None:
    lines = """Updating (local):
@ updating....
    pulumi:pulumi:Stack ai-platform-local running warning: an image has no digest
 ~  kubernetes:batch/v1:Job litellm-migrate refreshing (0s) Waiting for Job to start
 +  kubernetes:core/v1:Namespace serving creating (0s)
 +  kubernetes:core/v1:Namespace serving created (0.03s)
 +  kubernetes:core/v1:Service litellm creating (0s) Skipping await logic
    kubernetes:core/v1:ConfigMap stage-weights
 ~  kubernetes:apps/v1:Deployment coder-chat updating (0s) [diff: ~spec]; Waiting for app (0/1 Pods available)
 ~  kubernetes:apps/v1:Deployment coder-chat updating (5s) [diff: ~spec]; Waiting for app (0/1 Pods available)
 ~  kubernetes:apps/v1:Deployment coder-chat updated (9s) [diff: ~spec];
 +  kubernetes:core/v1:Secret salt **creating failed** error: field is immutable
Resources:
    + 58 created
"""
    told = list(readable(lines.splitlines(keepends=True)))
    assert told[:3] == [
        "  Namespace serving: created",
        "  Deployment coder-chat: Waiting for app (0/1 Pods available)",
        "  Deployment coder-chat: updated",
    ]
    assert "error: field is immutable" in told[3]
    assert told[4:] == ["Resources:", "    + 58 created"]


@pytest.fixture
def fake_pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, str]]]:
    """A `pulumi` on PATH that records how it is called; `stack init` writes a stack file as the real one does."""
    calls = tmp_path / "calls"
    program = f"""#!{sys.executable}
import json, os, sys
given = sys.stdin.read() if "--secret" in sys.argv else ""
variables = {{k: v for k, v in os.environ.items() if k.startswith("PULUMI_")}}
print(json.dumps({{"argv": " ".join(sys.argv[1:]), "stdin": given, **variables}}), file=open({str(calls)!r}, "a"))
if sys.argv[1:3] == ["stack", "init"]:
    open("Pulumi.local.yaml", "w").write("encryptionsalt: salt\\n")
if sys.argv[1:3] == ["config", "--json"]:
    print("{{}}")
"""
    binary = tmp_path / "bin" / "pulumi"
    binary.parent.mkdir()
    binary.write_text(program)
    binary.chmod(0o755)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "of another stack")
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()]


def test_secrets_reach_the_cli_on_its_standard_input_and_the_committed_stack_file_stays(
    tmp_path: Path, fake_pulumi: Callable[[], list[dict[str, str]]]
) -> None:
    project = tmp_path / "project"
    (project / ".local").mkdir(parents=True)
    for name in ("Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(PROJECT_DIR / name, project)
    committed = (project / "Pulumi.local.yaml").read_text()
    stack = PulumiStack(tmp_path / "bin" / "pulumi", project, "ai-platform", "local")
    values = {"litellmSaltKey": "a-salt-of-some-length", "keyValues.smoke": "sk-a-key-of-some-length"}
    said: list[str] = []
    stack.up(local("coder-chat:replicas=1"), values, said.append, NOBODY)

    calls = fake_pulumi()
    assert not any(value in call["argv"] for call in calls for value in values.values())
    assert {call["stdin"] for call in calls if "config set" in call["argv"]} == set(values.values())
    assert all("PULUMI_CONFIG_PASSPHRASE" not in call for call in calls)
    assert {call["PULUMI_BACKEND_URL"] for call in calls} == {f"file://{project}/.local/pulumi/state"}
    assert (project / "Pulumi.local.yaml").read_text() == committed
    private = stack.config_file.read_text()
    assert "coder-chat:replicas: '1'" in private
    assert "encryptionsalt: salt" in private
    assert stack.passphrase.stat().st_mode & 0o777 == stack.config_file.stat().st_mode & 0o777 == 0o600
    assert load(project, "local", stack_file=stack.config_file).values == local("coder-chat:replicas=1").values


def test_a_state_without_its_passphrase_is_not_written_over(
    tmp_path: Path, fake_pulumi: Callable[[], list[dict[str, str]]]
) -> None:
    state = tmp_path / ".local" / "pulumi" / "state" / ".pulumi" / "stacks" / "ai-platform"
    state.mkdir(parents=True)
    (state / "local.json").touch()
    stack = PulumiStack(tmp_path / "bin" / "pulumi", tmp_path, "ai-platform", "local")
    with pytest.raises(FailedError, match="cannot be decrypted"):
        stack.up(local(), {}, print, NOBODY)
    assert not stack.passphrase.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"[]", b"null", b'{"pid": "many"}', b'{"pid": -1}', b"\xff\x00", b'{"pid": 1e400}', b"[" * 9999],
    ids=lambda content: repr(content[:20]),
)
def test_a_lock_that_says_nothing_holds_nobody_up_and_is_taken_away(
    tmp_path: Path, fake_pulumi: Callable[[], list[dict[str, str]]], content: bytes
) -> None:
    locks = tmp_path / ".local" / "pulumi" / "state" / ".pulumi" / "locks" / "organization" / "ai-platform" / "local"
    locks.mkdir(parents=True)
    for name in ("a.json", "left-by-an-editor~"):
        (locks / name).write_bytes(content)
    (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\n")
    said: list[str] = []
    PulumiStack(tmp_path / "bin" / "pulumi", tmp_path, "ai-platform", "local").up(local(), {}, said.append, NOBODY)
    assert list(locks.iterdir()) == []
    assert any("taking its lock away" in line for line in said)


def test_only_the_update_that_took_a_lock_holds_it_and_no_later_owner_of_its_number(tmp_path: Path) -> None:
    cli = Path(shutil.copy("/bin/sleep", tmp_path / "pulumi"))
    lock = tmp_path / "lock.json"
    with subprocess.Popen([cli, "60"]) as update, subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            lock.write_text(json.dumps({"pid": stranger.pid}))
            assert updating(lock) is None
            lock.write_text(json.dumps({"pid": update.pid}))
            assert updating(lock) == update.pid
            os.utime(lock, (0, 0))  # taken long before this process began
            assert updating(lock) is None
        finally:
            update.kill()
            stranger.kill()
    lock.write_text(json.dumps({"pid": update.pid}))
    assert updating(lock) is None


@pytest.mark.parametrize("interrupts", [1, 2, 3, 5])
def test_however_often_it_is_interrupted_up_ends_after_what_it_started(tmp_path: Path, interrupts: int) -> None:
    """A CLI that finishes at the first interrupt, ends at once at the second, or has to be killed."""
    (tmp_path / "Pulumi.yaml").write_text("name: ai-platform\n")
    cli = tmp_path / "pulumi"
    ends_at = {1: 1, 2: 2}.get(interrupts, 99)
    cli.write_text(f'''#!{sys.executable}
import os, signal, sys, time
if sys.argv[1] == "config":
    print("{{}}")
if sys.argv[1] != "up":
    sys.exit(0)
came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
open("{tmp_path}/pid", "w").write(str(os.getpid()))
print("begun", flush=True)
while len(came) < {ends_at}:
    time.sleep(0.02)
''')
    cli.chmod(0o755)
    program = f"""
from pathlib import Path
from ops.up.by_pulumi import PulumiStack
from stacks.settings import RawConfig
from tests.ops.cluster import NOBODY
project = Path({str(tmp_path)!r})
PulumiStack(project / "pulumi", project, "ai-platform", "local").up(
    RawConfig("ai-platform", "local", {{}}), {{}}, lambda line: print(line, flush=True), NOBODY)
"""
    (tmp_path / ".local").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as up:
        assert up.stdout
        while "begun" not in up.stdout.readline():
            assert up.poll() is None
        for _ in range(interrupts):
            up.send_signal(signal.SIGINT)
            time.sleep(0.3)  # signals of one kind that come together are one
        told = up.stdout.read()
        up.wait(at_least(30))
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert up.returncode != 0
    assert "interrupted" in told


def leashed(*command: str) -> list[str]:
    return [sys.executable, leash.__file__, str(os.getpid()), *command]


def test_a_leashed_command_leaves_no_process_behind() -> None:
    done = subprocess.run(
        leashed("/bin/sh", "-c", "sleep 60 >/dev/null & echo $!; exit 7"),
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=at_least(30),
        check=False,
    )
    assert done.returncode == 7
    assert not Path(f"/proc/{done.stdout.strip()}/exe").exists()


def test_a_leashed_command_is_interrupted_when_its_starter_is_killed(tmp_path: Path) -> None:
    shell = f"trap 'touch {tmp_path}/told; exit' INT; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    program = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, {leash.__file__!r}, str(os.getpid()), '/bin/sh', '-c', {shell!r}],"
        " start_new_session=True)\n"
        f"while not os.path.exists({str(tmp_path / 'begun')!r}): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=at_least(30), check=False)
    subprocess.run(
        ["/bin/sh", "-c", f"until [ -e {tmp_path}/told ]; do sleep 0.05; done"], timeout=at_least(30), check=True
    )


# --- what is said at the end


class Answering(Kubectl):
    """A cluster with one GPU node that runs coder-chat; what it answers is what a real one does."""

    def get(self, *arguments: str) -> list[Object]:
        node = "gke-ai-platform-ai-dev-g2-standard-8-100g-0123456789-abcd"
        if arguments[-1] == "nodes":
            labels = {
                "node.kubernetes.io/instance-type": "g2-standard-8",
                "cloud.google.com/gke-accelerator": "nvidia-l4",
            }
            return [{"metadata": {"name": node, "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}]
        if "serving" not in arguments:
            return []
        return [
            {
                "metadata": {"name": "coder-chat-7d9f8b6c5-x2x4z", "labels": {"app.kubernetes.io/name": "coder-chat"}},
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }
        ]


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_the_report_breaks_no_word_and_no_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int
) -> None:
    raw = local("coder-chat:replicas=1")
    site = Site(kubectl=Answering("kubectl", tmp_path / "kubeconfig", "kind-ai", tmp_path), embedded=None)
    recording = run_main(raw, PROJECT_DIR)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = "\n".join(report(admit(raw, rehearsal=True).plan, recording, site, ["pulumi stack ls"])).splitlines()
    state, commands = lines[: lines.index("next")], lines[lines.index("next") + 1 :]
    assert [line for line in state if len(line) > columns and " " in line.strip()] == []  # a long path is one word
    said = " ".join(" ".join(state).split())
    assert (
        "coder-chat coder-chat-7d9f8b6c5-x2x4z ready on gke-ai-platform-ai-dev-g2-standard-8-100g-0123456789-abcd"
        in said
    )
    assert "1 x nvidia-l4, pods of the stack: 1" in said
    assert all("   # " in command for command in commands)
    assert f"  export KUBECONFIG={tmp_path}/kubeconfig   # for kubectl in this shell" in commands
