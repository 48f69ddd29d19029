"""Waiting for what other processes and threads do: for the event, and never for a time."""

import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which what is awaited will not come; on a busy machine, all may stand still."""
INTERVAL = 0.02
STEADY = 0.3
"""Seconds in which what goes on would have shown."""


def wait_until(is_so: Callable[[], object], told: Callable[[], object] = str) -> None:
    """Wait until this is true.

    Args:
        told: What to say if it does not come true.
    """
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, told()
        time.sleep(INTERVAL)


def settled(number: Callable[[], int]) -> int:
    """Wait until this has stopped growing, and return it: what is on its way still arrives."""
    values = [number()]

    def stays() -> bool:
        time.sleep(STEADY)
        values.append(number())
        return values[-1] == values[-2]

    wait_until(stays, lambda: values)
    return values[-1]
