"""The life of the connections: one is prepared, serves, is lost or replaced."""

from collections.abc import Iterator

from voicechat.errors import BusyError, ProtocolError, VoicechatError
from voicechat.realtime import events as wire
from voicechat.realtime import leaving, limits, turns
from voicechat.realtime.effects import Close, Effect, Notice, Write
from voicechat.realtime.events import Event, Json
from voicechat.realtime.line import Line, Stage
from voicechat.realtime.lines import is_fatal
from voicechat.realtime.problems import describe, fatal, is_benign, is_full, no_realtime_server
from voicechat.realtime.state import Floor, Link, State
from voicechat.transcript import Back, Lost

DEAD_AFTER = 8.0
DEAD_WHILE_THINKING = 20.0
"""A server that computes in one thread answers no ping meanwhile; as long as nobody speaks."""
OWED_TIMEOUT = 5.0  # until the server notices what was said again to it


def hear_silence(state: State, line: Line, seconds: float, now: float) -> Iterator[Effect]:
    """Nothing comes from the server any more."""
    is_thinking = line is state.lines.serving and state.floor is Floor.THINKING
    is_quiet = state.recording.quiet_ms >= seconds * 1000
    if seconds >= (DEAD_WHILE_THINKING if is_thinking and is_quiet else DEAD_AFTER):
        yield from abandon(
            state, line, line_error(f"the server has not answered for {seconds:.0f} s"), now
        )


def wake(state: State, seconds: float, now: float) -> Iterator[Effect]:
    """The machine slept: the server has long given up on what was open, which would be noticed
    only seconds after the user has begun to speak again."""
    if state.policy.reconnect_for <= 0 or state.link is Link.LEAVING:
        return
    for line in (state.lines.preparing, state.lines.serving):
        if line is not None:
            error = line_error(f"this computer slept, or was stopped, for {seconds:.0f} s")
            yield from abandon(state, line, error, now)


def hear_preparing(state: State, line: Line, event: Event, now: float) -> Iterator[Effect]:
    """Take in what the server of the next connection says."""
    match event:
        case wire.Error(error):
            yield from _hear_refusal(state, line, error, now)
        case (
            wire.ConversationItemAdded(item)
            | wire.ConversationItemDone(item)
            | wire.ConversationItemCreated(item)
        ):
            if (entry := line.confirm(item)) is not None:
                yield from state.lines.confirmed(line, entry, now)
            elif item.get("role") == "user":
                yield from state.lines.confirm_spoken(line, str(item.get("id")), now)
        case wire.InputAudioBufferCommitted(wire_id):
            yield from state.lines.confirm_spoken(line, wire_id, now)
        case wire.ConversationItemInputAudioTranscriptionDelta(wire_id, delta=words):
            yield from state.lines.confirm_spoken(line, wire_id, now)
            state.user.hear_words(line.local(wire_id), words)
        case wire.ConversationItemInputAudioTranscriptionCompleted(wire_id, transcript=text):
            yield from state.lines.confirm_spoken(line, wire_id, now)
            yield from turns.settle_user(state, line.local(wire_id), text.strip())
        case wire.ConversationItemInputAudioTranscriptionFailed(wire_id):
            yield from state.lines.confirm_spoken(line, wire_id, now)
            yield from turns.settle_user(state, line.local(wire_id))
        case _:
            yield from state.lines.hear(event, now)


def _hear_refusal(state: State, line: Line, error: Json, now: float) -> Iterator[Effect]:
    about, said = str(error.get("event_id") or ""), describe(error)
    is_about_an_item = str(error.get("param") or "").startswith("item")
    is_early = not (about or is_about_an_item or line.is_heeded)
    end = fatal(error, state.provider)
    if end is not None and state.lines.serving is None:
        yield from leaving.end(state, end, now)
    elif end is not None or error.get("code") == "session_expired":
        yield from abandon(state, line, line_error(said), now)
    elif is_full(error):
        busy = BusyError(f"the server cannot serve us now: {said}", remedy="Try again.")
        if state.lines.is_first and state.lines.lost_at is None:
            yield from leaving.end(state, busy, now)
        else:
            yield from abandon(state, line, busy, now)
    elif is_benign(error):
        pass
    elif line.stage is Stage.SUMMARISING and line.is_configured:
        yield from state.lines.hear(wire.Error(error), now)
    elif about == "configure" or is_early:
        problem = f"the server refuses these settings: {said}"
        remedy = "Change the option that it names, or leave it out."
        if not state.lines.is_first:
            yield from abandon(state, line, line_error(problem), now)
        elif error.get("type") == "server_error":
            yield from abandon(state, line, BusyError(problem, remedy="Try again."), now)
        else:
            yield from leaving.end(state, ProtocolError(problem, remedy=remedy), now)
    else:
        yield from state.lines.refused(line, error, now)


