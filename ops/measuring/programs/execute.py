"""Run code that a model wrote, and say whether it does what it should. Standard library alone.

Its pod is the fence: no way out, no token, no Secret, a read-only root, limits of memory and disk. Within it each
program has a process of its own, which has given up, before the first foreign line, whatever would reach beyond it:
sockets, other processes (none is made, signalled or read), files of any size, and time and memory beyond its share.
Where the kernel does not take the filter that does this, nothing is run. A program that sets out to be counted as
right can be: it is in one process with its test.

`programs.json.gz`, beside it, is a list: id, code. Environment: MEASURE_TASK (JSON: seconds, of a program).
The last line is RESULT and a list as JSON: id, passed, why.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import platform
import resource
import secrets
import selectors
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_HERE = Path(__file__).resolve().parent
MEMORY = 400 * 2**20  # bytes of address space, within the pod's half a GiB
_SAID = 4096  # bytes that are read of a verdict
_NOT_CLOSED = 97  # exit code where there is no filter
_EVERY = 20

# Numbers of system calls, of x86-64 and of arm64: sockets, processes, signals, others' memory, limits and priorities,
# and what would do any of it by another door.
_CALLS = {
    "x86_64": (
        0xC000003E,
        (
            *(41, 42, 53, 288, 56, 57, 58, 59, 322, 435, 62, 129, 200, 234, 297, 424, 434, 438, 101, 310, 311),
            *(425, 426, 427, 321, 272, 308, 302, 160, 141, 144, 203, 314),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(198, 199, 203, 242, 220, 221, 281, 435, 129, 130, 131, 138, 240, 424, 434, 438, 117, 270, 271),
            *(425, 426, 427, 280, 97, 268, 261, 164, 140, 119, 122, 274),
        ),
    ),
}
_X32 = 0x40000000  # calls of x86-64 by their other numbers
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _NOT_PERMITTED = 0x80000000, 0x7FFF0000, 0x00050001
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38


def filter_program(machine: str) -> bytes:
    """Instructions of the kernel's filter. Raises KeyError for a machine that it is not written for."""
    architecture, calls = _CALLS[machine]

    def step(code: int, value: int, then: int = 0, other: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, other, value)

    count = len(calls)
    return b"".join(
        [
            step(_LOAD, 4),
            step(_EQUAL, architecture, then=1),
            step(_RETURN, _KILL),
            step(_LOAD, 0),
            step(_AT_LEAST, _X32, then=count + 1),
            *(step(_EQUAL, call, then=count - place) for place, call in enumerate(calls)),
            step(_RETURN, _ALLOW),
            step(_RETURN, _NOT_PERMITTED),
        ]
    )


def close_in(seconds: int) -> None:
    """Give up whatever reaches beyond this process. Raises OSError or KeyError where that cannot be."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, seconds + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    program = filter_program(platform.machine())
    steps = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    given = Program(len(program) // 8, ctypes.addressof(steps))
    for option in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, 2, ctypes.addressof(given))):
        words = [ctypes.c_ulong(word) for word in option[1:]]
        if libc.prctl(option[0], *words, ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), f"prctl {option[0]}")


def one(verdict: int) -> int:
    """The process of one program: read it, close in, run it, say how it went."""
    task: Json = json.loads(sys.stdin.buffer.read())
    try:
        close_in(task["seconds"])
    except (OSError, KeyError, ValueError) as error:
        os.write(verdict, f"{type(error).__name__}: {error}".encode())
        return _NOT_CLOSED
    try:
        exec(compile(task["code"], "program", "exec"), {"__name__": "program"})  # noqa: S102  what it is for
        said = task["word"]
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"[:300]
    os.write(verdict, said.encode(errors="replace"))
    return 0


def judged(code: str, seconds: int) -> tuple[bool, str]:
    """Whether a program ended as it should, and else why not. Raises OSError where it cannot be closed in."""
    word = secrets.token_hex(16)
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", __file__, "--one", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            cwd=folder,
            env={"HOME": folder, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        os.close(writing)
        try:
            if process.stdin:
                process.stdin.write(json.dumps({"code": code, "seconds": seconds, "word": word}).encode())
                process.stdin.close()
            said, in_time = _heard(reading, seconds + 1)  # its interpreter starts too
        finally:
            os.close(reading)
            process.kill()
            process.wait()
    if process.returncode == _NOT_CLOSED:
        raise OSError(said)
    if not in_time:
        return False, f"it did not end within {seconds} s"
    return said == word, "" if said == word else said or f"it ended without a word (exit code {process.returncode})"


def _heard(reading: int, seconds: float) -> tuple[str, bool]:
    """What comes until the other end is closed, the beginning of it; and whether that was in time."""
    heard, deadline = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                piece = os.read(reading, _SAID)
                if not piece:
                    return heard.decode(errors="replace"), True
                heard = (heard + piece)[:_SAID]
    return heard.decode(errors="replace"), False


def main() -> int:
    """0 when each program was run, whatever came of it; 1 where none may be."""
    # What it runs as the same user cannot look into /proc of this one then.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    seconds: int = json.loads(os.environ["MEASURE_TASK"])["seconds"]
    programs: list[Json] = json.loads(gzip.decompress((_HERE / "programs.json.gz").read_bytes()))
    found: list[Json] = []
    for program in programs:
        try:
            passed, why = judged(program["code"], seconds)
        except OSError as error:
            sys.stdout.write(f"nothing is run: the kernel does not close a process in: {error}\n")
            return 1
        found.append({"id": program["id"], "passed": passed, "why": why})
        if len(found) % _EVERY == 0:
            sys.stdout.write(f"{len(found)} of {len(programs)} run, {sum(f['passed'] for f in found)} right\n")
            sys.stdout.flush()
    sys.stdout.write(f"RESULT {json.dumps(found, separators=(',', ':'))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(one(int(sys.argv[2])) if sys.argv[1:2] == ["--one"] else main())
