"""The first screen of `ops plan --against`: what a reviewer must not miss stands on it, told in his own words."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.cli import main
from ops.plan.data import plan_data
from ops.plan.diff.compare import PlanDiff, compare
from ops.plan.diff.lines import dollars
from ops.plan.diff.markdown import as_markdown
from ops.plan.diff.resources import Operation
from ops.plan.diff.text import as_text
from stacks.admission import admit
from tests.ops.sandbox import commit, edit, sandbox
from tests.support import PROJECT_DIR, config, recorded

Plan = dict[str, Any]
FIRST_SCREEN = 40  # lines
UP = "coder-chat:replicas=1"


@functools.cache
def _recorded_plan(*assignments: str) -> Plan:
    return plan_data(admit(config(*assignments), rehearsal=True), recorded(*assignments).resources)


def _plan(*assignments: str) -> Plan:
    return copy.deepcopy(_recorded_plan(*assignments))


def _model(plan: Plan, alias: str) -> dict[str, Any]:
    return next(m for m in plan["models"] if m["alias"] == alias)


def _resource(plan: Plan, kind: str, name: str) -> dict[str, Any]:
    return next(r for r in plan["resources"] if r["type"].endswith(f":{kind}") and r["name"] == name)


def _text_screen(text: str) -> str:
    return "\n".join(text.splitlines()[:FIRST_SCREEN])


def _screens(old: Plan, new: Plan) -> list[str]:
    """What is seen first, as text and as a comment."""
    diff = compare(old, new)
    return [
        _text_screen(as_text(diff, "old", None, new)),
        as_markdown(diff, "old", None, new).partition("<details>")[0],
    ]


def _line(old: Plan, new: Plan, start: str) -> str:
    """The one line of the text that begins so, its mark included."""
    text = as_text(compare(old, new), "old", None, new)
    (line,) = [line for line in text.splitlines() if line[2:].startswith(start)]
    return line


# --- the five changes ----------------------------------------------------------------------------------------------


def _replaced_model(plan: Plan) -> None:
    _model(plan, "coder-chat").update(modelId="org/Another-7B", revision=None)


def _tenth_of_the_price(plan: Plan) -> None:
    price = _model(plan, "coder-chat")["price"]
    price.update({key: value / 10 for key, value in price.items() if isinstance(value, float)})


FIVE: dict[str, tuple[tuple[str, ...], Callable[[Plan], None] | None, tuple[str, ...]]] = {
    "model replaced": (
        (),
        _replaced_model,
        ("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ -> org/Another-7B", "-> none pinned", "fits its GPU as before: yes"),
    ),
    "machine changed": (("machineType=g2-standard-16",), None, ("g2-standard-8 x 1 -> g2-standard-16 x 1",)),
    "price / 10": ((), _tenth_of_the_price, ("in $0.50 -> $0.05 (-90 %), out $1.50 -> $0.15 (-90 %)",)),
    "budget x 100": (("keys.editor.maxBudgetUsd=2000",), None, ("budget $20 -> $2,000 a 30d (x 100)",)),
    "group disabled": (
        ("groups.retrieval=false",),
        None,
        ("off -> disabled (no longer enabled)", "may no longer use embeddings"),
    ),
}


@pytest.mark.parametrize("change", FIVE)
def test_a_change_shows_before_anything_is_folded_or_scrolled(change: str) -> None:
    assignments, by_hand, said = FIVE[change]
    new = _plan(UP, *assignments)
    if by_hand:
        by_hand(new)
    for screen in _screens(_plan(UP), new):
        for words in said:
            assert words in screen


def test_five_changes_at_once_show_on_one_screen() -> None:
    new = _plan(UP, *(assignment for assignments, _, _ in FIVE.values() for assignment in assignments))
    for _, by_hand, _ in FIVE.values():
        if by_hand:
            by_hand(new)
    for screen in _screens(_plan(UP), new):
        for _, _, said in FIVE.values():
            for words in said:
                assert words in screen


# Whatever the catalog is made of, this is what its readers find.
EDITED_CATALOG = """
from models import catalog
_old = catalog.CATALOG["coder-chat"]
assert _old.weights is not None
_fields = {"weights": _old.weights.model_copy(update={"revision": None}), "model_id": "org/Another-7B"}
_price = type(_old.price)(input_usd_per_mtok=0.05, output_usd_per_mtok=0.15)
catalog.CATALOG = {**catalog.CATALOG, "coder-chat": _old.model_copy(update={**_fields, "price": _price})}
"""


@pytest.fixture(scope="module")
def pull_request(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the five changes committed as a pull request has them: in the catalog and in the config."""
    folder = sandbox(tmp_path_factory.mktemp("five"))
    edit(folder, "Pulumi.ai-dev.yaml", "coder-chat:replicas: 0", "coder-chat:replicas: 1")
    commit(folder, "a model is up")
    with (folder / "models" / "__init__.py").open("a") as package:
        package.write(EDITED_CATALOG)
    edit(
        folder,
        "Pulumi.ai-dev.yaml",
        "machineType: auto\n  ai-platform:system",
        "machineType: g2-standard-16\n  ai-platform:system",
    )
    edit(folder, "Pulumi.ai-dev.yaml", "maxBudgetUsd: 20\n", "maxBudgetUsd: 2000\n")
    edit(folder, "Pulumi.ai-dev.yaml", "retrieval: true", "retrieval: false")
    edit(folder, "Pulumi.ai-dev.yaml", "maxMonthlyUsd: 800", "maxMonthlyUsd: 1200")
    commit(folder, "five changes")
    return folder


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_pull_request_with_five_changes_shows_each_before_the_objects(pull_request: Path, form: str) -> None:
    command = [sys.executable, "-m", "ops.cli", "plan", "--against", "HEAD^1", "--format", form]
    environment = {**os.environ, "PYTHONPATH": str(pull_request), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=pull_request, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    screen = _text_screen(ran.stdout) if form == "text" else ran.stdout.partition("<details>")[0]
    for _, _, said in FIVE.values():
        for words in said:
            assert words in screen
    assert "no revision of org/Another-7B on record" in screen
    assert "limit maxMonthlyUsd" in screen


# --- money ---------------------------------------------------------------------------------------------------------


def test_prices_are_told_by_alias_in_dollars_a_million_tokens_and_a_price_below_cost_with_its_cost() -> None:
    new = _plan(UP)
    _tenth_of_the_price(new)
    _model(new, "coder-chat")["cost"].update(atALoss=True, priceUsdPerMtok=0.0611, usdPerMtok=0.123)
    line = _line(_plan(UP), new, "price of coder-chat")
    assert line.startswith("! ")
    assert line.endswith("per million tokens; below cost: $0.061 for what costs $0.123")


def test_a_price_of_a_group_that_is_off_is_said_to_bind_nobody() -> None:
    new = _plan()
    _model(new, "claude-haiku")["price"]["input_usd_per_mtok"] *= 2
    assert _line(_plan(), new, "price of claude-haiku").endswith("not in force, as it is not enabled")


def test_a_price_list_of_another_day_explains_another_bill() -> None:
    new = _plan()
    new["costs"]["pricesAsOf"] = "2030-01-01"
    assert "-> 2030-01-01" in _line(_plan(), new, "price list")


OWN = "prices.onDemand.g2-standard-8"


@pytest.mark.parametrize(
    ("old", "new", "said", "by_config"),
    [
        ((), (f"{OWN}=0.25",), "(no date): g2-standard-8; g2-standard-8 LISTED -> $0.25 (", True),
        ((f"{OWN}=0.5",), (f"{OWN}=0.25",), "; g2-standard-8 $0.50 -> $0.25 (-50 %)", True),
        ((f"{OWN}=0.25",), (), "; g2-standard-8 $0.25 -> LISTED (", False),
        ((), ("prices.onDemand.g2-standard-16=0.01",), "by config (no date): g2-standard-16", True),
    ],
)
def test_a_bill_that_is_smaller_by_prices_of_config_does_not_read_as_a_saving(
    old: tuple[str, ...], new: tuple[str, ...], said: str, by_config: bool
) -> None:
    line = _line(_plan(UP, *old), _plan(UP, *new), "price list")
    assert line.startswith("! ")
    listed = next(line for line in _plan(UP)["costs"]["gpuNow"] if line["item"] == "g2-standard-8")["unitUsd"]
    assert said.replace("LISTED", dollars(listed)) in line
    headline = as_text(compare(_plan(UP, *old), _plan(UP, *new)), "old", None, _plan()).splitlines()[0]
    assert ("prices by config" in headline) == by_config


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("maxMonthlyUsd=1000000000", "$100,000,000 -> $1,000,000,000 (x 10)"),
        ("maxHourlyUsd=200000", "$100,000 -> $200,000 (x 2)"),
    ],
)
def test_a_raised_limit_of_the_stack_is_marked(assignment: str, said: str) -> None:
    line = _line(_plan(), _plan(assignment), f"limit {assignment.partition('=')[0]}")
    assert line.startswith("! ")
    assert line.endswith(said)


