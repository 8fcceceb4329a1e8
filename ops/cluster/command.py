"""`ops cluster`: the embedded cluster of this checkout."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.checkout import LOCAL, cluster_root
from ops.cluster import commands
from ops.console import output
from ops.embedded_cluster.binaries import Say
from ops.interrupts import held_back
from ops.local_folder import alone, remove


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("up", help="start it, with the nodes that the local stack asks for")
    down = actions.add_parser("down", help="stop it, and keep its data")
    down.add_argument("--wipe", action="store_true", help="remove its data too")
    down.add_argument("--everything", action="store_true", help="remove its data, and whatever else is in .local")
    actions.add_parser("status", help="show its processes")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 if it is as asked, 1 if not, 2 if the stack file that says which nodes is refused."""
    root, say = cluster_root(args.project_dir), output(soft_wrap=True).print
    match args.action:
        case "down":
            return _down(args, root, say)
        case "status":
            return commands.status(root)
        case _:
            with alone(args.project_dir, say):
                return _up(args.project_dir, root)


def _down(args: argparse.Namespace, root: Path, say: Say) -> int:
    """What is bringing something up is waited for: what it starts is to be stopped too."""
    if not (args.project_dir / LOCAL).is_dir():
        return commands.down(root, wipe=args.wipe)
    with alone(args.project_dir, say) as folder:
        done = commands.down(root, wipe=args.wipe or args.everything)
        if args.everything:
            with held_back():
                remove(folder)
    return done


def _up(project_dir: Path, root: Path) -> int:
    """With the nodes of the local stack: `ops up` and this command must not take turns at changing them."""
    # Here, since the other actions need no Pulumi.
    from ops.embedded_cluster.planned_nodes import nodes_of_stack  # noqa: PLC0415

    return commands.up(root, nodes_of_stack(project_dir))
