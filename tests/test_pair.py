"""Stories that need both ends: the client's core against the server's, in virtual time."""

from tests.pair import Pair
from voicechat.realtime.conversation import Link
from voicechat.realtime.events import (
    ConversationItemDelete,
    ConversationItemTruncate,
    ResponseCancel,
)
from voicechat.realtime.inputs import QuitRequested, TextTyped
from voicechat.transcript import Transcript

ANSWER = "Well, let me see. That is all I know."


def live(**options: float) -> Pair:
    pair = Pair(**options)  # type: ignore[arg-type]
    pair.wait(0.5)
    assert pair.client.link is Link.LIVE
    return pair


def test_a_spoken_turn_is_heard_answered_and_written_down() -> None:
    pair = live()
    pair.converse()
    assert pair.spoken == [("user", "Sentence 1.", "complete"), ("assistant", ANSWER, "complete")]
    assert pair.client.is_idle
    user, assistant = pair.client.transcript.spoken
    assert 900 < user.end_ms - user.start_ms < 2000
    assert user.end_ms <= assistant.start_ms
    assert assistant.end_ms - assistant.start_ms == 1600


def test_words_that_come_after_the_answer_are_put_before_it() -> None:
    pair = live()
    pair.transcript_delay = lambda: 3.0
    pair.say(1.0)
    pair.wait(8.0)
    assert [role for role, _, _ in pair.spoken] == ["user", "assistant"]
    assert all(status == "complete" for _, _, status in pair.spoken)


def test_the_server_forgets_what_was_not_heard() -> None:
    pair = live()
    pair.say(1.0)
    pair.wait(1.6)  # the answer has begun to be heard
    pair.say(0.6)
    pair.wait(6.0)
    [cut] = [event for event in pair.sent if isinstance(event, ConversationItemTruncate)]
    assert 0 < cut.audio_end_ms < 1600
    first, second = [turn for turn in pair.client.transcript.spoken if turn.role == "assistant"]
    assert first.status == "interrupted"
    assert ANSWER.startswith(first.text)
    assert len(first.text) < len(ANSWER)
    assert (second.text, second.status) == (ANSWER, "complete")
    assert pair.notices == []  # the server had nothing to complain about


def test_an_interruption_before_the_first_sound_leaves_no_answer() -> None:
    pair = live()
    pair.transcript_delay = lambda: 0.05
    pair.say(1.0)
    pair.wait(0.55)
    pair.say(0.6)
    pair.wait(6.0)
    assert pair.spoken[-1] == ("assistant", ANSWER, "complete")
    assert all(text for _, text, _ in pair.spoken)
    assert pair.notices == []


def test_a_typed_turn_interrupts_and_is_answered() -> None:
    pair = live()
    pair.say(1.0)
    pair.wait(1.6)
    pair.tell(TextTyped("Enough."))
    pair.wait(6.0)
    kinds = [type(event) for event in pair.sent]
    assert ConversationItemTruncate in kinds or ConversationItemDelete in kinds
    if ResponseCancel in kinds:
        assert kinds.index(ConversationItemTruncate) < kinds.index(ResponseCancel)
    assert [(role, status) for role, _, status in pair.spoken] == [
        ("user", "complete"),
        ("assistant", "interrupted"),
        ("user", "complete"),
        ("assistant", "complete"),
    ]
    assert pair.notices == []


def test_a_new_server_is_told_everything_the_old_one_knew() -> None:
    pair = live()
    for _ in range(3):
        pair.converse()
    pair.tell(QuitRequested())
    assert pair.is_over
    resumed = Pair(Transcript.of(pair.records))
    resumed.wait(0.5)
    assert resumed.client.link is Link.LIVE
    assert resumed.notices == ["Restoring 6 turns.", "6 turns restored."]
    resumed.converse()
    assert resumed.spoken[:6] == pair.spoken
    assert len(resumed.spoken) == 8


def test_the_log_read_back_is_the_conversation_that_was_lived() -> None:
    """200 turns, now and then interrupted, with transcripts that come whenever they like."""
    pair = live(seed=7)
    pair.transcript_delay = lambda: pair.random.choice([0.05, 0.4, 2.0, 6.0])
    for _ in range(100):
        pair.say(pair.random.choice([0.5, 1.0]))
        pair.wait(pair.random.choice([1.0, 2.2, 4.0]))
    pair.wait(12.0)
    pair.tell(QuitRequested())
    pair.wait(2.0)
    assert pair.is_over
    assert Transcript.of(pair.records) == pair.client.transcript
    said = [text for role, text, _ in pair.spoken if role == "user"]
    numbers = [int(text.removeprefix("Sentence ").removesuffix(".")) for text in said if text]
    assert numbers == sorted(numbers)
    assert len(numbers) >= 95
    assert all(status != "speaking" for _, _, status in pair.spoken)
    assert pair.notices == []
