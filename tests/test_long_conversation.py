"""Four hours on bad lines, to servers that live for half an hour: nobody forgets anything."""

import re
from collections import Counter
from functools import partial
from itertools import groupby

from tests.pair import Pair
from voicechat.realtime.inputs import QuitRequested
from voicechat.transcript import Transcript

HOURS = 4
PERIOD = 180.0
"""Seconds from one lost line to the next."""


def test_after_four_hours_of_lost_lines_every_turn_is_there_once_and_in_order() -> None:
    pair = Pair(lifetime=1800.0, lost_acknowledgements=0.01, seed=3)
    pair.answers = ["Well, let me see.", "That was answer {}."]
    pair.wait(0.5)
    for period in range(1, int(HOURS * 3600 / PERIOD) + 1):
        end = period * PERIOD
        unnoticed = 3.0 * (period % 2)
        pair.later(end - pair.now, partial(pair.drop, unnoticed=unnoticed))
        pair.skip(30 + 30 * pair.random.random())
        converse(pair)
        pair.skip(end - pair.random.random() * 6 - pair.now)  # the line is lost in the middle
        converse(pair)
    pair.skip(60)
    converse(pair)

    transcript = pair.client.transcript
    assert len(pair.peers) > HOURS * 3600 / PERIOD
    users = [turn.text for turn in transcript.spoken if turn.role == "user"]
    assert users == [f"Sentence {number}." for number in range(1, len(pair.said) + 1)]
    answers = [turn.text for turn in transcript.spoken if turn.role == "assistant"]
    numbers = [int(number) for text in answers for number in re.findall(r"answer (\d+)", text)]
    assert numbers == sorted(set(numbers))
    roles = [role for role, _ in groupby(turn.role for turn in transcript.spoken)]
    assert roles == ["user", "assistant"] * len(pair.said)
    status = Counter(turn.status for turn in transcript.turns)
    assert status.keys() == {"complete", "interrupted"}
    assert status["interrupted"] > 5  # some lines were lost in the middle of an answer

    told = [(item.role, item.text) for item in pair.server.items if item.role != "system"]
    assert told == [(turn.role, turn.text) for turn in transcript.restorable]

    pair.tell(QuitRequested())
    assert pair.is_over
    assert Transcript.of(pair.records) == transcript


def converse(pair: Pair) -> None:
    """The user says something and hears all of the answer that comes, whatever lines do."""
    pair.answer_delay = pair.random.choice([0.1, 0.4, 0.9])
    pair.say(1 + 2 * pair.random.random())
    pair.wait(5.0)  # a line may be lost without anybody knowing yet
    pair.wait_until_idle()
    pair.wait(0.7)
