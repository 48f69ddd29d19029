"""What a terminal shows below the turns, compared with pictures of it that people have looked at.

``python -m tests.test_screen`` draws the golden files anew; look at what has changed.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from tests.scene import (
    Scene,
    answered,
    committed,
    done,
    lose,
    response_begins,
    response_ends,
    speak,
    user_starts,
    voice,
    words,
)
from voicechat.keyboard import KEYS as ALL_KEYS
from voicechat.meters import LEVELS, Meter, level
from voicechat.pcm import silence
from voicechat.prices import PRICES
from voicechat.realtime.events import (
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    InputAudioBufferSpeechStopped,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    MuteToggled,
    PlaybackFinished,
    QuitRequested,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.policy import Policy
from voicechat.realtime.view import Standing
from voicechat.screen import BAR, Live, Shown, Typed, clock, finished, render, wrapped
from voicechat.transcript import Opened, Said, Transcript, Turn, Usage
from voicechat.view import _WORDS, shown

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (40, 80, 200)
LONG = (
    "They stay at home. The colony forms a cluster around its queen, shivers to keep warm, and "
    "lives on the honey that it has put by in the summer. On a mild day some fly out for a moment, "
    "and come back before the cold has noticed them."
)
WIDE = "你好，世界！蜜蜂在冬天做什么？它们待在家里，围着蜂王取暖，靠夏天储存的蜂蜜为生。🐝🐝"  # noqa: RUF001
KEYS = (
    ("Space", "With --vad none: begin your turn, and end it.", "talk"),
    ("m", "Mute the microphone, or open it again.", "mute"),
    (
        "t, Enter",
        "Type a turn; Enter sends it, Up finds earlier ones, Esc closes the line.",
        "type",
    ),
    ("q, Ctrl-C", "Hang up.", "hang up"),
)
SMALL = ((80, 24), (40, 24), (40, 20), (40, 12), (20, 12), (20, 8), (20, 6))
"""Columns and rows of terminals in which the keys are asked for; of both, one is left free."""


def see(scene: Scene, microphone: int = 0, speaker: int = 0, printed: int = 0) -> Shown:
    """What is seen of a scene; so many turns of it were printed."""
    turns = scene.conversation.transcript.turns[:printed]
    return shown(
        scene.conversation,
        scene.now,
        microphone=microphone,
        speaker=speaker,
        echo="cancel",
        prices=PRICES,
        printed={turn.item_id for turn in turns},
    )


def resumed(turns: int = 212, **policy: Any) -> Scene:
    said = [
        Said(item_id=f"i{n}", role="user" if n % 2 else "assistant", text=f"Turn {n}.")
        for n in range(1, turns + 1)
    ]
    transcript = Transcript.of([Opened(session="7f3a9k"), *said])
    scene = Scene(transcript, policy=Policy(**policy))
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    return scene


def asking() -> Scene:
    """A question that was said, and is not answered."""
    scene = Scene.live()
    scene.at(12.0).play(user_starts("item_U"))
    speak(scene, 1, 60)
    scene.play(InputAudioBufferSpeechStopped("item_U", 1180), committed("item_U"))
    return scene


def answering(text: str = "They stay at home. The colony") -> Scene:
    scene = asking()
    question = "And what do the bees do in the winter?"
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, question))
    scene.at(scene.now + 0.62).play(response_begins(), words("item_A", text), voice("item_A", 900))
    return scene


def standings() -> Iterator[tuple[str, Shown]]:
    """Each by the name of what it shows."""
    yield "connecting", see(Scene())
    scene = resumed()
    scene.play(*(done(f"h{n:04}") for n in range(1, 121)))
    yield "restoring", see(scene, printed=212)
    yield "summarising", see(resumed(replay_tokens=500), printed=212)
    scene = Scene.live()
    yield "listening", see(scene)
    scene.play(MuteToggled())
    yield "muted", see(scene, 4)
    scene = Scene.live(vad="none")
    yield "waiting for the talk key", see(scene, 1)
    scene.play(TalkKeyPressed())
    yield "the talk key is held", see(scene, 4)
    scene = Scene.live()
    scene.at(75.0).play(user_starts("item_U"))
    yield "you speak", see(scene, 5)
    scene = asking()
    yield "thinking", see(scene)
    scene.play(ConversationItemInputAudioTranscriptionDelta("item_U", delta="And what do the"))
    yield "thinking, and your words arrive", see(scene)
    yield "answering", see(answering(), speaker=4, printed=1)
    yield "a long answer", see(answering(LONG), speaker=4, printed=1)
    yield "a long answer in wide characters", see(answering(WIDE * 3), speaker=4, printed=1)
    scene = asking()
    scene.play(response_begins(), words("item_A", LONG[:40]), voice("item_A", 300))
    scene.play(response_ends(), PlaybackFinished("item_A", 300))
    yield "an answer that is over before your words are there", see(scene)
    scene = asking()
    scene.at(scene.now + 1.34).play(response_begins(), words("item_A", "Well."))
    scene.play(voice("item_A", 900))
    yield "a slow answer", see(scene, speaker=3, printed=1)
    scene = Scene.live()
    answered(scene)
    scene.conversation.transcript.apply(
        Usage(model="gpt-realtime-2.1", input_tokens=7000, output_tokens=1100)
    )
    yield "what was spent", see(scene.at(3723.4), printed=2)
    lose(scene)
    yield "the line is lost", see(scene, 4, printed=2)
    scene = answering()
    scene.play(QuitRequested())
    yield "hanging up", see(scene, printed=1)
    listening = see(Scene.live())
    yield "a line is typed", replace(listening, typed=Typed("And in the summer?", 7))
    yield "a long line is typed", replace(listening, typed=Typed(LONG, 120))
    yield "a line in wide characters is typed", replace(listening, typed=Typed(WIDE, len(WIDE)))
    yield "the keys", replace(listening, keys=KEYS)
    yield "half-duplex", replace(listening, echo="half-duplex")
    yield "files", replace(listening, echo=None)


def album(width: int) -> str:
    """Each standing as it is seen, the cursor of a line that is typed marked below it."""
    pages = []
    for name, each in standings():
        drawing = render(each, width)
        lines = [line.plain.rstrip() for line in drawing.lines]
        if each.typed is not None:
            lines.append(" " * drawing.cursor + "^")
        pages.append("\n".join([f"# {name}", *lines, ""]))
    return "\n".join(pages)


def styles() -> str:
    """Each standing with its styles as rich's markup."""
    pages = []
    for name, each in standings():
        pages.append(
            "\n".join([f"# {name}", *(line.markup for line in render(each, 80).lines), ""])
        )
    return "\n".join(pages)


