"""The namespaces of stack config as types: every key an operator may set, its default and its bounds."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Le, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, create_model
from pydantic.alias_generators import to_camel

from models.engines.base import Engine
from models.facts import Evidence, Source, Throughput
from models.gateway_database import LEAST_GIB, MAX_REPLICAS
from models.images import REGISTRIES
from models.machines import G2_MACHINES, L4_ZONES, SYSTEM_MACHINES
from models.prices import Item
from models.spec import ModelSpec
from models.tasks import TASKS
from models.throughput import usual
from models.weights import HUB
from stacks.forms import NO, YES, bare, says_period
from stacks.problems import did_you_mean, near, random_looking

# --- values as config has them: strings, or what a JSON object holds -----------------------------------------


class WrongValueError(ValueError):
    """A value that is refused, with the values that may have been meant by it."""

    def __init__(self, reason: str, *meant: str) -> None:
        super().__init__(reason)
        self.meant = meant


def _whole(value: object) -> object:
    if isinstance(value, bool | float) or (isinstance(value, str) and not re.fullmatch(r"-?\d+", value)):
        # In quotes, with a separator of thousands, or as a fraction of nothing: still the same number.
        match = re.fullmatch(r"(\d+|\d{1,3}(?:[,_]\d{3})+)(?:\.0+)?", bare(value))
        meant = [re.sub(r"\D", "", match[1])] if match and not isinstance(value, bool) else []
        raise WrongValueError("must be a whole number", *meant)
    return value


def _number(value: object) -> object:
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):
            float(value)
    except ValueError:
        match = re.fullmatch(r"\$?(\d+(?:\.\d+)?)(?: ?(?:\$|usd))?", bare(value))
        raise WrongValueError("must be a number", *([match[1]] if match else [])) from None
    return value


def _truth(value: object) -> object:
    # The CLI hands over "true" and "false"; anything softer (yes, on, 1) is as likely a mistake.
    if value is True or value is False or value in ("true", "false"):
        return value
    said = bare(value)
    raise WrongValueError("must be true or false", *(["true"] if said in YES else ["false"] if said in NO else []))


@dataclass(frozen=True)
class _Check(AfterValidator):
    """A check, what a JSON Schema can say of it, and what has the form of its values (`stacks/forms.py`)."""

    says: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    like: Callable[[object], bool] = lambda _: False

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), **self.says}


def _one_of(names: Collection[str], otherwise: str) -> AfterValidator:
    """`otherwise` says what another name would mean."""

    def check(value: str) -> str:
        if value not in names:
            raise WrongValueError(f"{otherwise}; {did_you_mean(value, names)}", *near(value, names))
        return value

    return _Check(check, {"enum": list(names)}, lambda value: bool(near(str(value), names)))


def _day(value: object) -> date:
    try:
        # Without quotes in YAML it is a time, which the CLI hands over as Go prints it.
        return date.fromisoformat(str(value).removesuffix(" 00:00:00 +0000 UTC"))
    except ValueError:
        raise ValueError("must be a day such as 2026-08-20") from None


def _period(value: str) -> str:
    """A period that LiteLLM keeps, of those that it takes.

    It starts hours anew at multiples of their number within a day, so that 48h would be a day and 5h sometimes four
    hours; it knows months one at a time; and it looks every ten minutes. Source: litellm_core_utils/duration_parser.py
    of 1.106.2, held to it in tests/gateway/test_periods.py.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})(s|m|h|d|mo)", value)
    if match is None:
        raise ValueError("must be a period such as 12h, 7d, 30d or 1mo")
    number, unit = int(match[1]), match[2]
    if (unit == "h" and 24 % number == 0) or (unit == "d" and number <= _MAX_DAYS) or value == "1mo":
        return value
    hours = number * {"s": 1 / 3600, "m": 1 / 60, "h": 1, "d": 24, "mo": 30 * 24}[unit]
    kept = f"{min(round(hours / 24), _MAX_DAYS)}d" if hours > 24 else f"{max(h for h in _HOURS if h <= max(hours, 1))}h"
    raise WrongValueError(
        f"the gateway does not keep that period, and would let more be spent; did you mean '{kept}'?", kept
    )


_MAX_DAYS = 3650
_HOURS = [hours for hours in range(1, 25) if 24 % hours == 0]
_PERIODS = f"^(({'|'.join(map(str, _HOURS))})h|[1-9][0-9]{{0,3}}d|1mo)$"

