"""The hook before a create, where nobody answers."""

from __future__ import annotations

import pulumi
import pytest

from components.kubernetes.api_reader import ApiReader, UnreachableError
from ops.engine import run
from stacks import ownership
from stacks.cluster_look import ClusterLook
from stacks.ownership import Ownership
from stacks.sections import Namespaces
from stacks.settings import RawConfig


def test_a_preview_waits_once_for_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def away(_: ApiReader, path: str, accept: str) -> None:
        del accept
        asked.append(path)
        raise UnreachableError(path)

    monkeypatch.setattr(ApiReader, "_get", away)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)

    async def judged() -> None:
        owner = Ownership("a/b", "a", Namespaces(), lambda place, value: f"{place}{value}")
        judge = ownership._Judge(owner, ClusterLook("k", "c"))  # pyright: ignore[reportPrivateUsage]
        for name in ("one", "two"):
            await judge.judge(_created(name))
        assert len(asked) == 1
        monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
        with pytest.raises(UnreachableError):
            await ownership._Judge(owner, ClusterLook("k", "c")).judge(_created("one"))  # pyright: ignore[reportPrivateUsage]

    run(RawConfig("ai-platform", "test", {}), judged)  # in its event loop


def _created(name: str) -> pulumi.ResourceHookArgs:
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "gateway", "name": name}}
    return pulumi.ResourceHookArgs(urn="", id="", name=name, type="kubernetes:core/v1:Secret", new_inputs=inputs)
