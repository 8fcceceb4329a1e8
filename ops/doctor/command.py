"""`ops doctor`: what is wrong with a deployment, a finding each, from its stack and its cluster. It changes nothing.

A finding has the container's, the scheduler's, the autoscaler's or a controller's own words, and a command that works
as typed. Without such words there is none. What they may hold of secrets is hidden.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.text import Text

from ops.console import errors as console_of_errors
from ops.console import output
from ops.findings.diagnose import diagnose
from ops.findings.finding import Finding, Snapshot
from ops.findings.look import look
from ops.findings.of_stack import ways_of
from ops.kube import Kube, named_cluster, namespaces
from ops.kube import add_arguments as add_cluster_arguments
from ops.wrapping import wrapped

FOUND, BLIND = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    add_cluster_arguments(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """0 if nothing is wrong, 1 with the findings, 2 if the cluster, or a part of it, could not be looked at."""
    kube = named_cluster(args, "ops doctor", serves=False)
    ways = ways_of(kube, args)
    where = namespaces(args)
    snapshot = look(kube, (where.models, where.gateway), ways, wide=True)
    found = diagnose(snapshot)
    if args.format == "json":
        whole = {
            "context": kube.context,
            "findings": [finding.json() for finding in found],
            "not_looked_at": list(snapshot.unread),
        }
        json.dump(whole, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(found, snapshot, kube)
    if found:
        return FOUND
    return BLIND if snapshot.unread else 0


def _print(found: list[Finding], snapshot: Snapshot, kube: Kube) -> None:
    console, errors = output(soft_wrap=True), console_of_errors()
    columns = console.width if sys.stdout.isatty() else None
    for finding in found:
        told = f"- {finding.told}"
        console.print(wrapped(finding.told, columns, "- ") if columns else told)
        console.print(Text(f"    {finding.command}", style="bold"))
    if not found:
        pods = len(snapshot.all("Pod"))
        console.print(f"nothing is wrong with {pods} pods of {', '.join(snapshot.namespaces)} in {kube.context}")
    for unread in snapshot.unread:
        errors.print(f"not looked at: {unread}")
