"""The one budget of a start, and that every deadline made of it contains what it has to."""

from __future__ import annotations

import pytest

from models.cold_start import pull_seconds
from models.engines.external import ExternalProvider
from models.engines.vllm import VllmEngine
from models.images import LITELLM, VLLM
from tests.catalog import CATALOG
from tests.support import cold_start

STORED = [alias for alias, spec in CATALOG.items() if not isinstance(spec.engine, ExternalProvider)]
every_stored = pytest.mark.parametrize("alias", STORED)


@every_stored
def test_deadlines_contain_the_phases_before_them(alias: str) -> None:
    spec = CATALOG[alias]
    budget = cold_start(spec)
    assert budget.staging_deadline == budget.stage + budget.retry
    assert budget.progress_deadline == budget.node + budget.image + budget.staging_deadline + budget.load
    assert budget.await_timeout > budget.progress_deadline


@every_stored
@pytest.mark.parametrize("period", [1, 5, 7, 10])
def test_probes_allow_the_whole_load_and_not_much_more(alias: str, period: int) -> None:
    budget = cold_start(CATALOG[alias])
    assert budget.load <= budget.startup_failures(period) * period < budget.load + period


@every_stored
def test_more_weights_and_more_images_get_more_time(alias: str) -> None:
    spec = CATALOG[alias]
    assert spec.weights is not None
    heavier = spec.model_copy(
        update={"weights": spec.weights.model_copy(update={"bytes_on_disk": spec.weights.bytes_on_disk * 3})}
    )
    light, heavy = cold_start(spec), cold_start(heavier)
    assert heavy.stage > light.stage
    assert heavy.load > light.load
    assert pull_seconds(*spec.engine.images, LITELLM) > light.image


@pytest.mark.parametrize("alias", [a for a in STORED if isinstance(CATALOG[a].engine, VllmEngine)])
def test_the_reference_deployment_s_wait_for_ready_is_within_the_budget(alias: str) -> None:
    """It waits 1,200 s for Ready; a public log of an L4 shows 409 s from pod to ready."""
    assert cold_start(CATALOG[alias]).progress_deadline > 1200
    assert cold_start(CATALOG[alias]).load > 409


def test_a_model_on_the_system_pool_waits_for_no_gpu_node() -> None:
    assert cold_start(CATALOG["embeddings"]).node < cold_start(CATALOG["coder-chat"]).node


def test_images_are_pulled_one_after_the_other() -> None:
    assert pull_seconds(VLLM, LITELLM) == pytest.approx(pull_seconds(VLLM) + pull_seconds(LITELLM), abs=1)
    assert pull_seconds() == 0


def test_what_runs_elsewhere_has_no_cold_start() -> None:
    spec = CATALOG["claude-haiku"]
    assert spec.engine.cold_start(spec) is None
