"""What README.md and docs/ say that is no command: links, paths, an editor, what a destroy keeps, figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.gateway import litellm_gateway
from models.architectures import ARCHITECTURES
from models.tasks import TASKS, Task
from models.throughput import cpu_tokens_per_second
from models.weights import EncoderArchitecture
from ops.engine import Registered
from tests.catalog import CATALOG
from tests.checkout import CHECKOUT
from tests.docs.snippets import PAGES, blocks
from tests.support import object_name, recorded

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
EDITORS = CHECKOUT / "docs" / "editors.md"
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"`((?:components|docs|models|ops|policy|stacks|tests|\.github)/[\w./-]*)`")


@every_page
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / link for link in _LINK.findall(text) if not link.startswith("http")]
    paths = [CHECKOUT / path for path in _PATH.findall(text)]
    assert [
        str(path) for path in (*links, *paths) if not (path.exists() or path.with_name(f"{path.name}.py").exists())
    ] == []


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    """`sh` and `console` are typed by a test; nothing that is typed hides in another one."""
    known = {"sh", "console", "text", "mermaid", "yaml", "python"}
    assert [f"{page.name}:{line}" for language, line, _ in blocks(page) if language not in known] == []


def test_every_page_is_found_from_the_readme() -> None:
    text = (CHECKOUT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"({page.relative_to(CHECKOUT)})" not in text] == []


# --- an editor -------------------------------------------------------------------------------------------------


def _continue() -> list[dict[str, Any]]:
    body = next(body for language, _, body in blocks(EDITORS) if language == "yaml")
    return yaml.safe_load(body)["models"]


def test_the_editor_asks_each_model_for_what_it_is_for() -> None:
    tasks = {"chat": {Task.CHAT, Task.AGENT}, "autocomplete": {Task.FIM}, "embed": {Task.EMBEDDING}}
    seen: set[str] = set()
    for model in _continue():
        role = model["roles"][0]
        seen.add(role)
        assert CATALOG[model["model"]].task in tasks[role]
        assert model["apiBase"] == f"http://localhost:{litellm_gateway.PORT}/v1"
    assert seen == tasks.keys()


def test_the_editor_completes_with_the_tokens_and_on_the_route_of_the_task() -> None:
    model = next(one for one in _continue() if "autocomplete" in one["roles"])
    tokens = re.findall(r"<\|\w+\|>", str(TASKS[Task.FIM].example["prompt"]))
    assert re.findall(r"<\|\w+\|>", model["promptTemplates"]["autocomplete"]) == tokens
    assert model["useLegacyCompletionsEndpoint"] == (TASKS[Task.FIM].route == "/v1/completions")


def test_the_table_of_models_for_editors_has_the_route_of_each() -> None:
    rows = re.findall(r"^\| [^|]+ \| `([a-z-]+)` \| `(/v1/[a-z/]+)`([^|]*)\|", EDITORS.read_text(), re.MULTILINE)
    assert {CATALOG[alias].task for alias, _, _ in rows} == {spec.task for spec in CATALOG.values()}
    for alias, route, rest in rows:
        assert route == TASKS[CATALOG[alias].task].route
        if tokens := re.search(r"at most (\d+) tokens", rest):
            assert int(tokens[1]) == CATALOG[alias].context


def test_the_address_inside_the_cluster_is_that_of_the_gateways_service() -> None:
    name, namespace, port = re.findall(r"http://([\w-]+)\.([\w-]+)\.svc\.cluster\.local:(\d+)/v1", EDITORS.read_text())[
        0
    ]
    manifest = recorded().manifest("Service", name, namespace)
    assert int(port) in [one["port"] for one in manifest["spec"]["ports"]]


def test_the_program_in_python_is_one() -> None:
    body = next(body for language, _, body in blocks(EDITORS) if language == "python")
    compile(body, str(EDITORS), "exec")
    assert f"http://localhost:{litellm_gateway.PORT}/v1" in body


# --- what a destroy keeps --------------------------------------------------------------------------------------


def kept_by_destroy() -> list[Registered]:
    """What `pulumi destroy --exclude-protected` leaves: what is protected, and what that needs."""
    record = recorded()
    found: dict[str, Registered] = {}
    ahead = [r for r in record.resources if r.protect]
    while ahead:
        resource = ahead.pop()
        if resource.urn not in found:
            found[resource.urn] = resource
            ahead += record.dependencies(resource)
    return [r for r in found.values() if r.custom]


def test_the_readme_says_what_a_destroy_of_all_but_the_protected_removes() -> None:
    row = next(
        line
        for line in (CHECKOUT / "README.md").read_text().splitlines()
        if line.startswith("| `pulumi destroy --exclude-protected`")
    )
    kept = {r.short_type for r in kept_by_destroy()}
    cloud = {r.short_type for r in recorded().resources if r.custom and r.type.startswith("gcp:")}
    words = {"node pools": "NodePool", "NAT": "RouterNat", "router": "Router"}
    words |= {"image repositories": "Repository"}
    removed, _, stays = row.partition("keeps")
    for word, kind in words.items():
        assert word in removed
        assert kind in cloud
        assert kind not in kept
    for word, kind in {"cluster": "Cluster", "network": "Network", "disk": "Disk"}.items():
        assert word in stays
        assert kind in kept


def test_the_kept_claims_are_those_of_the_page() -> None:
    claims = recorded().all("PersistentVolumeClaim")
    assert claims
    assert [object_name(r) for r in claims if not r.retain_on_delete] == []


# --- figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["onnx", "safetensors"])
def test_what_embeddings_read_is_the_figure_of_the_page(weights: str) -> None:
    arch = ARCHITECTURES["BAAI/bge-base-en-v1.5"]
    assert isinstance(arch, EncoderArchitecture)
    rate = cpu_tokens_per_second(arch, 0.5, onnx=weights == "onnx")
    (row,) = [
        line
        for line in (CHECKOUT / "docs" / "costs.md").read_text().splitlines()
        if line.lower().startswith(f"| {weights} |")
    ]
    assert row.endswith(f"| {rate:.0f} tokens a second |")
