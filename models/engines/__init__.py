"""Engines: a file each with its spec type and its answers to the question list; here is which there are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.engines.external import ExternalProvider
from models.engines.llama_cpp import LlamaCppEngine
from models.engines.tei import TeiEngine
from models.engines.vllm import VllmEngine

AnyEngine = Annotated[VllmEngine | TeiEngine | LlamaCppEngine | ExternalProvider, Field(discriminator="kind")]
ENGINES = (VllmEngine, TeiEngine, LlamaCppEngine, ExternalProvider)
