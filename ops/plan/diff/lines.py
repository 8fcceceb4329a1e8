"""What a reviewer reads: one line a change, changes alike told once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LISTED = 10
LOUD_FACTOR = 2  # a limit that grows by this much, or a price that moves by as much, is not to be overlooked


@dataclass(frozen=True, kw_only=True)
class Line:
    """`key editor: budget $20 -> $2,000 a 30d (x 100)`, with the command that mends it where there is one."""

    subject: str  # empty where the text says all
    text: str
    loud: bool = False
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}" if self.subject else self.text


@dataclass(frozen=True, kw_only=True)
class Section:
    """What is told of one question. `quiet` is said where there is nothing to tell."""

    title: str
    lines: tuple[Line, ...]
    quiet: str


def grouped(lines: Iterable[Line]) -> list[Line]:
    """Lines that say the same of several, as one; those that must not be overlooked first."""
    subjects: dict[Line, list[str]] = {}
    for line in lines:
        subjects.setdefault(replace(line, subject=""), []).append(line.subject)
    told = [replace(line, subject=listed(who)) for line, who in subjects.items()]
    return sorted(told, key=lambda line: not line.loud)


def listed(names: Sequence[str]) -> str:
    """Names in a line, as many as are read; the objects below have all."""
    left = len(names) - LISTED
    # One more name is no longer than to say that there is one.
    return ", ".join(names) if left <= 1 else f"{', '.join(names[:LISTED])} and {left} more"


def dollars(value: float) -> str:
    """`$0.05`, `$2,000`, `$0.125`: as many digits as it has, to a millionth."""
    if 0 < abs(value) < 1e-6:  # what six digits cannot show
        return f"${value:.3g}"
    whole, _, rest = f"{value:,.6f}".rstrip("0").partition(".")
    return f"${whole}.{rest.ljust(2, '0')}" if rest else f"${whole}"


def percent(old: float, new: float) -> str:
    """` (-90 %)`; nothing where there is no share to tell."""
    if not old or old == new:
        return ""
    change = (new / old - 1) * 100
    digits = 0 if abs(change) >= 10 else 1
    return f" ({change:+,.{digits}f} %)"


def times(old: float, new: float) -> str:
    """` (x 100)`."""
    return f" (x {new / old:,.3g})" if old and new < old * 1000 else f" (x {new / old:,.0f})" if old else ""


def duration(seconds: int) -> str:
    """`90 s`, `35 min`, rounded up."""
    return f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"
