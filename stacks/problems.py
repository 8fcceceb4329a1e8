"""A mistake, told so that its reader can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Why nothing is deployed: the value and its consequence, and the command that mends it."""

    message: str  # "coder-chat:replicas is 2, but the quota is 1 GPU"
    remedy: str  # "pulumi config set coder-chat:replicas 1"

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"


@dataclass(frozen=True)
class Notice:
    """Something to know or to do that does not stop the plan."""

    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


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
