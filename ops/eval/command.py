"""`ops eval ALIAS`: ask a model that is up, run what it writes where it can do no harm, and count what is right."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.facts import Evaluation
from ops.console import output
from ops.errors import FailedError, OpsError
from ops.eval.suites import Suite, suites
from ops.kube import add_arguments as add_cluster_arguments
from ops.measuring.job import Measurement, address, packed
from ops.measuring.record import RECORD_HELP, record
from ops.measuring.task import Site, site_of

Json = dict[str, Any]
REFUSED, BELOW = 2, 1
GATE = 70  # percent, of the reference
_STREAMS = 8  # requests at once
_ASKING_S = 3600
_PROGRAM_S = 10  # of a program of a model
_SPARE_S = 300
_SHOWN = 5  # of what is wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("alias", metavar="ALIAS", help="the model, up")
    add_cluster_arguments(parser)
    parser.add_argument("--problems", type=_number, metavar="N", help="the first N of each suite (default: all)")
    parser.add_argument(
        "--gate", type=_percent, default=GATE, metavar="PERCENT", help=f"that have to be right (default: {GATE})"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="of the result (default: named by model and time)")
    parser.add_argument("--record", action="store_true", help=RECORD_HELP)
    parser.add_argument("--stop", action="store_true", help="end what is under way")


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text[:9]) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of problems")
    return int(text[:9])


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text[:9]) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 100")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """0 where each suite is at its gate or above, 1 where one is below, 2 if it cannot be done now."""
    site = site_of(args, "ops eval")
    if site is None:
        return REFUSED
    asking, running = f"eval-{args.alias}", f"code-{args.alias}"
    if args.stop:
        return site.stop(asking, running)
    wanted = suites(site.spec.task, args.problems)
    if not wanted:
        raise OpsError(f"there is no suite for {args.alias}, whose task is {site.spec.task}", f"ops smoke {args.alias}")
    site.require_up()
    result: Json = {"context": site.context(), "gate_percent": args.gate, "suites": []}
    requests = [request for suite in wanted for request in suite.requests]
    answers: list[Json] = site.result(_asking(site, asking, requests))
    if {answer["id"] for answer in answers} != {request["id"] for request in requests}:
        raise FailedError(f"{asking} was under way with other problems than these", site.again)
    for suite in wanted:
        found = judged(site, running, suite, answers)
        result["suites"].append({"name": suite.name, **found})
        _say(suite.name, found, args.gate)
    path = args.output or Path(f"eval-{args.alias}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {path}\n")
    if args.record:
        record(site.spec.alias, {"evaluation": evaluation(result)})
    return 0 if all(100 * s["right"] >= args.gate * s["of"] for s in result["suites"]) else BELOW


def _asking(site: Site, name: str, requests: Sequence[Json]) -> Measurement:
    alias = site.spec.alias
    # An answer has at most half of the context, so that the question fits too.
    most = (site.spec.context or 0) // 2
    clipped = [{**one, "body": {**one["body"], "max_tokens": min(one["body"]["max_tokens"], most)}} for one in requests]
    task = {"model": site.spec.served_name, "streams": _STREAMS}
    return Measurement(
        name=name,
        programs=("answers.py", "asking.py"),
        environment={"MEASURE_URL": address(alias, site.namespace), "MEASURE_TASK": json.dumps(task)},
        deadline_s=_ASKING_S,
        data={"requests.json.gz": packed(json.dumps(clipped))},
    )


def judged(site: Site, name: str, suite: Suite, answers: Iterable[Json]) -> Json:
    """How many answers are right, and of each what came of it."""
    by_id = {answer["id"]: answer for answer in answers}
    lost = {key: answer["error"] for key, answer in by_id.items() if answer["error"]}
    heard = {key: answer for key, answer in by_id.items() if key not in lost}
    if suite.program:
        ran = _run(site, name, {key: suite.program(answer) for key, answer in heard.items()})
        wrong = {one["id"]: one["why"] for one in ran if not one["passed"]}
    else:
        wrong = {key: why for key, answer in heard.items() if suite.wrong and (why := suite.wrong(answer))}
    rows: list[Json] = [
        {
            **{key: answer[key] for key in ("id", "text", "calls", "finish_reason")},
            "right": answer["id"] not in {*lost, *wrong},
            "why": lost.get(answer["id"]) or wrong.get(answer["id"], ""),
        }
        for request in suite.requests
        if (answer := by_id.get(request["id"]))
    ]
    return {"right": sum(row["right"] for row in rows), "of": len(suite.requests), "answers": rows}


def _run(site: Site, name: str, programs: Mapping[str, str]) -> list[Json]:
    """Run what a model wrote in a Job that reaches nothing, and has no key."""
    if not programs:
        return []
    code = [{"id": key, "code": program} for key, program in programs.items()]
    wanted = Measurement(
        name=name,
        programs=("execute.py",),
        environment={"MEASURE_TASK": json.dumps({"seconds": _PROGRAM_S})},
        # Each may take its time, and the start of an interpreter.
        deadline_s=len(code) * (_PROGRAM_S + 2) + _SPARE_S,
        asks=False,
        data={"programs.json.gz": packed(json.dumps(code))},
    )
    site.kube.delete_job(site.namespace, name)  # one under way would be of other answers
    ran: list[Json] = site.result(wanted)
    if {one["id"] for one in ran} != set(programs):
        raise FailedError(f"{name} did not run what it was given", site.again)
    return ran


def evaluation(result: Json) -> Evaluation:
    """What an entry says of a result, be it below the gate or above."""
    counts = "; ".join(told(suite) for suite in result["suites"])
    day, gate = result["context"]["date"].partition("T")[0], result["gate_percent"]
    return Evaluation(status="scored", result=f"{counts} (gate: {gate} %), ops eval {day}")


def told(suite: Json) -> str:
    """ "HumanEval 150/164 = 91 %"."""
    return f"{suite['name']} {suite['right']}/{suite['of']} = {100 * suite['right'] / suite['of']:.0f} %"


def _say(name: str, found: Json, gate: int) -> None:
    console = output(soft_wrap=True)
    suite = {"name": name, **found}
    below = " below the gate" if 100 * found["right"] < gate * found["of"] else ""
    console.print(f"{told(suite)} (gate: {gate} %){below}", highlight=False)
    missed = [row for row in found["answers"] if not row["right"]]
    for row in missed[:_SHOWN]:
        console.print(f"- {row['id']}: {row['why']:.160}", markup=False, highlight=False)
    if len(missed) > _SHOWN:
        console.print(f"- and {len(missed) - _SHOWN} more, in the file", highlight=False)
