"""`ops schema config | catalog | overlay`: JSON Schemas, generated from the types that read the same files.

The committed ones are in docs/schemas/; `make schemas` writes them anew, and a test holds them to the types.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = {
    "config": Path("docs/schemas/stack-config.json"),
    "catalog": Path("docs/schemas/catalog-entry.json"),
    "overlay": Path("docs/schemas/models-local.json"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "of", choices=tuple(FILES), help="of Pulumi.<stack>.yaml, of a model of the catalog, or of models.local.yaml"
    )
    parser.add_argument("--write", action="store_true", help="write the committed file in place of printing it")
    parser.add_argument("--project-dir", type=Path, default=Path(), help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0 with the schema, on standard output or in its file."""
    text = rendered(args.of, args.project_dir, shipped=args.write)
    if args.write:
        file: Path = args.project_dir / FILES[args.of]
        file.write_text(text)
        sys.stdout.write(f"wrote {file}\n")
    else:
        sys.stdout.write(text)
    return 0


def rendered(of: str, project_dir: Path, *, shipped: bool = False) -> str:
    """The text of a schema, without what is this checkout's own if asked. Raises OpsError where there is no project."""
    # Here, since they bring the catalog, and completion and help need only the arguments.
    from models.catalog import CATALOG, SHIPPED  # noqa: PLC0415
    from ops.config_files import project_name  # noqa: PLC0415
    from ops.schema import schemas  # noqa: PLC0415

    match of:
        case "config":
            return as_text(schemas.stack_config(project_name(project_dir), SHIPPED if shipped else CATALOG))
        case "catalog":
            return as_text(schemas.catalog_entry())
        case _:
            return as_text(schemas.overlay())


def as_text(schema: Mapping[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2) + "\n"
