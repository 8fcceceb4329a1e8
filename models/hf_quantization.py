"""How a config.json says its weights are stored, and which matrices it leaves in half precision.

Sources: the configuration classes of vLLM (vllm/model_executor/layers/quantization) and of compressed-tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from models.hf_fields import UnsupportedModelError, part, words
from models.memory.weights import STORED_BYTES
from models.weights import Quantization

# Other names of what the memory model knows.
_METHODS = {
    "awq": Quantization.AWQ,
    "awq_marlin": Quantization.AWQ,
    "gptq": Quantization.GPTQ,
    "gptq_marlin": Quantization.GPTQ,
    "auto-round": Quantization.GPTQ,
    "auto_round": Quantization.GPTQ,
    "intel/auto-round": Quantization.GPTQ,
    "fp8": Quantization.FP8,
    "fbgemm_fp8": Quantization.FP8,
    "mxfp4": Quantization.MXFP4,
    "bitsandbytes": Quantization.BITSANDBYTES,
    "gguf": Quantization.GGUF,
}
_ALGORITHMS = {"NVFP4": Quantization.NVFP4, "FP8": Quantization.FP8}  # of modelopt
# `get_min_capability` of the schemes of compressed-tensors and of ModelOpt's FP8, which has no weight-only kernel.
_COMPRESSED, _MODELOPT_FP8 = (7, 5), (8, 9)
_NO_KERNEL = frozenset({"exl2", "exl3", "eetq", "quanto", "higgs", "vptq", "spqr", "quip"})
_IGNORED = ("ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers", "llm_int8_skip_modules")
# Names that one matrix goes by in checkpoints of text models and of what is built around them.
_PREFIXES = ("model.layers.", "model.language_model.layers.", "language_model.model.layers.", "language_model.layers.")
_UNKNOWN = frozenset({Quantization.GGUF})  # their files alone say how large they are


@dataclass(frozen=True)
class Stored:
    """How a model's files store its matrices."""

    quantization: Quantization = Quantization.NONE
    weight_bytes: float | None = 2.0  # of one quantised weight, scales included; None: nobody can tell
    ignored: tuple[str, ...] = ()  # names and patterns of the matrices left in half precision
    lowest: tuple[int, int] = (0, 0)  # compute capability that this way of storing needs, beyond its quantisation's

    def share(self, module: str, layers: int) -> float:
        """Share of the layers whose `module` ("self_attn.q_proj") is quantised."""
        if self.quantization is Quantization.NONE:
            return 0.0
        if not self.ignored:
            return 1.0
        return sum(not self._ignores(f"{layer}.{module}") for layer in range(layers)) / layers

    def _ignores(self, name: str) -> bool:
        return any(_matches(pattern, prefix + name) for pattern in self.ignored for prefix in _PREFIXES)


# A pattern of a checkpoint that nobody knows may take a regular expression years: repeated groups that repeat or choose
# themselves, and many open repetitions after each other.
_MOST_REPETITIONS, _LONGEST_PATTERN, _MOST_PATTERNS = 4, 5000, 10_000
_REPEATS = frozenset("*+{")


def _slow(pattern: str) -> bool:
    """Whether matching a pattern may take much longer than the name is long."""
    if not pattern.startswith("re:"):
        return False
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", pattern[3:])  # escaped characters and classes repeat nothing
    if len(plain) > _LONGEST_PATTERN or sum(letter in _REPEATS for letter in plain) > _MOST_REPETITIONS:
        return True
    open_groups = [False]  # of each open group, whether it repeats or chooses
    for letter, following in zip(plain, plain[1:] + " ", strict=True):
        if letter == "(":
            open_groups.append(False)
        elif letter == ")" and len(open_groups) > 1:
            varies = open_groups.pop()
            if varies and following in _REPEATS:
                return True
            open_groups[-1] |= varies or following in _REPEATS
        elif letter == "|" or letter in _REPEATS:
            open_groups[-1] = True
    return False


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    if "*" in pattern or "?" in pattern:
        return fnmatchcase(name, pattern)
    return name == pattern or name.startswith(pattern + ".") or f".{pattern}." in f".{name}."


def stored(config: Mapping[str, Any], given: Quantization | None = None) -> Stored:
    """How a config says its weights are stored; `given` is what the user says in its place.

    Raises UnsupportedModelError for a method that the memory model does not know.
    """
    if (said := config.get("quantization_config")) and not isinstance(said, dict):
        raise UnsupportedModelError("config.json's quantization_config is no object, so nobody knows how it is stored")
    found = part(config, "quantization_config", "compression_config")
    unserved = _unserved(config, found)
    if unserved:
        raise UnsupportedModelError(
            f"these weights are stored as {unserved} stores them, and vLLM has no kernel for that; "
            "ops fit --config config.json   # of a repository that has it in half precision, AWQ, GPTQ or FP8"
        )
    if given is not None:
        # Of a half-precision model: what it would be. Where the config has a method of its own, only the files tell.
        return Stored(given, STORED_BYTES.get(given, 2.0) if found is None and given not in _UNKNOWN else None)
    if found is None:
        return Stored()
    method = str(found.get("quant_method", "")).lower()
    ignored = tuple(name for key in _IGNORED for name in words(found, key))
    if len(ignored) > _MOST_PATTERNS or any(_slow(pattern) for pattern in ignored):
        raise UnsupportedModelError(
            "the names of what this model's files leave in half precision take too long to match; give the size of "
            "the files with --quantization and --weights-bytes",
            {"--quantization": _declared(found).value},
        )
    if method == "compressed-tensors" or (not method and "config_groups" in found):
        return replace(_compressed(found, ignored), lowest=_COMPRESSED)
    algorithm = ""
    if method.startswith("modelopt"):
        algorithm = str(found.get("quant_algo") or (part(found, "quantization") or {}).get("quant_algo") or "").upper()
    known = _ALGORITHMS.get(algorithm) if algorithm else _METHODS.get(method)
    if known is None:
        raise _unknown(f"{method} {algorithm}".strip(), found)
    if known is Quantization.BITSANDBYTES and not found.get("load_in_4bit", True):
        return Stored(Quantization.INT8, 1.0, ignored)
    integer = known in (Quantization.AWQ, Quantization.GPTQ)
    lowest = _MODELOPT_FP8 if algorithm and known is Quantization.FP8 else (0, 0)
    return Stored(known, _integer_bytes(found) if integer else _float_bytes(known), ignored, lowest)


