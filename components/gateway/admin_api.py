"""LiteLLM's admin API, for the programs that keep what is in it: one call, all that it has, and whose turn it is.

Lies beside `reconcile_keys.py` in its pod, with the image's Python and nothing else.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import secrets
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]


class UnreachableError(Exception):
    """The gateway, or its database, does not answer now."""


class RefusedError(Exception):
    """The gateway answers, and says no."""


class SupersededError(Exception):
    """What shall be has changed since this was started, and what it is now is in force."""


def say(text: str) -> None:
    """One line of the job's log, without anything that looks like a key."""
    print(re.sub(r"sk-[A-Za-z0-9_-]{8,}", "sk-***", text), flush=True)  # noqa: T201


_stopping: list[int] = []  # the signal that asked for it


def stop_between_calls() -> None:
    """On SIGTERM, end after the call that is under way. As the first process of a pod it would not end at all."""

    def asked(number: int, _: object) -> None:
        _stopping.append(number)

    signal.signal(signal.SIGTERM, asked)


def pause(seconds: float) -> None:
    """Sleep; ends the program, through what gives the turn back, if it was asked to stop."""
    until = time.monotonic() + seconds
    while not _stopping and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
    if _stopping:
        raise SystemExit(128 + _stopping[0])


# --- the gateway -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Actual:
    """What the gateway has."""

    teams: Sequence[Json]
    keys: Sequence[Json]
    runtime_models: Sequence[str]  # registered by the admin API, not by config


