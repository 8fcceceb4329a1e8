"""What makes the processes that `environment.py` starts quicker, and changes nothing else; on their PYTHONPATH."""

import atexit
import gc
import random

# LiteLLM's database client has 250,000 lines of generated types. Looking through them for garbage again and again is
# half of the ten seconds of CPU that a process takes to start and leave.
gc.set_threshold(50_000, 20, 1000)
atexit.register(gc.freeze)  # before the interpreter's last look at all of it

# LiteLLM writes spend every PROXY_BATCH_WRITE_AT seconds and up to 5 more, which it draws as it starts: none more.
_draw = random.randint


def _least(low: int, high: int) -> int:
    return low if (low, high) == (0, 5) else _draw(low, high)


random.randint = _least