def advance(state: State, now: float) -> Iterator[Effect]:
    """Prepare a fresh connection when it is time for it; let it serve as soon as nothing is in
    the way: at once where none serves, in a silence where one does."""
    lines = state.lines
    if lines.serving is not None and lines.preparing is None and _is_due(state, now):
        yield from lines.prepare()
    line = lines.preparing
    if line is None or not line.is_ready:
        return
    if lines.serving is None or state.is_silent:
        if missing := lines.missing():
            yield from lines.catch_up(line, missing, now)
        if line.is_ready:
            yield from _take_over(state, line, now)


def _is_due(state: State, now: float) -> bool:
    rotate_at, force_at = state.lines.rotate_at, state.lines.force_at
    if "reconnect" in state.deadlines or rotate_at is None or force_at is None:
        return False
    return now >= rotate_at and (state.is_silent or now >= (rotate_at + force_at) / 2)


def _take_over(state: State, line: Line, now: float) -> Iterator[Effect]:
    """The prepared connection serves from now on."""
    lines, was_first, lost_at = state.lines, state.lines.is_first, state.lines.lost_at
    may_owe_answer = lines.serving is None or "packing" in state.deadlines  # else it was silent
    yield from lines.take_over(now)
    state.link = Link.LIVE
    if was_first:
        limits.begin(state, now)
    state.deadlines.pop("packing", None)
    told = line.replay.summary()
    if lost_at is not None and not was_first:
        yield Write(Back(restored=line.replay.plan.restored))
        seconds = max(1, round(now - lost_at))
        first = told[0] if told else "nothing to restore."
        told = [f"The line is back after {seconds} s: {first}", *told[1:]]
    if was_first or lost_at is not None:
        for each in told:
            yield Notice(each)
    state.uncommitted_bytes = 0
    frames = state.recording.release()
    state.recording.clear()  # what is left was counted in the milliseconds of the line before
    if state.is_talking or frames:
        state.recording.begin(line.sent_ms)
    if frames and state.configuration.vad != "none":
        state.deadlines["owed"] = now + OWED_TIMEOUT
    if state.is_typed_first:  # and spoken behind it, which the server must hear in that order
        yield from turns.say_typed(state, now)
    for frame in frames:
        yield from turns.send(state, line, frame.pcm, frame.at)
    if state.typed:
        yield from turns.say_typed(state, now)
    elif not frames and may_owe_answer:
        yield from ask_again_for_answer(state, now)


def ask_again_for_answer(state: State, now: float) -> Iterator[Effect]:
    """Where the user's last turn was never answered.  Not if they hung up on purpose."""
    turns_back = reversed(state.transcript.turns)
    last = next(
        (t for t in turns_back if t.role == "user" or (t.text and t.status != "written")), None
    )
    is_open = last is not None and last.role == "user" and not state.transcript.was_hung_up
    line = state.lines.serving
    if last is None or line is None or not is_open or not line.has(last.item_id):
        return
    if not (state.is_declined or state.assistant.has_answers or state.responses.is_busy):
        yield from state.responses.ask(line, now, is_needed=False)


def abandon(state: State, line: Line, error: VoicechatError, now: float) -> Iterator[Effect]:
    """A connection is of no use any more, though nobody has closed it."""
    yield Close(line.number)
    yield from lose(state, line, error, now)