class Gateway:
    """LiteLLM's admin API. No error text that leaves it holds a secret."""

    def __init__(self, url: str, master_key: str, secrets: Sequence[str]) -> None:
        self._url = url.rstrip("/")
        self._master_key = master_key
        self._secrets = (master_key, *secrets)

    def call(self, route: str, body: Json | None = None) -> Any:
        """POST a body, or GET. Raises UnreachableError or RefusedError."""
        request = urllib.request.Request(  # noqa: S310  the URL is the operator's
            self._url + route,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self._master_key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as response:  # noqa: S310
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            # Masked before it is cut: half a secret would not be found.
            text = f"{route.partition('?')[0]}: {error.code} {self._masked(_body(error))[:500]}"
            if error.code >= 500 or error.code == 429:
                raise UnreachableError(text) from None
            raise RefusedError(text) from None
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise UnreachableError(self._masked(f"{route.partition('?')[0]}: {error!r}")) from None

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def check_ready(self) -> None:
        """Raises UnreachableError unless the proxy and its database answer."""
        if self.call("/health/readiness").get("db") != "connected":
            raise UnreachableError("the proxy answers, its database does not")

    def actual(self, before_page: Callable[[], None] = lambda: None) -> Actual:
        """Everything it has, by the page."""
        models = self.call("/v1/model/info")["data"]
        return Actual(
            teams=list(self._pages("/v2/team/list", "teams", "page_size", before_page)),
            keys=list(
                self._pages("/key/list?return_full_object=true&include_team_keys=true", "keys", "size", before_page)
            ),
            runtime_models=[model["model_name"] for model in models if model["model_info"].get("db_model")],
        )

    def _pages(self, route: str, name: str, size: str, before_page: Callable[[], None]) -> Iterator[Json]:
        number, total = 1, 1
        while number <= total:
            before_page()
            query = urllib.parse.urlencode({"page": number, size: 100})
            answer = self.call(f"{route}{'&' if '?' in route else '?'}{query}")
            yield from answer[name]
            total = answer["total_pages"]
            number += 1


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


# --- one writer at a time ----------------------------------------------------------------------------------------

_ANSWER_S = 15  # how long one call may take
_RENEW_S = 10  # age at which a ticket is replaced by a fresh one
_TICKET_S = 45  # age at which others take it for one of a writer that died
_LAST_CALL_S = _TICKET_S - _ANSWER_S - 5  # age after which its writer starts no call: nothing of it comes too late
_AHEAD_NS = 60 * 10**9  # what a clock may be ahead


class Version(NamedTuple):
    """A desired state. The one that was laid down later is newer."""

    since: tuple[int, int]  # when the oldest and the youngest of its files were written, ns
    digest: str  # of all that is in them

    @classmethod
    def parse(cls, text: str) -> Version:
        """Of the name of a ticket or mark. Raises ValueError."""
        oldest, youngest, digest = text.split(".")[:3]
        return cls((int(oldest), int(youngest)), digest)

    def __str__(self) -> str:
        return f"{self.since[0]}.{self.since[1]}.{self.digest}"

    def supersedes(self, other: Version) -> bool:
        """Whether it is newer and another one. A clock that is far ahead counts for nothing."""
        return self.digest != other.digest and self.since > other.since and self.since[0] < time.time_ns() + _AHEAD_NS


class Turn:
    """The right to write, held by one program at a time, and the memory of whose turn was the last.

    LiteLLM has no lock, but it has budgets: rows of its database with names that we choose, which mean nothing until
    they are given to somebody. A writer makes a row, its ticket, then looks: alone, it has the turn; else it takes its
    ticket back and tries again after a random time. Of two that look, one at least sees the other's, so no two set to
    work. A ticket that outlives its time is one of a program that died. A mark, another row, says which version was the
    last to be put in force: an older one does not write any more.
    """

    TICKET, MARK = "ai-platform-keys.writing.", "ai-platform-keys.applied."

    def __init__(self, gateway: Gateway, version: Version) -> None:
        self._gateway = gateway
        self._version = version
        self._tickets: set[str] = set()  # ours: asked for, and not known to be gone
        self._made = 0.0  # when the youngest of them was asked for, monotonic
        self._seen: dict[str, float] = {}  # tickets of others, and since when

    def take(self, deadline: float) -> None:
        """Wait for it. Raises SupersededError, or UnreachableError if others go on beyond the deadline."""
        told = False
        while True:
            self._renew()
            rows = [str(row["budget_id"]) for row in self._gateway.call("/budget/list")]
            marks = [row for row in rows if row.startswith(self.MARK)]
            others = [row for row in rows if row.startswith(self.TICKET) and row not in self._tickets]
            if any(self._version_in(row).supersedes(self._version) for row in (*marks, *others)):
                raise SupersededError
            if not others:
                self._leave_mark(marks)
                return
            self.release()
            self._bury(others)
            if time.monotonic() > deadline:
                raise UnreachableError("another run of this program is at work, and does not end")
            if not told:
                say("another run of this program is at work: waiting for it")
                told = True
            pause(random.uniform(0.05, 0.5))  # noqa: S311

    def keep(self) -> None:
        """Before each call: see that the turn is still ours. Raises UnreachableError if it may be another's."""
        pause(0)
        age = time.monotonic() - self._made
        if age > _LAST_CALL_S:
            raise UnreachableError("this program stood still, so another one may be at work")
        if age > _RENEW_S:
            self._renew()

    def release(self) -> None:
        """Give it back; what cannot be given back now runs out."""
        self._drop_ours(self._tickets)

    def _renew(self) -> None:
        """A fresh ticket, then away with the one before: there is one at any moment."""
        before, ticket = set(self._tickets), f"{self.TICKET}{self._version}.{secrets.token_hex(8)}"
        self._tickets.add(ticket)  # before it is asked for: an answer may be lost
        made = time.monotonic()
        self._gateway.call("/budget/new", {"budget_id": ticket})
        self._made = made
        self._drop_ours(before)

    def _drop_ours(self, tickets: Iterable[str]) -> None:
        for ticket in list(tickets):
            if self._dropped(ticket):
                self._tickets.discard(ticket)

    def _dropped(self, row: str) -> bool:
        try:
            self._gateway.call("/budget/delete", {"id": row})
        except (UnreachableError, RefusedError):
            return False
        return True

    def _version_in(self, row: str) -> Version:
        try:
            return Version.parse(row.removeprefix(self.MARK).removeprefix(self.TICKET))
        except ValueError:
            return Version((0, 0), "")

    def _leave_mark(self, marks: Sequence[str]) -> None:
        """One mark stays: ours, or that of the same state in younger files."""
        mine = f"{self.MARK}{self._version}"
        same = [mark for mark in marks if self._version_in(mark).digest == self._version.digest]
        stays = max((mine, *same), key=self._version_in)
        if stays not in marks:
            self._gateway.call("/budget/new", {"budget_id": stays})
        for mark in marks:
            if mark != stays:
                self._dropped(mark)

    def _bury(self, tickets: Sequence[str]) -> None:
        now = time.monotonic()
        self._seen = {ticket: self._seen.get(ticket, now) for ticket in tickets}
        for ticket, since in self._seen.items():
            if now - since > _TICKET_S:
                say("a run of this program died at its work: its turn is over")
                self._dropped(ticket)
