"""What is served under which licence, and whether by a name that may be pointed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from models.facts import Image
from models.images import LITELLM, POSTGRES
from stacks.plan import Plan, State
from stacks.problems import Notice, Problem


def licences(plan: Plan) -> Iterator[Notice]:
    for model in plan.models:
        if model.state is State.UP and not model.spec.licence.commercial_use:
            alias, licence = model.spec.alias, model.spec.licence.name
            yield Notice(
                f"{alias} comes up, and the licence of its weights ({licence}) allows no commercial use",
                f"pulumi config set {alias}:replicas 0",
            )


def pickles(plan: Plan) -> Iterator[Problem]:
    """Weights in pickle files: who loads one runs what its author wrote into it."""
    for model in plan.models:
        weights = model.spec.weights
        if model.state is State.UP and weights and weights.format == "pickle" and not model.pickle_allowed:
            alias = model.spec.alias
            yield Problem(
                f"{alias} comes up, and {model.spec.model_id} has its weights in pickle files only: loading one may "
                "run what its author wrote into it. vLLM reads nothing but tensors of one; nobody here has tried that",
                f"pulumi config set {alias}:allowPickle true   # or: pulumi config set {alias}:replicas 0",
            )


def unpinned(plan: Plan) -> Iterator[Notice]:
    """What is pinned by a name that may be pointed elsewhere."""
    images: dict[str, Image] = {
        i.repository: i for i in (LITELLM, POSTGRES, *(i for m in plan.deployed for i in m.spec.engine.images))
    }
    for image in images.values():
        if image.digest is None:
            yield Notice(
                f"image {image.reference()} has no digest on record: its tag may be pointed at other content",
                "ops pin",
            )
    for model in plan.deployed:
        if model.spec.weights and model.spec.weights.revision is None:
            yield Notice(
                f"{model.spec.alias}: no revision of {model.spec.model_id} on record: its default branch is served",
                "ops pin",
            )
