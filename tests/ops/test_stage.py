"""`ops stage`: the Job that a plan gives, when it is refused, and what is told of its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from components.gateway import litellm_gateway
from models.needs import Needs
from models.spec import ModelSpec
from ops.cli import main
from ops.errors import FailedError, OpsError
from ops.findings.ways import Ways
from ops.job_parts import CPU, GIB
from ops.kube import Kube, Scale
from ops.manifests import manifests
from ops.stage import command
from ops.stage.job import staging_job
from stacks.admission import admit
from stacks.plan import State
from tests.catalog import CATALOG
from tests.support import PROJECT_DIR, Records, config, recorded

Json = dict[str, Any]
STAGED = [alias for alias, spec in CATALOG.items() if spec.weights]


def enabled(records: Records) -> list[str]:
    return [alias for alias in STAGED if any(r.inputs["metadata"]["name"] == alias for r in records.all("Deployment"))]


def job_of(alias: str, *assignments: str, stack: str = "ai-dev") -> Json:
    return staging_job(manifests(recorded(*assignments, stack=stack).resources), alias, "europe-west4-a")


def pod_of(job: Json) -> Json:
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize("stack", ["ai-dev", "local"])
def test_a_job_stages_what_the_models_own_pod_would(stack: str) -> None:
    records = recorded(stack=stack)
    aliases = enabled(records)
    assert aliases
    for alias in aliases:
        pod, served = pod_of(job_of(alias, stack=stack)), records.pod(alias).spec
        init, container = served["initContainers"][0], pod["containers"][0]
        same = ("command", "env", "volumeMounts", "securityContext")
        assert {key: container[key] for key in same} == {key: init[key] for key in same}
        assert pod["securityContext"] == served["securityContext"]
        assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in init["volumeMounts"]}
        assert next(v for v in pod["volumes"] if v["name"] == "model-cache")["persistentVolumeClaim"] == {
            "claimName": f"{alias}-model-cache"
        }


def test_a_job_asks_for_no_gpu_and_for_the_zone_of_the_pool() -> None:
    job = job_of("coder-chat")
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"topology.kubernetes.io/zone": "europe-west4-a"}
    assert "tolerations" not in pod
    assert "nvidia.com/gpu" not in json.dumps(pod)
    image = recorded().pod(litellm_gateway.APP).container(litellm_gateway.APP)["image"]
    assert pod["containers"][0]["image"] == image  # has Python, and is on the node already


def test_a_job_fits_in_the_room_that_is_kept_for_a_gateway_that_rolls() -> None:
    mine = Needs(cpu=CPU, gib=GIB, ephemeral_gib=0)
    assert (mine.cpu <= litellm_gateway.NEEDS.cpu, mine.gib <= litellm_gateway.NEEDS.gib) == (True, True)


def test_a_job_is_in_no_service_and_has_a_way_out_of_its_own() -> None:
    job, records = job_of("coder-chat"), recorded()
    labels = job["spec"]["template"]["metadata"]["labels"]
    selectors = [s.inputs["spec"]["selector"] for s in records.kubernetes if s.short_type == "Service"]
    assert not any(selector.items() <= labels.items() for selector in selectors)
    policy = records.one("NetworkPolicy", labels["app.kubernetes.io/name"], "serving").inputs["spec"]
    assert policy["policyTypes"] == ["Egress"]


def test_where_a_start_fetches_nothing_the_job_does_and_pods_of_models_have_no_way_out() -> None:
    off = "hub.download=false"
    records = recorded(off)
    assert {"name": "STAGE_DOWNLOAD", "value": "never"} in records.pod("coder-chat").spec["initContainers"][0]["env"]
    names = [variable["name"] for variable in pod_of(job_of("coder-chat", off))["containers"][0]["env"]]
    assert "STAGE_DOWNLOAD" not in names
    assert records.one("NetworkPolicy", "coder-chat", "serving").inputs["spec"]["policyTypes"] == ["Ingress"]


# --- the command --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster(Kube):
    """A cluster of one Job, which goes through states; the log of its pod, and what it was asked."""

    states: list[str] = field(default_factory=lambda: ["", "running", "Complete"])  # of each look; the last one stays
    log: Sequence[str] = ()
    scale: Mapping[str, Scale] = field(default_factory=lambda: {"coder-chat": Scale(0, 0)})
    asked: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        words = arguments[2:] if arguments[0] == "-n" else arguments
        self.asked.append(words)
        if words[0] == "get" and words[1] == "job":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            ended = [{"type": state, "status": "True"}] if state in ("Complete", "Failed") else []
            return json.dumps({"status": {"conditions": ended}}) if state else ""
        if words[0] == "logs":
            return "\n".join(f"2026-11-26T10:00:{n:02}Z stage: {line}" for n, line in enumerate(self.log))
        return ""

    def deployments(self, namespace: str) -> Mapping[str, Scale]:
        return self.scale

    def refuse_simulated(self) -> None:
        pass

    @property
    def verbs(self) -> list[str]:
        return [words[0] for words in self.asked]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_EVERY_S", 0.0)


def task(cluster: Kube, alias: str = "coder-chat") -> command._Task:  # pyright: ignore[reportPrivateUsage]
    plan = admit(config(), rehearsal=True).plan
    model = next(m for m in plan.models if m.spec.alias == alias)
    return command._Task(cluster, Ways(cluster.typed, "c"), plan, model, f"ops stage {alias}")  # pyright: ignore[reportPrivateUsage]


def test_what_the_program_says_is_told_once_and_the_job_is_gone_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster("c", states=["", "running", "running", "Complete"], log=["downloading 3 files", "3 files"])
    assert task(cluster).run(job_of("coder-chat")) == 0
    told = capsys.readouterr().out
    assert told.count("downloading 3 files") == 1
    assert "pulumi config set coder-chat:replicas 1 && pulumi up" in told
    assert cluster.verbs[-1] == "delete"
    assert "--cascade=foreground" in cluster.asked[-1]


def test_a_job_under_way_is_followed_and_not_made_anew() -> None:
    cluster = Cluster("c", states=["running", "Complete"])
    assert task(cluster).run(job_of("coder-chat")) == 0
    assert "apply" not in cluster.verbs


def test_a_job_that_has_failed_is_made_anew() -> None:
    cluster = Cluster("c", states=["Failed", "running", "Complete"])
    assert task(cluster).run(job_of("coder-chat")) == 0
    assert cluster.verbs.index("delete") < cluster.verbs.index("apply")


def test_a_failure_has_the_programs_last_words_and_the_job_stays_to_be_looked_at() -> None:
    cluster = Cluster("c", states=["", "Failed"], log=["downloading", "the hub does not know it (404)"])
    with pytest.raises(FailedError) as failed:
        task(cluster).run(job_of("coder-chat"))
    assert "the hub does not know it (404)" in str(failed.value)
    assert cluster.verbs[-1] != "delete"


@pytest.mark.parametrize(
    ("scale", "words", "remedy"),
    [
        ({"coder-chat": Scale(1, 1)}, "is up", "pulumi config set coder-chat:replicas 0 && pulumi up"),
        ({"coder-chat": Scale(1, 0)}, "is up", "pulumi config set coder-chat:replicas 0 && pulumi up"),
        ({"coder-chat": Scale(0, 1)}, "on its way down", "pulumi config set coder-chat:replicas 0 && pulumi up"),
        ({}, "not deployed", "pulumi up"),
    ],
)
def test_a_model_that_is_up_or_not_there_is_refused(scale: Mapping[str, Scale], words: str, remedy: str) -> None:
    cluster = Cluster("c", scale=scale)
    with pytest.raises(OpsError) as refused:
        task(cluster).run(job_of("coder-chat"))
    assert words in refused.value.problem.message
    assert refused.value.problem.remedy == remedy
    assert cluster.asked == []


def test_simulated_nodes_are_refused_before_anybody_brings_a_model_down_for_it() -> None:
    class Simulated(Cluster):
        def refuse_simulated(self) -> None:
            raise OpsError("its nodes are simulated", "docs/local.md")

    with pytest.raises(OpsError, match="simulated"):
        task(Simulated("c", scale={"coder-chat": Scale(1, 1)})).run(job_of("coder-chat"))


def test_the_command_that_names_a_cluster_names_the_model_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT_DIR)
    assert main(["stage", "coder-chat"]) == 2
    assert "ops stage coder-chat --context gke_" in " ".join(capsys.readouterr().err.split())


def test_a_stop_takes_the_job_away_and_says_that_what_came_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster("c", states=["running"])
    assert task(cluster).stop() == 0
    assert "what came is kept" in capsys.readouterr().out
    assert cluster.verbs[-1] == "delete"
    idle = Cluster("c", states=[""])
    assert task(idle).stop() == 0
    assert "delete" not in idle.verbs


def test_ctrl_c_leaves_the_job_and_says_how_it_is_followed_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Cluster):
        def __call__(self, *arguments: str, stdin: str | None = None) -> str:
            if "logs" in arguments:
                raise KeyboardInterrupt
            return super().__call__(*arguments, stdin=stdin)

    cluster = Interrupted("c")
    with pytest.raises(KeyboardInterrupt):
        task(cluster).run(job_of("coder-chat"))
    assert "ops stage coder-chat --stop" in capsys.readouterr().err
    assert "apply" in cluster.verbs
    assert cluster.verbs[-1] != "delete"


def test_a_model_that_has_no_claim_here_is_refused_before_the_cluster_is_asked() -> None:
    plan = admit(config(), rehearsal=True).plan
    external = next(m.spec for m in plan.models if m.workload is None)
    disabled = [m.spec for m in plan.models if m.state is State.DISABLED and m.workload]
    _refused(plan, external, "runs elsewhere")
    for spec in disabled[:1]:
        _refused(plan, spec, "is not enabled")


def _refused(plan: Any, spec: ModelSpec, words: str) -> None:
    with pytest.raises(OpsError) as refused:
        command._stageable(plan, spec.alias, Ways(Cluster("c").typed, "c"))  # pyright: ignore[reportPrivateUsage]
    assert words in refused.value.problem.message
