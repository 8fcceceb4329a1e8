"""Where models and the gateway are reached: in a cluster, by forwarded ports, or at plain addresses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Protocol

from pydantic import BaseModel

from components.gateway import keys as gateway_keys
from components.gateway import litellm_gateway
from components.kubernetes.pods import NAME_LABEL
from components.serving.namespace import API_KEY, API_KEY_SECRET
from components.serving.registration import PORT
from models.catalog import CATALOG
from models.spec import ModelSpec
from ops.endpoint import Endpoint, NoAnswerError, readiness, usable_key
from ops.errors import OpsError
from ops.findings.finding import Finding
from ops.findings.of_stack import why
from ops.findings.ways import Ways
from ops.kube import Kube, Scale, secret_value
from ops.smoke.checks import Check, Verdict, bring_up
from stacks.sections import Namespaces


class Site(Protocol):
    """What is to be checked. A path that cannot be had is the check that says why; None is not asked for."""

    @property
    def only_up(self) -> bool:
        """Whether `aliases` leaves out models that are off."""
        ...

    @property
    def place(self) -> str:
        """The options by which `ops keys` is told of the same gateway."""
        ...

    @property
    def look(self) -> str:
        """The command that shows why the gateway does not answer."""
        ...

    def why_gateway(self) -> Finding | None:
        """What is wrong with the gateway, as far as its cluster tells."""
        ...

    def aliases(self) -> Sequence[str]:
        """What is checked when nobody names a model. Raises OpsError."""
        ...

    def verify(self, aliases: Sequence[str]) -> None:
        """Raises OpsError for an alias that is not here at all."""
        ...

    def direct(self, spec: ModelSpec, stack: ExitStack) -> Endpoint | Check | None:
        """The model's own server, until `stack` is closed."""
        ...

    def gateway(self, stack: ExitStack) -> Endpoint | Check | None:
        """The gateway with a tenant's key, until `stack` is closed. Raises OpsError if there is no key."""
        ...


@dataclass(frozen=True)
class Cluster:
    """A context. `gateway_key` is None for the value of key `key_alias` in the gateway's Secret."""

    kube: Kube
    timeout: float
    key_alias: str
    gateway_key: str | None
    namespaces: Namespaces
    ways: Ways

    only_up = True

    @property
    def place(self) -> str:
        return shlex.join(self.kube.named)

    @property
    def look(self) -> str:
        return self.kube.typed("-n", self.namespaces.gateway, "get", "pods")

    def why_gateway(self) -> Finding | None:
        return why(self.kube, self.ways, self.namespaces, self.namespaces.gateway)

    @cached_property
    def _scales(self) -> dict[str, Scale]:
        return dict(self.kube.deployments(self.namespaces.models))

    @cached_property
    def _serving_key(self) -> str:
        return usable_key(
            secret_value(self.kube, self.namespaces.models, API_KEY_SECRET, API_KEY),
            f"Secret {self.namespaces.models}/{API_KEY_SECRET}",
        )

    def aliases(self) -> Sequence[str]:
        self.kube.refuse_simulated()  # first: on such nodes no model that could be brought up would answer
        return [alias for alias in CATALOG if alias in self._scales and self._scales[alias].wanted]

    def verify(self, aliases: Sequence[str]) -> None:
        for alias in aliases:
            if alias not in self._scales:
                raise OpsError(
                    f"namespace {self.namespaces.models} of context {self.kube.context} has no Deployment {alias}; "
                    f"is neither it nor its group '{CATALOG[alias].group}' enabled?",
                    f"pulumi config set {alias}:enabled true && pulumi up",
                )

    def direct(self, spec: ModelSpec, stack: ExitStack) -> Endpoint | Check | None:
        scale = self._scales[spec.alias]
        if not scale.wanted:
            return Check("-", Verdict.OFF, f"{spec.alias} is off, so it costs nothing", bring_up(spec))
        if not scale.ready:
            found = why(self.kube, self.ways, self.namespaces, self.namespaces.models, spec.alias)
            told = f": {found.told}" if found else ""
            describe = self.kube.typed(
                "-n", self.namespaces.models, "describe", "pods", "-l", f"{NAME_LABEL}={spec.alias}"
            )
            return Check(
                "-",
                Verdict.FAILED,
                f"{spec.alias} is not up yet: {scale.ready} of {scale.wanted} ready{told}",
                found.command if found else describe,
            )
        try:
            url = stack.enter_context(self.kube.forward(self.namespaces.models, spec.alias, PORT))
        except OpsError as error:
            return Check("-", Verdict.UNREACHABLE, error.problem.message, error.problem.remedy)
        return Endpoint(url, self.timeout, self._serving_key)

    def gateway(self, stack: ExitStack) -> Endpoint | Check | None:
        key = self.gateway_key
        if key is None:
            where = f"Secret {self.namespaces.gateway}/{gateway_keys.APP}"
            key = usable_key(secret_value(self.kube, self.namespaces.gateway, gateway_keys.APP, self.key_alias), where)
        try:
            url = stack.enter_context(
                self.kube.forward(self.namespaces.gateway, litellm_gateway.APP, litellm_gateway.PORT)
            )
        except OpsError as error:
            if found := self.why_gateway():
                return Check("-", Verdict.UNREACHABLE, f"the gateway is not up: {found.told}", found.command)
            return Check("-", Verdict.UNREACHABLE, error.problem.message, error.problem.remedy)
        return Endpoint(url, self.timeout, key)


class _Listed(BaseModel):
    id: str


class _List(BaseModel):
    data: list[_Listed]


@dataclass(frozen=True)
class Addresses:
    """Plain base URLs; either may be None."""

    direct_server: Endpoint | None
    gateway_server: Endpoint | None

    only_up = False

    @property
    def place(self) -> str:
        return f"--gateway-url {self.gateway_server.url if self.gateway_server else '<URL>'}"

    @property
    def look(self) -> str:
        return readiness(self.gateway_server.url if self.gateway_server else "<URL>")

    def why_gateway(self) -> Finding | None:
        return None

    def aliases(self) -> Sequence[str]:
        """Those of the catalog that the key may use, whether they are up or not."""
        if self.gateway_server is None:
            raise OpsError(
                "--direct-url is one model's server, and no model is named",
                f"ops smoke {next(iter(CATALOG))} --direct-url <URL>",
            )
        try:
            reply = self.gateway_server.ask("/v1/models")
        except NoAnswerError as error:
            raise OpsError(f"the gateway's list of models cannot be had: {error.problem.message}", self.look) from None
        if reply.status != 200:
            kind, message = reply.error()
            raise OpsError(
                f"the gateway's list of models cannot be had: HTTP {reply.status} {kind}: {message}",
                self.look if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else f"ops keys {self.place}",
            )
        try:
            listed = {entry.id for entry in _List.model_validate(reply.json()).data}
        except ValueError:
            raise OpsError(
                f"{self.gateway_server.url} is no gateway", "ops smoke --gateway-url <URL> --key-env <variable>"
            ) from None
        return [alias for alias in CATALOG if alias in listed]

    def verify(self, aliases: Sequence[str]) -> None:
        if self.direct_server is not None and len(aliases) != 1:
            raise OpsError(
                f"--direct-url is one model's server, and {len(aliases)} models are to be checked",
                f"ops smoke {aliases[0] if aliases else '<alias>'} --direct-url {self.direct_server.url}",
            )

    def direct(self, spec: ModelSpec, stack: ExitStack) -> Endpoint | Check | None:
        return self.direct_server

    def gateway(self, stack: ExitStack) -> Endpoint | Check | None:
        return self.gateway_server
