"""A mistake, told so that its reader can mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache


def masked(text: str) -> str:
    """Without what looks like a key: one that was pasted into the wrong place is no reason to show it in a log too."""
    return re.sub(r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(sk-|hf_)[A-Za-z0-9_-]{8,}", r"\1...", text)


def random_looking(name: str) -> bool:
    """Whether what stands where a name belongs is rather a secret: hex, base64 or a key."""
    if masked(name) != name:
        return True
    plain = re.sub(r"[^A-Za-z0-9]", "", name)
    if len(plain) < _SHORTEST_SECRET or not re.search(r"[a-zA-Z]", plain) or not re.search(r"[0-9]", plain):
        return False
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", plain):
        return True
    # Where words and numbers follow each other in a name, they change at every letter in what is random.
    changes = len(re.findall(r"(?=[A-Za-z][0-9]|[0-9][A-Za-z]|[a-z][A-Z])", plain)) / len(plain)
    mixed = re.search(r"[a-z]", plain) and re.search(r"[A-Z]", plain)
    return changes >= (0.2 if mixed else 0.3)


_SHORTEST_SECRET = 16


def shown_name(name: str) -> str:
    """A name as messages and commands have it: one that looks like a secret is a blank for its reader to fill in."""
    return f"<name of {len(name)} characters>" if random_looking(name) else name


def _without_keys(remedy: str) -> str:
    hidden = masked(remedy)
    return hidden if hidden == remedy else f"{hidden}   # what `...` hides looks like a key: type it as it stands there"


@dataclass(frozen=True)
class Problem:
    """Why nothing is deployed: the value and its consequence, and the command that mends it."""

    message: str  # "coder-chat:replicas is 2, but the quota is 1 GPU"
    remedy: str  # "pulumi config set coder-chat:replicas 1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))
        object.__setattr__(self, "remedy", _without_keys(self.remedy))

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"


@dataclass(frozen=True)
class Notice:
    """Something to know or to do that does not stop the plan."""

    message: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))
        object.__setattr__(self, "remedy", self.remedy and _without_keys(self.remedy))

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


def config_path(namespace: str, first: str | int, *rest: str | int) -> str:
    """A key of config, or a place inside one, as `pulumi config --path` takes it: `ai-platform:keys.ci.models[0]`."""
    return written_path(rest, f"{shown_name(namespace)}:{shown_name(str(first))}")


def written_path(parts: Iterable[str | int], path: str = "") -> str:
    """Names and indices as `pulumi config --path` reads them; in a quoted name it knows `\\"` and no other escape."""
    for given in parts:
        part = shown_name(given) if isinstance(given, str) else given
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            path += f".{part}" if path else part
        else:
            quoted = part.replace('"', '\\"')
            path += f'["{quoted}"]'
    return path


def near(word: str, known: Iterable[str]) -> list[str]:
    """The known names that a misspelt one may stand for: the closest, or all that are equally close.

    Capitals and punctuation count for nothing, one letter in four may be wrong, and a name may be cut short. A number
    is never taken for another one: `g2-standard-3` is not nearly `g2-standard-32`.
    """
    plain = _plain(word)
    found = {name: _distance(plain, of_it) for name, of_it in _candidates(plain, tuple(known))}
    close = {name: distance for name, distance in found.items() if distance is not None}
    return [name for name, distance in close.items() if distance == min(close.values())]


_MANY = 300  # names; among more, only capitals and punctuation may be wrong, since each would be compared with each


def _candidates(plain: str, known: tuple[str, ...]) -> list[tuple[str, str]]:
    by_numbers, by_plain = _indexed(known)
    same = by_numbers.get(_numbers(plain), [])
    return same if len(same) <= _MANY else [(name, plain) for name in by_plain.get(plain, [])]


@lru_cache(maxsize=64)
def _indexed(known: tuple[str, ...]) -> tuple[dict[tuple[str, ...], list[tuple[str, str]]], dict[str, list[str]]]:
    """Names with what is compared of them: by the numbers in them, and by all of it."""
    by_numbers: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    by_plain: dict[str, list[str]] = {}
    for name in dict.fromkeys(known):
        plain = _plain(name)
        by_numbers.setdefault(_numbers(plain), []).append((name, plain))
        by_plain.setdefault(plain, []).append(name)
    return by_numbers, by_plain


def _numbers(plain: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", plain))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one known name that a misspelt one stands for, or None where none is close, or several are."""
    names = near(word, known)
    return names[0] if len(names) == 1 else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'coder-chat'?`, or the whole list where nothing is close."""
    names = list(known)
    if matches := [f"'{match}'" for match in near(word, names)]:
        *others, last = matches
        return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"known: {', '.join(names[:_LISTED])}{more}" if names else "there are none"


_LISTED = 40


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


_SHORT = 4  # letters; what is shorter is cut short of anything


@lru_cache(maxsize=4096)
def _distance(word: str, name: str) -> int | None:
    """Letters wrong, missing, too many or swapped with the next; None if that is too many for the same name."""
    shorter, longer = sorted((word, name), key=len)
    if not word or len(shorter) < len(longer) / 2:
        return None
    if longer.startswith(shorter) and len(shorter) >= _SHORT:
        return min(1, len(longer) - len(shorter))
    most = len(longer) // 4
    if len(longer) - len(shorter) > most:
        return None
    before, row = list[int](), list(range(len(name) + 1))
    for i, a in enumerate(word, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(name, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == name[j - 2] and b == word[i - 2]:
                cost = min(cost, last[j - 2] + 1)  # swapped
            row.append(cost)
        if min(row) > most and min(last, default=0) > most:
            return None
    return row[-1] if row[-1] <= most else None
