"""Policy pack: the rules of ops/policies.py, at the engine. `pulumi preview --policy-pack policy`"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from ops.engine import UNKNOWN_TEXT
from ops.policies import DEFAULT_QUOTA, RULES, STACK_RULES, Resource, Rule, StackRule


def _plain(value: object) -> Any:
    """Properties without the wrapper that raises for what only an update learns."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        return {key: _known(mapping, key) for key in mapping}
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = cast("Sequence[object]", value)
        return [_known(items, index) for index in range(len(items))]
    return value


def _known(holder: Any, key: object) -> Any:
    try:
        return _plain(holder[key])
    except UnknownValueError:
        return UNKNOWN_TEXT


def _resource(given: ResourceValidationArgs | PolicyResource) -> Resource:
    return Resource(
        type=given.resource_type,
        name=given.name,
        urn=given.urn,
        properties=_plain(given.props),
        protect=given.opts.protect,
    )


def _policy(rule: Rule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for problem in rule.check(_resource(args)):
            report(str(problem), None)

    return ResourceValidationPolicy(name=rule.name, description=rule.description, validate=validate)


def _stack_policy(rule: StackRule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        quota = int(args.get_config().get("gpuQuota", DEFAULT_QUOTA))
        for problem in rule.check([_resource(resource) for resource in args.resources], quota):
            report(str(problem), None)

    schema = PolicyConfigSchema(properties={"gpuQuota": {"type": "integer", "default": DEFAULT_QUOTA, "minimum": 0}})
    return StackValidationPolicy(name=rule.name, description=rule.description, validate=validate, config_schema=schema)


PolicyPack(
    name="ai-platform",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[*(_policy(rule) for rule in RULES), *(_stack_policy(rule) for rule in STACK_RULES)],
)
