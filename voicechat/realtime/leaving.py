"""Hanging up, in peace or for a reason."""

from collections.abc import Iterator

from voicechat.errors import ConnectError, VoicechatError
from voicechat.realtime import turns
from voicechat.realtime.effects import Close, Effect, Finish, Notice, Write
from voicechat.realtime.line import SHORTEST_COMMIT
from voicechat.realtime.state import Floor, Link, State
from voicechat.transcript import Closed, Said

LEAVING_TIMEOUT = 1.2  # of the 2 s that hanging up may take


def leave(state: State, error: VoicechatError | None, now: float) -> Iterator[Effect]:
    """Stop, wait a moment for the last words, and be gone."""
    state.ending = state.ending or error or state.unsaved
    if state.link is Link.LEAVING:  # asked for twice
        return
    yield from turns.let_writing_stand(state)
    yield from state.lines.close_preparing()
    floor, line = state.floor, state.lines.serving
    state.link = Link.LEAVING
    _drop_deadlines(state)
    state.deadlines["leaving"] = now + LEAVING_TIMEOUT
    is_speaking = floor is Floor.USER and state.uncommitted_bytes >= SHORTEST_COMMIT
    if line is not None and is_speaking:
        # In the middle of a sentence: its words are still wanted.
        state.deadlines["commit"] = now + LEAVING_TIMEOUT
        yield from line.commit()
    yield from turns.interrupt(state)


def end(state: State, error: VoicechatError, now: float) -> Iterator[Effect]:
    """Nothing more can come from the server; how much was heard is still asked for."""
    state.ending = state.ending or error
    for line in filter(None, (state.lines.serving, state.lines.preparing)):
        yield Close(line.number)
    yield from turns.let_writing_stand(state)
    state.lines.serving = state.lines.preparing = None
    if not state.assistant.has_answers or state.link is Link.LEAVING:
        yield from finish(state, now)
        return
    state.link = Link.LEAVING
    state.responses.forget()
    state.deadlines.clear()
    state.deadlines["leaving"] = now + LEAVING_TIMEOUT
    yield from state.assistant.interrupt(None)


def _drop_deadlines(state: State) -> None:
    """All but those of words that may still come."""
    for name in [name for name in state.deadlines if not state.user.item_of(name)]:
        if name != "commit":
            del state.deadlines[name]


def finish_when_settled(state: State, now: float) -> Iterator[Effect]:
    """Be gone as soon as the last words are there and the speaker has stopped."""
    waits = state.user.waits_for_words or state.assistant.is_stopping
    if state.link is Link.LEAVING and not waits:
        yield from finish(state, now)


def finish(state: State, now: float) -> Iterator[Effect]:
    """Settle what is still open with the words that are there."""
    state.link = Link.CLOSED
    state.deadlines.clear()
    yield from turns.let_writing_stand(state)
    state.recording.lose(0, now)
    if state.recording.is_waiting or state.recording.kept:
        yield Notice("What you said last was not put into words: the server did not get it.")
    if waiting := state.recording.waiting:
        yield _new_turn(state, "speech", "", waiting[0].at, waiting[-1].at)
    for text, at in state.typed:  # no server was told of it, but it was said
        yield _new_turn(state, "text", text, at, at)
    for turn in state.transcript.turns:
        if turn.is_settled:
            continue
        if turn.role == "user":
            yield from state.user.settle(turn.item_id)
        else:
            said = Said(
                item_id=turn.item_id,
                role=turn.role,
                text=turn.text.strip(),
                status="interrupted",
                previous_item_id=turn.previous_item_id,
                start_ms=turn.start_ms,
                end_ms=turn.start_ms,
            )
            yield Write(said)
    yield Write(Closed(end_ms=state.transcript.end_ms))
    if state.is_unsaved:
        yield Notice("What was said since you went on without saving is not saved.")
    error = state.ending
    if isinstance(error, ConnectError) and state.transcript.spoken:
        error = ConnectError(error.message, remedy=state.how_to_resume)
    yield Finish(error)


def _new_turn(state: State, kind: str, text: str, began: float, ended: float) -> Write:
    """A turn of the user's that no server has."""
    transcript = state.transcript
    return Write(
        Said(
            item_id=transcript.free_id(kind),
            role="user",
            text=text,
            status="complete" if text else "untranscribed",
            previous_item_id=transcript.last_item_id,
            start_ms=state.timeline.ms(began),
            end_ms=state.timeline.ms(ended),
        )
    )
