"""The sum of the records is the same in whatever order they arrive."""

import json
import random
import time
from dataclasses import MISSING, fields
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.transcript import (
    RECORDS,
    Back,
    Closed,
    Lost,
    Opened,
    Record,
    Renamed,
    Said,
    Speaking,
    Summary,
    Transcript,
    Usage,
    printable,
    to_json,
)

CHAIN = [
    Said(
        item_id=f"item_{n}",
        role="user" if n % 2 else "assistant",
        text=f"turn {n}",
        previous_item_id=f"item_{n - 1}" if n else None,
        start_ms=n * 1000,
        end_ms=n * 1000 + 900,
    )
    for n in range(12)
]


def order(transcript: Transcript) -> list[str]:
    return [turn.item_id for turn in transcript.turns]


def said(item_id: str, previous: str | None = None) -> Said:
    return Said(item_id=item_id, role="user", text=item_id, previous_item_id=previous)


ids = st.sampled_from(["", "a", "b", "c", "d", "e", "f"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
roles = st.sampled_from(["user", "assistant", "system"])
statuses = st.sampled_from(["speaking", "complete", "interrupted", "untranscribed", "written"])
times = st.integers(0, 10_000)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Opened, session=ids, name=st.none() | words, parent=st.none() | ids),
    st.builds(
        Speaking,
        item_id=ids,
        role=roles,
        text=words,
        previous_item_id=st.none() | ids,
        start_ms=times,
    ),
    st.builds(
        Said,
        item_id=ids,
        role=roles,
        text=words,
        status=statuses,
        previous_item_id=st.none() | ids,
        start_ms=times,
        end_ms=times,
    ),
    st.builds(Lost, reason=words),
    st.builds(Back, restored=times),
    st.builds(Summary, text=words, covers=ids, turns=times),
    st.builds(Usage, input_tokens=times, output_tokens=times, model=st.none() | words),
    st.builds(Renamed, name=words),
    st.builds(Closed, end_ms=times),
)


@given(st.permutations(CHAIN))
@settings(deadline=None)
def test_the_chain_gives_the_order_whatever_the_order_of_arrival(arrived: list[Said]) -> None:
    assert order(Transcript.of(arrived)) == [record.item_id for record in CHAIN]


@given(st.lists(records, max_size=30), st.data())
@settings(deadline=None)
def test_looking_at_a_transcript_while_it_grows_changes_nothing(
    log: list[Record], data: st.DataObject
) -> None:
    watched = Transcript()
    for record in log:
        watched.apply(record)
        if data.draw(st.booleans()):
            assert len(watched.turns) <= len(log)
    unwatched = Transcript.of(log)
    assert watched.turns == unwatched.turns
    assert watched == unwatched


@given(st.lists(records, max_size=30))
@settings(deadline=None)
def test_no_turn_is_ever_left_out_or_told_twice(log: list[Record]) -> None:
    told = order(Transcript.of(log))
    assert len(told) == len(set(told))
    assert set(told) == {record.item_id for record in log if isinstance(record, Speaking | Said)}


def test_words_that_arrive_after_the_answer_to_them_stand_before_it() -> None:
    transcript = Transcript.of([said("a"), said("c", "b")])
    assert order(transcript) == ["a", "c"]
    transcript.apply(said("b", "a"))
    assert order(transcript) == ["a", "b", "c"]


def test_a_chain_that_becomes_known_bit_by_bit_is_put_together() -> None:
    arrived = [said("c", "b"), said("a"), said("d", "c"), said("b", "a")]
    assert order(Transcript.of(arrived)) == ["a", "b", "c", "d"]


def test_without_a_chain_the_order_is_that_of_arrival() -> None:
    assert order(Transcript.of([said("b"), said("a"), said("c")])) == ["b", "a", "c"]


def test_of_two_that_follow_the_same_turn_the_later_arrival_is_first() -> None:
    assert order(Transcript.of([said("a"), said("c", "a"), said("b", "a")])) == ["a", "b", "c"]


def test_a_turn_whose_place_is_corrected_takes_its_followers_along() -> None:
    arrived = [said("a"), said("b"), said("x"), said("y", "x"), said("x", "a")]
    assert order(Transcript.of(arrived)) == ["a", "x", "y", "b"]


def test_a_later_record_without_a_predecessor_leaves_the_turn_where_it_is() -> None:
    arrived = [said("a"), said("b", "a"), said("c", "b"), said("b"), said("b", "b")]
    assert order(Transcript.of(arrived)) == ["a", "b", "c"]


def test_a_ring_loses_nothing() -> None:
    assert sorted(order(Transcript.of([said("a", "c"), said("b", "a"), said("c", "b")]))) == [
        "a",
        "b",
        "c",
    ]


def test_what_is_handed_out_is_not_what_is_kept() -> None:
    transcript = Transcript.of(CHAIN)
    transcript.turns.clear()
    assert len(transcript.turns) == len(CHAIN)


def test_an_answer_adds_up_until_it_is_final() -> None:
    transcript = Transcript()
    for text in ("One. ", "Two. "):
        transcript.apply(Speaking(item_id="a", role="assistant", text=text, start_ms=500))
    (turn,) = transcript.turns
    assert (turn.text, turn.status, turn.mark) == ("One. Two. ", "speaking", "interrupted")
    final = Said(
        item_id="a", role="assistant", text="One.", status="interrupted", start_ms=500, end_ms=900
    )
    transcript.apply(final)
    transcript.apply(Speaking(item_id="a", role="assistant", text="late"))
    assert (turn.text, turn.status, transcript.end_ms) == ("One.", "interrupted", 900)


def test_a_hundred_times_as_many_turns_do_not_take_a_thousand_times_as_long() -> None:
    def seconds(number: int) -> float:
        arrived = [said(f"{n}", f"{n - 1}") for n in range(number)]
        random.Random(0).shuffle(arrived)
        began = time.process_time()
        transcript = Transcript.of(arrived)
        assert len(transcript.turns) == number
        return time.process_time() - began

    assert seconds(20_000) < 1000 * max(seconds(200), 0.001)


def test_printable_text_is_one_line_without_anything_that_acts() -> None:
    hostile = "\x1b]0;title\x07a\r\nb\x9b31mc\u202ed\u2028e\ud800f\u061cg"
    assert printable(hostile) == "]0;title a b 31mc d e f g"
    assert printable("Grüß Gott, 再见 👩‍🔬") == "Grüß Gott, 再见 👩‍🔬"


@given(st.text(), st.sampled_from([None, 2]))
@settings(deadline=None)
def test_json_means_the_same_and_holds_nothing_that_acts(text: str, indent: int | None) -> None:
    written = to_json({"text": text}, indent)
    assert json.loads(written) == json.loads(json.dumps({"text": text}))
    assert written == "\n".join(printable(f"|{line}|")[1:-1] for line in written.split("\n"))


def test_the_table_of_records_in_the_documents_is_the_code() -> None:
    golden = Path(__file__).parent / "golden" / "records.md"
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in golden.read_text().splitlines()[2:]
    ]
    told = [(kind, field, default) for kind, field, default, _ in rows]
    assert told == [
        (kind, field.name, "required" if field.default is MISSING else json.dumps(field.default))
        for kind, record in RECORDS.items()
        for field in fields(record)
    ]
