"""Which values of config a message may quote. Pure.

A secret that was set in the wrong place looks like nothing: hex, a word, a sentence. So what counts is not how a secret
looks but how a setting does. A value is quoted where its key is a setting of a closed form (a number, true or false, a
day, a period, one of a list of names) and it has that form, or nearly. Of all else a message tells kind and length.
"""

from __future__ import annotations

import re
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator

from stacks.problems import near

YES, NO = ("true", "yes", "y", "on", "1", "enabled"), ("false", "no", "n", "off", "0", "disabled")
_LONGEST = 15  # characters of a number or a period: a secret has 16 at least (stacks/secrets.py)
_NUMBER = (
    r"[-+]?(?:\$ ?)?[-+]?(?:\d[\d.,_]*|\.\d+)(?:e[-+]?\d+)? ?(?:%|\$|usd|[kmgt]i?b?|s|h|d)?|[-+]?(?:inf|infinity|nan)"
)
_PERIOD = r"[-+]?\d+ ?(?:s|m|h|d|w|mo|y|(?:sec|min|minute|hour|day|week|month|year)s?)"


def bare(value: object) -> str:
    """What stands between quotes and spaces, in small letters."""
    return str(value).strip("'\" ").lower()


def says_truth(value: object) -> bool:
    """Whether it means yes or no."""
    return bare(value) in (*YES, *NO, "")


def says_number(value: object) -> bool:
    """Whether it is meant as a number, be it with a unit or separators."""
    said = bare(value)
    return len(said) <= _LONGEST and (said in ("", "true", "false") or bool(re.fullmatch(_NUMBER, said)))


def says_period(value: object) -> bool:
    """Whether it is meant as a length of time."""
    said = bare(value)
    return len(said) <= _LONGEST and bool(re.fullmatch(_PERIOD, said))


def says_day(value: object) -> bool:
    """Whether it is meant as a date of digits."""
    return bool(re.fullmatch(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", bare(value)))


def quotable(annotation: Any, value: object) -> bool:
    """Whether a value has the form of those of a type of config; never of one that takes any text."""
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        checks = [m for m in metadata if isinstance(m, AfterValidator | BeforeValidator) and hasattr(m, "like")]
        return any(cast("Any", check).like(value) for check in checks) if checks else quotable(base, value)
    if get_origin(annotation) in (Union, UnionType):
        return any(quotable(one, value) for one in get_args(annotation) if one is not NoneType)
    if get_origin(annotation) is Literal:
        return bool(near(str(value), map(str, get_args(annotation))))
    if annotation is bool:
        return says_truth(value)
    if annotation in (int, float):
        return says_number(value)
    return annotation is date and says_day(value)


def outlined(value: object) -> str:
    """Kind and length of a value that is not shown."""
    if isinstance(value, dict):
        return f"an object of {_many(len(cast('dict[object, object]', value)), 'name')}"
    if isinstance(value, list):
        return f"a list of {_many(len(cast('list[object]', value)), 'value')}"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"-?\d+", text):
        return f"a number of {_many(len(text.lstrip('-')), 'digit')}"
    return f"text of {_many(len(text), 'character')}" if isinstance(value, str) else f"a {type(value).__name__}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def quoted(value: object) -> str:
    """A value that may be shown, as a message has it."""
    return repr(value) if isinstance(value, str) else str(value)
