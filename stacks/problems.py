"""A mistake, told so that its reader can mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass


def masked(text: str) -> str:
    """Without what looks like a key: one that was pasted into the wrong place is no reason to show it in a log too."""
    return re.sub(r"(sk-|hf_)[A-Za-z0-9_-]{8,}", r"\1...", text)


@dataclass(frozen=True)
class Problem:
    """Why nothing is deployed: the value and its consequence, and the command that mends it."""

    message: str  # "coder-chat:replicas is 2, but the quota is 1 GPU"
    remedy: str  # "pulumi config set coder-chat:replicas 1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))
        object.__setattr__(self, "remedy", masked(self.remedy))

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"


@dataclass(frozen=True)
class Notice:
    """Something to know or to do that does not stop the plan."""

    message: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


def config_path(namespace: str, first: str, *rest: str | int) -> str:
    """A key of config, or a place inside one, as `pulumi config --path` takes it: `ai-platform:keys.ci.models[0]`."""
    path = f"{namespace}:{first}"
    for part in rest:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            path += f".{part}"
        else:
            quoted = part.replace("\\", "\\\\").replace('"', '\\"')
            path += f'["{quoted}"]'
    return path


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None if nothing is close."""
    matches = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return next((k for k in known if matches and k.lower() == matches[0]), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'coder-chat'?`, or the whole list where nothing is close."""
    names = list(known)
    if match := nearest(word, names):
        return f"did you mean '{match}'?"
    return f"known: {', '.join(sorted(names))}"