def lose(state: State, line: Line, error: VoicechatError, now: float) -> Iterator[Effect]:
    """A connection is gone: get another, unless that is hopeless or nobody wants it."""
    is_serving = line is state.lines.serving
    if is_serving:
        state.lines.lose(now)
    else:
        state.lines.drop_preparing()
    if state.link is Link.LEAVING:
        yield from state.user.lose_line()  # and then as soon as the speaker has stopped
    elif state.lines.serving is not None:
        state.lines.retry(now)  # later: the other one still serves
    elif state.policy.reconnect_for <= 0 or is_fatal(
        error, line, is_first=state.lines.is_first and state.lines.lost_at is None
    ):
        if is_serving:
            yield Write(Lost(reason=error.message))
        yield from leaving.end(state, error, now)
    else:
        state.last_problem = error
        if state.lines.lost_at is None:
            yield from _begin_to_reconnect(state, error, now)
        if is_serving:
            yield from _let_go(state, line, now)
        if state.lines.preparing is None:
            state.lines.retry(now)


def _begin_to_reconnect(state: State, error: VoicechatError, now: float) -> Iterator[Effect]:
    state.lines.lost_at = now
    patience = state.policy.reconnect_for
    state.deadlines["giving up"] = now + patience
    if not state.lines.is_first:
        state.link = Link.LOST
        yield Write(Lost(reason=error.message))
    what = "No line yet" if state.lines.is_first else "The line was lost"
    why = error.message.rstrip(".")
    yield Notice(
        f"{what}: {why}. Trying again for up to {patience:.0f} s."
        + " What you say meanwhile is kept." * (not state.lines.is_first)
    )


def _let_go(state: State, line: Line, now: float) -> Iterator[Effect]:
    """Keep what the line that served took with it: a sentence half said, an answer half heard.

    An answer that was received goes on being heard.
    """
    state.link = Link.LOST
    state.deadlines.pop("owed", None)
    state.deadlines.pop("packing", None)
    state.recording.lose(1000 + round(min(DEAD_AFTER + 2, now - line.heard_at) * 1000), now)
    yield from state.user.lose_line()
    yield from state.assistant.lose_line(now)
    state.responses.forget()
    state.must_cancel = False
    yield from state.lines.skip_summary(now)
    yield from turns.let_writing_stand(state)
    for pcm in state.recording.take_closed():
        yield from turns.keep_turn(state, pcm, now)


def complain(state: State, line: Line, reason: str, now: float) -> Iterator[Effect]:
    """A frame made no sense: fatal only from a server that has not shown to be one."""
    if line.stage is not Stage.OPENING:
        if reason not in line.complaints:  # whoever makes a mistake once makes it each time
            line.complaints.add(reason)
            yield Notice(f"The server sent something that is not an event: {reason}")
    elif state.lines.is_first:
        yield from leaving.end(state, no_realtime_server(reason), now)
    else:
        yield from abandon(state, line, line_error(reason), now)


def be_let_down(state: State, line: Line, expected: str, now: float) -> Iterator[Effect]:
    """A server does not do what each does first."""
    problem = f"the server did not {expected}"
    if state.lines.is_first and state.lines.lost_at is None:
        remedy = "Check --url and the network, then try again."
        yield from leaving.end(state, ProtocolError(problem, remedy=remedy), now)
    else:
        yield from abandon(state, line, line_error(problem), now)


def rotate_anyway(state: State, serving: Line, now: float) -> Iterator[Effect]:
    """No silence came before the limit: what is being said is cut in two, and said again."""
    preparing = state.lines.preparing
    if preparing is None and "reconnect" not in state.deadlines:
        yield from state.lines.prepare()
    is_busy = state.responses.is_busy or state.user.waits_for_words  # what would be lost or redone
    may_wait = serving.ends_at is None or now < serving.ends_at
    if preparing is None or not preparing.is_ready or (is_busy and may_wait):
        state.deadlines["rotate now"] = now + 1
        return
    yield Close(serving.number)
    state.lines.lose(now)
    yield from _let_go(state, serving, now)


def line_error(reason: str) -> BusyError:
    """A connection is of no use; another may be."""
    return BusyError(reason, remedy="Try again.")
