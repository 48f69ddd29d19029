"""What comes of a response: an answer, part of one, or none."""

from collections.abc import Iterator

from voicechat.errors import AnswerError
from voicechat.realtime import events as wire
from voicechat.realtime import leaving, limits, turns
from voicechat.realtime.effects import Effect, Notice, Write
from voicechat.realtime.events import Event, Json
from voicechat.realtime.line import Line
from voicechat.realtime.problems import describe, fatal
from voicechat.realtime.responses import ANSWER_TIMEOUT, UNKNOWN, in_words, usage_of
from voicechat.realtime.state import State
from voicechat.transcript import Said

PACKING_TIMEOUT = 30.0
WRITTEN_TWICE = 2


def end_response(
    state: State, line: Line, response: Json, beside: Json | None, now: float
) -> Iterator[Effect]:
    """Take what came of it, and say why if that is nothing or not all."""
    response_id = response.get("id")
    if not state.responses.takes_end(response_id):
        return
    yield from note_usage(state, wire.ResponseDone(response, beside))
    if response_id and state.responses.active not in (None, UNKNOWN, response_id):
        return  # a late word of the one before
    status, details = response.get("status"), response.get("status_details")
    details = details if isinstance(details, dict) else {"message": details}
    error, reason = details.get("error"), str(details.get("reason") or status)
    error = error if isinstance(error, dict) else details
    is_partial = status in ("failed", "cancelled", "incomplete")
    yield from state.assistant.end_response(line, now, is_partial=is_partial)
    came = state.assistant.has_come
    was_dropped = state.assistant.is_dropped(state.responses.active or str(response.get("id")))
    state.responses.end()
    if was_dropped or reason == "turn_detected":
        pass  # the user wanted it so
    elif status == "failed" and not came:
        yield from try_again(state, error, now)
    elif is_partial and came:
        why = describe(error) if status == "failed" else in_words(reason)
        yield Notice(f"The answer was cut short: {why}")
    elif state.assistant.calls and not state.responses.has_retried:
        yield from _answer_calls(state, line, now)
    elif state.assistant.written:
        yield from _hear_written(state, line, now)
    elif came:
        state.written.clear()  # it was said at last
        if state.assistant.has_written and state.written_times == WRITTEN_TWICE:
            state.written_times += 1
            yield Notice("The server writes instead of speaking, whatever it is asked: so be it.")
    elif is_partial or state.user.has_words:
        yield from fail_to_answer(state, in_words(reason) if is_partial else "it was empty")
    state.assistant.begin()  # whatever comes next is not part of this one


def _answer_calls(state: State, line: Line, now: float) -> Iterator[Effect]:
    """There are no tools here, and a model that waits for one says nothing.  It is told so, once a
    turn, and the transcript keeps the call as a note, which any server can be told of later."""
    state.responses.has_retried = True
    for call in state.assistant.calls:
        name, arguments = str(call.get("name")), str(call.get("arguments") or "")
        output = {"type": "function_call_output", "call_id": call.get("call_id")}
        output["output"] = "This tool is not available here."
        yield line.send(wire.ConversationItemCreate(output, event_id="tool"))
        item_id = line.local(str(call.get("id")))
        yield Write(
            Said(
                item_id=item_id,
                role="system",
                text=f"The assistant called the tool {name}({arguments}), which is not there.",
                previous_item_id=state.transcript.last_item_id,
                start_ms=state.timeline.ms(now),
                end_ms=state.timeline.ms(now),
            )
        )
    yield from state.responses.ask(line, now)


def note_usage(state: State, event: Event) -> Iterator[Effect]:
    """What a response took is saved, whatever came of it."""
    if isinstance(event, wire.ResponseDone):
        used = usage_of(event.response, event.usage, state.configuration.model)
        if used is not None:
            yield Write(used)
        elif event.response.get("status") == "completed":
            yield from limits.miss_usage(state)


def ask_if_wanted(state: State, now: float) -> Iterator[Effect]:
    """Now that nothing is being made any more."""
    line, responses = state.lines.serving, state.responses
    is_due = responses.is_wanted and not (responses.is_busy or state.assistant.is_stopping)
    if line is not None and is_due:
        # If one has begun by itself meanwhile, then behind the turn that this is about.
        yield from responses.ask(line, now, is_needed=False)


def try_again(state: State, error: Json, now: float) -> Iterator[Effect]:
    """An answer failed: ask once more after a while where that may help."""
    if (end := fatal(error, state.provider)) is not None:
        yield from leaving.end(state, end, now)
    elif (wait := state.responses.retry_after(error)) is not None:
        state.responses.has_retried = True
        state.deadlines["ask again"] = now + wait
        why = describe(error).rstrip(".")
        yield Notice(f"No answer yet: {why}. Trying again in {max(1, round(wait))} s.")
    else:
        yield from fail_to_answer(state, describe(error))


def give_up_waiting(state: State, now: float) -> Iterator[Effect]:
    """No answer, or no end of it: go on with what there is."""
    line, responses = state.lines.serving, state.responses
    yield from state.assistant.give_up(line, now)
    if line is not None and responses.active is not None:
        yield line.send(wire.ResponseCancel())
        if responses.is_wanted and not responses.is_given_up:
            responses.is_given_up = True  # two are never active: the next one waits for its end
            state.deadlines["answer"] = now + ANSWER_TIMEOUT
            return
    responses.end()
    yield from turns.let_writing_stand(state)
    if not state.assistant.has_come:
        yield from fail_to_answer(state, f"none came within {ANSWER_TIMEOUT:.0f} s")


def fail_to_answer(state: State, reason: str) -> Iterator[Effect]:
    """The user's turn stays without an answer, and they are told why."""
    state.failure = AnswerError(
        f"there was no answer: {reason}",
        remedy=state.how_to_resume,
    )
    yield Notice(f"No answer: {reason}")
    yield from turns.let_writing_stand(state)


def _hear_written(state: State, line: Line, now: float) -> Iterator[Effect]:
    """Models that are told what was said in writing may go on in writing: ask again, first
    for speech in so many words, then on a fresh connection with the history in one message."""
    state.written_times += 1
    state.written += state.assistant.written
    state.responses.must_speak = True
    for item_id in state.assistant.written:
        yield from line.delete(item_id)
    if state.written_times == 1:
        yield Notice("Asking for it as speech.")
        yield from state.responses.ask(line, now)
    else:
        yield Notice("Again. Restoring the conversation in another form.")
        state.assistant.wants_speech = False
        state.deadlines["packing"] = now + PACKING_TIMEOUT
        state.lines.is_packed = True
        yield from state.lines.close_preparing()
        yield from state.lines.prepare()
