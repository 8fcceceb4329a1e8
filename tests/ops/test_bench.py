"""`ops bench`: what its program measures of a server of known pace, its Job, and what the command makes of both."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.gateway import litellm_gateway
from models.spec import ModelSpec
from ops.bench import command
from ops.errors import FailedError, OpsError
from ops.findings.ways import Ways
from ops.kube import Kube, Scale
from ops.manifests import manifests
from ops.measuring import task
from ops.measuring.job import PROGRAMS, Measurement, beside, measuring_job
from ops.measuring.task import Site
from stacks.admission import admit
from tests.catalog import CATALOG
from tests.ops import slow_model
from tests.support import config, recorded

Json = dict[str, Any]
ALIAS = "coder-chat"
TOLERANCE = 0.15  # of a machine that does other things too
WANTED = Measurement(name=f"bench-{ALIAS}", programs=("load.py", "asking.py"), environment={}, deadline_s=60)


@contextmanager
def serving(**environment: str) -> Generator[str]:
    """The simulated server; its address."""
    process = subprocess.Popen(
        [sys.executable, str(slow_model.__file__), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def ran(program: str, url: str, task: Json, key: str = slow_model.KEY) -> subprocess.CompletedProcess[str]:
    """A program as its Job runs it."""
    own = {"MEASURE_URL": url, "MEASURE_KEY": key, "MEASURE_TASK": json.dumps(task), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-I", str(PROGRAMS / program)]
    return subprocess.run(words, env=own, capture_output=True, text=True, timeout=120, check=False)


# --- the program --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> Json:
    """A sweep over the server of known pace, of 30 tokens read and 20 written."""
    shape = {"name": "small", "prompt_tokens": 30, "output_tokens": 20}
    with serving() as url:
        done = ran("load.py", url, {"model": "m", "shapes": [shape], "streams": 8, "duration_s": 4, "rates": 2})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1].removeprefix(task.RESULT))[0]


def of(measured: Json, strategy: str) -> Json:
    return next(run for run in measured["runs"] if run["strategy"] == strategy)


SECONDS = slow_model.FIRST_S + 19 * slow_model.TOKEN_S  # of a request alone


def test_a_request_alone_is_as_fast_as_the_server_is(measured: Json) -> None:
    alone = of(measured, "synchronous")
    assert alone["prompt_tokens"] == pytest.approx(30, abs=1)
    assert alone["output_tokens"] == 20
    assert alone["ttft_ms"]["p50"] == pytest.approx(slow_model.FIRST_S * 1000, rel=TOLERANCE)
    assert alone["itl_ms"]["p50"] == pytest.approx(slow_model.TOKEN_S * 1000, rel=TOLERANCE)
    assert alone["e2e_ms"]["p50"] == pytest.approx(SECONDS * 1000, rel=TOLERANCE)
    assert alone["tokens_per_second"]["total"] == pytest.approx(50 / SECONDS, rel=TOLERANCE)


def test_more_streams_than_slots_are_as_fast_as_the_slots_and_wait_for_them(measured: Json) -> None:
    full = of(measured, "throughput")
    assert full["tokens_per_second"]["total"] == pytest.approx(slow_model.SLOTS * 50 / SECONDS, rel=TOLERANCE)
    assert full["tokens_per_second"]["output"] == pytest.approx(slow_model.SLOTS * 20 / SECONDS, rel=TOLERANCE)
    assert full["ttft_ms"]["p50"] == pytest.approx((slow_model.FIRST_S + SECONDS) * 1000, rel=TOLERANCE)


def test_an_open_loop_offers_its_rate_and_below_saturation_nobody_waits(measured: Json) -> None:
    half = of(measured, "constant")
    low, high = (of(measured, name)["requests_per_second"] for name in ("synchronous", "throughput"))
    assert half["rate"] == pytest.approx((low + high) / 2, rel=0.01)
    assert half["requests_per_second"] == pytest.approx(half["rate"], rel=TOLERANCE)
    assert not half["saturated"]
    assert half["ttft_ms"]["p50"] == pytest.approx(slow_model.FIRST_S * 1000, rel=TOLERANCE)


def test_a_rate_that_the_server_does_not_keep_up_with_is_saturated() -> None:
    code = (
        "import asyncio, json, sys; from asking import Server; from load import Run\n"
        "run = Run(Server(sys.argv[1], sys.argv[2], 'm'), {'output_tokens': 20}, 30, 3)\n"
        "print(json.dumps(asyncio.run(run.open(20))))"
    )
    with serving() as url:
        words = [sys.executable, "-c", code, url, slow_model.KEY]
        done = subprocess.run(words, cwd=PROGRAMS, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert found["saturated"]
    assert found["requests_per_second"] == pytest.approx(slow_model.SLOTS / SECONDS, rel=TOLERANCE)


@pytest.mark.parametrize(("key", "words"), [("wrong", "HTTP 401"), (slow_model.KEY, "Connect call failed")])
def test_a_server_that_refuses_or_is_not_there_ends_it_with_what_it_said(key: str, words: str) -> None:
    task_of_it = {"model": "m", "shapes": [{"name": "s", "prompt_tokens": 9, "output_tokens": 9}], "streams": 1}
    with serving() as url:
        place = url if key == "wrong" else "http://127.0.0.1:9"
        done = ran("load.py", place, task_of_it | {"duration_s": 1, "rates": 0}, key)
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stderr


# --- the Job ------------------------------------------------------------------------------------------------------


def test_a_job_runs_in_the_gateways_image_without_a_token_a_gpu_or_a_claim() -> None:
    records = recorded()
    job = measuring_job(manifests(records.resources), ALIAS, WANTED)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == records.pod(litellm_gateway.APP).container(litellm_gateway.APP)["image"]
    assert pod["automountServiceAccountToken"] is False
    assert "nvidia.com/gpu" not in json.dumps(job)
    assert "persistentVolumeClaim" not in json.dumps(job)
    labels = job["spec"]["template"]["metadata"]["labels"].items()
    selectors = [s.inputs["spec"]["selector"] for s in records.kubernetes if s.short_type == "Service"]
    assert not any(selector.items() <= labels for selector in selectors)


def test_the_way_to_the_model_is_the_jobs_and_goes_with_it() -> None:
    job = measuring_job(manifests(recorded().resources), ALIAS, WANTED)
    items = beside(job, "the-uid", ALIAS, WANTED)["items"]
    assert all(item["metadata"]["ownerReferences"][0]["uid"] == "the-uid" for item in items)
    out, into = (item["spec"] for item in items if item["kind"] == "NetworkPolicy")
    own = job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
    assert (out["policyTypes"], into["policyTypes"]) == (["Egress"], ["Ingress"])
    assert out["podSelector"]["matchLabels"] == into["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert into["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": ALIAS}
    assert out["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": own}
    assert own not in CATALOG


# --- the command --------------------------------------------------------------------------------------------------

POD = {
    "spec": {
        "nodeName": "n1",
        "containers": [
            {"image": "vllm@sha256:1", "args": ["--model=m"], "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        ],
    }
}
NODE = {"node.kubernetes.io/instance-type": "g2-standard-8", "cloud.google.com/gke-accelerator": "nvidia-l4"}


@dataclass(frozen=True)
class Cluster(Kube):
    """A cluster of one Job, which goes through states; the log of its pod, and what it was asked."""

    states: list[str] = field(default_factory=lambda: ["", "running", "Complete"])  # of each look; the last one stays
    log: Sequence[str] = ()
    scale: Mapping[str, Scale] = field(default_factory=lambda: {ALIAS: Scale(1, 1)})
    asked: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    applied: list[Json] = field(default_factory=list[Json])

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        words = arguments[2:] if arguments[0] == "-n" else arguments
        self.asked.append(words)
        if words[:2] == ("get", "job"):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            ended = [{"type": state, "status": "True"}] if state in ("Complete", "Failed") else []
            return json.dumps({"status": {"conditions": ended}}) if state else ""
        if words[0] == "apply":
            self.applied.append(json.loads(stdin or ""))
        found = {
            "logs": "\n".join(self.log),
            "get": json.dumps({"items": [POD]} if words[1] == "pods" else {"metadata": {"labels": NODE}}),
            "apply": json.dumps({"metadata": {"uid": "u"}}),
        }
        return found.get(words[0], "")

    def deployments(self, namespace: str) -> Mapping[str, Scale]:
        return self.scale

    def refuse_simulated(self) -> None:
        pass

    @property
    def verbs(self) -> list[str]:
        return [words[0] for words in self.asked]


def site(cluster: Kube, alias: str = ALIAS) -> Site:
    plan = admit(config(), rehearsal=True).plan
    model = next(m for m in plan.models if m.spec.alias == alias)
    objects = manifests(recorded().resources)
    ways = Ways(cluster.typed, cluster.context)
    return Site(cluster, ways, plan, model, objects, f"ops bench {alias}", wait=lambda _: None)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([ALIAS, *words])


def bench(monkeypatch: pytest.MonkeyPatch, cluster: Kube, *words: str) -> int:
    def found(*_: object) -> Site:
        return site(cluster)

    monkeypatch.setattr(command, "site_of", found)
    return command.run(arguments(*words))


def test_a_result_has_what_was_measured_and_what_ran_it(
    monkeypatch: pytest.MonkeyPatch, measured: Json, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, file = Cluster("c", log=["small: ...", task.RESULT + json.dumps([measured])]), tmp_path / "found.json"
    assert bench(monkeypatch, cluster, "--output", str(file)) == 0
    found = json.loads(file.read_text())
    assert found["shapes"] == [measured]
    spec = CATALOG[ALIAS]
    assert spec.weights
    expected = {
        "alias": ALIAS,
        "model": spec.model_id,
        "revision": spec.weights.revision,
        "image": "vllm@sha256:1",
        "arguments": ["--model=m"],
        "gpus": 1,
        "gpu": "nvidia-l4",
        "machine": "g2-standard-8",
    }
    assert {key: found["context"][key] for key in expected} == expected
    told = capsys.readouterr().out
    assert "synchronous" in told
    assert task.RESULT not in told
    assert cluster.verbs[-1] == "delete"
    assert "sk-" not in json.dumps(cluster.applied)


def test_answers_that_failed_are_a_failure_and_the_result_is_kept(
    monkeypatch: pytest.MonkeyPatch, measured: Json, tmp_path: Path
) -> None:
    broken = json.loads(json.dumps(measured))
    broken["runs"][0]["requests"]["failed"] = 3
    file = tmp_path / "found.json"
    with pytest.raises(FailedError, match="3 requests"):
        bench(monkeypatch, Cluster("c", log=[task.RESULT + json.dumps([broken])]), "--output", str(file))
    assert file.exists()


def test_a_job_under_way_is_followed_and_one_that_failed_stays_to_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, measured: Json, tmp_path: Path
) -> None:
    running = Cluster("c", states=["running", "Complete"], log=[task.RESULT + json.dumps([measured])])
    assert bench(monkeypatch, running, "--output", str(tmp_path / "f")) == 0
    assert running.applied == []
    failing = Cluster("c", states=["", "Failed"], log=["HTTP 401"])
    with pytest.raises(FailedError, match="HTTP 401"):
        bench(monkeypatch, failing)
    assert failing.verbs[-1] != "delete"


@pytest.mark.parametrize(
    ("scale", "words", "remedy"),
    [
        ({}, "is not up", "pulumi config set coder-chat:replicas 1 && pulumi up"),
        ({ALIAS: Scale(0, 0)}, "is not up", "pulumi config set coder-chat:replicas 1 && pulumi up"),
        ({ALIAS: Scale(1, 0)}, "does not answer yet", "ops doctor --context c"),
    ],
)
def test_a_model_that_does_not_answer_is_refused(
    monkeypatch: pytest.MonkeyPatch, scale: Mapping[str, Scale], words: str, remedy: str
) -> None:
    cluster = Cluster("c", scale=scale)
    with pytest.raises(OpsError) as refused:
        bench(monkeypatch, cluster)
    assert words in refused.value.problem.message
    assert refused.value.problem.remedy == remedy
    assert cluster.applied == []


def test_a_model_that_writes_nothing_or_runs_elsewhere_is_refused() -> None:
    plan = admit(config(), rehearsal=True).plan
    for model in plan.models:
        if model.workload is None or model.spec.alias == "embeddings":
            with pytest.raises(OpsError) as refused:
                task._require_writing(model, "ops bench")  # pyright: ignore[reportPrivateUsage]
            assert refused.value.problem.remedy == f"ops smoke {model.spec.alias}"


def test_requests_longer_than_the_context_are_left_out_and_refused_where_they_are_asked_for() -> None:
    here = site(Cluster("c"))
    short: ModelSpec = here.spec.model_copy(update={"context": 1024})
    object.__setattr__(here.model, "spec", short)
    wanted = command.measurement(here, arguments())
    assert [s["name"] for s in json.loads(wanted.environment["MEASURE_TASK"])["shapes"]] == ["reference"]
    with pytest.raises(OpsError, match="2,304 tokens"):
        command.measurement(here, arguments("--shape", "coding"))
