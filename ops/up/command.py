"""`ops up`: set up what is missing, deploy a stack, wait until it is available, and say what runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.checkout import LOCAL
from ops.config_files import load
from ops.console import errors as console_of_errors
from ops.console import output, refusal
from ops.embedded_cluster.binaries import Say
from ops.engine import Recording
from ops.errors import FailedError
from ops.findings.redact import Redactor
from ops.findings.ways import Ways
from ops.local_folder import alone
from ops.manifests import manifests
from ops.up import by_kubectl, by_pulumi
from ops.up.by_pulumi import PulumiStack
from ops.up.ours import refuse_what_is_not_ours
from ops.up.report import report
from ops.up.secrets import FILE, rehearse, settle
from ops.up.site import Site, prepare
from ops.up.staging import refuse_while_staged
from ops.up.watch import Watch
from stacks.admission import Admission, admit
from stacks.plan import Plan
from stacks.settings import RawConfig

REFUSED = 2
DEFAULT_MODEL = "coder-chat"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--stack", default="local", help="a stack of target kubernetes (default: local)")
    parser.add_argument(
        "--model",
        metavar="ALIAS",
        help=f"the model to bring up (default: {DEFAULT_MODEL}, unless config or --set says what runs)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="config on top of the stack file: coder-chat:replicas=0, kubeContext=kind-ai; may be repeated",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "pulumi", "kubectl"),
        default="auto",
        help="what deploys (default: pulumi where it is installed, else kubectl)",
    )
    parser.add_argument(
        "--install-pulumi", action="store_true", help="run Pulumi's official installer if it is missing"
    )
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 when everything is available, 1 if something is in the way, 2 with the problems if config is refused."""
    console, errors = output(soft_wrap=True), console_of_errors()
    try:
        project_dir: Path = args.project_dir.absolute()
        raw = config_of(project_dir, args.stack, args.assignments, args.model)
        admission = admit(raw, rehearsal=True)
        if admission.problems:
            errors.print(refusal(admission.problems))
            return REFUSED
        _require_ours(raw, admission.plan)
        with alone(project_dir, console.print):
            _up(args, raw, admission, project_dir, console.print)
    except KeyboardInterrupt:
        errors.print("interrupted: what was done stays; run it again to go on, or `make down` to take it away")
        raise
    return 0


def config_of(project_dir: Path, stack: str, assignments: Sequence[str], model: str | None) -> RawConfig:
    """Config with a model up: the one asked for in place of those of the file, or the default if nothing is said.

    Raises OpsError as `load` does.
    """
    plain = _replicas(load(project_dir, stack))
    if model is None:
        raw = load(project_dir, stack, assignments)
        if _replicas(raw):
            return raw
    asked = [*(f"{key}=0" for key in plain), f"{model or DEFAULT_MODEL}:replicas=1"]
    return load(project_dir, stack, [*asked, *assignments])


def _replicas(raw: RawConfig) -> list[str]:
    """Keys that say how many replicas a model has."""
    return [key for key in raw.values if key.endswith(":replicas")]


def _require_ours(raw: RawConfig, plan: Plan) -> None:
    """Raise FailedError for a stack that is not for this command."""
    if plan.settings.platform.target != "kubernetes":
        raise FailedError(
            f"stack '{raw.stack}' has the target '{plan.settings.platform.target}', whose cluster only Pulumi makes",
            f"pulumi up --stack {raw.stack}",
        )
    if raw.secrets:
        raise FailedError(
            f"{', '.join(raw.secrets)} in Pulumi.{raw.stack}.yaml: encrypted for `pulumi up`, and `ops up` has no key",
            f"pulumi up --stack {raw.stack}   # or move the values to {LOCAL}/secrets.json, in clear and for you alone",
        )


def _up(args: argparse.Namespace, raw: RawConfig, admission: Admission, project_dir: Path, say: Say) -> None:
    plan = admission.plan
    binary = _engine(args, say)
    site = prepare(plan, project_dir, say)
    recording, secrets = rehearse(raw, plan, project_dir)
    _require_nodes(plan, recording, site)
    refuse_what_is_not_ours(plan, recording.resources, secrets, site.kubectl)
    refuse_while_staged(plan, site.kubectl)
    values = settle(plan, secrets, site.kubectl, project_dir / LOCAL)
    by_hand: list[str] = []
    watch = _watch(args, recording, site, values, project_dir)
    if binary is None:
        by_kubectl.deploy(site.kubectl, recording.resources, secrets, values, say=say, watch=watch)
    else:
        stack = PulumiStack(binary, project_dir, raw.project, raw.stack)
        stack.up(raw, values, say, watch)
        by_hand = stack.commands
    for line in report(plan, recording, site, by_hand):
        say(line)


def _watch(
    args: argparse.Namespace, recording: Recording, site: Site, values: Mapping[str, str], project_dir: Path
) -> Watch:
    """What looks at the cluster while this run waits for it."""
    objects = manifests(recording.resources)
    given = [f"--model={args.model}"] if args.model else []
    given += [f"--set={assignment}" for assignment in args.assignments]
    return Watch(
        site.kubectl,
        [m["metadata"]["name"] for m in objects if m["kind"] == "Namespace"],
        {(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]) for m in objects},
        Ways(site.kubectl.typed, site.kubectl.context, args.stack, tuple(given), str(project_dir / LOCAL / FILE)),
        Redactor(values.values()),
    )


def _engine(args: argparse.Namespace, say: Say) -> Path | None:
    """The Pulumi CLI, or None for kubectl."""
    if args.engine == "kubectl":
        return None
    binary = by_pulumi.find() or (by_pulumi.install(say) if args.install_pulumi else None)
    if binary is not None:
        say(f"engine: {binary}, state in {LOCAL}/pulumi")
    elif args.engine == "pulumi":
        raise FailedError(
            "no pulumi on PATH or in ~/.pulumi/bin",
            f"ops up --stack {args.stack} --install-pulumi   # or: ops up --stack {args.stack} --engine kubectl",
        )
    else:
        say("engine: kubectl apply, since there is no pulumi on PATH (to have it installed: ops up --install-pulumi)")
    return binary


def _require_nodes(plan: Plan, recording: Recording, site: Site) -> None:
    """Raise FailedError for a model that no node of the cluster can ever hold, instead of waiting for it."""
    labels = [node["metadata"]["labels"] for node in site.kubectl.get("nodes")]
    for resource in recording.resources:
        if resource.short_type != "Deployment" or resource.inputs["spec"]["replicas"] == 0:
            continue
        wanted: dict[str, str] = resource.inputs["spec"]["template"]["spec"].get("nodeSelector", {})
        if wanted and not any(wanted.items() <= there.items() for there in labels):
            raise FailedError(
                f"{resource.name} runs on nodes labelled {_labels(wanted)}, and context {site.kubectl.context} has "
                "none, so it would wait for ever",
                _without_gpu(plan),
            )


def _without_gpu(plan: Plan) -> str:
    """The command that brings up a model which needs no GPU, or none."""
    up = f"ops up --stack {plan.settings.stack}"
    free = next((m.spec.alias for m in plan.deployed if m.workload is not None and not m.spec.gpus), None)
    if free:
        return f"{up} --model {free}   # a model that needs no GPU"
    return " ".join([up, *(f"--set {m.spec.alias}:replicas=0" for m in plan.deployed if m.replicas)])


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