def keys_on_small_screens() -> str:
    """All keys while an answer arrives."""
    everything = replace(see(answering(LONG), speaker=4, printed=1), keys=ALL_KEYS)
    pages = []
    for columns, rows in SMALL:
        lines = [line.plain.rstrip() for line in render(everything, columns - 1, rows - 1).lines]
        pages.append("\n".join([f"# {columns}x{rows}", *lines, ""]))
    return "\n".join(pages)


def test_every_standing_has_a_picture() -> None:
    assert set(_WORDS) == set(get_args(Standing))
    seen = {each.standing.partition(" 120/")[0] for _, each in standings()}
    assert seen == {standing for standing, _ in _WORDS.values()}


@pytest.mark.parametrize("width", WIDTHS)
def test_each_standing_looks_like_its_picture(width: int) -> None:
    assert album(width) == (GOLDEN / f"screen-{width}.txt").read_text(encoding="utf-8")


def test_the_styles_are_those_of_the_picture() -> None:
    assert styles() == (GOLDEN / "screen-styles.txt").read_text(encoding="utf-8")


def test_the_keys_on_small_screens_look_like_their_picture() -> None:
    assert keys_on_small_screens() == (GOLDEN / "screen-keys.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("columns", "rows"), [(40, 20), (40, 12), (20, 12), (20, 8)])
def test_every_key_is_seen_whatever_else_there_is_to_see(columns: int, rows: int) -> None:
    for name, each in standings():
        drawing = render(replace(each, keys=ALL_KEYS, typed=None), columns - 1, rows - 1)
        seen = "  ".join(line.plain for line in drawing.lines)
        assert all(f"{key} {word}" in seen for key, _, word in ALL_KEYS), name
        assert "…" not in seen.partition(ALL_KEYS[-1][0])[0], name
        assert drawing.cursor == drawing.lines[-1].cell_len


@given(st.integers(1, 60), st.integers(0, 30), st.booleans())
def test_what_is_missing_of_the_keys_is_at_their_end(width: int, height: int, typing: bool) -> None:
    typed = Typed("Hm", 2) if typing else None
    everything = replace(see(answering(LONG)), keys=ALL_KEYS, typed=typed)
    drawing = render(everything, width, height)
    lines = [line.plain for line in drawing.lines]
    assert 1 <= len(lines) <= max(1, height)
    assert drawing.cursor <= max(width, 4)
    if len(lines) > typing and width >= len("q, Ctrl-C hang up"):
        assert lines[0].startswith("Space ")
        assert "hang up" in " ".join(lines).lower() or lines[-1 - typing].endswith("…")


@pytest.mark.parametrize("width", [1, 2, 5, 11, 20, 39, 40, 79, 80, 199])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    for name, each in standings():
        drawing = render(each, width)
        assert max(line.cell_len for line in drawing.lines) <= max(width, 4), name
        assert 0 <= drawing.cursor <= max(width, 4)


def test_a_low_screen_shows_the_last_lines() -> None:
    everything = replace(see(answering(LONG)), keys=KEYS, typed=Typed("Hm", 2))
    whole = render(everything, 80, 24).lines
    assert len(whole) > 6
    assert render(replace(everything, keys=()), 80, 2).lines == whole[-2:]
    assert len(render(everything, 80, 0).lines) == 1


def test_without_colour_it_is_the_same_text_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown_by(console: Console) -> str:
        with console.capture() as capture:
            for _, each in standings():
                console.print(*render(each, 80).lines, sep="\n")
        return capture.get()

    colours = ("\x1b[31", "\x1b[1;31", "\x1b[32", "\x1b[1;32", "\x1b[36", "\x1b[1;36")
    coloured = shown_by(Console(force_terminal=True, width=80, color_system="truecolor"))
    assert any(colour in coloured for colour in colours)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown_by(Console(force_terminal=True, width=80, color_system="truecolor"))
    assert not any(colour in plain for colour in colours)
    assert Text.from_ansi(plain).plain == Text.from_ansi(coloured).plain


# What is over, and the parts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "is_saved", "line"),
    [
        (Turn("i", "user", "Hello.", "complete", None, 0, 900), True, "0:00 You: Hello."),
        (
            Turn("i", "assistant", "I was", "interrupted", None, 75_900, 76_000),
            True,
            "1:15 Assistant: I was (interrupted)",
        ),
        (
            Turn("i", "user", "", "untranscribed", None, 3_600_000),
            True,
            "60:00 You: (not transcribed)",
        ),
        (Turn("i", "user", "a\x1b[31m\nb", "complete"), False, "0:00 You: a [31m b (not saved)"),
    ],
)
def test_a_turn_that_is_over_says_when_who_what(turn: Turn, is_saved: bool, line: str) -> None:
    assert finished(turn, is_saved=is_saved).plain == line


