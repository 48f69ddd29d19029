"""How hard a conversation tries to outlive its connections."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from voicechat.prices import Price

RECONNECT_FOR = 120.0
HANG_UP_AFTER = 10.0  # minutes


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user chose about lost lines, limits and long histories."""

    reconnect_for: float = RECONNECT_FOR
    """Seconds to try for when the line is lost; 0: not at all."""
    rotate_after: float | None = None
    """Seconds after which to move to a fresh connection, if the server's limit is not earlier."""
    replay_tokens: int | None = None
    """The most tokens of a restored history; None: what fits the model's context."""
    use_summary: bool = True
    """Older turns that do not fit are summarised, rather than left out."""
    can_skip: bool = False
    """There is a keyboard, on which the wait for a summary can be skipped."""
    can_go_on_unsaved: bool = False
    """There is a keyboard, to be asked on whether to go on when nothing more can be saved."""
    max_seconds: float | None = None
    """From the first live connection on; then it hangs up."""
    max_cost: float | None = None
    """US dollars that this run may cost, by `prices`."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    hang_up_after: float | None = None
    """Seconds of silence on both sides, after which nobody is taken to be there."""


FIRST_WAIT = 0.25
LONGEST_WAIT = 4.0


def back_off(attempt: int, chance: float) -> float:
    """Seconds to wait before an attempt, counted from 0.

    Args:
        attempt: How many went before it.
        chance: Between 0 and 1, so that the clients of a server that comes back do not all come
            at the same moment.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 10))
    return longest * (0.5 + chance / 2)


def rotation(lifetime: float | None, rotate_after: float | None) -> tuple[float, float] | None:
    """When a connection is to be replaced: (as soon as it is silent, whatever happens), in seconds.

    Args:
        lifetime: How long the server lets it live; None if it does not say.
        rotate_after: When the user wants it.
    """
    times = []
    if lifetime is not None:
        times.append((lifetime - min(300, lifetime / 4), lifetime - min(60, lifetime / 10)))
    if rotate_after is not None:
        times.append((rotate_after, rotate_after + min(60, max(10, rotate_after / 4))))
    if not times:
        return None
    return min(soft for soft, _ in times), min(hard for _, hard in times)
