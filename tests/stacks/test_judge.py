"""The hook before a create, where nobody answers."""

from __future__ import annotations

import pulumi
import pytest

from components.kubernetes.api_reader import ApiReader, UnreachableError
from stacks import ownership
from stacks.ownership import Ownership
from stacks.sections import Namespaces
from tests.support import recorded_alone


def test_a_preview_waits_once_for_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def away(_: ApiReader, path: str, accept: str) -> None:
        del accept
        asked.append(path)
        raise UnreachableError(path)

    monkeypatch.setattr(ApiReader, "_get", away)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)

    def judged() -> None:
        owner = Ownership("a/b", "a", Namespaces(), lambda place, value: f"{place}{value}")
        judge = ownership._Judge(owner, "k", "c")  # pyright: ignore[reportPrivateUsage]
        for name in ("one", "two"):
            inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "gateway", "name": name}}
            assert judge._found(ApiReader("k", "c"), inputs) == []  # pyright: ignore[reportPrivateUsage]
        assert len(asked) == 1
        monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
        with pytest.raises(UnreachableError):
            ownership._Judge(owner, "k", "c")._found(ApiReader("k", "c"), inputs)  # pyright: ignore[reportPrivateUsage]

    recorded_alone(judged)  # in its event loop
