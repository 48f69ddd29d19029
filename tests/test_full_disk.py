"""A disk that fills up in a conversation: the user is asked, and nothing is hidden."""

import re
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.program import messages, voicechat
from tests.scene import (
    GONE,
    Scene,
    answered,
    come_back,
    committed,
    frame,
    lose,
    response_begins,
    response_ends,
    said,
    saying,
    sends,
    speak,
    user_starts,
    voice,
    words,
)
from tests.strict_server import KEY, StrictServer
from tests.test_bad_input import limited
from tests.tmux import terminal
from tests.virtual_card import VirtualCard
from tests.waiting import settled
from voicechat.errors import ConnectError, ExitCode, StoreError
from voicechat.history.reading import add_up
from voicechat.pcm import silence
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Finish, Notice, Play, StopPlayback, Write
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemInputAudioTranscriptionCompleted,
    InputAudioBufferAppend,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    GoOnUnsaved,
    MicCaptured,
    MuteToggled,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    SavingFailed,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.policy import Policy
from voicechat.transcript import Closed, Opened, Transcript

FULL = StoreError("cannot write talk.jsonl: no space left on device", remedy="Free some space.")
QUESTION = Notice(
    "Nothing more can be saved: cannot write talk.jsonl: no space left on device. The microphone "
    "is muted; n goes on without saving, q hangs up."
)
GOING_ON = Notice("Going on without saving. The microphone is on.")
NOT_SAVED = Notice("What was said since you went on without saving is not saved.")
KEYBOARD = Policy(can_go_on_unsaved=True)


def asked(**configuration: str) -> Scene:
    """A scene in which a turn was answered, and then could not be saved."""
    scene = Scene.live(KEYBOARD, **configuration)
    answered(scene)
    scene.on(SavingFailed(FULL), QUESTION)
    return scene


# Scenes -----------------------------------------------------------------------------------------


def test_nothing_is_heard_until_the_user_has_said_whether_to_go_on() -> None:
    scene = asked()
    assert scene.conversation.is_shut
    scene.on(MicCaptured(frame(1)))
    scene.on(GoOnUnsaved(), GOING_ON)
    assert not scene.conversation.is_shut
    scene.on(MicCaptured(frame(2)), sends(InputAudioBufferAppend(frame(2))))
    scene.on(GoOnUnsaved())  # it was asked once


def test_what_is_being_said_ends_in_silence_and_is_answered() -> None:
    scene = Scene.live(KEYBOARD)
    scene.play(user_starts())
    speak(scene, 1, 10)
    scene.on(SavingFailed(FULL), QUESTION)
    scene.on(MicCaptured(frame(10)), sends(InputAudioBufferAppend(silence(20))))
    scene.play(committed("item_U"))
    scene.on(MicCaptured(frame(11)))
    scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "I was"))
    scene.play(response_begins(), words("item_A", "Yes?"))
    assert Play("item_A", silence(300)) in scene.play(voice("item_A", 300))


def test_an_answer_goes_on_being_played() -> None:
    scene = Scene.live(KEYBOARD)
    scene.play(response_begins(), words("item_A", "One two "), voice("item_A", 500))
    scene.on(SavingFailed(FULL), QUESTION)
    scene.play(words("item_A", "three four"))
    scene.on(voice("item_A", 500), Play("item_A", silence(500)))
    scene.play(response_ends(), PlaybackFinished("item_A", 1000))
    assert scene.spoken == [("assistant", "One two three four", "complete")]


def test_what_is_typed_and_other_keys_are_answered_by_the_same_question() -> None:
    scene = asked()
    scene.on(TextTyped("Are you there?"), QUESTION)
    scene.on(MuteToggled(), QUESTION)
    scene.on(GoOnUnsaved(), GOING_ON)
    assert len(scene.spoken) == 2
    effects = scene.play(TextTyped("Are you there?"))
    assert saying(effects, ConversationItemCreate)