# --- access --------------------------------------------------------------------------------------------------------

EDITOR = "keys.editor"


@pytest.mark.parametrize(
    ("old", "new", "said", "loud"),
    [
        ((), (f"{EDITOR}.maxBudgetUsd=2000",), "budget $20 -> $2,000 a 30d (x 100)", True),
        ((), (f"{EDITOR}.maxBudgetUsd=10",), "budget $20 -> $10 a 30d", False),
        ((), (f"{EDITOR}.budgetPeriod=1d",), "budget $20 a 30d -> $20 a 1d (x 30)", True),
        ((f"{EDITOR}.budgetPeriod=1d",), (), "budget $20 a 1d -> $20 a 30d", False),
        ((), (f"{EDITOR}.requestsPerMinute=12000",), "120 -> 12,000 requests a minute (x 100)", True),
        ((), (f"{EDITOR}.tokensPerMinute=1000",), "no limit -> 1,000 tokens a minute", False),
        ((f"{EDITOR}.tokensPerMinute=1000",), (), "1,000 -> no limit tokens a minute", True),
    ],
)
def test_a_limit_that_grows_much_or_goes_is_marked(
    old: tuple[str, ...], new: tuple[str, ...], said: str, loud: bool
) -> None:
    line = _line(_plan(*old), _plan(*new), "key editor")
    assert line.endswith(said)
    assert line.startswith("! ") == loud


