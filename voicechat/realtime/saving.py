"""When nothing more can be saved: whether to go on all the same is for the user to say."""

from collections.abc import Iterator

from voicechat.errors import VoicechatError
from voicechat.realtime import leaving
from voicechat.realtime.effects import Effect, Notice
from voicechat.realtime.state import Link, State

PATIENCE = 60.0  # seconds without an answer: nobody is there


def fail(state: State, error: VoicechatError, now: float) -> Iterator[Effect]:
    """From now on nothing is saved: ask, where there is a keyboard to answer on, or hang up.

    Nothing more is heard until then, since it would be lost; an answer goes on being played.
    """
    if state.link is Link.LEAVING or not state.policy.can_go_on_unsaved:
        yield from leaving.leave(state, error, now)
        return
    state.unsaved = error
    state.deadlines["unsaved"] = now + PATIENCE
    yield question(error)


def question(error: VoicechatError) -> Notice:
    """What must be answered before anything else is said."""
    return Notice(
        f"Nothing more can be saved: {error.message}. The microphone is muted; n goes on without "
        "saving, q hangs up."
    )


def go_on(state: State) -> Iterator[Effect]:
    """The user wants to; a microphone that they had muted stays so."""
    if state.unsaved is None:
        return
    state.unsaved, state.is_unsaved = None, True
    state.deadlines.pop("unsaved", None)
    microphone = "muted, as before" if state.is_muted else "on"
    yield Notice(f"Going on without saving. The microphone is {microphone}.")
