"""The model that `ops fit` is asked about: one of the catalog, or a config.json of Hugging Face."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.engines.base import Sizing
from models.facts import Throughput
from models.hf_config import HfModel, UnsupportedModelError, read_config
from models.memory.weights import disk_bytes
from models.weights import DecoderArchitecture, EncoderArchitecture, Quantization, Weights
from ops.errors import OpsError
from ops.fit.flags import command_line
from ops.fit.gguf_files import LEVEL, model_files, on_cpu_instead, refuse_level
from stacks.problems import Problem, did_you_mean, nearest, shown_name

if TYPE_CHECKING:
    from models.spec import ModelSpec

_FEWEST_BITS = 1.5  # of a parameter in files: BitNet stores 1.58


@dataclass(frozen=True)
class Subject:
    """The model in question."""

    name: str
    architecture: DecoderArchitecture | EncoderArchitecture
    quantization: Quantization
    weights_bytes: int
    dtype: str
    notes: tuple[str, ...] = ()
    lowest: tuple[int, int] = (0, 0)  # compute capability that its way of storing weights needs
    fp8_cache: bool = False  # whether its files ask for a KV cache in 8 bits
    flags: Mapping[str, int | float | bool | str] = field(default_factory=dict[str, "int | float | bool | str"])
    sizing: Sizing | None = None  # of a catalog entry: its engine's; None: what the architecture suggests
    stated_gib: float | None = None  # host memory, where an engine states it and no model of memory computes it
    throughput: Throughput | None = None  # of a catalog entry: measured, or on CPU assumed


def from_catalog(args: argparse.Namespace) -> Subject:
    from models.catalog import CATALOG, FLAWS  # noqa: PLC0415  only where an alias is given: it costs start-up time

    if FLAWS:
        raise OpsError(FLAWS[0].message, FLAWS[0].remedy, *(Problem(f.message, f.remedy) for f in FLAWS[1:]))
    spec = CATALOG.get(args.alias)
    if spec is None:
        _refuse_gguf(args, Path(args.alias))
        if args.alias.endswith(".json") or os.path.exists(args.alias):  # noqa: PTH110  Path's raises for a long name
            of_file = argparse.Namespace(**vars(args) | {"alias": None, "config": args.alias})
            raise OpsError(
                f"{args.alias} is a path, and no model of the catalog is named so", command_line(of_file, {})
            )
        near = nearest(args.alias, CATALOG) or next(iter(CATALOG))
        known = did_you_mean(args.alias, CATALOG)
        raise OpsError(f"no model '{args.alias}' in the catalog; {known}", f"ops fit {near}")
    weights = spec.weights
    if weights is None:
        raise OpsError(f"{spec.alias} runs at its provider and needs no memory here", "ops plan   # what it costs")
    if args.quantization and "quantization" in spec.engine.settable:
        spec, weights = _at_level(args, spec, weights)
        quantization = weights.quantization
    else:
        quantization = _quantization(args) or weights.quantization
    needs = spec.engine.needs(spec)
    size = _given_bytes(args, weights.architecture) or weights.bytes_on_disk
    if quantization is not weights.quantization and not args.weights_bytes:
        size = computed_bytes(weights.architecture, quantization, weights.dtype)
    return Subject(
        spec.alias,
        weights.architecture,
        quantization,
        size,
        weights.dtype,
        flags=spec.engine.flags(spec),
        sizing=spec.engine.sizing,
        stated_gib=needs.gib if needs and spec.engine.sizing is None else None,
        throughput=spec.throughput if spec.gpus else spec.expected_throughput,
    )


def _at_level(args: argparse.Namespace, spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
    """An entry that serves another of its files, by what those are called; its weights with it."""
    if args.quantization == weights.quantization:
        return spec, weights
    chosen = spec.engine.model_copy(update={"quantization": args.quantization}).adapted(spec)
    for refusal in chosen.engine.refusals(chosen):
        if ways := [way["quantization"] for way in refusal.settings if "quantization" in way]:
            raise OpsError(refusal.message, command_line(args, {"--quantization": ways[0]}))
    return chosen, chosen.weights or weights


def _quantization(args: argparse.Namespace) -> Quantization | None:
    """How weights are stored, as the flag says."""
    named = args.quantization
    if named is None:
        return None
    known = [q.value for q in Quantization]
    if named in known:
        return Quantization(named)
    if LEVEL.fullmatch(named):
        changes = {"--quantization": None, "--gpu": None, "--gpu-memory-gib": None, "--weights-bytes": None}
        raise refuse_level(named, command_line(args, changes | ({} if args.cpu else {"--cpu": ""})))
    near = nearest(named.lower(), known)
    raise OpsError(
        f"--quantization {shown_name(named)} is none of {', '.join(known)}",
        command_line(args, {"--quantization": near}),
    )


def _refuse_gguf(args: argparse.Namespace, path: Path) -> None:
    if files := model_files(path):
        fact, flags, comment = on_cpu_instead(path, files, cpu=args.cpu)
        of_file = argparse.Namespace(**vars(args) | {"alias": None, "config": path})
        raise OpsError(fact, command_line(of_file, flags) + comment)


def _given_bytes(args: argparse.Namespace, arch: DecoderArchitecture | EncoderArchitecture) -> int | None:
    """--weights-bytes, unless it can only be another unit, or the size of one file of several."""
    size = args.weights_bytes
    if size and size * 8 < arch.parameters * _FEWEST_BITS:
        raise OpsError(
            f"--weights-bytes {size} is {size * 8 / arch.parameters:.2g} bits for each of {arch.parameters:,} "
            "parameters, and nobody stores them in so few",
            command_line(args, {"--weights-bytes": None})
            + " --weights-bytes N   # in bytes, the sum of its weight files",
        )
    return size


def computed_bytes(arch: DecoderArchitecture | EncoderArchitecture, q: Quantization, dtype: str) -> int:
    if isinstance(arch, DecoderArchitecture):
        return disk_bytes(arch, q, dtype)
    return arch.parameters * (4 if dtype == "float32" else 2)


def from_config(args: argparse.Namespace) -> Subject:
    if not args.weights_bytes:
        _refuse_gguf(args, args.config)
    given = _quantization(args)
    model = read_model(args, args.config, given)
    size = _given_bytes(args, model.architecture) or model.weights_bytes
    if size is None:
        raise OpsError(
            f"{args.config} does not give the size of the weight files (of an unusual quantisation)",
            f"{command_line(args, {})} --weights-bytes N   # the sum of its weight files",
        )
    name = args.config.name if args.config.is_dir() else str(args.config)
    return Subject(
        name,
        model.architecture,
        model.quantization,
        size,
        model.dtype,
        model.notes,
        model.lowest,
        model.fp8_cache,
    )


def read_model(args: argparse.Namespace, path: Path, given: Quantization | None = None) -> HfModel:
    """The model of a config; what is not covered is refused with the command that makes it so, where there is one."""
    try:
        return read_config(path, quantization=given, like=args.like, language_only=args.language_model_only)
    except UnsupportedModelError as error:
        if not error.flags:
            raise
        flags: dict[str, str | None] = {**error.flags}
        comment = ""
        if nearest_one := flags.get("--quantization"):
            flags["--weights-bytes"], comment = _sized_as(args, path, Quantization(nearest_one))
        raise OpsError(str(error).partition("; ")[0], command_line(args, flags) + comment) from error


def _sized_as(args: argparse.Namespace, path: Path, quantization: Quantization) -> tuple[str | None, str]:
    """The size that files of that quantisation would have, to start from."""
    if args.weights_bytes:
        return str(args.weights_bytes), ""
    try:
        model = read_config(path, quantization=quantization, like=args.like, language_only=args.language_model_only)
    except ValueError:
        return None, "   # and --weights-bytes N, the sum of its weight files"
    size = computed_bytes(model.architecture, quantization, model.dtype)
    return str(size), "   # better: the sum of its weight files"