def test_a_budget_that_goes_is_marked_and_so_is_a_team_that_bounds_no_more() -> None:
    new = _plan()
    new["access"]["keys"]["editor"].update(maxBudgetUsd=None, budgetPeriod=None, team=None)
    text = as_text(compare(_plan(), new), "old", None, new)
    assert "! key editor: budget $20 a 30d -> no budget of its own" in text
    assert "! key editor: team platform ($50 a 30d) -> none" in text
    assert "2 limits raised or gone" in text.splitlines()[0]


@pytest.mark.parametrize(
    ("team", "said", "loud"),
    [
        ({"maxBudgetUsd": 100_000}, "team platform ($50 a 30d) -> other ($100,000 a 30d)", True),
        ({"budgetPeriod": "1d"}, "team platform ($50 a 30d) -> other ($50 a 1d)", True),
        (
            {"maxBudgetUsd": None, "budgetPeriod": None},
            "team platform ($50 a 30d) -> other (no budget of its own)",
            True,
        ),
        (
            {"tokensPerMinute": 1000},
            "team platform ($50 a 30d, no limit tokens a minute) -> other ($50 a 30d, 1,000 tokens a minute)",
            False,
        ),
        ({}, "team platform ($50 a 30d) -> other ($50 a 30d)", False),
        ({"maxBudgetUsd": 10}, "team platform ($50 a 30d) -> other ($10 a 30d)", False),
    ],
)
def test_a_key_in_another_team_is_told_with_what_both_may_spend_and_marked_where_that_grows(
    team: dict[str, Any], said: str, loud: bool
) -> None:
    old, new = _plan(), _plan()
    for plan in (old, new):
        teams = plan["access"]["teams"]
        teams["other"] = {**teams["platform"], **team}
    new["access"]["keys"]["editor"]["team"] = "other"
    line = _line(old, new, "key editor: team")
    assert line.endswith(said)
    assert line.startswith("! ") == loud
    # The other way, what grew shrinks, and what shrank grows.
    back = _line(new, old, "key editor: team")
    assert back.startswith("! ") == (not loud and bool(team))


