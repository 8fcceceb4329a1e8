"""What findings are made of, without a cluster: logs, commands, versions of a workload, secrets, and the waits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from ops.errors import FailedError, OpsError
from ops.findings.causes import CAUSES, last_words, of_lines
from ops.findings.containers import logs_wanted
from ops.findings.look import look
from ops.findings.redact import Redactor
from ops.findings.ways import Ways
from ops.up.watch import Watch
from tests.ops.cluster import NOW, WAYS, Answers, Json, ago, container, ended, found, node, pod, snapshot, typed
from tests.ops.typed import why_not_typable

BLANKS = {
    "namespace": "serving",
    "pod": "coder-chat-1",
    "container": "vllm",
    "node": "g2",
    "claim": "c",
    "gib": "40",
    "kind": "job",
    "name": "j",
    "alias": "coder-chat",
    "holder": "coder-mini",
    "storage_class": "standard",
}
BACK_OFF: Json = {"waiting": {"reason": "CrashLoopBackOff"}}


# --- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSES)
@pytest.mark.parametrize("stack", [None, "local"])
@pytest.mark.parametrize("context", ["kind-ai", "gke_my-project_us-central1-a_ai-platform-dev"])
def test_every_cause_has_a_command_that_is_taken(name: str, stack: str | None, context: str) -> None:
    ways = Ways(typed, context, stack, ("--set=kubeContext=kind-ai",))
    assert why_not_typable(ways.command(CAUSES[name].command, BLANKS)) is None
    # Of something that is no model, or has no name here, it is one too.
    nobody = {**BLANKS, "alias": "litellm-db", "storage_class": ""}
    assert why_not_typable(ways.command(CAUSES[name].command, nobody)) is None


def test_what_ops_up_deploys_is_set_by_ops_up_with_what_it_was_given() -> None:
    ways = Ways(typed, "kind-ai", "local", ("--set=kubeContext=kind-ai",))
    assert ways.command("grow", BLANKS) == (
        "ops up --stack local --set=kubeContext=kind-ai --model coder-chat --set coder-chat:claimGib=40"
    )
    assert ways.command("deploy", BLANKS) == "ops up --stack local --set=kubeContext=kind-ai"


def test_names_of_causes_and_what_they_mean_are_told_once() -> None:
    assert len({cause.means for cause in CAUSES.values()}) == len(CAUSES)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in CAUSES)


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "options"),
    [
        ({"containerStatuses": [container(BACK_OFF, last=ended())]}, [("main", ())]),
        ({"containerStatuses": [container({"running": {}}, restarts=2, last=ended())]}, [("main", ("--previous",))]),
        ({"containerStatuses": [container({"running": {}})]}, [("main", ())]),
        ({"initContainerStatuses": [container({"running": {}}, name="first")]}, [("first", ())]),
        ({"containerStatuses": [container({"running": {}}, ready=True)]}, []),
        ({"containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff"}})]}, []),
    ],
)
def test_the_log_of_a_container_in_trouble_is_read_and_no_other(
    status: Json, options: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert list(logs_wanted(pod("p", "coder-chat", **status))) == options
    assert list(logs_wanted({**pod("p", "coder-chat", **status), "spec": {"containers": []}})) == []


def test_too_many_sequences_for_layers_with_a_state_are_a_matter_of_gpu_memory() -> None:
    words = "ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (173)."
    crashing = pod("p", "coder-chat", containerStatuses=[container(BACK_OFF, last=ended(message="bye"), restarts=3)])
    seen = look(Answers([node(), crashing], {"main": words + "\n"}), ("serving", "gateway"), WAYS)
    (finding,) = found(node(), crashing, logs=seen.logs)
    assert (finding.cause.name, finding.words) == ("gpu-memory", words)


def test_a_log_says_more_than_a_status_and_a_command_shows_it() -> None:
    crashing = pod("p", "coder-chat", containerStatuses=[container(BACK_OFF, last=ended(message="bye"), restarts=3)])
    cluster = Answers([node(), crashing], {"main": "torch.OutOfMemoryError: CUDA out of memory.\nWARN leaving\n"})
    seen = look(cluster, ("serving", "gateway"), WAYS)
    (finding,) = found(*(node(), crashing), logs=seen.logs)
    assert (finding.cause.name, finding.words) == ("gpu-memory", "torch.OutOfMemoryError: CUDA out of memory.")
    (plain,) = found(node(), crashing)
    assert (plain.cause.name, plain.words) == ("unknown", "bye")
    assert plain.command == "kubectl --context c -n serving logs p -c main"


def test_simulated_nodes_and_those_that_do_not_answer_are_asked_for_no_log() -> None:
    crashing = pod("p", "coder-chat", containerStatuses=[container(BACK_OFF, last=ended(), restarts=3)])
    for other in (node(version="kwok-v0.8.0"), node(ready="Unknown")):
        cluster = Answers([other, crashing], {"main": "x"})
        assert look(cluster, ("serving",), WAYS).logs == {}
    (finding,) = found(node(version="kwok-v0.8.0"), crashing)
    assert finding.command == "kubectl --context c -n serving describe pod p"


@pytest.mark.parametrize(
    ("text", "cause", "words"),
    [
        # The newest line of staging counts: what it waited for before is over.
        ("stage: the hub answers 429; trying again in 5 s\nstage: x has no file 'y'", "weights-wrong", "'y'"),
        ("stage: the hub answers 429; trying again in 5 s\nstage: model.safetensors: 5.2 GiB in 9 s", None, ""),
        ("INFO 429 tokens\nKeyError: 'x'", None, ""),
        ("refused: a\nok\nrefused: b\nrefused: a\nnot in sync", "keys-refused", "refused: a; refused: b"),
    ],
)
def test_a_cause_is_what_the_newest_line_with_one_says(text: str, cause: str | None, words: str) -> None:
    told = of_lines(text)
    assert (told[0].name if told else None) == cause
    assert words in (told[1] if told else "")


def test_last_words_are_the_newest_error_and_not_its_wrapper() -> None:
    wrapped = "ValueError: root\nRuntimeError: Engine core initialization failed. See root cause above."
    assert last_words(wrapped) == "ValueError: root"
    assert last_words("starting\nstopped\n\n") == "stopped"
    assert last_words("") == ""


def test_a_container_that_was_killed_for_memory_and_runs_again_is_told_and_another_crash_is_over() -> None:
    for reason, causes in (("OOMKilled", ["memory"]), ("Error", [])):
        entry = container({"running": {}}, last=ended(137, reason=reason), restarts=1, ready=True)
        told = found(node(), pod("p", "coder-chat", containerStatuses=[entry]))
        assert [finding.cause.name for finding in told] == causes
    done = container({"terminated": {"exitCode": 0}}, last=ended(1), restarts=2, ready=True)
    assert found(node(), pod("p", "coder-chat", initContainerStatuses=[done])) == []


def test_a_gateway_that_runs_without_its_database_is_told_and_one_without_a_model_is_not() -> None:
    entry = container({"running": {}}, ready=True)
    gateway = pod("p", "litellm", "gateway", containerStatuses=[entry])
    assert list(logs_wanted(gateway)) == [("main", ("--since=2m",))]
    where = ("gateway", "p", "main")
    away = "Can't reach database server at `litellm-db:5432`"
    assert [finding.words for finding in found(node(), gateway, logs={where: f"{away}\nINFO ok"})] == [away]
    model = "litellm.APIConnectionError: httpx.ConnectError: All connection attempts failed"
    assert found(node(), gateway, logs={where: model}) == []


# --- versions, Jobs, daemons -------------------------------------------------------------------------------------


def _replica_set(name: str, revision: str) -> Json:
    owner = {"kind": "Deployment", "name": "litellm"}
    annotations = {"deployment.kubernetes.io/revision": revision}
    meta = {"name": name, "namespace": "gateway", "ownerReferences": [owner], "annotations": annotations}
    return {"kind": "ReplicaSet", "metadata": meta, "spec": {"replicas": 1}, "status": {"replicas": 1}}


def test_a_pod_that_an_update_replaces_is_no_finding() -> None:
    meta = {"name": "litellm", "namespace": "gateway", "annotations": {"deployment.kubernetes.io/revision": "2"}}
    deployment = {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 1}, "status": {}}
    crashing = [container(BACK_OFF, last=ended(message="Error: bad"), restarts=3)]
    old, new = (
        pod(f"p{n}", "litellm", "gateway", owner={"kind": "ReplicaSet", "name": f"rs{n}"}, containerStatuses=crashing)
        for n in (1, 2)
    )
    sets = [_replica_set("rs1", "1"), _replica_set("rs2", "2")]
    assert found(node(), deployment, *sets, old) == []
    (finding,) = found(node(), deployment, *sets, old, new)
    assert finding.where == "gateway/p2, container main"


def _job(name: str, at: float, *, failed: bool, cron: str | None = None) -> Json:
    owners = [{"kind": "CronJob", "name": cron}] if cron else []
    meta = {"name": name, "namespace": "gateway", "creationTimestamp": ago(at), "ownerReferences": owners}
    kind = {"type": "Failed" if failed else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
    return {"kind": "Job", "metadata": meta, "spec": {}, "status": {"failed": 1, "conditions": [kind]}}


def test_a_run_of_a_cron_job_that_a_later_one_mended_is_no_finding() -> None:
    first, second = _job("k-1", 900, failed=True, cron="k"), _job("k-2", 1, failed=False, cron="k")
    assert [finding.cause.name for finding in found(first)] == ["job-failed"]
    assert found(first, second) == []
    assert found(_job("other", 900, failed=True), second) != []


def _daemon(name: str, image: str) -> Json:
    spec = {"template": {"spec": {"containers": [{"image": image}]}}}
    return {"kind": "DaemonSet", "metadata": {"name": name, "namespace": "kube-system"}, "spec": spec}


@pytest.mark.parametrize(
    ("daemons", "version", "certain"),
    [
        ([("kube-flannel-ds", "flannel:v0.27")], "v1.36.3", True),
        ([("kube-flannel-ds", "flannel:v0.27"), ("canal", "calico/node")], "v1.36.3", False),
        ([("gke-metrics-agent", "x")], "v1.36.3-gke.1", True),
        ([("gke-metrics-agent", "x"), ("anetd", "cilium")], "v1.36.3-gke.1", False),
        ([("kindnet", "kindnetd")], "v1.36.3", False),
        ([], "v1.36.3-gke.1", False),
        ([("something", "else")], "v1.36.3", False),
    ],
)
def test_unenforced_policies_are_told_only_where_that_is_certain(
    daemons: Sequence[tuple[str, str]], version: str, certain: bool
) -> None:
    told = found(node(version=version), *(_daemon(*daemon) for daemon in daemons))
    assert [finding.cause.name for finding in told] == (["policies-unenforced"] if certain else [])


def test_a_pod_that_a_dead_node_does_not_end_is_told() -> None:
    stuck = pod("p", "coder-chat")
    stuck["metadata"]["deletionTimestamp"] = ago(300)
    told = found(node(ready="Unknown"), stuck)
    assert [finding.cause.name for finding in told] == ["node-not-ready", "stuck-terminating"]
    stuck["metadata"]["deletionTimestamp"] = ago(5)
    assert [finding.cause.name for finding in found(node(), stuck)] == []


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a value-of-a-secret b", "a *** b"),
        ("url=value%2Dof%2Da%2Dsecret", "url=value%2Dof%2Da%2Dsecret"),
        ("key sk-0123456789abcdef failed", "key sk-*** failed"),
        ("HF_TOKEN=hf_AbCdEf0123456789", "HF_TOKEN=***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("postgresql://litellm:s3cretpass@db:5432/x", "postgresql://litellm:***@db:5432/x"),
        ("f" * 48, "***"),
        (f"commit {'a' * 40} sha256:{'b' * 64}", f"commit {'a' * 40} sha256:{'b' * 64}"),
        ('{"password": "hunter2hunter2"}', '{"password": "***"}'),
        ('secret "litellm-master-key" not found', 'secret "litellm-master-key" not found'),
        ("failed to fetch oauth token: unexpected status", "failed to fetch oauth token: unexpected status"),
        ("token='abcdefgh' password: hunter2hunter2", "token='***' password: ***"),
        ("\x1b[31mred\x1b[0m \x07bell", "red  bell"),
    ],
)
def test_secrets_and_what_moves_a_cursor_are_not_shown(text: str, shown: str) -> None:
    assert Redactor(["value-of-a-secret", "db"])(text) == shown


def test_a_value_with_signs_is_hidden_as_a_url_has_it_too_and_a_redactor_shows_none() -> None:
    redact = Redactor(["p@ss/w0rd!x"])
    assert redact("p@ss/w0rd!x and p%40ss%2Fw0rd%21x") == "*** and ***"
    assert "w0rd" not in repr(redact)
    assert "w0rd" not in repr(replace(snapshot(), redact=redact))


# --- what cannot be looked at ------------------------------------------------------------------------------------


def test_a_cluster_that_does_not_answer_is_an_error_and_a_kind_that_nobody_may_see_is_named() -> None:
    with pytest.raises(OpsError, match="connection refused"):
        look(Answers(away=True), ("serving",), WAYS)
    assert look(Answers(refused="nodes"), ("serving",), WAYS).unread == ('nodes: nodes is forbidden: User "u"',)
    with pytest.raises(OpsError, match="lets nobody see the pods"):
        look(Answers(refused="pods"), ("serving",), WAYS)


def test_nothing_is_changed_by_a_look() -> None:
    crashing = pod("p", "coder-chat", containerStatuses=[container(BACK_OFF, last=ended(), restarts=3)])
    cluster = Answers([node(), crashing], {"main": "x"})
    look(cluster, ("serving", "gateway"), WAYS, wide=True)
    verbs = {next(word for word in asked if word in ("get", "logs")) for asked in cluster.asked}
    assert verbs == {"get", "logs"}


# --- the waits of `ops up` ---------------------------------------------------------------------------------------


def watch(*objects: Json, seconds_ago: float = 60) -> Watch:
    """Of a clock that every look moves on."""
    time = iter(range(0, 10_000, 10))
    chat = ("Pod", "serving", "p")
    begun = NOW - timedelta(seconds=seconds_ago)
    return Watch(Answers(objects), ("serving",), {chat}, WAYS, Redactor(), clock=lambda: float(next(time)), begun=begun)


def crashing(message: str, *, restarts: int = 3, name: str = "p") -> Json:
    return pod(name, "coder-chat", containerStatuses=[container(BACK_OFF, last=ended(2, message), restarts=restarts)])


BAD = "api_server.py: error: unrecognized arguments: --x"


def test_a_wait_ends_where_waiting_mends_nothing_once_that_was_seen_twice() -> None:
    waits = watch(node(), crashing(BAD))
    waits.require_hope()
    with pytest.raises(FailedError, match="unrecognized arguments: --x") as stopped:
        waits.require_hope()
    assert stopped.value.problem.remedy.startswith("kubectl --context c -n serving get pod p -o ")
    assert waits.about(("Pod", "serving", "p")) is not None


@pytest.mark.parametrize(
    ("objects", "seconds_ago"),
    [
        ((crashing("stage: the hub answers 429 Too Many Requests; trying again in 5 s"),), 60),  # passes by itself
        ((crashing(BAD),), 1),  # from before
        ((crashing(BAD, name="somebody-elses"),), 60),
        ((crashing("torch.OutOfMemoryError: CUDA out of memory.", restarts=1),), 60),  # once may be the other's memory
        ((), 60),
    ],
    ids=["passing", "old", "foreign", "first", "nothing"],
)
def test_a_wait_goes_on_while_there_is_hope(objects: tuple[Json, ...], seconds_ago: float) -> None:
    waits = watch(node(), *objects, seconds_ago=seconds_ago)
    for _ in range(3):
        waits.require_hope()


def test_a_cluster_that_does_not_answer_ends_no_wait() -> None:
    waits = Watch(Answers(away=True), ("serving",), {("Pod", "serving", "p")}, WAYS, Redactor())
    waits.require_hope()
    assert waits.last() is None
