"""What a repository says of a model: its config, its files with their sizes, its revision and its licence.

Of the hub (`HF_ENDPOINT`, `HF_TOKEN` as the hub's own library has them), of a folder that has the same files, of a
config.json alone, or of a GGUF file.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from models.weights import HUB
from ops.add.gguf import Header, read_header
from ops.endpoint import base_url
from ops.errors import OpsError

Json = dict[str, Any]


_TIMEOUT_S = 20
_LARGEST_TEXT = 20_000_000  # bytes of a file that is read whole
_HEADER = 16_000_000  # bytes that the metadata of a GGUF file takes at most
# What of a repository is read, the config first; the others say more where they are.
_CONFIG, _TEMPLATE = "config.json", "chat_template.jinja"
_READ = (
    *(_CONFIG, "hf_quant_config.json", "tokenizer_config.json", _TEMPLATE, "1_Pooling/config.json"),
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class RepositoryFile:
    """A file of a repository."""

    name: str
    size: int
    sha256: str | None = None  # the hub states it for large files


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What is known of a model; None or empty where nothing said it."""

    model_id: str
    where: str  # "huggingface.co", or the path that was given
    config: Json | None = None
    files: tuple[RepositoryFile, ...] = ()  # with the weights among them; else nothing is known of them
    names: tuple[str, ...] = ()  # of what lies in a folder, weights or not
    revision: str | None = None
    licence: str | None = None  # as the hub names it: "apache-2.0", or "other"
    licence_name: str | None = None  # of another one: "qwen-research"
    gated: bool = False
    pipeline: str | None = None  # of the hub: "text-generation", "text-ranking"
    template: str | None = None  # how the model is asked
    pooling: Mapping[str, Any] = field(default_factory=dict[str, Any])
    header: Header | None = None  # of a GGUF file
    weights_bytes: int | None = None  # by the index of its safetensors, where files are not listed

    @property
    def whole(self) -> bool:
        """Whether it is known which files there are."""
        return bool(self.files)

    @property
    def gguf(self) -> tuple[RepositoryFile, ...]:
        """GGUF files that are a whole model each."""
        return tuple(
            file
            for file in self.files
            if re.fullmatch(r"[A-Za-z0-9][\w.-]*\.gguf", file.name)
            and not re.search(r"-\d{5}-of-\d{5}|mmproj", file.name)
        )


def of_path(path: Path, model_id: str | None) -> Repository:
    """Of a folder, a config.json or a GGUF file. Raises OpsError."""
    if path.suffix == ".gguf":
        with path.open("rb") as opened:
            header = read_header(opened.read(_HEADER), str(path))
        found = Repository(
            model_id=model_id or header.repository or "",
            where=str(path),
            header=header,
            files=(RepositoryFile(path.name, path.stat().st_size),),
            licence=header.licence,
        )
        return _identified(found, path)
    folder = path if path.is_dir() else path.parent
    config = _object(path / _CONFIG if path.is_dir() else path)
    files = _listed(folder) if path.is_dir() else ()
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_file())) if path.is_dir() else ()
    texts = {name: _object(folder / name, missing={}) for name in _READ[1:] if name.endswith(".json")}
    template = folder / _TEMPLATE
    found = Repository(
        model_id=model_id or _claimed_id(config),
        where=str(path),
        config=config,
        files=files,
        names=names,
        template=template.read_text(encoding="utf-8", errors="replace") if template.is_file() else None,
    )
    return _identified(_with_texts(found, texts), path)


def _listed(folder: Path) -> tuple[RepositoryFile, ...]:
    """The files of a folder, if those of the weights are among them."""
    names = sorted(p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts)
    files = tuple(RepositoryFile(p.relative_to(folder).as_posix(), p.stat().st_size) for p in names)
    return files if any(f.name.endswith((".safetensors", ".gguf", ".bin", ".onnx")) for f in files) else ()


def _claimed_id(config: Json) -> str:
    said = str(config.get("_name_or_path") or "")
    return said if re.fullmatch(r"[\w.-]+/[\w.-]+", said) and not said.startswith(".") else ""


def _identified(found: Repository, path: Path) -> Repository:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", found.model_id):
        raise OpsError(
            f"{path} does not say of which repository it is, and its weights are staged from there",
            f"ops add {shlex.quote(str(path))} --model-id ORGANISATION/NAME",
        )
    return found


