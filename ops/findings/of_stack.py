"""Findings for a command that was told of a cluster by `ops.kube.add_arguments`."""

from __future__ import annotations

import argparse

from models.catalog import CATALOG, GROUPS
from ops.checkout import LOCAL
from ops.config_files import load
from ops.errors import OpsError
from ops.findings.diagnose import diagnose, of
from ops.findings.finding import Finding
from ops.findings.look import look
from ops.findings.ways import Ways
from ops.kube import Kube
from stacks.sections import Namespaces
from stacks.settings import parse


def ways_of(kube: Kube, args: argparse.Namespace) -> Ways:
    """Commands about a cluster and about the stack on it: of `ops up` where its file says a context, else of Pulumi."""
    try:
        raw = load(args.project_dir, args.stack)
        by_ops = parse(raw, CATALOG, GROUPS)[0].platform.target == "kubernetes" and not raw.secrets
    except OpsError:
        by_ops = False
    secrets = args.project_dir / LOCAL / "secrets.json"
    return Ways(kube.typed, kube.context, args.stack if by_ops else None, secrets_file=str(secrets))


def why(kube: Kube, ways: Ways, namespaces: Namespaces, namespace: str, *names: str) -> Finding | None:
    """The first finding about something in a namespace; None where there is none, or nothing can be seen."""
    try:
        return of(diagnose(look(kube, (namespaces.models, namespaces.gateway), ways)), namespace, *names)
    except OpsError:
        return None
