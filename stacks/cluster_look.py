"""A question that a hook of the engine asks the cluster, by the kubeconfig of the provider for Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pulumi

if TYPE_CHECKING:
    from components.kubernetes.api_reader import ApiReader

T = TypeVar("T")


class ClusterLook:
    """The cluster of a stack. Making the object asks nothing, and a plan never does."""

    def __init__(self, kubeconfig: pulumi.Input[str] | None, context: str | None) -> None:
        self._context = context
        self._kubeconfig = pulumi.Output.from_input(kubeconfig)
        self._reader: ApiReader | None = None
        self._away = False  # in a preview: there was no answer, and each more would cost a minute
        # Of its own: all of the loop's may be waiting for registrations, and those for the hook that asks.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="look")

    async def ask(self, question: Callable[[ApiReader], T]) -> T | None:
        """Its answer; None in a preview where there is no cluster yet, or none that answers. Raises CannotLookError."""
        # Here, since a plan starts faster without what it takes.
        from components.kubernetes.api_reader import UnreachableError  # noqa: PLC0415

        reader = await self._read_by()
        if reader is None or self._away:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question, reader)
        except UnreachableError:
            if not pulumi.runtime.is_dry_run():
                raise
            self._away = True
            return None

    async def _read_by(self) -> ApiReader | None:
        if self._reader is None:
            known = await self._kubeconfig.is_known()
            kubeconfig = await self._kubeconfig.future() if known else None
            from components.kubernetes.api_reader import ApiReader  # noqa: PLC0415

            self._reader = ApiReader(kubeconfig, self._context) if kubeconfig else None
        return self._reader
