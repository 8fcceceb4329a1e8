"""The versions of the hub's library that images carry, each in an environment of its own."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed

from tests.components.libraries import kept, python_of

LOCKED = installed("huggingface_hub")
# Of vLLM's images; of LiteLLM's, one that begins files anew at each start; ours, which keeps the hub's list.
VERSIONS = ("0.36.2", "1.21.0", LOCKED)


def python_with(version: str) -> str:
    """An interpreter that has this version of huggingface_hub. Raises UnavailableError."""
    if version == LOCKED:
        return sys.executable
    return python_of(kept("hub-library", version, [f"huggingface_hub=={version}"]))
