"""GGUF files where `ops fit` is given a path: what to type instead, since their headers are not read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ops.errors import OpsError

_MAGIC = b"GGUF"
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
# Levels as files are called: Q4_K_M, IQ2_XS, TQ1_0, fp16.
LEVEL = re.compile(r"(?i)(i|t)?q\d\w*|b?f16|fp16|f32")


def model_files(path: Path) -> list[Path]:
    """The parts of the GGUF model at a path, or of the smallest one in a directory that has no other weights."""
    try:
        if path.is_dir():
            names = sorted(path.iterdir())
            if any(name.suffix in (".safetensors", ".bin", ".pt") for name in names):
                return []
            return min(_models(names), key=_size, default=list[Path]())
        with path.open("rb") as file:
            return [path] if file.read(len(_MAGIC)) == _MAGIC else []
    except OSError:
        return []


def _models(names: list[Path]) -> list[list[Path]]:
    models: dict[str, list[Path]] = {}
    for name in names:
        if name.suffix == ".gguf" and name.is_file():
            models.setdefault(_PART.sub("", name.name), []).append(name)
    return list(models.values())


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def on_cpu_instead(path: Path, files: list[Path], *, cpu: bool) -> tuple[str, Mapping[str, str | None], str]:
    """What a path of GGUF files is, the flags that have it judged, and a comment on them."""
    flags: dict[str, str | None] = {"--gpu": None, "--gpu-memory-gib": None, "--weights-bytes": str(_size(files))}
    flags |= {} if cpu else {"--cpu": ""}
    what = f"{files[0]} is a GGUF file, which llama.cpp serves on CPU"
    if path.is_dir() and (path / "config.json").is_file():
        return what, flags, ""
    return (
        f"{what}, and its header is not read here: the shape of a model is in its config.json",
        flags | {"--config": "config.json"},
        "   # of the model that the file was made from",
    )


def refuse_level(name: str, command: str) -> OpsError:
    """Of a level that is asked for where no GGUF file is named."""
    return OpsError(
        f"--quantization {name} is a level of GGUF files, of which the size is to be given",
        f"{command} --weights-bytes N   # the size of the .gguf file",
    )
