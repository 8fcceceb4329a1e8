"""What LiteLLM makes of a budget's period: its own code, asked for each reset of many in a row."""

from __future__ import annotations

import itertools
import json
import subprocess
from datetime import datetime, timedelta

import pytest

from stacks.sections import Access
from tests.gateway.environment import Environment

START = datetime(2027, 1, 29, 13, 58, 7)  # noqa: DTZ001  of no round number, before a short month
RESETS = 60
# The module alone: the package takes seconds to import.
PROGRAM = """
import importlib.util, json, logging, sys, types
from datetime import datetime
sys.modules["litellm"] = types.ModuleType("litellm")
sys.modules["litellm._logging"] = types.SimpleNamespace(verbose_logger=logging.getLogger())
spec = importlib.util.spec_from_file_location("duration_parser", sys.argv[1])
parser = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parser)
found = {}
for period in sys.argv[4:]:
    now, resets = datetime.fromisoformat(sys.argv[2]), []
    try:
        for _ in range(int(sys.argv[3])):
            now = parser.get_next_standardized_reset_time(period, now, "UTC")
            resets.append(now.replace(tzinfo=None).isoformat())
    except (ValueError, OverflowError):
        resets = None
    found[period] = resets
print(json.dumps(found))
"""
KEPT = ["1h", "2h", "3h", "4h", "6h", "8h", "12h", "24h", "1d", "2d", "10d", "31d", "45d", "3650d"]
CALENDAR = ["7d", "30d", "1mo"]
NOT_KEPT = ["5h", "9h", "25h", "36h", "48h", "2mo", "12mo", "90m", "100m", "9999999d"]


@pytest.fixture(scope="module")
def resets(environment: Environment) -> dict[str, list[datetime] | None]:
    source = environment.migrations.parents[1] / "litellm" / "litellm_core_utils" / "duration_parser.py"
    command = [str(environment.python), "-c", PROGRAM, str(source), START.isoformat(), str(RESETS)]
    done = subprocess.run([*command, *KEPT, *CALENDAR, *NOT_KEPT], capture_output=True, text=True, check=True)
    found: dict[str, list[str] | None] = json.loads(done.stdout)
    return {p: None if rows is None else [datetime.fromisoformat(row) for row in rows] for p, rows in found.items()}


def length(period: str) -> timedelta:
    number, unit = int(period[:-1]), period[-1]
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[unit]: number})


def admitted(period: str) -> bool:
    try:
        Access.model_validate({"models": ["coder-chat"], "budgetPeriod": period})
    except ValueError:
        return False
    return True


def steps(resets: list[datetime]) -> set[timedelta]:
    return {after - before for before, after in itertools.pairwise(resets)}


@pytest.mark.parametrize("period", KEPT)
def test_a_period_that_the_config_admits_is_kept(period: str, resets: dict[str, list[datetime] | None]) -> None:
    assert admitted(period)
    found = resets[period]
    assert found
    assert steps(found) == {length(period)}
    assert found[0] - START <= length(period)


@pytest.mark.parametrize("period", CALENDAR)
def test_weeks_and_months_are_those_of_the_calendar(period: str, resets: dict[str, list[datetime] | None]) -> None:
    assert admitted(period)
    found = resets[period]
    assert found
    if period == "7d":
        assert steps(found) == {length(period)}
        assert found[0] == datetime(2027, 2, 1)  # noqa: DTZ001  a Monday
    else:
        assert [(reset.year, reset.month, reset.day) for reset in found[:3]] == [
            (2027, 2, 1),
            (2027, 3, 1),
            (2027, 4, 1),
        ]


@pytest.mark.parametrize("period", NOT_KEPT)
def test_a_period_that_litellm_does_not_keep_is_not_admitted(
    period: str, resets: dict[str, list[datetime] | None]
) -> None:
    assert not admitted(period)
    found = resets[period]
    assert found is None or steps(found) != {length(period)}
