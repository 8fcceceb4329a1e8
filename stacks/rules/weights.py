"""Where weights come from, and where they are served: settings that nothing would read."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from models.weights import HUB
from stacks.commands import remove_command
from stacks.plan import Plan
from stacks.problems import Problem


def hub(plan: Plan) -> Iterator[Problem]:
    """Only a name without a public address needs a range of addresses."""
    project, asked = plan.settings.project, plan.settings.platform.hub
    way = asked.proxy or asked.endpoint
    if asked.cidr and (way == HUB or _is_address(way)):
        yield Problem(
            f"hub.cidr is {asked.cidr}, but nothing reads it: {way} "
            + ("has public addresses" if way == HUB else "is an address itself"),
            remove_command(project, ("hub", "cidr")),
        )


def node_labels(plan: Plan) -> Iterator[Problem]:
    """Labels of nodes that the program makes itself are its own."""
    project, platform = plan.settings.project, plan.settings.platform
    if platform.gpu_node_labels and platform.target == "gke":
        yield Problem(
            "gpuNodeLabels is set, but this stack's target is 'gke', whose GPU nodes the program makes and labels",
            remove_command(project, ("gpuNodeLabels",)),
        )


def _is_address(url: str) -> bool:
    try:
        ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True