def _object(path: Path, missing: Json | None = None) -> Json:
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise OpsError(f"there is no {path}", "ops add --help") from None
    except (OSError, ValueError, RecursionError) as error:
        raise OpsError(f"{path} is no JSON: {type(error).__name__}", f"head -c 300 {shlex.quote(str(path))}") from None
    if not isinstance(found, dict):
        raise OpsError(f"{path} holds no JSON object", f"head -c 300 {shlex.quote(str(path))}")
    return cast("Json", found)


def _with_texts(found: Repository, texts: Mapping[str, Json]) -> Repository:
    """With what the smaller files say."""
    template = texts.get("tokenizer_config.json", {}).get("chat_template")
    if isinstance(template, list):  # several, by what they are for
        named = [cast("Json", one) for one in cast("list[object]", template) if isinstance(one, dict)]
        template = next((t.get("template") for t in named if t.get("name") == "tool_use"), None) or next(
            (t.get("template") for t in named), None
        )
    index = texts.get("model.safetensors.index.json", {}).get("metadata")
    total = cast("Json", index).get("total_size") if isinstance(index, dict) else None
    quantised = texts.get("hf_quant_config.json", {}).get("quantization")
    config = found.config
    if config is not None and isinstance(quantised, dict) and "quantization_config" not in config:
        config = {**config, "quantization_config": {"quant_method": "modelopt", **cast("Json", quantised)}}
    return replace(
        found,
        config=config,
        template=found.template or (template if isinstance(template, str) else None),
        pooling=texts.get("1_Pooling/config.json", {}),
        weights_bytes=total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else None,
    )


