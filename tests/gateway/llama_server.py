"""llama.cpp's server under the command line that the platform renders: `python llama_server.py --model FILE ...`.

Run with the Python of `ensure_llama()`. Its package has the server's own C++ (HTTP, keys, slots, metrics), and not its
parser: what an argument sets is said here, and one that is not here is refused. Whether the parser of the image takes
them: tests/components/test_llama_cpp.py.
"""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import xllamacpp as llama

_FLASH = llama.llama_flash_attn_type
VALUES: dict[str, Callable[[Any, str], None]] = {
    "--model": lambda params, value: setattr(params.model, "path", value),
    "--alias": lambda params, value: setattr(params, "model_alias", {value}),
    "--host": lambda params, value: setattr(params, "hostname", value),
    "--port": lambda params, value: setattr(params, "port", int(value)),
    "--ctx-size": lambda params, value: setattr(params, "n_ctx", int(value)),
    "--parallel": lambda params, value: setattr(params, "n_parallel", int(value)),
    "--threads": lambda params, value: setattr(params.cpuparams, "n_threads", int(value)),
    "--batch-size": lambda params, value: setattr(params, "n_batch", int(value)),
    "--ubatch-size": lambda params, value: setattr(params, "n_ubatch", int(value)),
    "--flash-attn": lambda params, value: setattr(
        params, "flash_attn_type", {"on": _FLASH.LLAMA_FLASH_ATTN_TYPE_ENABLED}[value]
    ),
    "--cache-ram": lambda params, value: setattr(params, "cache_ram_mib", int(value)),
    "--ctx-checkpoints": lambda params, value: setattr(params, "n_ctx_checkpoints", int(value)),
}
SWITCHES = {
    "--metrics": ("endpoint_metrics", True),
    "--no-slots": ("endpoint_slots", False),
    "--no-ui": ("ui", False),
    "--offline": ("offline", True),
}


def main(words: list[str]) -> None:
    """Serve until a signal. Raises KeyError for an argument that is not known here."""
    params = llama.CommonParams()
    params.verbosity = 5  # the sizes of its buffers
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    rest = iter(words)
    for word in rest:
        if word in SWITCHES:
            setattr(params, *SWITCHES[word])
        else:
            VALUES[word](params, next(rest))
    _server = llama.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1:])
