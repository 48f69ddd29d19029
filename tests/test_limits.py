"""Minutes, money and silence end a conversation as hanging up does; speed, answers in writing."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.program import records, voicechat
from tests.scene import (
    Scene,
    answered,
    come_back,
    committed,
    lose,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    sound,
    user_starts,
    voice,
    words,
)
from tests.strict_server import KEY, StrictServer
from tests.tmux import terminal
from tests.virtual_card import VirtualCard
from voicechat.errors import ExitCode
from voicechat.pcm import silence
from voicechat.prices import Price
from voicechat.realtime.conversation import Floor, Link
from voicechat.realtime.effects import (
    Close,
    Connect,
    Effect,
    EndPlayback,
    Finish,
    Notice,
    Play,
    StopPlayback,
    Write,
)
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemInputAudioTranscriptionCompleted,
    InputAudioBufferAppend,
    InputAudioBufferSpeechStopped,
    ResponseCreate,
    ResponseOutputItemDone,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    GoOnUnsaved,
    Input,
    MicCaptured,
    MuteToggled,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    TalkKeyPressed,
    TextTyped,
    Typing,
    WaitSkipped,
)
from voicechat.realtime.policy import Policy
from voicechat.transcript import Closed, Opened, Said, Transcript, Usage

MODEL = "gpt-realtime-2.1"
QUIET = silence(20)


def told(effects: list[Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Notice)]


def is_over(scene: Scene, effects: list[Effect]) -> bool:
    """It ended as hanging up ends it: closed in the file, and with no error."""
    writes = [effect.record for effect in effects if isinstance(effect, Write)]
    assert Finish(None) not in effects or isinstance(writes[-1], Closed)
    assert (scene.conversation.link is Link.CLOSED) == (Finish(None) in effects)
    return Finish(None) in effects


def reach(scene: Scene, now: float) -> list[Effect]:
    """The clock gets there, and the conversation is told of every deadline until then."""
    effects: list[Effect] = []
    while scene.conversation.deadline is not None and scene.conversation.deadline <= now:
        effects += scene.at(scene.conversation.deadline).play(DeadlineReached())
    scene.at(now)
    return effects


# Minutes -----------------------------------------------------------------------------------------


def test_minutes_end_it_and_the_last_one_is_told() -> None:
    scene = Scene.live(Policy(max_seconds=1800))
    answered(scene)
    assert reach(scene, 1739) == []
    scene.at(1740).on(DeadlineReached(), Notice("Hanging up in 1 minute, by --max-minutes."))
    assert reach(scene, 1799) == []
    effects = scene.at(1800).play(DeadlineReached())
    assert told(effects) == ["Hanging up after 30 minutes, by --max-minutes."]
    assert is_over(scene, effects)


def test_of_less_than_two_minutes_half_is_told() -> None:
    scene = Scene.live(Policy(max_seconds=60))
    assert scene.conversation.deadline == 30
    scene.at(30).on(DeadlineReached(), Notice("Hanging up in 30 s, by --max-minutes."))
    assert is_over(scene, scene.at(60).play(DeadlineReached()))


def test_minutes_count_from_the_first_live_connection_over_all_that_follow() -> None:
    scene = Scene(policy=Policy(max_seconds=1800))
    scene.at(9).play(Connected(1), SessionCreated({}))
    assert (scene.conversation.deadline or 0) < 20  # the settings are awaited, and no limit
    scene.at(10).play(SessionUpdated())
    answered(scene)
    lose(scene.at(1000))
    come_back(scene, "h0001", "h0002")
    assert told(reach(scene, 1809)) == ["Hanging up in 1 minute, by --max-minutes."]
    assert is_over(scene, scene.at(1810).play(DeadlineReached()))


def test_minutes_that_are_over_while_the_line_is_lost_end_it_too() -> None:
    scene = Scene.live(Policy(max_seconds=100))
    answered(scene)
    reach(scene, 99)
    lose(scene)
    effects = reach(scene, 100)
    assert Connect(2) in effects
    assert is_over(scene, effects)


def test_an_answer_is_cut_where_it_was_heard_and_the_last_words_are_waited_for() -> None:
    scene = Scene.live(Policy(max_seconds=100))
    reach(scene, 97)
    scene.play(committed("U"), response_begins(), words("A", "One two three four."))
    scene.play(voice("A", 4000), response_ends())
    effects = scene.at(100).play(DeadlineReached())
    assert StopPlayback() in effects
    assert not is_over(scene, effects)
    assert not is_over(scene, scene.play(PlaybackStopped((("A", 2000),))))
    words_come = ConversationItemInputAudioTranscriptionCompleted("U", 0, "Count.")
    assert is_over(scene, scene.at(100.5).play(words_come))
    assert scene.spoken == [("user", "Count.", "complete"), ("assistant", "One two", "interrupted")]


# Silence -----------------------------------------------------------------------------------------

TEN = Policy(hang_up_after=600)
SOON = (
    "Nobody has said anything for 9 minutes: hanging up in 1 minute, unless someone says or types "
    "something."
)


def hear_room(scene: Scene, until: float) -> list[Effect]:
    """The microphone goes on hearing nothing."""
    effects = []
    while scene.now + 7 < until:
        effects += reach(scene, scene.now + 7)
        effects += scene.play(MicCaptured(QUIET))
    effects += reach(scene, until)
    return [each for each in effects if isinstance(each, Notice | Finish)]


def test_silence_on_both_sides_ends_it_and_is_told_a_minute_before() -> None:
    scene = Scene.live(TEN)
    answered(scene.at(100))
    assert hear_room(scene, 639) == []
    assert hear_room(scene, 640) == [Notice(SOON)]
    assert hear_room(scene, 699) == []
    effects = scene.at(700).play(DeadlineReached())
    assert told(effects) == ["Hanging up after 10 minutes of silence, by --hang-up-after."]
    assert is_over(scene, effects)


def test_who_never_said_anything_is_hung_up_on_too() -> None:
    scene = Scene.live(TEN)
    assert told(hear_room(scene, 599)) == [SOON]
    assert is_over(scene, scene.at(600).play(DeadlineReached()))


def test_a_word_after_the_warning_begins_it_anew() -> None:
    scene = Scene.live(TEN)
    assert told(hear_room(scene, 590)) == [SOON]
    scene.play(user_starts("U"), InputAudioBufferSpeechStopped("U", 500))
    scene.at(595)
    answered(scene)
    assert hear_room(scene, 1134) == []
    assert told(hear_room(scene, 1194)) == [SOON]
    assert is_over(scene, scene.at(1195).play(DeadlineReached()))


@pytest.mark.parametrize(
    "key", [Typing(), MuteToggled(), TalkKeyPressed(), WaitSkipped(), GoOnUnsaved()]
)
def test_every_key_is_a_sign_of_life(key: Input) -> None:
    scene = Scene.live(TEN)
    hear_room(scene, 590)
    scene.play(key)
    assert scene.conversation.deadline == 590 + 540


def test_muted_is_silent() -> None:
    scene = Scene.live(TEN)
    scene.at(1).play(MuteToggled())
    assert told(hear_room(scene, 600)) == [SOON]
    assert is_over(scene, scene.at(601).play(DeadlineReached()))


def test_a_long_answer_is_no_silence_and_what_is_typed_is_none() -> None:
    scene = Scene.live(TEN)
    scene.at(100).play(TextTyped("Read me the book."), response_begins(), words("A", "Well."))
    scene.play(voice("A", 3_000_000), response_ends())
    assert scene.conversation.floor is Floor.ASSISTANT
    assert hear_room(scene, 3100) == []
    scene.play(PlaybackFinished("A", 3_000_000))
    assert hear_room(scene, 3639) == []
    assert told(hear_room(scene, 3640)) == [SOON]


def test_the_clock_of_silence_stops_while_the_line_is_lost() -> None:
    scene = Scene.live(TEN)
    answered(scene)
    assert hear_room(scene, 500) == []
    lose(scene)
    come_back(scene.at(590), "h0001", "h0002")
    assert scene.now == 590.25
    assert hear_room(scene, 630) == []
    assert told(hear_room(scene, 630.25)) == [SOON]  # 100 s were left when it was lost
    lose(scene.at(640.25))
    come_back(scene.at(700), "h0001", "h0002")
    assert hear_room(scene, 750.24) == []  # which is not said twice
    assert is_over(scene, scene.at(750.25).play(DeadlineReached()))


def test_what_is_typed_while_the_line_is_lost_begins_it_anew() -> None:
    scene = Scene.live(TEN)
    answered(scene)
    hear_room(scene, 500)
    lose(scene)
    scene.play(Typing())
    come_back(scene.at(510), "h0001", "h0002")
    assert scene.conversation.deadline == 510.25 + 540


def test_without_a_limit_nothing_is_waited_for() -> None:
    scene = Scene.live()
    answered(scene)
    assert scene.conversation.deadline is None


# Money -------------------------------------------------------------------------------------------

PRICES = {MODEL: Price(text=100.0, audio_output=1000.0)}
"""So that a token in costs a hundredth of a cent."""


def priced(max_cost: float = 1.0) -> Policy:
    return Policy(max_cost=max_cost, prices=PRICES)


def answer(scene: Scene, number: int, cents: float, *, heard: bool = True) -> list[Effect]:
    """A turn and an answer to it, which cost so much."""
    scene.play(committed(f"U{number}"))
    scene.play(ConversationItemInputAudioTranscriptionCompleted(f"U{number}", 0, "And?"))
    scene.play(response_begins(f"R{number}"), words(f"A{number}", "So.", f"R{number}"))
    scene.play(voice(f"A{number}", 300, f"R{number}"))
    usage = {"input_tokens": round(cents * 100), "output_tokens": 0}
    effects = scene.play(response_ends(f"R{number}", usage=usage))
    return effects + (scene.play(PlaybackFinished(f"A{number}", 300)) if heard else [])


def test_most_of_the_money_is_told_once_and_its_end_ends_it() -> None:
    scene = Scene.live(priced())
    assert told(answer(scene, 1, 79)) == []
    assert told(answer(scene, 2, 1)) == ["$0.80 of the $1.00 of --max-cost are spent."]
    assert told(answer(scene, 3, 19)) == []
    effects = answer(scene, 4, 1, heard=False)
    assert told(effects) == [
        "$1.00 of the $1.00 of --max-cost are spent: hanging up when this answer is over."
    ]
    assert StopPlayback() not in effects
    effects = scene.play(PlaybackFinished("A4", 300))
    assert said(effects)[-1].status == "complete"
    assert is_over(scene, effects)


def test_nothing_more_is_begun_once_it_is_spent() -> None:
    scene = Scene.live(priced())
    answer(scene, 1, 200, heard=False)
    scene.on(MicCaptured(QUIET))  # which nobody hears
    assert scene.conversation.is_shut
    scene.on(
        TextTyped("One more?"),
        Notice("What you typed is saved, but no longer sent: --max-cost is reached."),
    )
    usage = {"input_tokens": 100, "output_tokens": 0}  # of one that was begun before
    effects = scene.play(response_begins("R9"), response_ends("R9", usage=usage))
    assert not [each for each in told(effects) if "--max-cost" in each]  # it was said
    effects = scene.play(PlaybackFinished("A1", 300))
    assert not saying(effects, ConversationItemCreate)
    assert not saying(effects, ResponseCreate)
    assert is_over(scene, effects)
    assert scene.spoken[-1] == ("user", "One more?", "complete")


def test_who_speaks_over_the_last_answer_is_hung_up_on_and_no_answer_asked_for() -> None:
    scene = Scene.live(priced())
    answer(scene, 1, 200, heard=False)
    effects = scene.play(user_starts("U2"))
    assert StopPlayback() in effects
    assert scene.conversation.link is Link.LEAVING
    effects = scene.play(PlaybackStopped((("A1", 100),)))
    assert is_over(scene, effects)
    assert not saying(effects, ResponseCreate)


def test_a_turn_that_waits_for_the_cancelled_answer_is_not_asked_about() -> None:
    scene = Scene.live(priced())
    scene.play(TextTyped("Well?"), response_begins("R"), words("A", "So.", "R"))
    scene.play(voice("A", 300, "R"), TextTyped("And?"), PlaybackStopped((("A", 100),)))
    usage = {"input_tokens": 20_000, "output_tokens": 0}
    effects = scene.play(response_ends("R", "cancelled", usage=usage))
    assert not saying(effects, ResponseCreate)
    assert told(effects) == ["$2.00 of the $1.00 of --max-cost are spent: hanging up."]


def test_a_line_that_is_lost_while_the_last_answer_plays_is_not_replaced() -> None:
    scene = Scene.live(priced())
    answer(scene, 1, 200, heard=False)
    assert StopPlayback() in lose(scene)
    assert is_over(scene, scene.play(PlaybackStopped((("A1", 100),))))


def test_earlier_runs_of_a_session_are_not_counted() -> None:
    before = Transcript.of(
        [
            Opened(session="k7f3a2", model=MODEL),
            Said(item_id="U", role="user", text="Hello"),
            Usage(input_tokens=9999, model=MODEL),
        ]
    )
    scene = Scene(before, policy=priced())
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    assert told(answer(scene, 1, 79)) == []


def test_a_server_that_does_not_tell_what_answers_take_is_named_once() -> None:
    scene = Scene.live(priced())
    scene.play(committed("U"), response_begins(), words("A", "So."), voice("A", 300))
    missing = "The server does not tell what its answers take: --max-cost cannot be kept."
    assert told(scene.play(response_ends())) == [missing]
    scene.play(PlaybackFinished("A", 300), response_begins("R"), words("B", "So.", "R"))
    assert told(scene.play(voice("B", 300, "R"), response_ends("R"))) == []
    free = Scene.live()
    answered(free)
    free.play(response_begins("R"), words("B", "So.", "R"), voice("B", 300, "R"))
    assert told(free.play(response_ends("R"))) == []


def test_hanging_up_meanwhile_is_hanging_up() -> None:
    scene = Scene.live(priced())
    scene.play(committed("U"), response_begins(), words("A", "So."), voice("A", 300))
    scene.play(QuitRequested())
    usage = {"input_tokens": 20_000, "output_tokens": 0}
    assert told(scene.play(response_ends(status="cancelled", usage=usage))) == []


# Answers in writing ------------------------------------------------------------------------------


def test_a_server_that_speaks_though_text_was_asked_for_is_read_and_not_heard() -> None:
    scene = Scene.live(text_only=True)
    effects = scene.play(committed("U"), response_begins(), words("A", "I am "), voice("A", 300))
    effects += scene.play(words("A", "fine."), voice("A", 300))
    ended = {"id": "A", "type": "message", "role": "assistant", "status": "completed"}
    effects += scene.play(ResponseOutputItemDone(ended, "resp_1"), response_ends())
    assert not [each for each in effects if isinstance(each, Play | EndPlayback | Notice | Close)]
    assert not saying(effects, ResponseCreate)
    assert scene.spoken[-1] == ("assistant", "I am fine.", "complete")
    assert scene.conversation.floor is Floor.OPEN


def test_speech_without_words_is_an_answer_that_cannot_be_read() -> None:
    scene = Scene.live(text_only=True)
    scene.play(committed("U"), ConversationItemInputAudioTranscriptionCompleted("U", 0, "Well?"))
    effects = scene.play(response_begins(), voice("A", 300), response_ends())
    assert told(effects) == []
    assert scene.spoken[-1] == ("assistant", "", "untranscribed")


def test_a_turn_over_an_answer_in_writing_goes_on_as_ever() -> None:
    scene = Scene.live(text_only=True)
    scene.play(committed("U"), response_begins(), words("A", "I am fi"), voice("A", 300))
    assert scene.play(TextTyped("Stop."))[-1] == StopPlayback()
    effects = scene.play(PlaybackStopped(()))
    assert said(effects)[0].text == "I am fi"
    assert said(effects)[0].status == "interrupted"
    scene.play(response_ends(status="cancelled"))
    frame = InputAudioBufferAppend(QUIET)
    scene.on(MicCaptured(QUIET), sends(frame))
    assert sound([sends(frame)]) == QUIET


# The program -------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--max-minutes", "0", "Give a number from 0.01 to 1440."),
        ("--max-minutes", "nan", "Give a number from 0.01 to 1440."),
        ("--max-cost", "0", "Give a number from 0.01 to 10000."),
        ("--hang-up-after", "-1", "Give a number from 0 to 1440."),
        ("--speed", "0.2", "Give a number from 0.25 to 1.5."),
        ("--speed", "1.6", "Give a number from 0.25 to 1.5."),
    ],
)
def test_what_is_out_of_range_is_said(option: str, value: str, remedy: str) -> None:
    run = voicechat("talk", option, value)
    assert run.code == ExitCode.USAGE
    assert run.err.splitlines() == [f"voicechat: {option} {value} is out of range", f"  {remedy}"]


def test_cost_without_a_price_is_said_at_the_start(server: StrictServer, home: Path) -> None:
    run = voicechat("talk", "--model", "mine", "--text", "Hello", VOICECHAT_MAX_COST="1")
    assert run.code == ExitCode.USAGE
    assert run.err.splitlines() == [
        "voicechat: --max-cost needs the price of 'mine', which is not known",
        "  Name a file with prices in VOICECHAT_PRICES, or leave out --max-cost.",
    ]
    assert not home.exists()
    assert server.peers == []


def test_output_is_for_what_is_spoken(tmp_path: Path) -> None:
    file = tmp_path / "out.wav"
    run = voicechat("talk", "--text", "Hello", "--text-only", "--output", file)
    assert run.code == ExitCode.USAGE
    assert not file.exists()


def test_the_cost_ends_the_program_and_every_word_is_saved(
    server: StrictServer, home: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('["gpt-realtime-2.1"]\naudio_output = 500\n')  # an answer takes 12 of them
    texts = ["--text", "One", "--text", "Two", "--text", "Three"]
    run = voicechat("talk", *texts, "--max-cost", "0.01", VOICECHAT_PRICES=str(prices))
    assert run.code == 0
    spoken = ["You: One", "Assistant: All right. I heard you."]
    assert run.lines == [*spoken, "You: Two", *spoken[1:]]
    assert "of the $0.010 of --max-cost are spent: hanging up" in run.err  # when the answer is over
    assert f"Saved {run.session} · 4 turns" in run.err
    assert [each["type"] for each in records(home)][-1] == "closed"
    again = voicechat(
        *("resume", run.session, "--text", "Three", "--max-cost", "0.01"),
        VOICECHAT_PRICES=str(prices),
    )
    assert again.lines == ["You: Three", *spoken[1:]]
    assert "hanging up" not in again.err


def test_the_minutes_end_the_program_in_the_middle_of_an_answer(
    server: StrictServer, home: Path
) -> None:
    server.answer_text = "One two three four five six seven eight nine ten. " * 4
    server.answer_ms, server.deltas, server.delta_pause = 20_000, 100, 0.2
    run = voicechat("talk", "--text", "Count.", VOICECHAT_MAX_MINUTES="0.03")
    assert run.code == 0
    assert "Hanging up in 0.9 s, by --max-minutes." in run.err
    assert "Hanging up after 1.8 s, by --max-minutes." in run.err
    assert run.lines[0] == "You: Count."
    assert run.lines[1].startswith("Assistant: One two three")
    assert run.lines[1].endswith("(interrupted)")
    assert [each["type"] for each in records(home)][-1] == "closed"


def test_speed_and_text_only_are_told_to_the_server(server: StrictServer, home: Path) -> None:
    run = voicechat("talk", "--text", "Hello", "--speed", "0.8", "--text-only")
    assert run.code == 0
    session = server.said(0, "session.update")[0]["session"]
    assert session["audio"]["output"]["speed"] == 0.8
    assert session["output_modalities"] == ["text"]
    assert run.lines == ["You: Hello", "Assistant: All right. I heard you."]
    assert "in writing" not in run.err
    again = voicechat("resume", "last", "--text", "Hello")  # neither is saved
    assert again.code == 0
    session = server.said(1, "session.update")[0]["session"]
    assert "speed" not in session["audio"]["output"]
    assert session["output_modalities"] == ["audio"]
    by_variables = voicechat(
        *("talk", "--text", "Hello"), VOICECHAT_SPEED="1.5", VOICECHAT_TEXT_ONLY="1"
    )
    assert by_variables.code == 0
    session = server.said(2, "session.update")[0]["session"]
    assert session["audio"]["output"]["speed"] == 1.5
    assert session["output_modalities"] == ["text"]


def test_files_and_texts_end_by_themselves(server: StrictServer) -> None:
    server.deltas, server.delta_pause = 3, 0.4
    run = voicechat("talk", "--text", "Hello", "--text", "Bye", VOICECHAT_HANG_UP_AFTER="0.0001")
    assert run.code == 0
    assert len(run.lines) == 4
    assert "silence" not in run.err


def shows(text: str, times: int, screen: list[str]) -> bool:
    return "\n".join(screen).count(text) == times


@pytest.mark.card
def test_silence_ends_the_program_at_a_terminal(server: StrictServer, home: Path) -> None:
    command = [sys.executable, "-m", "voicechat", "talk", "--hang-up-after", "0.1"]
    with (
        VirtualCard() as card,
        terminal(command, width=120, height=30, **card.env) as at,
    ):
        at.wait_for("Listening.")
        at.type("tHello")
        at.send("Enter")
        at.wait_for("Assistant: All right. I heard you.")
        warning = "Nobody has said anything for 3 s: hanging up in 3 s, unless someone says"
        for number, keys in enumerate((["?"], ["t", "Escape"], []), start=1):
            at.wait_until(partial(shows, warning, number))
            for key in keys:
                at.send(key)
        at.wait_for("Hanging up after 6 s of silence, by --hang-up-after.", "Resume: voicechat")
        at.wait_for_end()
    assert [each["type"] for each in records(home)][-1] == "closed"
