"""vLLM's own Python, without what computes: it reads models' answers, and renders templates, as the server does."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.serving import vllm_model
from models.images import VLLM
from tests.components.libraries import UnavailableError, kept, python_of
from tests.patience import at_least

RELEASE = VLLM.tag.removeprefix("v")
_SHA256 = {"0.23.0": "760269db3d9611e12e524681df1bca0977d5d2f5fcb4481cc34d33efc4ae7ff5"}  # of its source archive
# What of vLLM's dependencies is imported on the way to its parsers.
_PACKAGES = (
    *("openai==2.54.0", "pydantic==2.14.4", "regex==2026.11.19", "transformers==5.24.0", "jinja2==3.1.6"),
    *("numpy==2.4.6", "msgspec==0.22.0", "fastapi==0.165.0", "cachetools==8.0.2", "cbor2==6.3.0", "psutil==7.2.2"),
    *("cloudpickle==3.1.3", "py-cpuinfo==9.0.0", "ijson==3.6.0", "partial-json-parser==0.2.1.1.post7"),
    *("prometheus-client==0.26.0", "pybase64==1.5.1", "requests==2.34.2", "pyzmq==27.3.0", "aiohttp==3.14.5"),
    "pillow==13.0.0",
)
PLUGIN = vllm_model.FILES / "qwen2_5_coder_tools.py"
_PROGRAM = Path(__file__).with_name("vllm_program.py")
# pip says where packages come from on this machine; nothing public of it does.
_INDEX = """
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
found = Configuration(isolated=False)
found.load()
print([*[v for k, v in found.items() if k.split(".")[-1] == "index-url"], ""][0] or PyPI.simple_url)
"""


class Vllm:
    """The program, running: it answers a question at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _ask(self, **question: object) -> dict[str, Any]:
        streams = self._process.stdin, self._process.stdout
        assert streams[0] is not None
        assert streams[1] is not None
        streams[0].write(json.dumps(question) + "\n")
        streams[0].flush()
        return json.loads(streams[1].readline())

    def answer(
        self,
        pieces: Sequence[str],
        tools: Sequence[Mapping[str, Any]],
        *,
        parser: str,
        stream: bool = False,
        ends: bool = True,
    ) -> tuple[str | None, list[tuple[str, Any]]]:
        """Text and calls (name, arguments) that the server makes of what a model wrote; `ends`: not cut off."""
        request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": list(tools)}
        made = self._ask(parser=parser, pieces=list(pieces), stream=stream, ends=ends, request=request)
        return made["content"], [(name, json.loads(arguments)) for name, arguments in made["calls"]]

    def prompt(self, template: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        """A conversation as the model reads it."""
        return self._ask(template=template, messages=list(messages), tools=list(tools) or None)["text"]


@contextmanager
def running(plugin: Path) -> Generator[Vllm]:
    """vLLM with a plugin of tool parsers. Raises UnavailableError on a machine that cannot have it."""
    environment = kept("vllm-library", RELEASE, _PACKAGES, _unpack)
    command = [python_of(environment), str(_PROGRAM), str(environment / f"vllm-{RELEASE}"), str(plugin)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            vllm = Vllm(process)
            nothing = {"type": "function", "function": {"name": "nothing"}}
            vllm.answer(["ready?"], [nothing], parser="hermes")  # importing takes ten seconds of CPU
            yield vllm
        finally:
            process.kill()


def _unpack(environment: Path) -> None:
    found = subprocess.run([sys.executable, "-c", _INDEX], capture_output=True, text=True, check=False)
    page_at, name = found.stdout.strip().rstrip("/") + "/vllm/", f"vllm-{RELEASE}.tar.gz"
    link = re.search(rf'href="([^"#]*{re.escape(name)})[#"]', _get(page_at).decode())
    if link is None:
        raise UnavailableError(f"the package index has no {name}")
    archive = _get(urllib.parse.urljoin(page_at, link[1]))
    if hashlib.sha256(archive).hexdigest() != _SHA256[RELEASE]:
        raise UnavailableError(f"{name} of the package index is not the file that was tested with")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(environment, [f for f in files if f.name.endswith(".py")], filter="data")


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=at_least(120)) as answer:  # noqa: S310  pip's own index
        return answer.read()