def test_a_turn_with_the_talk_key_waits_and_can_be_ended_then() -> None:
    scene = Scene.live(KEYBOARD, vad="none")
    scene.play(TalkKeyPressed())
    frames = speak(scene, 1, 20)
    scene.on(SavingFailed(FULL), QUESTION)
    scene.on(TalkKeyPressed(), QUESTION)
    scene.on(MicCaptured(frame(20)))
    scene.play(GoOnUnsaved())
    scene.on(MicCaptured(frames[0]), sends(InputAudioBufferAppend(frames[0])))
    scene.play(TalkKeyPressed())
    scene.play(committed("item_U"))
    assert scene.conversation.transcript.get("item_U") is not None


def test_who_had_muted_the_microphone_finds_it_muted() -> None:
    scene = Scene.live(KEYBOARD)
    scene.play(MuteToggled())
    scene.play(SavingFailed(FULL))
    scene.on(GoOnUnsaved(), Notice("Going on without saving. The microphone is muted, as before."))
    scene.on(MicCaptured(frame(1)))
    scene.on(MuteToggled(), Notice("Microphone on."))


def test_nobody_there_to_answer_is_the_end_after_a_minute() -> None:
    scene = asked()
    assert scene.conversation.deadline == 60.0
    scene.at(59.9).on(DeadlineReached())
    effects = scene.at(60.0).play(DeadlineReached())
    assert effects[-1] == Finish(FULL)
    assert NOT_SAVED not in effects


def test_an_answer_that_is_heard_when_the_minute_is_over_is_cut_off() -> None:
    scene = asked()
    scene.at(55.0).play(response_begins("resp_2"), words("item_B", "One two three four", "resp_2"))
    scene.play(voice("item_B", 10_000, "resp_2"))
    scene.at(60.0).on(DeadlineReached(), StopPlayback())
    effects = scene.play(PlaybackStopped((("item_B", 5000),)))
    assert [record.text for record in said(effects)] == ["One two"]
    assert effects[-1] == Finish(FULL)


def test_who_goes_on_is_asked_no_more_and_leaves_in_peace() -> None:
    scene = asked()
    scene.play(GoOnUnsaved())
    scene.at(61.0).on(DeadlineReached())
    answered(scene, "Still there?", "Yes.")
    effects = scene.play(QuitRequested())
    assert effects[-2:] == [NOT_SAVED, Finish()]
    assert len(scene.spoken) == 4


def test_who_hangs_up_instead_is_told_by_the_exit_code_that_something_is_not_saved() -> None:
    scene = asked()
    scene.on(QuitRequested(), Write(Closed(end_ms=scene.conversation.timeline_ms(0))), Finish(FULL))
    assert FULL.exit_code == ExitCode.STORE


def test_without_a_keyboard_it_is_the_end() -> None:
    scene = Scene.live()
    answered(scene)
    assert scene.play(SavingFailed(FULL))[-1] == Finish(FULL)


def test_a_disk_that_fills_up_while_hanging_up_changes_nothing_but_the_reason() -> None:
    scene = Scene.live(KEYBOARD)
    scene.play(committed("item_U"), QuitRequested())
    scene.on(SavingFailed(FULL))
    effects = scene.play(ConversationItemInputAudioTranscriptionCompleted("item_U", 0, "Bye."))
    assert effects[-1] == Finish(FULL)


def test_a_line_that_is_lost_meanwhile_comes_back_and_the_question_stands() -> None:
    scene = asked()
    lose(scene)
    scene.on(MicCaptured(frame(1)))
    come_back(scene, "h0001", "h0002")
    assert scene.conversation.link is Link.LIVE
    scene.on(TextTyped("Hello?"), QUESTION)
    scene.on(GoOnUnsaved(), GOING_ON)


def test_a_line_that_is_lost_for_good_does_not_pretend_that_all_is_saved() -> None:
    policy = Policy(reconnect_for=0, can_go_on_unsaved=True)
    scene = Scene(Transcript.of([Opened(session="7f3a9k")]), policy=policy)
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    answered(scene)
    effects = scene.play(SavingFailed(FULL), GoOnUnsaved(), Disconnected(1, GONE))
    finish = effects[-1]
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, ConnectError)
    assert "until saving failed is saved" in finish.error.remedy


# The program ------------------------------------------------------------------------------------


