"""Models that somebody else serves."""

from __future__ import annotations

from models.catalog.parts import REFERENCE, REPORTED, licence
from models.engines.external import ExternalProvider
from models.facts import Evaluation, Evidence, PerToken, Slo, Source
from models.spec import ModelSpec
from models.tasks import Task

ENTRIES = (
    ModelSpec(
        alias="claude-haiku",
        group="providers",
        summary="Claude Haiku 4.5 through the egress gateway",
        task=Task.CHAT,
        model_id="claude-haiku-4-5",
        served_name="claude-haiku-4-5",
        engine=ExternalProvider(provider="anthropic"),
        context=None,
        weights=None,
        price=PerToken(input_usd_per_mtok=1, output_usd_per_mtok=5, cached_input_usd_per_mtok=0.1),
        slo=Slo(note="external: the provider's own"),
        evaluation=Evaluation(status="none", result="external provider"),
        licence=licence("proprietary", f"provider's terms of service; {REFERENCE}", Evidence.REPORTED),
        sources=(
            REPORTED,
            Source(facts="list price", where="price map of LiteLLM 1.106.2", evidence=Evidence.VERIFIED),
        ),
    ),
)