def test_what_a_key_reaches_is_bounded_by_its_team() -> None:
    raw = config()
    teams = json.loads(raw.values["ai-platform:teams"])
    teams["platform"]["models"] = ["retrieval"]
    raw = replace(raw, values={**raw.values, "ai-platform:teams": json.dumps(teams)})
    access = plan_data(admit(raw, rehearsal=True), [])["access"]
    assert access["teams"]["platform"]["models"] == access["keys"]["editor"]["models"] == ["embeddings"]


def test_a_new_key_and_one_that_goes_are_told_whole() -> None:
    old, new = _plan(), _plan()
    new["access"]["keys"]["ci"] = {**new["access"]["keys"].pop("editor"), "models": ["embeddings"]}
    text = as_text(compare(old, new), "old", None, new)
    assert "key ci: new: in team platform, may use embeddings; $20 a 30d; 120 requests a minute" in text
    assert "key editor: is gone: calls with it are refused" in text


def test_what_happens_to_several_is_told_once() -> None:
    text = as_text(compare(_plan(), _plan("groups.retrieval=false")), "old", None, _plan())
    assert text.count("may no longer use embeddings") == 1
    assert "team platform, key editor, key smoke: may no longer use embeddings" in text


# --- models --------------------------------------------------------------------------------------------------------


def test_a_model_that_no_longer_fits_is_marked_with_both_fits() -> None:
    new = _plan()
    _model(new, "coder-chat")["fit"] = None  # what its engine refuses
    line = _line(_plan(), new, "coder-chat")
    assert line.startswith("! ")
    assert "fits its GPU: yes, KV cache" in line
    assert line.endswith("-> no")


def test_a_model_that_goes_up_says_when_it_answers() -> None:
    assert "off -> up (goes up, first answer within 35 min)" in _line(_plan(), _plan(UP), "coder-chat")


# --- outages -------------------------------------------------------------------------------------------------------


def _outages(diff: PlanDiff) -> dict[str, tuple[str, int | None]]:
    return {outage.what: (outage.how, outage.seconds) for outage in diff.outages}


def _edited(plan: Plan, kind: str, name: str, path: str, value: object) -> Plan:
    *parents, last = path.split(".")
    inner = _resource(plan, kind, name)["inputs"]
    for key in parents:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return plan


POD = "spec.template.spec.nodeName"


def test_a_model_that_is_up_restarts_for_its_cold_start_and_one_that_is_off_does_not() -> None:
    new = _edited(_edited(_plan(UP), "Deployment", "coder-chat", POD, "n"), "Deployment", "coder-fim", POD, "n")
    seconds = _model(new, "coder-chat")["coldStartSeconds"]
    assert _outages(compare(_plan(UP), new)) == {"coder-chat": ("restarts", seconds)}
    assert "coder-chat: restarts: away for at most 35 min" in _screens(_plan(UP), new)[0]


def test_a_gateway_that_rolls_is_no_outage_and_one_that_is_made_anew_is() -> None:
    rolled = _outages(compare(_plan(), _edited(_plan(), "Deployment", "litellm", POD, "n")))
    assert rolled == {"litellm": ("rolls: a new pod serves before an old one stops", 0)}
    selector = "spec.selector.matchLabels.x"
    how, seconds = _outages(compare(_plan(), _edited(_plan(), "Deployment", "litellm", selector, "y")))["litellm"]
    assert how == "is deleted and made anew"
    assert seconds


def test_a_database_restarts_for_as_long_as_its_own_probes_allow() -> None:
    found = _outages(compare(_plan(), _edited(_plan(), "StatefulSet", "litellm-db", POD, "n")))
    assert found == {"litellm-db": ("restarts", 360)}


def test_another_machine_restarts_what_is_up_on_it_and_nothing_else() -> None:
    found = _outages(compare(_plan(UP), _plan(UP, "machineType=g2-standard-16")))
    assert found["coder-chat"][0] == "restarts on another node once the old one is gone"
    assert "litellm" not in found