Whole = Annotated[int, BeforeValidator(_whole)]
_MOST = 1_000_000_000  # of anything that is counted: more is a slip, and the gateway's database ends at 2^63
Count = Annotated[Whole, Field(ge=1, le=_MOST)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
AboveZero = Annotated[Number, Field(gt=0, le=_MOST)]  # dollars, tokens a second
Truth = Annotated[bool, BeforeValidator(_truth)]


class Section(BaseModel):
    """A namespace of config, or an object in it: camelCase keys, and an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


GpuMachine = Annotated[str, _one_of(["auto", *G2_MACHINES], "no machine type with an L4")]
SystemMachine = Annotated[str, _one_of(["auto", *SYSTEM_MACHINES], "no machine type known here")]


# --- the stack -----------------------------------------------------------------------------------------------


MAX_SYSTEM_NODES = 10
_LARGEST_DISK_GIB = 64_000  # Google's are 64 TiB at most


class Gateway(Section):
    """`ai-platform:gateway.*`"""

    replicas: Annotated[Whole, Field(ge=1, le=MAX_REPLICAS)] = 1
    database: Literal["in-cluster", "cloud-sql"] = "in-cluster"
    former_database: Literal["none", "in-cluster", "cloud-sql"] = "none"  # what the stack had before, and keeps
    database_gib: Annotated[Whole, Field(ge=LEAST_GIB, le=_LARGEST_DISK_GIB)] = LEAST_GIB
    spend_log_days: Annotated[Whole, Field(ge=1, le=3650)] = 30  # then a call's row goes; totals of keys stay
    backups_kept: Annotated[Whole, Field(ge=1, le=365)] = 7  # one a night


def _address(value: str) -> str:
    """A server without a login in its address: that would stand in clear in config, in plans and in pods."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable, parts = False, urlsplit("")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise WrongValueError("must be an address and nothing more: no login, no query; whoever reads a plan reads it")
    if not usable or not re.fullmatch(_ADDRESS, value):
        meant = [f"http://{value}"] if "://" not in value and re.fullmatch(_ADDRESS, f"http://{value}") else []
        raise WrongValueError("must be an address such as https://hub.example.com or http://10.0.0.5:3128", *meant)
    return value.rstrip("/")


_ADDRESS = r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?"


def _hub_address(value: str) -> str:
    # What weights consist of, and the token of gated ones, go this way.
    plain = value.removeprefix("http://")
    if "://" not in plain and re.fullmatch(_ADDRESS, f"https://{plain}"):
        raise WrongValueError("must be https: who is on the way could send other weights", f"https://{plain}")
    return _address(value)


def _proxy_address(value: str) -> str:
    value = _address(value)
    if urlsplit(value).path:
        raise WrongValueError(
            "must be host and port of a proxy, without a path", value.replace(urlsplit(value).path, "")
        )
    return value


def _certificates(value: str) -> str:
    if "PRIVATE KEY" in value:
        raise WrongValueError("must be certificates alone, and has a private key in it")
    try:
        ssl.create_default_context(cadata=value)
    except (ssl.SSLError, ValueError):
        raise WrongValueError('must be certificates in PEM, as of "$(cat ca.pem)"') from None
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise WrongValueError("must be a range of addresses such as 10.0.0.0/8") from None


class Hub(Section):
    """`ai-platform:hub.*`: where weights come from, and the way there."""

    endpoint: Annotated[str, _Check(_hub_address, {"pattern": f"^{_ADDRESS}$"})] = HUB  # or a mirror, answering alike
    proxy: Annotated[str, _Check(_proxy_address, {"pattern": f"^{_ADDRESS}$"})] | None = None  # everything goes through
    ca: Annotated[str, AfterValidator(_certificates)] | None = None  # PEM of certificates that are trusted as well
    cidr: Annotated[str, AfterValidator(_network)] | None = (
        None  # where a proxy or mirror is that has no public address
    )
    download: Truth = True  # false: a start fetches nothing, only `ops stage` does


_PREFIX = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*"


def _prefix(value: str) -> str:
    if not re.fullmatch(_PREFIX, value):
        meant = re.sub(r"^https?://", "", value.lower()).rstrip("/")
        raise WrongValueError(
            "must be a registry's host and a path in it, such as registry.example.com/docker-hub",
            *([meant] if re.fullmatch(_PREFIX, meant) else []),
        )
    return value


class Images(Section):
    """`ai-platform:images.*`: where nodes pull images from."""

    mirrors: dict[
        Annotated[str, _one_of(REGISTRIES, "no image comes from there")],
        Annotated[str, _Check(_prefix, {"pattern": f"^{_PREFIX}$"})],
    ] = {}  # what stands in place of a registry: docker.io: registry.example.com/docker-hub
    login: Truth = False  # pods show the secret `registryLogin` to the registries that it names


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise WrongValueError("must be a name of Kubernetes: lower-case letters, digits, dashes and dots")
    return value


_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_LABEL = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"


def _label(value: str) -> str:
    if not re.fullmatch(_LABEL, value):
        raise WrongValueError("must be the key of a label, such as nvidia.com/gpu.product")
    return value


def _label_value(value: str) -> str:
    if not re.fullmatch(_LABEL_VALUE, value):
        raise WrongValueError("must be the value of a label: letters, digits, dashes, dots and underscores, at most 63")
    return value


Labels = dict[
    Annotated[str, _Check(_label, {"pattern": f"^{_LABEL}$"})],
    Annotated[str, _Check(_label_value, {"pattern": f"^{_LABEL_VALUE}$"})],
]


Usd = Annotated[Number, Field(ge=0, le=_MOST)]
_MACHINES = (*G2_MACHINES, *SYSTEM_MACHINES)


class Prices(Section):
    """`ai-platform:prices.*`: US dollars in place of the list's, in the region of the stack."""

    as_of: Annotated[date, BeforeValidator(_day)] | None = None
    on_demand: dict[Annotated[str, _one_of((*_MACHINES, *Item), "has no price here")], Usd] = {}
    spot: dict[Annotated[str, _one_of(_MACHINES, "has no price here")], Usd] = {}


_ALIAS = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _alias(value: str) -> str:
    if random_looking(value):
        raise WrongValueError("must be a name, and looks like a secret: names are shown in plans and logs")
    if not re.fullmatch(_ALIAS, value):
        meant = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
        raise WrongValueError(
            "must be lower-case letters, digits and dashes, at most 63, with no dash at its ends",
            *([meant] if re.fullmatch(_ALIAS, meant) else []),
        )
    return value


Alias = Annotated[str, _Check(_alias, {"pattern": f"^{_ALIAS}$"})]


class Access(Section):
    """What a team and a key have alike. Models are aliases or groups; a group's new models are reached as well."""

    models: Annotated[list[str], Field(min_length=1)]
    max_budget_usd: AboveZero | None = None  # per period
    budget_period: Annotated[str, _Check(_period, {"pattern": _PERIODS}, says_period)] = (
        "30d"  # of 24h, 7d, 30d and 1mo: day, week, month (UTC)
    )
    tokens_per_minute: Count | None = None
    requests_per_minute: Count | None = None


class Key(Access):
    """A virtual key. Its value is in the stack's secrets, `ai-platform:keyValues.<alias>`."""

    team: str | None = None


def _path(value: str) -> str:
    # What the provider takes as well, with the tokens and keys that are in it: inputs are shown in plans.
    if "\n" in value or "\0" in value or value.lstrip().startswith("{"):
        raise WrongValueError("must be the path of a file, and looks like a kubeconfig's content, with what is in it")
    return value


GATEWAY, SERVING = "gateway", "serving"  # the namespaces of a stack that names none
# Kubernetes keeps `kube-` for itself, and GKE fills the others.
_NAMESPACE = rf"(?!default$|kube-|gke-|gmp-){_ALIAS}"


def _namespace(value: str) -> str:
    _alias(value)
    if not re.fullmatch(_NAMESPACE, value):
        raise WrongValueError("must be none of the cluster itself, whose pods would be cut off by default")
    return value


Namespace = Annotated[str, _Check(_namespace, {"pattern": f"^{_NAMESPACE}$"})]


class Namespaces(Section):
    """`ai-platform:namespaces.*`: where the stack's objects are, in a cluster that others may use too."""

    gateway: Namespace = GATEWAY
    models: Namespace = SERVING


class Platform(Section):
    """`ai-platform:*`: what the whole stack is."""

    target: Literal["gke", "kubernetes"] = "gke"
    kubeconfig: Annotated[str, AfterValidator(_path)] | None = None  # target kubernetes: path of the file
    kube_context: str | None = None  # target kubernetes: its context; the current one is never used
    namespaces: Namespaces = Namespaces()
    adopt: Truth = False  # takes over what is in a cluster under the stack's names, whosever it is
    groups: dict[str, Truth] = {}
    gpu_quota: Annotated[Whole, Field(ge=0, le=1000)] = 1  # what GPUS_ALL_REGIONS allows
    machine_type: GpuMachine = "auto"  # auto: the smallest that holds all
    spot: Truth = False
    gpu_sharing_clients: Annotated[Whole, Field(ge=1, le=48)] = 1  # pods that share one GPU in time
    gpu_boot_disk_gib: Annotated[Whole, Field(ge=50, le=10_000)] = 100
    system_machine_type: SystemMachine = "auto"
    system_nodes: Annotated[Whole, Field(ge=1, le=MAX_SYSTEM_NODES)] = 1
    deletion_protection: Truth = True  # refuses to delete the cluster
    retain_weights: Truth = True  # claims survive a disabled group and `pulumi destroy`
    hub: Hub = Hub()
    images: Images = Images()
    storage_class: Annotated[str, _Check(_name, {"pattern": f"^{_NAME}$"})] | None = (
        None  # of claims; the cluster's own
    )
    gpu_node_labels: Labels = {}  # target kubernetes: of nodes with the GPU, in place of GKE's
    gateway: Gateway = Gateway()
    teams: dict[Alias, Access] = {}
    keys: dict[Alias, Key] = {}
    prices: Prices = Prices()
    max_hourly_usd: AboveZero | None = None  # refuses a plan that costs more with what it brings up
    max_monthly_usd: AboveZero | None = None  # and one that could cost more with everything up, within the quota


class Gcp(Section):
    """`gcp:*`: where the stack lives. The region follows from the zone."""

    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
    zone: Annotated[str, _one_of(L4_ZONES, "a zone without L4")]


# --- one model -----------------------------------------------------------------------------------------------


class Overrides(Section):
    """`<alias>:*`: what a stack may change of a catalog entry. This one, of an engine that runs elsewhere: nothing."""

    @property
    def asked_enabled(self) -> bool | None:
        """Whether it is enabled, whatever its group; None: as its group is."""
        return None

    @property
    def asked_replicas(self) -> int:
        """Replicas asked for."""
        return 0

    @property
    def asked_claim_gib(self) -> int | None:
        """Size asked for the claim, GiB."""
        return None

    @property
    def asked_fallback(self) -> str | None:
        """Alias that serves in its place while it is off."""
        return None

    @property
    def asked_pickle(self) -> bool:
        """Whether weights may be loaded that are a program."""
        return False

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The entry with the overridden fields replaced."""
        return spec


class RunsHere(Overrides):
    """What every model that runs here has, whatever its engine; `overrides_of` adds what the engine lets be changed."""

    enabled: Truth | None = None  # alone, whatever its group; without it, as the group is
    replicas: Annotated[Whole, Field(ge=0, le=100)] = 0
    claim_gib: Annotated[Whole, Field(ge=1, le=_LARGEST_DISK_GIB)] | None = None
    fallback: str | None = None  # alias that serves while this one is off
    tokens_per_second: AboveZero | None = None  # measured under load, one replica, read and written together
    allow_pickle: Truth | None = None  # weights that there are in pickle files only may be loaded

    @property
    def asked_enabled(self) -> bool | None:
        return self.enabled

    @property
    def asked_replicas(self) -> int:
        return self.replicas

    @property
    def asked_claim_gib(self) -> int | None:
        return self.claim_gib

    @property
    def asked_fallback(self) -> str | None:
        return self.fallback

    @property
    def asked_pickle(self) -> bool:
        return bool(self.allow_pickle)

    def apply(self, spec: ModelSpec) -> ModelSpec:
        own = self.model_dump(exclude=set(RunsHere.model_fields), exclude_none=True)
        context = own.pop(spec.engine.context_setting, None) if spec.engine.context_setting else None
        changed: dict[str, object] = {}
        if own:
            spec = spec.engine.model_copy(update=own).adapted(spec)
        if context is not None:
            changed["context"] = context
        if self.tokens_per_second is not None:
            changed["throughput"] = Throughput(
                tokens_per_second=self.tokens_per_second,
                at=usual(context or spec.context, generates=TASKS[spec.task].generates),
                source=Source(facts="throughput", where="tokensPerSecond of the stack", evidence=Evidence.REPORTED),
            )
        return spec.model_copy(update=changed) if changed else spec


# How a field of an engine reads in config, which has strings.
_AS_CONFIG: Mapping[type, BeforeValidator] = {
    int: BeforeValidator(_whole),
    float: BeforeValidator(_number),
    bool: BeforeValidator(_truth),
}


@cache
def overrides_of(engine: type[Engine]) -> type[Overrides]:
    """The section of models on an engine: its fields that config may override, with their own bounds, none required."""
    if not engine.runs_here:
        return Overrides
    fields: dict[str, Any] = {}
    for name in engine.settable:
        field = engine.model_fields[name]
        plain = field.annotation
        read = [_AS_CONFIG[plain]] if isinstance(plain, type) and plain in _AS_CONFIG else []
        # Bounds judge what was read, so they come after it; infinity is within some of them.
        counted = plain is int and not any(isinstance(bound, Le | Lt) for bound in field.metadata)  # the last one holds
        bounds = [Field(allow_inf_nan=False)] if plain is float else [Field(le=_MOST)] if counted else []
        bounded: Any = Annotated[(plain, *field.metadata, *bounds, *read)]
        fields[name] = (bounded | None, None)
    if engine.context_setting:
        length: Any = Count
        fields[engine.context_setting] = (length | None, None)
    return create_model(
        f"{engine.__name__}Overrides",
        __base__=RunsHere,
        __doc__=f"`<alias>:*` of a model on {engine.name()}.",
        **fields,
    )
