"""What has to be set once before the first `pulumi up`."""

from __future__ import annotations

from collections.abc import Iterator

from stacks.plan import Plan
from stacks.problems import Problem
from stacks.secrets import key_value

PLACEHOLDER_PROJECT = "your-gcp-project"  # in Pulumi.ai-dev.yaml


def unprepared(plan: Plan) -> Iterator[Problem]:
    """What cannot be known to a plan without secrets."""
    gcp = plan.settings.gcp
    if gcp and gcp.project == PLACEHOLDER_PROJECT:
        yield Problem(
            f"gcp:project is the example's '{PLACEHOLDER_PROJECT}', which is nobody's",
            "pulumi config set gcp:project <the id of your project>",
        )
    for secret in plan.secrets:
        if secret.key not in plan.settings.secrets:
            yield Problem(
                f"the secret {plan.settings.project}:{secret.key} ({secret.purpose}) is not set", secret.command
            )
    for alias in plan.settings.platform.keys:
        if alias not in plan.settings.key_values:
            value = key_value(alias)
            yield Problem(f"the secret {plan.settings.project}:{value.key} ({value.purpose}) is not set", value.command)
