"""Which words were heard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.realtime.answers import Answer, heard_text

EVEN = [(500, 10), (1000, 20), (1500, 30), (2000, 40)]
TEXT = "one two three four five six seven eight "  # 40 characters


@pytest.mark.parametrize(
    ("marks", "heard_ms", "heard"),
    [
        (EVEN, 0, ""),
        (EVEN, 100, ""),
        (EVEN, 1000, "one two three four"),
        (EVEN, 2000, TEXT),
        (EVEN, 9999, TEXT),
        ([(2000, 40)], 1000, "one two three four"),  # the words ran ahead: by the share of sound
        ([(1000, 8), (2000, 40)], 1000, "one two"),  # the words lagged: what had arrived
        ([], 1000, ""),
    ],
)
def test_what_was_heard(marks: list[tuple[int, int]], heard_ms: int, heard: str) -> None:
    assert heard_text(TEXT, marks, heard_ms) == heard


def test_a_script_without_spaces_is_cut_where_it_is() -> None:
    assert heard_text("今日はいい天気です", [(900, 9)], 400) == "今日はい"


def test_a_long_first_word_that_was_cut_was_not_heard() -> None:
    assert heard_text("Incomprehensibilities", [(1000, 21)], 500) == ""


@given(st.text(max_size=60), st.integers(1, 5000), st.integers(-10, 6000))
def test_what_was_heard_is_the_beginning_of_what_was_said(
    text: str, received_ms: int, heard_ms: int
) -> None:
    heard = heard_text(text, [(received_ms, len(text))], heard_ms)
    assert text.startswith(heard)
    assert heard_ms < received_ms or heard == text


def test_whole_sentences_are_saved_while_the_next_is_being_spoken() -> None:
    answer = Answer("item", "item")
    saved = []
    for piece in ("Well", ". I thi", "nk so! And", " you?\n", "Yes"):
        answer.texts[0] = answer.texts.get(0, "") + piece
        saved.append(answer.unsaved_sentences())
    assert saved == ["", "Well. ", "I think so! ", "And you?\n", ""]
    assert answer.unsaved_rest() == "Yes"
    assert answer.unsaved_rest() == ""
