"""One Job that measures, from its making to what it found."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from models.catalog import CATALOG
from models.spec import ModelSpec
from models.tasks import TASKS
from ops.config_files import load
from ops.console import errors as console_of_errors
from ops.console import output, refusal
from ops.engine import run_main
from ops.errors import FailedError, OpsError
from ops.findings.of_stack import ways_of, why
from ops.findings.ways import Ways
from ops.kube import Kube, Scale, in_cluster, named_cluster
from ops.manifests import manifests
from ops.measuring.job import Measurement, beside, measuring_job
from ops.unknown_model import unknown
from stacks.admission import admit
from stacks.plan import Plan, PlannedModel
from stacks.staging import succeeded, under_way

Json = dict[str, Any]
RESULT = "RESULT "  # before the last line's JSON
_EVERY_S = 2.0
_QUIET_S = 60.0  # without a word of the program, before the cluster is asked why


@dataclass
class Site:
    """A model that is up, in the cluster that was named, and the command that measures it."""

    kube: Kube
    ways: Ways
    plan: Plan
    model: PlannedModel
    objects: Sequence[Json]  # a plan's manifests
    again: str  # the same command
    wait: Callable[[float], None] = field(default=time.sleep)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def namespace(self) -> str:
        return self.plan.settings.platform.namespaces.models

    # --- before ----------------------------------------------------------------------------------------------

    def require_up(self) -> None:
        """Raises OpsError for a model that does not answer."""
        alias = self.spec.alias
        scale = self.kube.deployments(self.namespace).get(alias, Scale(0, 0))
        if not scale.wanted:
            raise OpsError(
                f"{alias} is not up, so there is nothing to measure",
                self.ways.set(f"{alias}:replicas", "1", path=False, alias=alias),
            )
        if not scale.ready:
            raise OpsError(f"{alias} does not answer yet", shlex.join(["ops", "doctor", *self.kube.named]))
        self.kube.refuse_simulated()

    def context(self) -> Json:
        """What is measured, as it runs: figures hold for this and nothing else. Raises OpsError."""
        alias = self.spec.alias
        pods = self._json("get", "pods", f"--selector=app.kubernetes.io/name={alias}")["items"]
        pod = next((pod for pod in pods if pod.get("spec", {}).get("nodeName")), None)
        if pod is None:
            raise OpsError(f"{alias} has no pod", shlex.join(["ops", "doctor", *self.kube.named]))
        container, node = pod["spec"]["containers"][-1], pod["spec"]["nodeName"]
        of_node = self._json("get", "node", node)["metadata"].get("labels", {})
        gpus = container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu")
        return {
            "alias": alias,
            "model": self.spec.model_id,
            "revision": self.spec.weights.revision if self.spec.weights else None,
            "image": container["image"],
            "arguments": container.get("args", []),
            "gpus": int(gpus) if gpus else 0,
            "gpu": of_node.get("cloud.google.com/gke-accelerator") if gpus else None,
            "machine": of_node.get("node.kubernetes.io/instance-type"),
            "replicas": len(pods),
            "stack": f"{self.plan.settings.project}/{self.plan.settings.stack}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    # --- the Job ---------------------------------------------------------------------------------------------

    def measure(self, wanted: Measurement, tell: Callable[[str], bool]) -> list[str]:
        """Run a Job to its end, or go on with one under way; all that it said. `tell` is whether a line is shown.

        Raises FailedError with its last words. What it leaves is taken away where it succeeded.
        """
        there = self.kube.job(self.namespace, wanted.name)
        if there is None or not under_way(there):
            self.kube.delete_job(self.namespace, wanted.name)
            job = measuring_job(self.objects, self.spec.alias, wanted)
            made = json.loads(self.kube.apply(job, "-o", "json"))
            self.kube.apply(beside(job, made["metadata"]["uid"], self.spec.alias, wanted))
            output(soft_wrap=True).print(f"Job {self.namespace}/{wanted.name}")
        try:
            succeeded = self._follow(wanted.name, tell)
        except KeyboardInterrupt:
            console_of_errors().print(
                f"it goes on in the cluster; to follow it: {self.again}; to end it: {self.again} --stop"
            )
            raise
        lines = self._log(wanted.name)
        if not succeeded:
            raise FailedError(
                f"{wanted.name} has failed: {lines[-1] if lines else 'without a word'}",
                self.kube.typed("-n", self.namespace, "describe", "job", wanted.name),
            )
        self.kube.delete_job(self.namespace, wanted.name)
        return lines

    def result(self, wanted: Measurement) -> Any:
        """What a Job found: the JSON of its last line."""
        lines = self.measure(wanted, lambda line: not line.startswith(RESULT))
        if not lines or not lines[-1].startswith(RESULT):
            raise FailedError(f"{wanted.name} ended without a result", self.again)
        return json.loads(lines[-1].removeprefix(RESULT))

    def stop(self, *names: str) -> int:
        """End what is under way."""
        for name in names:
            self.kube.delete_job(self.namespace, name)
        output().print(f"nothing measures {self.spec.alias} any more")
        return 0

    def _follow(self, name: str, tell: Callable[[str], bool]) -> bool:
        console, told, heard, asked = output(soft_wrap=True), 0, time.monotonic(), False
        while True:
            there = self.kube.job(self.namespace, name)
            if there is None:
                raise FailedError(f"the Job {self.namespace}/{name} was deleted meanwhile", self.again)
            lines = self._log(name)
            for line in filter(tell, lines[told:]):
                console.print(line, markup=False, highlight=False)
            if len(lines) > told:
                told, heard, asked = len(lines), time.monotonic(), False
            if not under_way(there):
                return succeeded(there)
            if not asked and not lines and time.monotonic() - heard > _QUIET_S:
                asked = True
                namespaces = self.plan.settings.platform.namespaces
                if found := why(self.kube, self.ways, namespaces, self.namespace, name):
                    console.print(f"waiting: {found.told}", markup=False, highlight=False)
            self.wait(_EVERY_S)

    def _log(self, name: str) -> list[str]:
        try:
            words = ("-n", self.namespace, "logs", f"--selector=job-name={name}", "--tail=-1")
            return [line for line in self.kube(*words).splitlines() if line.strip()]
        except OpsError:  # its container does not run yet
            return []

    def _json(self, *words: str) -> Json:
        return json.loads(self.kube("-n", self.namespace, *words, "-o", "json"))


def site_of(args: argparse.Namespace, command: str) -> Site | None:
    """Where the arguments say; None where the stack is refused, which is then printed. Raises OpsError."""
    raw = load(args.project_dir, args.stack)
    if args.alias not in CATALOG:
        raise unknown(args.alias, command)
    admission = admit(raw, rehearsal=True)
    if admission.problems:
        console_of_errors().print(refusal(admission.problems))
        return None
    model = next(model for model in admission.plan.models if model.spec.alias == args.alias)
    _require_writing(model, command)
    kube = named_cluster(args, command)
    again = f"{command} {args.alias} --stack {args.stack}"
    again = in_cluster(again, args) if args.context else again
    objects = manifests(run_main(raw, args.project_dir).resources)
    return Site(kube, ways_of(kube, args), admission.plan, model, objects, again)


def _require_writing(model: PlannedModel, command: str) -> None:
    spec = model.spec
    if model.workload is None:
        raise OpsError(f"{spec.alias} runs elsewhere: its speed is its provider's", f"ops smoke {spec.alias}")
    answers = TASKS[spec.task]
    if not answers.generates:
        raise OpsError(
            f"{spec.alias} is for {answers.summary} and writes no text; {command} measures what does",
            f"ops smoke {spec.alias}",
        )
