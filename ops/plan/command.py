"""`ops plan`: what `pulumi up` would create, whether it may, and how it looks as manifests."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from ops.config_files import load, shown
from ops.console import errors as console_of_errors
from ops.console import output, refusal
from ops.engine import Registered, run_main
from ops.errors import OpsError
from ops.manifests import manifests, secrets_note, to_yaml, unknown_paths
from ops.plan import REFUSED
from ops.plan.data import plan_data
from ops.plan.folder import write
from ops.plan.screen import Asked, first_screen, print_asked
from ops.plan.text import render
from stacks.admission import Admission, admit
from stacks.settings import RawConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--stack", default="ai-dev", help="stack whose Pulumi.<stack>.yaml is read (default: ai-dev)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="config on top of the file, for this plan only, as `pulumi config set --path` takes it: "
        "coder-chat:replicas=1, 'keys.ci.models[0]=coder-chat'; may be repeated",
    )
    parser.add_argument(
        "--full", action="store_true", help="all of the text: resources, every model, the bill, notices"
    )
    parser.add_argument("--format", choices=("text", "json", "yaml", "markdown"), default="text")
    parser.add_argument(
        "--against",
        metavar="REV|FILE",
        help="show what would change since a git revision, another Pulumi.<stack>.yaml or a saved JSON plan",
    )
    parser.add_argument("--out", type=_folder, metavar="DIR", help="write the Kubernetes manifests there, a file each")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; of an unset variable? The checkout itself is '.'")
    return Path(text)


def run(args: argparse.Namespace) -> int:
    """0 if it would deploy, 2 with the problems on standard error if it is refused."""
    if args.against is not None:
        # Only here: a plan alone starts faster without what compares two.
        from ops.plan.against import run_against  # noqa: PLC0415

        return run_against(args)
    errors = console_of_errors()
    project_dir: Path = args.project_dir
    if args.format == "markdown":
        raise OpsError("markdown compares two plans", "ops plan --format markdown --against origin/main")
    raw = load(project_dir, args.stack, args.assignments)
    admission = admit(raw, rehearsal=True)
    if admission.problems:
        if args.format == "json":
            _print_json(admission, [])
        errors.print(refusal(admission.problems))
        if args.assignments:
            errors.print("(what --set asked for: --set KEY=VALUE in place of `pulumi config set KEY VALUE`)")
        return REFUSED
    recording = run_main(raw, project_dir)
    match args.format:
        case "json":
            _print_json(admission, recording.resources)
        case "yaml":
            sys.stdout.write(secrets_note(recording.resources) + to_yaml(manifests(recording.resources)))
        case _:
            _print_text(args, raw, admission, recording.resources)
    _warn_of_unknowns(errors, recording.resources, manifests_wanted=args.format == "yaml" or args.out is not None)
    if args.out is not None:
        written = write(recording.resources, args.out)
        errors.print(
            f"{len(written)} files in {args.out}: make the Secrets that SECRETS.txt names, then "
            f"kubectl apply --server-side -f {args.out}; docs/local.md says how to keep it up to date"
        )
    return 0


def _print_text(args: argparse.Namespace, raw: RawConfig, admission: Admission, resources: list[Registered]) -> None:
    console = output()
    asked = None
    if args.assignments:
        before = admit(load(args.project_dir, args.stack), rehearsal=True)
        shown_as = [shown(assignment, raw) for assignment in args.assignments]
        asked = Asked(shown_as, f"Pulumi.{args.stack}.yaml", before)
        print_asked(console, asked, admission.plan)
    if args.full:
        render(console, admission, resources)
    else:
        first_screen(console, admission, resources, asked)


def _print_json(admission: Admission, resources: list[Registered]) -> None:
    json.dump(plan_data(admission, resources), sys.stdout, indent=2)
    sys.stdout.write("\n")


def _warn_of_unknowns(errors: Console, resources: list[Registered], *, manifests_wanted: bool) -> None:
    """A manifest with a hole in it must not be applied unseen."""
    if not manifests_wanted:
        return
    for manifest in manifests(resources):
        for path in unknown_paths(manifest):
            errors.print(
                f"warning: {manifest['kind']} {manifest['metadata']['name']}: {path} is known only to `pulumi up`"
            )
