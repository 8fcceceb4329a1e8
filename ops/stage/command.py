"""`ops stage`: fill a model's claim while no GPU is billed, by a Job that is gone before the model comes up."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.serving.namespace import staging_job_name
from models.catalog import CATALOG
from ops.config_files import load
from ops.console import errors as console_of_errors
from ops.console import output, refusal
from ops.engine import run_main
from ops.errors import FailedError, OpsError
from ops.findings.of_stack import ways_of, why
from ops.findings.ways import Ways
from ops.kube import Kube, Scale, in_cluster, named_cluster
from ops.kube import add_arguments as add_cluster_arguments
from ops.manifests import manifests
from ops.stage.job import staging_job
from ops.unknown_model import unknown
from stacks.admission import admit
from stacks.plan import Plan, PlannedModel, State
from stacks.staging import succeeded, under_way

REFUSED = 2
_EVERY_S = 2.0
_QUIET_S = 30.0  # without a word of the program, before the cluster is asked why


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("alias", metavar="ALIAS", help="the model, deployed and at zero replicas")
    add_cluster_arguments(parser)
    parser.add_argument("--stop", action="store_true", help="end what is under way; what came is kept")


def run(args: argparse.Namespace) -> int:
    """0 when the weights are on the claim and proven, 1 if they are not, 2 if it cannot be done now."""
    raw = load(args.project_dir, args.stack)
    if args.alias not in CATALOG:
        raise unknown(args.alias, "ops stage")
    admission = admit(raw, rehearsal=True)
    if admission.problems:
        console_of_errors().print(refusal(admission.problems))
        return REFUSED
    plan = admission.plan
    kube = named_cluster(args, f"ops stage {args.alias}", serves=False)
    ways = ways_of(kube, args)
    task = _Task(kube, ways, plan, _stageable(plan, args.alias, ways), _again(args))
    if args.stop:
        return task.stop()
    objects = manifests(run_main(raw, args.project_dir).resources)
    zone = plan.settings.gcp.zone if plan.settings.gcp else None
    return task.run(staging_job(objects, args.alias, zone))


def _again(args: argparse.Namespace) -> str:
    """The same command again."""
    command = f"ops stage {args.alias} --stack {args.stack}"
    return in_cluster(command, args) if args.context else command


def _stageable(plan: Plan, alias: str, ways: Ways) -> PlannedModel:
    """A model whose weights may be staged by this plan. Raises OpsError."""
    model = next(model for model in plan.models if model.spec.alias == alias)
    if model.workload is None:
        raise OpsError(f"{alias} runs elsewhere, so nothing of it is stored here", f"ops smoke {alias}")
    if model.state is State.DISABLED:
        raise OpsError(
            f"{alias} is not enabled, so it has no claim to fill",
            ways.set(f"{alias}:enabled", "true", path=False),
        )
    return model


@dataclass
class _Task:
    """The staging of one model in one cluster."""

    kube: Kube
    ways: Ways
    plan: Plan
    model: PlannedModel
    again: str
    _told: set[str] = field(default_factory=set[str])

    @property
    def alias(self) -> str:
        return self.model.spec.alias

    @property
    def namespace(self) -> str:
        return self.plan.settings.platform.namespaces.models

    @property
    def name(self) -> str:
        return staging_job_name(self.alias)

    # --- what is done ----------------------------------------------------------------------------------------

    def run(self, job: Mapping[str, Any]) -> int:
        """Stage, or go on with what is under way."""
        self.kube.refuse_simulated()  # first: nobody is to bring a model down for a refusal
        self._require_off()
        there = self.kube.job(self.namespace, self.name)
        if there is None or not under_way(there):
            self.kube.delete_job(self.namespace, self.name)
            self.kube.apply(job)
            output(soft_wrap=True).print(f"staging {self.alias} by Job {self.namespace}/{self.name}, without a GPU")
        try:
            ended = self._follow()
        except KeyboardInterrupt:
            console_of_errors().print(
                f"it goes on in the cluster; to follow it: {self.again}; to end it: {self.again} --stop"
            )
            raise
        last = self._last_words()
        if not ended:
            raise FailedError(
                f"{self.alias} is not staged: {last or 'the Job has failed without a word'}",
                f"{self.again}   # goes on where this run was",
            )
        self.kube.delete_job(self.namespace, self.name)
        gib = self.model.spec.weights.bytes_on_disk / 2**30 if self.model.spec.weights else 0
        up = self.ways.set(f"{self.alias}:replicas", "1", path=False, alias=self.alias)
        output(soft_wrap=True).print(f"{self.alias} is staged, {gib:.1f} GiB; to bring it up:\n  {up}")
        return 0

    def stop(self) -> int:
        """End it; what came stays on the claim."""
        if self.kube.job(self.namespace, self.name) is None:
            output().print(f"nothing is staging {self.alias}")
            return 0
        self.kube.delete_job(self.namespace, self.name)
        output().print(f"staging of {self.alias} is ended; what came is kept: {self.again}")
        return 0

    # --- the cluster -----------------------------------------------------------------------------------------

    def _require_off(self) -> None:
        scale = self.kube.deployments(self.namespace).get(self.alias)
        if scale is None:
            raise OpsError(
                f"{self.alias} is not deployed in {self.namespace} yet, so it has no claim to fill", self.ways.deploy()
            )
        if scale != Scale(0, 0):
            state = "is up" if scale.wanted else "is on its way down"
            raise OpsError(
                f"{self.alias} {state}, and its pod has the claim: weights that it lacks it brings itself",
                self.ways.set(f"{self.alias}:replicas", "0", path=False, alias=self.alias),
            )

    def _follow(self) -> bool:
        """Tell what the program says until the Job has ended; whether it has succeeded."""
        console, heard, asked = output(soft_wrap=True), time.monotonic(), False
        while True:
            there = self.kube.job(self.namespace, self.name)
            if there is None:
                raise FailedError(f"the Job {self.namespace}/{self.name} was deleted meanwhile", self.again)
            for line in self._new_lines():
                console.print(line, markup=False, highlight=False)
                heard, asked = time.monotonic(), False
            if not under_way(there):
                return succeeded(there)
            if not asked and time.monotonic() - heard > _QUIET_S:
                asked = True
                namespaces = self.plan.settings.platform.namespaces
                if found := why(self.kube, self.ways, namespaces, self.namespace, self.name):
                    console.print(f"waiting: {found.told}", markup=False, highlight=False)
            time.sleep(_EVERY_S)

    def _new_lines(self) -> Iterator[str]:
        """What its pods have said since the last look, each line once."""
        for line in self._log():
            if line not in self._told:
                self._told.add(line)
                yield line

    def _log(self) -> list[str]:
        words = ("-n", self.namespace, "logs", f"--selector=job-name={self.name}", "--tail=-1", "--timestamps")
        try:
            return self.kube(*words).splitlines()
        except OpsError:  # its container does not run yet
            return []

    def _last_words(self) -> str:
        lines = sorted(self._log())  # by their time, whichever pod said them
        return lines[-1].partition(" ")[2].removeprefix("stage: ") if lines else ""