@pytest.mark.parametrize(("path", "away"), [("nodeConfig.labels", False), ("nodeConfig.diskSizeGb", True)])
def test_nodes_that_are_made_anew_take_their_pods_along(path: str, away: bool) -> None:
    new = _edited(_plan(UP), "NodePool", "g2-standard-8-100g", path, 200)
    assert ("coder-chat" in _outages(compare(_plan(UP), new))) == away


def test_a_model_that_goes_down_says_who_answers() -> None:
    down = ("coder-chat:fallback=coder-agent",)
    assert _outages(compare(_plan(UP), _plan(*down)))["coder-chat"][0] == "goes down: coder-agent answers in its place"
    assert _outages(compare(_plan(UP), _plan()))["coder-chat"][0] == "goes down: calls get an error that says so"


def test_with_the_cluster_everything_is_away() -> None:
    new = _edited(_plan(UP), "Cluster", "cluster", "datapathProvider", "LEGACY_DATAPATH")
    assert list(_outages(compare(_plan(UP), new))) == ["everything"]


# --- data ----------------------------------------------------------------------------------------------------------


def test_data_that_is_no_longer_guarded_is_told_though_no_property_changes() -> None:
    new = _plan("retainWeights=false", "deletionProtection=false")
    for screen in _screens(_plan(), new):
        assert "is no longer kept: whatever removes it from the stack deletes its data" in screen
        assert "is no longer protected" in screen


# --- notices -------------------------------------------------------------------------------------------------------


def test_what_the_new_side_says_comes_with_its_remedy_and_what_both_say_comes_last() -> None:
    new = _plan("coder-chat:gpuMemoryUtilization=0.8")
    new["notices"].insert(0, {"message": "something to know", "remedy": "ops fit coder-chat"})
    diff = compare(_plan(), new)
    text, markdown = as_text(diff, "old", None, new), as_markdown(diff, "old", None, new)
    assert "something to know\n      ops fit coder-chat" in _text_screen(text)
    assert "something to know<br>`ops fit coder-chat`" in markdown.partition("<details>")[0]
    assert text.index("something to know") < text.index("\nchanged:") < text.index("has no digest on record")
    assert "has no digest on record" in markdown


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (("machineType=g2-standard-4",), "coder-agent"),  # a machine on which it would be refused
        (("coder-mini:replicas=1",), "commercial"),  # a licence
        (("coder-mini:replicas=1", "coder-mini:tokensPerSecond=1"), "is sold at"),  # below what it costs
        (("coder-chat:fallback=qwen-local",), "but not its fallback qwen-local"),  # a key that is not answered
    ],
)
def test_what_a_plan_warns_of_is_not_lost_beside_another(assignments: tuple[str, ...], said: str) -> None:
    diff = compare(_plan(), _plan(*assignments))
    assert any(said in notice.message for notice in diff.notices)
    for screen in _screens(_plan(), _plan(*assignments)):
        assert said in screen


def test_notices_show_also_where_nothing_can_be_compared() -> None:
    new = _plan()
    for form in (as_text, as_markdown):
        assert "has no digest on record" in form(None, "old", "it is refused", new)


# --- the headline --------------------------------------------------------------------------------------------------


def _headline(old: Plan, new: Plan) -> str:
    return as_text(compare(old, new), "old", None, new).splitlines()[0].rpartition("old: ")[2]


def test_a_headline_says_no_change_of_nothing_else() -> None:
    assert _headline(_plan(), _plan()) == "no change"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((), ("retainWeights=false",), "no object changes; 1 line of data at risk"),
        ((), ("maxMonthlyUsd=99999999",), "no object changes; 1 line of money"),
        ((f"{OWN}=0.5",), (f"{OWN}=0.25",), "no object changes; 2 lines of money, prices by config"),
    ],
)
def test_changes_that_change_no_object_are_counted_in_the_headline(
    old: tuple[str, ...], new: tuple[str, ...], said: str
) -> None:
    assert _headline(_plan(*old), _plan(*new)) == said


