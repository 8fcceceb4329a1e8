"""`ops fit`: whether a model fits a GPU, where its memory goes, and the nearest change where it does not.

For a model of the catalog, or for any config.json of Hugging Face. Reads files only; needs no GPU, no account
and no pulumi.
"""

from __future__ import annotations

import argparse
import json
import sys

from models.engines.base import Sizing
from models.weights import EncoderArchitecture
from ops.errors import OpsError
from ops.fit.answer import Answer
from ops.fit.flags import add_arguments, typed
from ops.fit.on_cpu import encoder, gguf, on_cpu
from ops.fit.on_gpu import on_gpu
from ops.fit.profiles import TO_COPY
from ops.fit.subject import from_catalog, from_config
from ops.wrapping import folded, width

__all__ = ["add_arguments", "run"]

_FITS, _DOES_NOT = 0, 2


def run(args: argparse.Namespace) -> int:
    """Print the estimate; 0 if the model fits, 2 if it does not or cannot be judged."""
    try:
        answer = _answer(args)
    except ValueError as error:
        # Of models/, which knows no commands: its text is the fact, "; " and what to give instead.
        fact, _, instead = str(error).partition("; ")
        raise OpsError(fact, typed(args, instead) or "ops fit --help") from error
    sys.stdout.write((json.dumps(answer.json, indent=2) if args.format == "json" else _on_screen(answer.text)) + "\n")
    return _FITS if answer.fits else _DOES_NOT


def _on_screen(text: str) -> str:
    """As wide as the terminal; what is to be copied, which stands further in, as long as it is."""
    columns = width()
    return "\n".join(line if line.startswith(TO_COPY) else folded(line, columns) for line in text.splitlines())


def _answer(args: argparse.Namespace) -> Answer:
    if (args.alias is None) == (args.config is None):
        raise OpsError("one model is to be named: an alias of the catalog, or a config.json", "ops fit coder-chat")
    subject = from_catalog(args) if args.alias is not None else from_config(args)
    if subject.stated_gib is not None:
        context = int(subject.flags.get("max_model_len") or subject.architecture.max_positions)
        return on_cpu(args, subject, subject.stated_gib, {"stated_gib": subject.stated_gib}, context)
    if isinstance(subject.architecture, EncoderArchitecture):
        return encoder(args, subject, subject.architecture)
    if args.cpu or subject.sizing is Sizing.LLAMA_CPP:
        return gguf(args, subject, subject.architecture)
    return on_gpu(args, subject, subject.architecture)
