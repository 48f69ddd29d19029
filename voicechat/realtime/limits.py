"""What the user set an end to: minutes, money, and silence on both sides.

The end is the one of hanging up: the last words are waited for, and everything is saved.
"""

from collections.abc import Iterator

from voicechat.prices import cost_of, dollars
from voicechat.realtime import leaving
from voicechat.realtime.effects import Effect, Notice
from voicechat.realtime.inputs import (
    GoOnUnsaved,
    Input,
    Interrupted,
    MuteToggled,
    RepeatRequested,
    TalkKeyPressed,
    TalkKeyReleased,
    TextTyped,
    Typing,
    WaitSkipped,
)
from voicechat.realtime.state import Floor, Link, State
from voicechat.transcript import Record, Usage

LONGEST_WARNING = 60.0  # seconds ahead of the end
NEAR = 0.8  # of what may be spent
_SIGNS_OF_LIFE = (
    *(TextTyped, Typing, MuteToggled, TalkKeyPressed, TalkKeyReleased, Interrupted),
    *(RepeatRequested, WaitSkipped, GoOnUnsaved),
)


# Minutes -----------------------------------------------------------------------------------------


def begin(state: State, now: float) -> None:
    """The first connection is live: minutes count from here, whatever becomes of the line."""
    longest = state.policy.max_seconds
    if longest is not None:
        state.deadlines["minutes"] = now + longest
        state.deadlines["minutes soon"] = now + longest - _warning(longest)


def warn_of_minutes(state: State) -> Iterator[Effect]:
    """The last minute begins."""
    longest = state.policy.max_seconds
    if longest is not None:
        yield Notice(f"Hanging up in {_time(_warning(longest))}, by --max-minutes.")


def end_minutes(state: State, now: float) -> Iterator[Effect]:
    """They are over."""
    longest = state.policy.max_seconds
    if longest is not None:
        yield Notice(f"Hanging up after {_time(longest)}, by --max-minutes.")
        yield from leaving.leave(state, None, now)


# Silence -----------------------------------------------------------------------------------------


def watch_silence(state: State, happened: Input, now: float) -> None:
    """The clock runs while nobody has the floor, stops while there is no line, and is set back by
    every word and every key."""
    longest, deadlines = state.policy.hang_up_after, state.deadlines
    if longest is None:
        return
    is_live, is_silent = state.link is Link.LIVE, state.floor is Floor.OPEN
    is_alive = isinstance(happened, _SIGNS_OF_LIFE)
    if "silence" in deadlines and (is_alive or not (is_live and is_silent)):
        state.silence_left = deadlines.pop("silence") - now
        deadlines.pop("silence soon", None)
    if is_alive or not is_silent:
        state.silence_left = None
    if is_live and is_silent and "silence" not in deadlines:
        left = longest if state.silence_left is None else state.silence_left
        deadlines["silence"] = now + left
        if left > _warning(longest):
            deadlines["silence soon"] = now + left - _warning(longest)


def warn_of_silence(state: State) -> Iterator[Effect]:
    """Someone who is still there has only to say something."""
    longest = state.policy.hang_up_after
    if longest is not None:
        rest = _warning(longest)
        yield Notice(
            f"Nobody has said anything for {_time(longest - rest)}: hanging up in {_time(rest)}, "
            "unless someone says or types something."
        )


def end_silence(state: State, now: float) -> Iterator[Effect]:
    """Nobody is there."""
    longest = state.policy.hang_up_after
    if longest is not None:
        yield Notice(f"Hanging up after {_time(longest)} of silence, by --hang-up-after.")
        yield from leaving.leave(state, None, now)


# Money -------------------------------------------------------------------------------------------


def spend(state: State, record: Record) -> Iterator[Effect]:
    """A response was paid for."""
    most = state.policy.max_cost
    if most is None or not isinstance(record, Usage) or state.is_spent:
        return
    was_near = state.spent >= NEAR * most
    state.spent += cost_of(record, state.policy.prices) or 0.0
    told = f"{dollars(state.spent)} of the {dollars(most)} of --max-cost are spent"
    if state.link is Link.LEAVING:
        pass
    elif state.is_spent:
        when = " when this answer is over" if state.floor is Floor.ASSISTANT else ""
        yield Notice(f"{told}: hanging up{when}.")
    elif state.spent >= NEAR * most and not was_near:
        yield Notice(f"{told}.")


def miss_usage(state: State) -> Iterator[Effect]:
    """An answer came without what it took: then nothing can be added up."""
    if state.policy.max_cost is not None and not state.is_cost_unknown:
        state.is_cost_unknown = True
        yield Notice("The server does not tell what its answers take: --max-cost cannot be kept.")


def end_if_spent(state: State, now: float) -> Iterator[Effect]:
    """Nothing more is asked of the server; the answer that is being heard is paid for already."""
    is_heard = state.floor is Floor.ASSISTANT and state.link is Link.LIVE
    if state.is_spent and not is_heard:
        yield from leaving.leave(state, None, now)


def keep_typed(state: State, text: str, now: float) -> Iterator[Effect]:
    """A turn that is typed too late is saved, for the next time."""
    state.typed.append((text, now))
    yield Notice("What you typed is saved, but no longer sent: --max-cost is reached.")


# -------------------------------------------------------------------------------------------------


def _warning(longest: float) -> float:
    """How many seconds ahead of the end it is said."""
    return min(LONGEST_WARNING, longest / 2)


def _time(seconds: float) -> str:
    """``30 s``, ``1 minute``, ``2.5 minutes``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return "1 minute" if seconds == 60 else f"{round(seconds / 60, 1):g} minutes"