def test_models_and_access_that_no_object_shows_are_counted_in_the_headline() -> None:
    new = _plan()
    _model(new, "coder-chat")["fallback"] = "coder-agent"
    new["access"]["teams"]["platform"]["models"].remove("embeddings")
    assert _headline(_plan(), new) == "no object changes; 1 line of access, 1 line of models"


# --- forms ---------------------------------------------------------------------------------------------------------


def test_of_what_an_older_plan_does_not_tell_nothing_is_claimed() -> None:
    old = _plan()
    for key in ("access", "limits", "notices", "costs"):
        del old[key]
    del _resource(old, "ConfigMap", "litellm-keys")["inputs"]["data"]["keys.json"]
    for model in old["models"]:
        for key in ("task", "fallback", "price", "cost", "fit", "licence"):
            del model[key]
    del old["machines"]["gpu"]["spot"]
    diff = compare(old, _plan())
    assert (diff.access, diff.models, diff.money.prices, diff.money.limits, diff.money.machines) == (
        None,
        (),
        (),
        {},
        {},
    )
    text = as_text(diff, "old", None, _plan())
    assert "access: not compared, the other plan does not tell it" in text


def test_who_may_use_what_is_known_of_older_plans_by_what_they_hand_the_gateway() -> None:
    old, new = _plan(), _plan("keys.editor.maxBudgetUsd=2000", "groups.retrieval=false", "keys.editor.team=platform")
    del old["access"]
    told = compare(_plan(), new).access
    assert compare(old, new).access == told
    assert told


def test_a_job_runs_again_and_is_not_called_replaced() -> None:
    diff = compare(_plan(), _plan("keys.editor.maxBudgetUsd=2000"))
    assert [d.kind for d in diff.differences if d.operation is Operation.RUN_AGAIN] == ["Job"]
    assert "1 run again" in as_text(diff, "old", None, _plan()).splitlines()[0]
    assert "(this replaces it)" not in as_text(diff, "old", None, _plan())


def test_a_file_in_a_config_map_is_told_by_its_own_paths_with_the_numbers_that_were_meant() -> None:
    new = _plan()
    files = _resource(new, "ConfigMap", "litellm-config")["inputs"]["data"]
    content = yaml.safe_load(files["config.yaml"])
    entry = next(m for m in content["model_list"] if m["model_name"] == "coder-chat")
    entry["litellm_params"]["input_cost_per_token"] = 5.0000000000000004e-08
    files["config.yaml"] = yaml.safe_dump(content, sort_keys=False)
    assert "5.0000000000000004e-08" in files["config.yaml"]
    text = as_text(compare(_plan(), new), "old", None, new)
    assert "+ data.config.yaml.model_list[coder-chat].litellm_params.input_cost_per_token: 5e-08" in text
    assert "5.0000000000000004e-08" not in text


def test_more_than_a_screen_of_one_thing_leaves_room_for_the_others_and_is_told_below() -> None:
    new = _plan("keys.editor.maxBudgetUsd=2000")
    keys = new["access"]["keys"]
    keys |= {f"k{i}": {**keys["smoke"], "maxBudgetUsd": i + 2} for i in range(30)}
    diff = compare(_plan(), new)
    text, markdown = as_text(diff, "old", None, new), as_markdown(diff, "old", None, new)
    first = text.splitlines()[:FIRST_SCREEN]
    assert "! key editor: budget $20 -> $2,000 a 30d (x 100)" in first
    assert "models: no change" in first
    for i in range(30):
        assert f"key k{i}: new" in text
        assert f"`key k{i}`: new" in markdown


def test_of_hundreds_that_change_alike_a_line_names_the_first_and_counts_the_rest() -> None:
    old, new = _plan(), _plan()
    for plan in (old, new):
        plan["models"] += [{**_model(plan, "coder-chat"), "alias": f"m{i}"} for i in range(300)]
    for model in new["models"]:
        model["licence"] = "another"
    lines = as_text(compare(old, new), "old", None, new).splitlines()
    assert max(len(line) for line in lines[: lines.index("outages: none")]) < 300
    assert any(re.search(r"and \d+ more: licence", line) for line in lines)