def fp8_cache(config: Mapping[str, Any]) -> bool:
    """Whether the files' quantiser says that the KV cache is kept in 8 bits, which vLLM does where no flag says more.

    Source: `resolve_kv_cache_dtype_string` for ModelOpt (vllm PR#29980), PR#30141 for compressed-tensors.
    """
    found = part(config, "quantization_config", "compression_config") or {}
    method = str(found.get("quant_method", "")).lower()
    if method != "compressed-tensors" and not method.startswith("modelopt"):
        return False
    scheme = part(found, "kv_cache_scheme") or {}
    named = found.get("kv_cache_quant_algo") or (part(found, "quantization") or {}).get("kv_cache_quant_algo")
    return str(named).upper() == "FP8" or (scheme.get("num_bits") == 8 and str(scheme.get("type", "")) == "float")


def _unserved(config: Mapping[str, Any], found: Mapping[str, Any] | None) -> str | None:
    """Whose way of storing it is that no version of vLLM serves."""
    method = str((found or {}).get("quant_method", "")).lower()
    if method in _NO_KERNEL:
        return method
    # MLX names no method, and says the same under another name beside it or in place of it.
    apple = (found if found and not method else None) or (part(config, "quantization") if not found else None)
    return "MLX" if apple and "bits" in apple and "group_size" in apple else None


def _declared(found: Mapping[str, Any]) -> Quantization:
    """The method that a config names, or the nearest one."""
    return _METHODS.get(str(found.get("quant_method", "")).lower(), Quantization.AWQ)


def _unknown(method: str, found: Mapping[str, Any]) -> UnsupportedModelError:
    known = ", ".join(q.value for q in Quantization if q is not Quantization.NONE)
    named = f"{method} {found.get('quant_type', '')}"
    wide = any(found.get(key) == 8 for key in ("bits", "nbits", "w_bit")) or "8" in named
    return UnsupportedModelError(
        f"quantisation '{method or 'unnamed'}' is none that the memory model covers ({known}); "
        "give --quantization and --weights-bytes of the nearest one",
        {"--quantization": (Quantization.INT8 if wide else Quantization.AWQ).value},
    )


def _float_bytes(quantization: Quantization) -> float | None:
    return None if quantization in _UNKNOWN else STORED_BYTES[quantization]


def _integer_bytes(found: Mapping[str, Any]) -> float | None:
    bits = found.get("bits", found.get("w_bit", 4))
    group = found.get("group_size", found.get("q_group_size", 128))
    if not isinstance(bits, int) or not isinstance(group, int) or bits not in (2, 3, 4, 8):
        return None
    if group <= 0:  # one scale a row: next to nothing
        return bits / 8
    return bits / 8 + (2 + bits / 8) / group


def _compressed(found: Mapping[str, Any], ignored: tuple[str, ...]) -> Stored:
    """compressed-tensors: the first group of layers that says how its weights look speaks for all."""
    form = str(found.get("format", ""))
    groups = part(found, "config_groups") or {}
    schemes = [weights for name in groups if (group := part(groups, name)) and (weights := part(group, "weights"))]
    if not schemes:
        return Stored(Quantization.FP8 if "float" in form else Quantization.GPTQ, None, ignored)
    if len({str(sorted(scheme.items(), key=str)) for scheme in schemes}) > 1:
        return Stored(_of_scheme(schemes[0], form), None, ignored)  # layers of several kinds: only their files tell
    kind = _of_scheme(schemes[0], form)
    if kind is Quantization.GPTQ:
        scheme = {"bits": schemes[0].get("num_bits", 4), "group_size": schemes[0].get("group_size") or 0}
        symmetric = bool(schemes[0].get("symmetric", True))
        size = _integer_bytes(scheme)
        if size is not None and symmetric and scheme["group_size"]:
            size = cast("int", scheme["bits"]) / 8 + 2 / cast("int", scheme["group_size"])
        return Stored(kind, size, ignored)
    return Stored(kind, 1.0 if kind is Quantization.INT8 else _float_bytes(kind), ignored)


def _of_scheme(scheme: Mapping[str, Any], form: str) -> Quantization:
    bits, of_type = scheme.get("num_bits"), str(scheme.get("type", "int"))
    if of_type == "float":
        if bits == 4:
            return Quantization.MXFP4 if "mxfp4" in form or scheme.get("group_size") == 32 else Quantization.NVFP4
        return Quantization.FP8
    return Quantization.INT8 if bits == 8 and form in ("int-quantized", "naive-quantized") else Quantization.GPTQ