# --- the hub -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hub:
    """A hub, or a mirror of it."""

    url: str
    token: str | None = field(repr=False, default=None)

    @classmethod
    def of_environment(cls, url: str | None = None) -> Hub:
        """`url`, or HF_ENDPOINT, or the hub itself; with HF_TOKEN. Raises OpsError for what is no address."""
        endpoint = base_url("ops add MODEL", "--hub", url or os.environ.get("HF_ENDPOINT") or HUB)
        if urllib.parse.urlsplit(endpoint).username is not None:
            raise OpsError(
                "the address of the hub has a name or a password in it, which would be shown", "unset HF_ENDPOINT"
            )
        token = (os.environ.get("HF_TOKEN") or "").strip()
        return cls(endpoint, token if token.isascii() and token.isprintable() and token else None)

    def repository(self, model_id: str, revision: str | None) -> Repository:
        """What the hub has of a model. Raises OpsError, offline with what to download and how."""
        info = self._json(f"/api/models/{model_id}/revision/{urllib.parse.quote(revision or 'main', '')}?blobs=true",
                          model_id)  # fmt: skip
        commit = str(info.get("sha", ""))
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise self._odd(model_id, "it names no commit")
        files = tuple(_file(entry) for entry in _dicts(info.get("siblings")))
        card = cast("Json", info["cardData"]) if isinstance(info.get("cardData"), dict) else {}
        tags = [str(tag) for tag in cast("list[object]", info.get("tags") or [])]
        tagged = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
        found = Repository(
            model_id=str(info.get("id") or model_id),
            where=f"{urllib.parse.urlsplit(self.url).netloc}",
            files=files,
            revision=commit,
            licence=_first(card.get("license")) or tagged or None,
            licence_name=str(card.get("license_name") or "") or None,
            gated=bool(info.get("gated")),
            pipeline=str(info.get("pipeline_tag") or "") or None,
        )
        return self._read(found)

    def _read(self, found: Repository) -> Repository:
        """With its config, or the header of its GGUF file, and what else is short and says something."""
        names = {file.name for file in found.files}
        if _CONFIG not in names and found.gguf:
            return found  # whose header is read once it is known which file is meant
        if _CONFIG not in names:
            raise OpsError(
                f"{found.model_id} has no {_CONFIG} and no GGUF file, so nothing says what it is made of",
                f"ops add DIRECTORY --model-id {found.model_id}   # with a config.json that describes it",
            )
        texts: dict[str, Json] = {}
        for name in _READ:
            if name in names and name.endswith(".json"):
                try:
                    decoded: object = json.loads(self._file(found, name))
                except (ValueError, RecursionError):
                    raise self._odd(found.model_id, f"its {name} is no JSON") from None
                texts[name] = cast("Json", decoded) if isinstance(decoded, dict) else {}
        template = self._file(found, _TEMPLATE).decode(errors="replace") if _TEMPLATE in names else None
        return _with_texts(replace(found, config=texts.pop(_CONFIG), template=template), texts)

    def with_header(self, found: Repository, file: RepositoryFile) -> Repository:
        """With what the head of a GGUF file says."""
        body = self._file(found, file.name, first=_HEADER)
        return replace(found, header=read_header(body, f"{file.name} of {found.model_id}"))

    def _file(self, found: Repository, name: str, first: int | None = None) -> bytes:
        path = f"/{found.model_id}/resolve/{found.revision}/{urllib.parse.quote(name)}"
        return self._get(path, found.model_id, first)

    def _json(self, path: str, model_id: str) -> Json:
        try:
            found: object = json.loads(self._get(path, model_id))
        except (ValueError, RecursionError):
            raise self._odd(model_id, "its answer is no JSON") from None
        if not isinstance(found, dict):
            raise self._odd(model_id, "its answer is no object")
        return cast("Json", found)

    def _get(self, path: str, model_id: str, first: int | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"User-Agent": "ai-platform-ops-add"})  # noqa: S310
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        if first:
            request.add_header("Range", f"bytes=0-{first - 1}")
        try:
            with _opener(self.token).open(request, timeout=_TIMEOUT_S) as response:
                return response.read(first or _LARGEST_TEXT)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code, model_id) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._away(model_id, str(getattr(error, "reason", error))) from error

    def _refused(self, status: int, model_id: str) -> OpsError:
        again = f"ops add {model_id}"
        if status in (401, 403) and self.token:
            return OpsError(
                f"{self.url} refuses {model_id} ({status}) to the token of HF_TOKEN: it may not read it, or its "
                "account has not accepted the licence",
                f"{again}   # after its licence is accepted at {self.url}/{model_id}",
            )
        if status in (401, 403):
            return OpsError(
                f"{self.url} does not show {model_id} ({status}): it is gated, private, or misspelt",
                f"read -rs HF_TOKEN && export HF_TOKEN && {again}   # its licence accepted at {self.url}/{model_id}",
            )
        if status == 404:
            return OpsError(f"{self.url} does not know {model_id} (404), or not that revision", "ops catalog")
        return self._away(model_id, f"it answers {status}")

    def _odd(self, model_id: str, why: str) -> OpsError:
        return OpsError(f"the answer of {self.url} about {model_id} cannot be used: {why}", f"curl -sSi {self.url}")

    def _away(self, model_id: str, why: str) -> OpsError:
        """How to go on without a network here: what to download elsewhere, and what to give then."""
        return OpsError(
            f"{self.url} cannot be asked: {why}. What is read of it can be downloaded where there is a network: "
            f"{', '.join(_READ)}, as far as {model_id} has them (hf download {model_id} --include '*.json' '*.jinja' "
            "--local-dir model), and given here as a folder; another hub by HF_ENDPOINT",
            f"ops add model --model-id {model_id}",
        )


class _TokenStaysHome(urllib.request.HTTPRedirectHandler):
    """A redirect elsewhere must not see the token; one to another path of the hub wants it."""

    def redirect_request(  # noqa: PLR0917  the base class's
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and urllib.parse.urlsplit(newurl)[:2] == urllib.parse.urlsplit(req.full_url)[:2]:
            request.add_unredirected_header("Authorization", token)
        return request


def _opener(token: str | None) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(*([_TokenStaysHome] if token else []))


def _first(said: object) -> str | None:
    """A text, or the first of a list of them."""
    one = next(iter(cast("list[object]", said)), None) if isinstance(said, list) else said
    return one if isinstance(one, str) and one else None


def _dicts(found: object) -> list[Json]:
    listed = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("Json", one) for one in listed if isinstance(one, dict)]


def _file(entry: Json) -> RepositoryFile:
    lfs = cast("Json", entry["lfs"]) if isinstance(entry.get("lfs"), dict) else {}
    size = lfs.get("size", entry.get("size"))
    return RepositoryFile(
        name=str(entry.get("rfilename", "")),
        size=size if isinstance(size, int) else 0,
        sha256=str(lfs["sha256"]) if re.fullmatch(r"[0-9a-f]{64}", str(lfs.get("sha256"))) else None,
    )