def test_a_terminal_breaks_no_word_and_no_command() -> None:
    new = _plan(UP, "machineType=g2-standard-16")
    whole, narrow = (as_text(compare(_plan(), new), "old", None, new, width=width) for width in (None, 80))
    screen = narrow.partition("\nchanged:")[0].splitlines()[1:]
    assert max(len(line) for line in screen if not line.startswith("      ")) <= 80
    assert whole.partition("\nchanged:")[0].split() == narrow.partition("\nchanged:")[0].split()


def test_what_looks_like_a_key_is_masked_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = _plan()
    _resource(old, "ConfigMap", "litellm-config")["inputs"]["data"]["x"] = "sk-0123456789abcdef"
    saved = tmp_path / "old.json"
    saved.write_text(json.dumps(old))
    for form in ("text", "markdown", "json"):
        main(["plan", "--project-dir", str(PROJECT_DIR), "--against", str(saved), "--format", form])
        out = capsys.readouterr().out
        assert "sk-..." in out
        assert "0123456789" not in out


def _against(path: Path, capsys: pytest.CaptureFixture[str], form: str = "text") -> tuple[int, str, str]:
    code = main(["plan", "--project-dir", str(PROJECT_DIR), "--against", str(path), "--format", form])
    out, err = capsys.readouterr()
    return code, out, err


NO_PLAN = "is not a plan ("
MAKE_ONE = "remedy: ops plan --stack ai-dev --format json > FILE.json"


@pytest.mark.parametrize("resources", [{}, [{}], [1], None])
def test_a_file_that_is_no_plan_is_refused_with_the_way_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], resources: object
) -> None:
    saved = tmp_path / "old.json"
    saved.write_text(json.dumps({"project": "ai-platform", "stack": "ai-dev", "resources": resources, "models": []}))
    code, _, err = _against(saved, capsys)
    assert code == 2
    assert NO_PLAN in err
    assert MAKE_ONE in err


def _first(section: str, **values: object) -> Callable[[Plan], object]:
    return lambda plan: plan[section][0].update(values)


WRONG: dict[str, Callable[[Plan], object]] = {
    "inputs are null": _first("resources", inputs=None),
    "a type is null": _first("resources", type=None),
    "an alias is a list": _first("models", alias=["x"]),
    "replicas are text": _first("models", replicas="1"),
    "a stack is null": lambda plan: plan.update(stack=None),
    "problems are no objects": lambda plan: plan.update(problems=[1]),
    "notices are no objects": lambda plan: plan.update(notices=[1]),
    "a price is a list": _first("models", price=[1]),
    "a total is text": lambda plan: plan["costs"].update(usdPerHourNow="much"),
    "a limit is text": lambda plan: plan["limits"].update(maxMonthlyUsd="much"),
    "a budget's period is no time": lambda plan: plan["access"]["keys"]["editor"].update(budgetPeriod="0d"),
    "a key is a list": lambda plan: plan["access"]["keys"].update(editor=[]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plan_with_something_else_in_it_is_refused_and_a_comment_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    plan = _plan()
    WRONG[wrong](plan)
    saved = tmp_path / "old.json"
    saved.write_text(json.dumps(plan))
    code, out, err = _against(saved, capsys, "markdown")
    assert code == 2
    assert f"{saved} {NO_PLAN}" in err
    assert MAKE_ONE in err
    assert out.startswith("### `ai-dev`: not compared\n\n")
    assert NO_PLAN in out


def test_a_plan_that_cannot_be_told_is_refused_also_where_only_its_data_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _plan()
    WRONG["a price is a list"](plan)
    saved = tmp_path / "old.json"
    saved.write_text(json.dumps(plan))
    code, out, err = _against(saved, capsys, "json")
    assert (code, out) == (2, "")
    assert NO_PLAN in err


def test_a_file_of_brackets_only_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "deep.json"
    saved.write_text("[" * 100_000)
    code, out, err = _against(saved, capsys, "markdown")
    assert code == 2
    assert out.startswith("### `ai-dev`: not compared")
    assert f"{saved} is not a saved plan" in err
