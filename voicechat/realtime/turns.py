"""What the user does: speaks, types, interrupts."""

from collections.abc import Iterator

from voicechat.realtime import events as wire
from voicechat.realtime.effects import Effect, Notice, Write
from voicechat.realtime.line import SHORTEST_COMMIT, Line
from voicechat.realtime.responses import ANSWER_TIMEOUT
from voicechat.realtime.state import Floor, Link, State
from voicechat.transcript import Said

SHORTEST_TURN = 3 * SHORTEST_COMMIT  # with the talk key: less is a slip of the finger


def hear_user(state: State, pcm: bytes, now: float) -> Iterator[Effect]:
    """Send a frame on, if it is for the server's ears; keep it while there is no server."""
    is_held = state.configuration.vad == "none"
    if is_held and not state.is_talking:
        return
    if state.is_deaf:
        if not state.user.is_speaking:
            return
        pcm = bytes(len(pcm))  # the server must hear silence, or the turn never ends
    if state.link is Link.LIVE and state.lines.serving is not None:
        yield from send(state, state.lines.serving, pcm)
    elif state.link is Link.LOST and not state.recording.hold(pcm, now, is_speech=is_held):
        yield Notice("The line is down for long: only the last 30 s that you say are kept.")


def send(state: State, line: Line, pcm: bytes, at: float | None = None) -> Iterator[Effect]:
    """Let the server hear a frame, and remember it until it is known what became of it.

    Args:
        state: Of the conversation.
        line: To the server.
        pcm: The frame.
        at: When it was heard, if not just now.
    """
    state.recording.send(line.sent_ms, pcm, at)
    state.uncommitted_bytes += len(pcm)
    yield from line.append(pcm)


def commit(
    state: State,
    line: Line,
    wire_id: str,
    previous: str | None,
    now: float,
    *,
    is_speech: bool = True,
) -> Iterator[Effect]:
    """What was said is an item now, if it was not one already."""
    item_id = line.local(wire_id)
    if state.transcript.get(item_id) is not None:
        if previous is not None:
            before = line.local_previous(previous)
            yield from state.user.place(item_id, before)
        return
    state.deadlines.pop("owed", None)
    state.responses.has_retried = state.is_declined = False
    before = line.local_previous(previous)
    yield from state.user.commit(item_id, before, now, is_speech=is_speech)
    if state.configuration.vad != "none" and not state.responses.active:
        state.deadlines["answer"] = now + ANSWER_TIMEOUT


def settle_user(
    state: State, item_id: str, text: str = "", *, is_final: bool = True
) -> Iterator[Effect]:
    """A turn of the user's is in words, or will never be; not `is_final`: they may still come."""
    if is_final:
        state.recording.settle(item_id)
    yield from state.user.settle(item_id, text)


def take_typed(state: State, text: str, now: float) -> Iterator[Effect]:
    """A turn was typed: it interrupts the answer, and is said when the server can be told."""
    if not state.typed:
        state.is_typed_first = not state.recording.is_waiting
    state.typed.append((text, now))
    if state.link in (Link.LIVE, Link.LOST):
        yield from interrupt(state)
        yield from say_typed(state, now)