def test_a_disk_that_is_full_at_the_very_end_is_told_by_the_exit_code(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StrictServer().running() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        command = ["talk", "--url", server.url, "--text", "Hello"]
        assert voicechat(*command).code == 0
        [path] = (home / "sessions").iterdir()
        assert b'"closed"' in path.read_bytes()[-60:]
        run = voicechat(*command, preexec=limited(path.stat().st_size - 30))
    assert run.code == ExitCode.STORE
    assert "no space left on device" in run.err
    assert run.lines == ["You: Hello", "Assistant: All right. I heard you."]
    assert [text for _, text in messages("last")] == ["Hello", "All right. I heard you."]


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=8k tmpfs "$0" && head -c 4096 /dev/zero >"$0/full" || {
    trap "" XFSZ  # some systems let nobody mount: no file grows beyond 4 KiB then
    ulimit -f 8
}
"$@"
echo $? >"$0.code"
cp -r "$0/sessions" "$0.kept"
"""
"""Runs a program on a disk of its own with 4 KiB left; what came of it is then beside it."""


def turns(screen: list[str]) -> list[str]:
    """The words of each that is over and on the screen."""
    matches = [re.match(r"(?:> )?\d+:\d\d (?:You|Assistant): (.*)", line) for line in screen]
    return [match[1] for match in matches if match]


def shows_one_of(texts: list[str], screen: list[str]) -> bool:
    return any(text in line for line in screen for text in texts)


def shows_answer(asked: str, answer: str, screen: list[str]) -> bool:
    """The answer is over, or the question came first."""
    return shows_one_of([asked], screen) or any(text.startswith(answer) for text in turns(screen))


@pytest.mark.card
def test_the_conversation_goes_on_when_the_disk_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    inside: list[str | Path] = ["unshare", "--map-root-user", "--mount"]
    inside += ["sh", "-c", ON_A_SMALL_DISK, disk]
    server = StrictServer()
    server.answer_ms, server.answer_text = 100, "You said {}.".format
    with (
        VirtualCard() as card,
        server.running(),
        terminal(
            [*inside, sys.executable, "-m", "voicechat", "talk", "--url", server.url],
            width=250,
            height=60,
            **card.env | {"VOICECHAT_HOME": str(disk), "OPENAI_API_KEY": KEY},
        ) as at,
    ):
        at.wait_for("listening")
        asked = f"Nothing more can be saved: cannot write {disk}/sessions/"
        for number in count(1):
            at.type(f"tNumber {number}")
            at.send("Enter")
            at.wait_until(partial(shows_answer, asked, f"You said Number {number}"))
            if shows_one_of([asked, "(not saved)"], at.screen):
                break
        at.wait_for("no space left on device. The microphone is muted; n goes on", " q hangs up.")
        at.type("tAre you there?")
        at.send("Enter")
        at.wait_until(lambda screen: sum(asked in line for line in screen) == 2)
        heard = settled(lambda: len(server.peers[0].heard))
        at.type("n")
        at.wait_for("Going on without saving. The microphone is on.")
        at.wait_until(lambda _: len(server.peers[0].heard) > heard)
        at.type("tGood")
        at.send("Enter")
        at.wait_until(lambda screen: "You said Good. (not saved)" in turns(screen))
        at.type("q")
        at.wait_for_end()
        screen = at.screen
    assert disk.with_name("disk.code").read_text() == "0\n"
    assert "What was said since you went on without saving is not saved." in screen
    shown = turns(screen)
    assert shown[-2:] == ["Good (not saved)", "You said Good. (not saved)"]
    assert "Are you there?" not in "".join(shown)
    saved = [text for text in shown if not text.endswith(" (not saved)")]
    assert saved[:2] == ["Number 1", "You said Number 1."]
    [path] = disk.with_name("disk.kept").iterdir()
    assert [turn.text for turn in add_up(path).transcript.spoken][: len(saved)] == saved
    (tmp_path / "home").mkdir()
    path.parent.rename(tmp_path / "home" / "sessions")
    listed = voicechat("history", "list")
    assert (listed.code, path.stem[-6:] in listed.out) == (0, True)
