"""Templates of `ops.findings.causes` made into commands that work as typed, for one cluster and one stack."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from components.gateway import postgres
from components.kubernetes.never_shrink import DATABASE_SETTING, claim_setting
from models.catalog import CATALOG
from stacks.secrets import HUGGING_FACE_TOKEN

_DEFAULT_CLASS = '{"metadata":{"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}}}'


@dataclass(frozen=True)
class Ways:
    """How a cluster and the stack on it are reached from a shell.

    `kubectl` makes a command about the cluster, with its kubeconfig and context. `stack` is one that `ops up` deploys;
    None is one that `pulumi up` does. `options` are those that `ops up` was given.
    """

    kubectl: Callable[..., str]
    context: str = ""
    stack: str | None = None
    options: tuple[str, ...] = ()
    models: Collection[str] = field(default_factory=lambda: CATALOG)
    secrets_file: str = ".local/secrets.json"  # where `ops up` has a secret that only the user can have

    def command(self, template: str, blanks: Mapping[str, str]) -> str:
        """A template with its blanks filled in."""
        known = _Blanks(blanks)
        verb, _, rest = template.partition(" ")
        if verb == "kubectl":
            words = [word.format_map(known) for word in rest.split(" ")]
            if known["no_logs"] and "logs" in words:
                # On a simulated node, or none: there is no log, and what is known stands in the status.
                words = ["-n", known["namespace"], "describe", "pod", known["pod"]]
            return self.kubectl(*(word for word in words if word))
        ways: dict[str, Callable[[], str]] = {
            "deploy": self.deploy,
            "secret": lambda: self._secret(known),
            "grow": lambda: self._grow(known),
            "quota": lambda: self._quota(known),
            "down": lambda: self.set(f"{known['holder']}:replicas", "0", path=False),
            "stage": lambda: self._stage(known["alias"]),
            "trust": self._trust,
            "default-class": lambda: self._default_class(known["storage_class"]),
        }
        if verb in ways:
            return ways[verb]()
        if known["alias"] not in self.models and "{alias}" in template:
            return self._describe(known)
        return template.format_map(known)

    def deploy(self) -> str:
        """Brings the cluster to what the stack says."""
        return "pulumi up" if self.stack is None else shlex.join(["ops", "up", "--stack", self.stack, *self.options])

    def set(self, key: str, value: str, *, path: bool, alias: str = "") -> str:
        """Sets a key of config, and deploys."""
        if self.stack is None:
            return f"pulumi config set {'--path ' if path else ''}{shlex.quote(key)} {shlex.quote(value)} && pulumi up"
        model = (
            f" --model {shlex.quote(alias)}"
            if alias in self.models and not any(option.startswith("--model") for option in self.options)
            else ""
        )
        return f"{self.deploy()}{model} --set {shlex.quote(f'{key}={value}')}"

    def _secret(self, known: Mapping[str, str]) -> str:
        if self.stack is None:
            return f"{HUGGING_FACE_TOKEN.command} && pulumi up"
        note = f'set "{HUGGING_FACE_TOKEN.key}", then: {self.deploy()}'
        return f'"${{EDITOR:-vi}}" {shlex.quote(self.secrets_file)}   # {note}'

    def _grow(self, known: Mapping[str, str]) -> str:
        if known["alias"] in self.models:
            return self.set(claim_setting(known["alias"]), known["gib"], path=False, alias=known["alias"])
        if known["alias"] == postgres.APP:
            return self.set(DATABASE_SETTING.removeprefix("--path "), known["gib"], path=True)
        return self._describe(known)

    def _stage(self, alias: str) -> str:
        """Lets go of the claim, and fills it."""
        stack = "" if self.stack is None else f" --stack {shlex.quote(self.stack)}"
        return f"{self.set(f'{alias}:replicas', '0', path=False)} && ops stage {alias}{stack}"

    def _trust(self) -> str:
        """Certificates have several lines, so the shell reads them."""
        if self.stack is None:
            return 'pulumi config set --path hub.ca -- "$(cat ca.pem)" && pulumi up'
        return f'{self.deploy()} --set "hub.ca=$(cat ca.pem)"'

    def _quota(self, known: Mapping[str, str]) -> str:
        """What the cloud's own tool says of quotas, for a context as gcloud names it."""
        if match := re.fullmatch(r"gke_([^_]+)_([a-z]+-[a-z]+\d+)[^_]*_[^_]+", self.context):
            project, region = match.groups()
            return shlex.join(
                ["gcloud", "compute", "regions", "describe", region, "--project", project, "--format=yaml(quotas)"]
            )
        return self._describe(known)

    def _default_class(self, name: str) -> str:
        if not name:
            return self.kubectl("get", "storageclasses")
        return self.kubectl("patch", "storageclass", name, "-p", _DEFAULT_CLASS)

    def _describe(self, known: Mapping[str, str]) -> str:
        if known["pod"]:
            return self.kubectl("-n", known["namespace"], "describe", "pod", known["pod"])
        if known["claim"]:
            return self.kubectl("-n", known["namespace"], "describe", "pvc", known["claim"])
        return self.kubectl("-n", known["namespace"], "get", "events")


class _Blanks(dict[str, str]):
    """Nothing for a blank that nobody fills in."""

    def __missing__(self, _: str) -> str:
        return ""
