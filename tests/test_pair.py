"""Stories that need both ends: the client's core against the server's, in virtual time."""

from itertools import pairwise
from typing import Any

import pytest

from tests.pair import Frame, Pair
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Link
from voicechat.realtime.events import (
    ConversationItemDelete,
    ConversationItemTruncate,
    ResponseCancel,
)
from voicechat.realtime.inputs import QuitRequested, TalkKeyPressed, TextTyped
from voicechat.realtime.policy import Policy
from voicechat.transcript import Transcript

ANSWER = "Well, let me see. That is all I know."


def live(**options: Any) -> Pair:
    pair = Pair(**options)
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


# Several connections ------------------------------------------------------------------------------


def frames(utterance: int, count: int) -> list[Frame]:
    """An utterance, whole."""
    return [(utterance, place) for place in range(1, count + 1)]


def everything(pair: Pair) -> list[Frame]:
    """All that the user said."""
    return [frame for number, count in enumerate(pair.said, 1) for frame in frames(number, count)]


def check_conversation(pair: Pair) -> None:
    """Each sentence of the user's is there once, in order, whole, and none without an answer."""
    expected = []
    for number in range(1, len(pair.said) + 1):
        expected += [("user", f"Sentence {number}."), ("assistant", ANSWER)]
    assert [(role, text) for role, text, _ in pair.spoken] == expected
    restored = [(item.role, item.text) for item in pair.server.items if item.role != "system"]
    assert restored == expected
    assert Transcript.of(pair.records) == pair.client.transcript


@pytest.mark.parametrize("lifetime", [40.0, 3600.0])
def test_before_the_limit_the_conversation_moves_and_nobody_notices(lifetime: float) -> None:
    policy = Policy(rotate_after=None if lifetime < 3600 else 30.0)
    pair = live(lifetime=lifetime, policy=policy)
    for _ in range(12):  # two minutes
        pair.say(1.5)
        pair.wait(8.5)
    assert len(pair.peers) == 5
    assert [frame for peer in pair.peers for frame in peer.heard] == everything(pair)
    assert pair.notices == []
    assert all(status == "complete" for _, _, status in pair.spoken)
    check_conversation(pair)


def test_the_limit_comes_while_the_user_speaks_and_speaks() -> None:
    pair = live(policy=Policy(rotate_after=8.0))  # 18 at the latest
    pair.wait(2.0)
    pair.say(20.0)
    pair.wait(1.0)
    pair.wait_until_idle()
    pair.wait(0.7)
    first, second, *_ = pair.peers
    assert first.heard == frames(1, len(first.heard))  # from the beginning
    assert second.heard[: len(first.heard)] == first.heard  # and once more
    for peer in pair.peers:
        assert len(set(peer.heard)) == len(peer.heard)
    assert pair.notices == []
    check_conversation(pair)


def test_the_limit_comes_while_a_long_answer_is_heard() -> None:
    pair = live(policy=Policy(rotate_after=8.0))
    pair.answer_ms = 15_000
    pair.wait(4.0)
    pair.say(1.0)
    pair.wait(1.0)
    pair.wait_until_idle()
    pair.wait(0.7)
    assert pair.now > 20
    assert len(pair.peers) > 1
    assert pair.notices == []
    assert pair.spoken[-1] == ("assistant", ANSWER, "complete")
    check_conversation(pair)


def test_a_move_that_fails_is_tried_again_and_nobody_notices() -> None:
    pair = live(policy=Policy(rotate_after=8.0))
    pair.is_reachable = False
    pair.later(8.5, lambda: setattr(pair, "is_reachable", True))
    pair.converse()
    pair.wait(10.0)
    assert len(pair.peers) == 2
    pair.converse()
    assert pair.notices == []
    check_conversation(pair)


@pytest.mark.parametrize("code", [1006, 1011])
@pytest.mark.parametrize("unnoticed", [0.0, 3.0])
@pytest.mark.parametrize("seconds", [0.02, 0.3, 1.0, 1.9, 2.05, 2.4, 2.55, 2.6, 2.7])
def test_a_line_may_be_lost_at_any_moment_of_a_turn(
    seconds: float, unnoticed: float, code: int
) -> None:
    """While it is said (for two seconds), when it is over, and before any answer is heard."""
    pair = live()
    pair.converse()
    pair.later(seconds, lambda: pair.drop(code, unnoticed=unnoticed))
    pair.say(2.0)
    pair.wait(5.0)
    pair.wait_until_idle()
    check_conversation(pair)
    assert len(pair.peers) == 2
    for peer in pair.peers:
        assert peer.heard == sorted(set(peer.heard))


def test_a_line_is_lost_in_the_middle_of_an_answer() -> None:
    pair = live()
    pair.answer_delay = 1.0
    pair.say(1.0)
    pair.wait(2.2)  # the first of two sentences is there
    pair.drop()
    pair.wait(3.0)
    assert pair.client.is_idle
    assert pair.spoken[-1] == ("assistant", "Well, let me see.", "interrupted")
    pair.converse()
    told = [(item.role, item.text) for item in pair.server.items if item.role != "system"]
    assert told == [(role, text) for role, text, _ in pair.spoken]
    assert told[1] == ("assistant", "Well, let me see.")


def test_an_answer_that_is_there_is_heard_to_its_end_without_a_line() -> None:
    pair = live()
    pair.answer_ms = 3000
    pair.say(1.0)
    pair.wait(1.5)
    pair.drop()
    pair.wait(0.1)
    pair.is_reachable = False
    pair.wait(7.0)
    assert pair.spoken[-1] == ("assistant", ANSWER, "complete")
    pair.is_reachable = True
    pair.wait(10.0)
    check_conversation(pair)


@pytest.mark.parametrize("seconds", [0.5, 1.9, 2.01, 2.05, 2.3])
def test_a_line_is_lost_in_a_turn_with_the_talk_key(seconds: float) -> None:
    pair = live(configuration=Configuration(vad="none"))
    for _ in range(2):
        pair.later(seconds, pair.drop)
        pair.tell(TalkKeyPressed())
        pair.say(2.0)
        pair.tell(TalkKeyPressed())
        pair.wait(1.0)
        pair.wait_until_idle()
        pair.wait(0.7)
    check_conversation(pair)


def test_a_line_is_lost_over_and_over_in_one_sentence() -> None:
    pair = live(latency=0.02)
    for second in range(1, 9):
        pair.later(float(second), pair.drop)
    pair.say(9.5)
    pair.wait(2.0)
    pair.wait_until_idle()
    check_conversation(pair)
    assert [len(peer.heard) for peer in pair.peers] == sorted(len(p.heard) for p in pair.peers)
    for earlier, later in pairwise(pair.peers[:-1]):
        assert later.heard[: len(earlier.heard)] == earlier.heard