def say_typed(state: State, now: float) -> Iterator[Effect]:
    """Send what was typed, once the answer that it interrupts is out of the way."""
    line = state.lines.serving
    if state.assistant.is_stopping or not state.typed or line is None:
        return
    state.responses.has_retried = state.is_declined = False
    for text, typed_at in state.typed:
        item_id = line.new_item_id("text")
        yield from state.user.type(item_id, text, typed_at, now)
        content = [{"type": "input_text", "text": text}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        yield line.send(wire.ConversationItemCreate(item, event_id=f"say-{item_id}"))
    state.typed.clear()
    state.turn_ended_at = now
    yield from state.responses.ask(line, now)


def take_or_give_floor(state: State, now: float) -> Iterator[Effect]:
    """Without voice detection: begin a turn, or end it and ask for the answer."""
    line = state.lines.serving
    if state.link not in (Link.LIVE, Link.LOST) or state.configuration.vad != "none":
        return
    state.is_talking = not state.is_talking
    if state.is_talking:
        state.uncommitted_bytes, state.is_declined = 0, False
        yield from interrupt(state)
        if line is not None:
            state.recording.begin(line.sent_ms)
            yield from line.clear()
    elif line is None:
        pcm = b"".join(frame.pcm for frame in state.recording.release())
        if len(pcm) < SHORTEST_TURN:
            yield Notice("That was too short to be sent.")
        yield from keep_turn(state, pcm, now)
    elif state.uncommitted_bytes < SHORTEST_TURN:
        state.recording.clear()
        yield from line.clear()
        yield Notice("That was too short to be sent.")
    else:
        state.recording.close()
        state.turn_ended_at = now
        yield from line.commit()
        state.responses.has_retried = False
        yield from state.responses.ask(line, now)


def keep_turn(state: State, pcm: bytes, now: float) -> Iterator[Effect]:
    """A turn was said with the talk key, and no server has it: the next one will."""
    if len(pcm) >= SHORTEST_TURN:
        yield from state.user.keep(state.transcript.free_id("speech"), pcm, now)


def yield_floor(state: State) -> Iterator[Effect]:
    """The user speaks: the server has cancelled its answer, and will answer the new turn."""
    state.responses.is_wanted = state.is_declined = False
    state.deadlines.pop("ask again", None)
    yield from let_writing_stand(state)
    yield from state.repeat.stop()
    if state.assistant.has_answers or state.responses.active:
        yield from state.assistant.interrupt(state.responses.active)


def interrupt(state: State) -> Iterator[Effect]:
    """The user wants the floor without the server having noticed: cancel the answer, too."""
    state.must_cancel = state.responses.active is not None
    state.deadlines.pop("ask again", None)
    yield from let_writing_stand(state)
    yield from state.repeat.stop()
    if state.assistant.has_answers or state.must_cancel:
        yield from state.assistant.interrupt(state.responses.active)


def decline(state: State) -> Iterator[Effect]:
    """The user wants silence: what is being said stops, and what is awaited is not heard."""
    if state.link not in (Link.LIVE, Link.LOST):
        return
    if state.floor in (Floor.THINKING, Floor.ASSISTANT):
        state.is_declined, state.responses.is_wanted = True, False
        if not state.responses.is_busy:
            state.deadlines.pop("answer", None)
    yield from interrupt(state)


def repeat(state: State) -> Iterator[Effect]:
    """The user wants to hear the last answer again, if nobody speaks and nobody is about to."""
    if state.link not in (Link.LIVE, Link.LOST) or state.floor is Floor.USER:
        return
    if state.floor is Floor.OPEN and not state.assistant.is_stopping:
        yield from state.repeat.play()
    else:
        yield Notice("An answer is repeated when it is over.")


def cut_off(state: State, heard: dict[str, int], now: float) -> Iterator[Effect]:
    """The speaker has stopped: tell the server what was heard, and go on with what was typed."""
    line = state.lines.serving if state.link is Link.LIVE else None
    yield from state.assistant.cut_off(heard, line, now)
    if state.must_cancel and state.responses.active and state.lines.serving is not None:
        yield state.lines.serving.send(wire.ResponseCancel())
    state.must_cancel = False
    if line is not None:
        yield from say_typed(state, now)


def let_writing_stand(state: State) -> Iterator[Effect]:
    """No speech came in its place: what was written was the answer."""
    written, state.written = [*state.written, *state.assistant.written], []
    state.assistant.written.clear()
    for item_id in written:
        turn = state.transcript.get(item_id)
        if turn is not None and turn.status == "written":
            yield Write(
                Said(
                    item_id=item_id,
                    role=turn.role,
                    text=turn.text,
                    previous_item_id=turn.previous_item_id,
                    start_ms=turn.start_ms,
                    end_ms=turn.end_ms,
                )
            )
