"""`ops bench ALIAS`: a sweep of load over a model that is up, by a Job beside it.

Not GuideLLM itself: its package wants torch, transformers and datasets, so an image of gigabytes that no node has, and
a tokenizer from the hub, so a way to the internet. What it measures is kept: its strategies and the words of its
report, with the server's own count of tokens.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.console import Column, Row, output, print_table
from ops.errors import FailedError, OpsError
from ops.kube import add_arguments as add_cluster_arguments
from ops.measuring.job import Measurement, address
from ops.measuring.record import RECORD_HELP, measured, record
from ops.measuring.task import Site, site_of

Json = dict[str, Any]
REFUSED = 2
# The reference's requests, and those of an editor that sends files along.
SHAPES = {"reference": (256, 128), "coding": (2048, 256)}
_STREAMS = 32  # at most, where nobody says how many: as the reference's
_SPARE_S = 600  # of the deadline: image, calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("alias", metavar="ALIAS", help="the model, up")
    add_cluster_arguments(parser)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="requests to send (default: each that fits)")
    parser.add_argument("--streams", type=_number(1, 1024), metavar="N", help="requests at once of the closed loop")
    parser.add_argument(
        "--seconds", type=_number(5, 3600), default=60, metavar="S", help="of each run of the sweep (default: 60)"
    )
    parser.add_argument(
        "--rates", type=_number(0, 20), default=5, metavar="N", help="rates of the open loop (default: 5)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="of the result (default: named by model and time)")
    parser.add_argument("--record", action="store_true", help=RECORD_HELP)
    parser.add_argument("--stop", action="store_true", help="end what is under way")


def _number(low: int, high: int) -> Any:
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text[:9]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high:,}")
        return int(text)

    return number


def run(args: argparse.Namespace) -> int:
    """0 when it was measured, 1 where a run had answers that failed, 2 if it cannot be done now."""
    site = site_of(args, "ops bench")
    if site is None:
        return REFUSED
    wanted = measurement(site, args)
    if args.stop:
        return site.stop(wanted.name)
    site.require_up()
    context = site.context()
    shapes = site.result(wanted)
    result = {"context": context, "shapes": shapes}
    path = args.output or Path(f"bench-{args.alias}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _print(result)
    sys.stdout.write(f"wrote {path}\n")
    failed = sum(run["requests"]["failed"] for shape in shapes for run in shape["runs"])
    if failed:
        raise FailedError(
            f"{failed} requests to {args.alias} failed, so these figures are of a server in trouble",
            shlex.join(["ops", "doctor", *site.kube.named]),
        )
    if args.record:
        record(args.alias, measured(result))
    return 0


def measurement(site: Site, args: argparse.Namespace) -> Measurement:
    """The Job that was asked for. Raises OpsError where no request fits the model's context."""
    spec, alias = site.spec, site.spec.alias
    room = spec.context or 0
    fitting = {name: shape for name, shape in SHAPES.items() if sum(shape) <= room}
    named = args.shape or list(fitting)
    for name in dict.fromkeys(named or SHAPES):
        if name not in fitting:
            raise OpsError(
                f"requests of the shape {name} span {sum(SHAPES[name]):,} tokens; the context of {alias} is {room:,}",
                f"ops bench {alias} --shape {next(iter(fitting))}" if fitting else f"ops smoke {alias}",
            )
    task: Json = {
        "model": spec.served_name,
        "shapes": [
            {"name": name, "prompt_tokens": SHAPES[name][0], "output_tokens": SHAPES[name][1]}
            for name in dict.fromkeys(named)
        ],
        "streams": args.streams or _streams(site),
        "duration_s": args.seconds,
        "rates": args.rates,
    }
    # An open loop is drained for as long again.
    runs = len(task["shapes"]) * (2 + 2 * args.rates)
    return Measurement(
        name=f"bench-{alias}",
        programs=("load.py", "asking.py"),
        environment={"MEASURE_URL": address(alias, site.namespace), "MEASURE_TASK": json.dumps(task)},
        deadline_s=runs * args.seconds + _SPARE_S,
    )


def _streams(site: Site) -> int:
    """As many at once as the figure holds for that it would replace."""
    known = site.spec.expected_throughput
    return min(_STREAMS, (known.at.streams if known else None) or _STREAMS)


def _print(result: Json) -> None:
    columns = [
        *(Column("SHAPE"), Column("STRATEGY"), Column("RATE/STREAMS", figure=True), Column("REQ/S", figure=True)),
        *(Column("TOKENS/S", figure=True), Column("TTFT P95 MS", figure=True), Column("ITL P95 MS", figure=True)),
        *(Column("E2E P95 MS", figure=True, spare=1), Column("KEEPS UP")),
    ]
    rows = [_row(shape["name"], run) for shape in result["shapes"] for run in shape["runs"]]
    print_table(output(), columns, rows)


def _row(shape: str, run: Json) -> Row:
    load = f"{run['rate']:.2f}/s" if "rate" in run else str(run["streams"])
    speed = (f"{run['requests_per_second']:.2f}", f"{run['tokens_per_second']['total']:,.0f}")
    times = [_ms(run[name]) for name in ("ttft_ms", "itl_ms", "e2e_ms")]
    keeps_up = {True: "no", False: "yes", None: "-"}[run.get("saturated")]
    return Row((shape, run["strategy"], load, *speed, *times, keeps_up))


def _ms(found: Json) -> str:
    return f"{found['p95']:,.1f}" if found else "-"
