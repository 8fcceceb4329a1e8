"""The secrets of a stack, and the one seam to where they are kept: today, Pulumi config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SecretKey:
    """A secret: its key in config, what it must look like, and how to make one."""

    key: str
    purpose: str
    pattern: str  # regular expression of a usable value
    must: str  # the same, for people
    prefix: str = ""  # that every value starts with
    generated: bool = True  # False: the user has it from elsewhere
    file: str = ""  # where one has several lines: the file that it comes from
    example: str = ""  # a value of the right shape, where the prefix and words make none

    @property
    def command(self) -> str:
        """Sets it without showing it on screen or in the process list."""
        random = f"(printf '{self.prefix}'; openssl rand -hex 24)" if self.prefix else "openssl rand -hex 24"
        source = f"{random} | " if self.generated else f"cat {self.file} | " if self.file else ""
        path = "--path " if "." in self.key else ""
        return f"{source}pulumi config set --secret {path}{self.key}"

    @property
    def placeholder(self) -> str:
        """A value of the right shape, for a plan that cannot decrypt the real one. Worthless by design."""
        return self.example or self.prefix + "placeholder" * 2


MASTER_KEY = SecretKey(
    "litellmMasterKey",
    purpose="the gateway's admin key",
    pattern=r"sk-[!-~]{16,}",
    must="start with sk- and have 16 more printable characters",
    prefix="sk-",
)
SALT_KEY = SecretKey(
    "litellmSaltKey",
    purpose="encrypts what the gateway keeps in its database; another one makes that unreadable",
    pattern=r"[!-~]{16,}",
    must="have at least 16 printable characters",
)
DATABASE_PASSWORD = SecretKey(
    "databasePassword",
    purpose="the gateway's PostgreSQL password",
    pattern=r"[A-Za-z0-9_.~-]{16,}",  # it becomes part of a connection URL
    must="have at least 16 of the characters A-Z a-z 0-9 _ . ~ -",
)
SERVING_API_KEY = SecretKey(
    "servingApiKey",
    purpose="what the gateway shows to the model servers",
    pattern=r"[!-~]{16,}",
    must="have at least 16 printable characters",
)
HUGGING_FACE_TOKEN = SecretKey(
    "huggingFaceToken",
    purpose="downloads gated weights",
    pattern=r"hf_[A-Za-z0-9]{10,}",
    must="be a Hugging Face token, hf_...",
    prefix="hf_",
    generated=False,
)
REGISTRY_LOGIN = SecretKey(
    "registryLogin",
    purpose="pulls images from registries that ask for a login",
    pattern=r'\s*\{[\s\S]*"auths"[\s\S]*\}\s*',
    must='be the content of a config.json of docker login, {"auths": ...}',
    generated=False,
    file="config.json",
    example='{"auths": {}}',
)

SECRETS: Mapping[str, SecretKey] = {
    s.key: s for s in (MASTER_KEY, SALT_KEY, DATABASE_PASSWORD, SERVING_API_KEY, HUGGING_FACE_TOKEN, REGISTRY_LOGIN)
}

# Values of virtual keys, an object by the key's alias: one secret each, so that `config set --path` can set it.
KEY_VALUES = "keyValues"


def key_value(alias: str) -> SecretKey:
    """The secret that holds the value of a virtual key."""
    return SecretKey(
        f"{KEY_VALUES}.{alias}",
        purpose=f"the value of key '{alias}'",
        pattern=r"sk-[A-Za-z0-9_-]{16,}",
        must="start with sk- and have 16 more of the characters A-Z a-z 0-9 _ -",
        prefix="sk-",
    )