def test_the_clock_counts_minutes_only() -> None:
    assert [clock(seconds) for seconds in (0, 59, 60, 3723)] == ["0:00", "0:59", "1:00", "62:03"]


@pytest.mark.parametrize("text", [LONG, WIDE, "a", "", "word " * 30, f"{LONG} {WIDE}", "x" * 100])
@pytest.mark.parametrize("width", [2, 7, 40])
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


ODD = st.text(st.sampled_from(" ab你🐝❤\ufe0f\u200b\u200d\u0301\U000e0061")) | st.text()


@given(ODD, st.integers(1, 12))
@example("abcde  xyz", 5)
@example("abcde \u200b xyz", 5)
@example("\u200d", 1)
@example("a \u0301", 1)
@example("\U000e0061", 3)
@example("你好 x", 1)
def test_whatever_is_wrapped_fits_and_loses_nothing(text: str, width: int) -> None:
    lines = wrapped(text, width)
    for line in lines:
        is_one_letter = len([each for each in chop_cells(line, width) if each]) == 1
        assert cell_len(line) <= width or is_one_letter
        assert line or len(lines) == 1
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(ODD, st.integers(1, 12))
def test_whatever_is_said_or_typed_is_shown(text: str, width: int) -> None:
    typed = Typed(text, len(text) // 2)
    said = Live("item", "assistant", text)
    drawing = render(Shown(standing="answering", turns=(said,), typed=typed), width)
    assert len(drawing.lines) >= 3
    if width >= 5:  # the prompt, a letter and the cursor
        assert all(line.cell_len <= width for line in drawing.lines)
        assert drawing.cursor < width


def test_equal_moments_are_equal_so_that_nothing_is_drawn_twice() -> None:
    scene = answering()
    assert see(scene) == see(scene.at(scene.now + 0.1))
    assert see(scene) != see(scene.at(scene.now + 1.0))


# How long an answer takes -----------------------------------------------------------------------


def test_the_latency_is_from_the_end_of_speech_to_the_first_sound() -> None:
    scene = asking()  # the server heard the end 0 ms ago
    assert scene.conversation.view.latency is None
    scene.at(scene.now + 0.5).play(response_begins(), words("item_A", "Well."))
    assert scene.conversation.view.latency is None
    scene.at(scene.now + 0.25).play(voice("item_A", 100))
    scene.at(scene.now + 2.0).play(voice("item_A", 100))
    assert scene.conversation.view.latency == pytest.approx(0.75)


def test_the_latency_counts_from_where_the_server_heard_the_end() -> None:
    scene = Scene.live()
    scene.play(user_starts("item_U"))
    speak(scene, 1, 101)
    scene.play(InputAudioBufferSpeechStopped("item_U", 1600), committed("item_U"))
    scene.at(scene.now + 0.3).play(response_begins(), voice("item_A", 100))
    assert scene.conversation.view.latency == pytest.approx(0.7)


def test_a_turn_by_key_or_keyboard_ends_when_it_is_sent() -> None:
    scene = Scene.live(vad="none")
    scene.play(TalkKeyPressed())
    speak(scene, 1, 50)
    scene.play(TalkKeyPressed())
    scene.at(scene.now + 0.4).play(response_begins(), voice("item_A", 100), response_ends())
    assert scene.conversation.view.latency == pytest.approx(0.4)
    scene.at(scene.now + 9.0).play(PlaybackFinished("item_A", 100), TextTyped("Really?"))
    scene.at(scene.now + 1.2).play(response_begins("resp_2"), voice("item_B", 100, "resp_2"))
    assert scene.conversation.view.latency == pytest.approx(1.2)


def test_who_speaks_again_before_the_answer_waits_anew() -> None:
    scene = asking()
    scene.at(scene.now + 5.0).play(user_starts("item_V", 1180))
    speak(scene, 1, 50)
    scene.play(InputAudioBufferSpeechStopped("item_V", 2160), committed("item_V", "item_U"))
    scene.at(scene.now + 0.5).play(response_begins(), voice("item_A", 100))
    assert scene.conversation.view.latency == pytest.approx(0.5)


# How loud it is ---------------------------------------------------------------------------------


def test_a_level_is_a_step_for_each_7_db() -> None:
    assert BAR == LEVELS
    assert [level(silence(20)), level(b""), level(b"\0")] == [0, 0, 0]
    squares = [int(32_767 * 10 ** (db / 20)) for db in (-60, -50, -39, -30, -20, -10, 0)]
    tones = [level(peak.to_bytes(2, "little") * 480) for peak in squares]
    assert tones == [0, 0, 2, 3, 4, 6, 6]


def test_a_meter_forgets_what_it_has_told() -> None:
    meter = Meter()
    assert meter.read() == 0
    for _ in range(1000):
        meter.hear(b"\xff\x3f" * 480)
    assert (meter.read(), meter.read()) == (LEVELS, 0)


if __name__ == "__main__":
    for each_width in WIDTHS:
        (GOLDEN / f"screen-{each_width}.txt").write_text(album(each_width), encoding="utf-8")
    (GOLDEN / "screen-keys.txt").write_text(keys_on_small_screens(), encoding="utf-8")
    (GOLDEN / "screen-styles.txt").write_text(styles(), encoding="utf-8")
