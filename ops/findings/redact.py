"""What a log or an event may hold and nobody is to see: values of Secrets, and what looks like a key."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

_HIDDEN = "***"
_NAMED, _VALUE = r"passw(?:or)?d|api[_-]?key|master[_-]?key|salt[_-]?key", r"[^\s\"',;&]{6,}"
_LONG_ENOUGH = 8  # a shorter value is a word: hiding it everywhere would hide the cause
# Values of this project are 48 hexadecimal digits (`openssl rand -hex 24`); a commit has 40, a digest 64.
_SHAPES = (
    (re.compile(r"\b(sk-|hf_|ghp_|github_pat_|glpat-|xox[a-z]-|AKIA|ya29\.)[A-Za-z0-9._-]{6,}"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)([\s:=\"']+)(?!token\b|auth)[A-Za-z0-9._~+/=-]{6,}"), rf"\1\2{_HIDDEN}"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{_HIDDEN}@"),
    # Set to a value: `api_key=...`, `"token": "..."`, `password: ...`. A word on a token is none: `token: unexpected`.
    (re.compile(rf"(?i)((?:{_NAMED}|token)[\"']?\s*=\s*[\"']?){_VALUE}"), rf"\1{_HIDDEN}"),
    (re.compile(rf"(?i)([\"'][\w-]*(?:{_NAMED}|token)[\"']\s*:\s*[\"']){_VALUE}"), rf"\1{_HIDDEN}"),
    (re.compile(rf"(?i)((?:{_NAMED}):\s*){_VALUE}"), rf"\1{_HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]+){1,2}"), _HIDDEN),  # a JSON web token
    (re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{48}(?![0-9a-fA-F])"), _HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*"), _HIDDEN),
)
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")


class Redactor:
    """Hides values that it was given, and what has the shape of a key. It shows none of them itself."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        known = {value.strip() for value in values}
        known |= {urllib.parse.quote(value, safe="") for value in known}
        long = sorted((value for value in known if len(value) >= _LONG_ENOUGH), key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, long))) if long else None

    def __call__(self, text: str) -> str:
        """Text as it may be shown: without secrets, and without what moves a terminal's cursor."""
        text = _ESCAPES.sub("", text)
        text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text.replace("\r", "\n"))
        if self._values:
            text = self._values.sub(_HIDDEN, text)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        return text
