"""What is not there: files that a server reads at its start, and settings that nothing would read."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from components.serving.server_files import FILES
from models.engines.vllm import VllmEngine
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


def files(plan: Plan) -> Iterator[Problem]:
    """A template or parser is one of those that are mounted, whether the model is enabled or not."""
    for model in plan.models:
        alias, engine = model.spec.alias, model.spec.engine
        missing = (
            [name for name in engine.files if not (FILES / name).is_file()] if isinstance(engine, VllmEngine) else []
        )
        own = plan.overlaid.get(alias)
        for name in missing:
            yield Problem(
                f"{f'{own}: ' if own else ''}{alias} is to be served with {name}, and components/serving/files, where "
                "templates and parsers are, has no such file",
                f"${{EDITOR:-vi}} +{own.line} {own.file}   # or put it there" if own else f"git status {FILES}",
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
