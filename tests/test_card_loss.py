"""Sound cards that stall, are unplugged or lose their sound server, in the middle of everything."""

import re
import signal
import time
from collections.abc import Callable

import pytest

from tests.program import SPEECH, messages
from tests.strict_server import KEY, StrictServer
from tests.test_card import Live, loud_seconds
from tests.virtual_card import VirtualCard
from voicechat.audio.card import SILENT_MS

pytestmark = pytest.mark.card

TROUBLES: dict[str, tuple[Callable[[VirtualCard], None], Callable[[VirtualCard], None]]] = {
    "stalled": (VirtualCard.stall, VirtualCard.resume),
    "unplugged": (VirtualCard.unplug, VirtualCard.replug),
    "without its server": (VirtualCard.kill_server, VirtualCard.restart_server),
}
NOTICED = 2.5
"""Seconds, on a busy machine; 1.5 on a quiet one."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Call(Live):
    """A conversation, with what a test asks of it again and again."""

    def said(self, words: str) -> int:
        return sum(words in line for line in self.err)

    def notice(self, words: str, times: int, seconds: float) -> None:
        self.until(lambda: self.said(words) >= times, seconds)

    def gone(self, device: str, times: int = 1) -> None:
        """Wait until it has been said so often that this device is gone."""
        self.until(
            lambda: sum(device in each and " gone;" in each for each in self.err) >= times, NOTICED
        )

    def back(self, device: str, times: int = 1) -> None:
        """Wait until it has been said so often that this device is there again."""
        self.until(lambda: self.said_of(device) >= times, 15)

    def said_of(self, device: str) -> int:
        return sum(device in line for line in self.err if line.startswith("Sound is back"))

    def heard(self, card: VirtualCard, seconds: float) -> None:
        """Say something, and wait until so much of the answer was heard."""
        recording = card.record()
        card.speak(SPEECH / "cards_001.wav")
        self.until(lambda: loud_seconds(bytes(recording.pcm)) > seconds)
        recording.stop()

    def listening(self, server: StrictServer) -> None:
        self.until(lambda: bool(server.received and server.received[0][2:]))

    def printed(self, lines: int) -> None:
        self.until(lambda: len(self.out) >= lines)

    def turn(self, card: VirtualCard) -> None:
        """Say something, and be answered."""
        before = len(self.out)
        card.speak(SPEECH / "cards_001.wav")
        self.until(lambda: len(self.out) >= before + 2)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_card_that_is_gone_is_noticed_and_got_back(trouble: str) -> None:
    break_it, mend_it = TROUBLES[trouble]
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url) as call,
    ):
        call.listening(server)
        for times, moment in enumerate(("idle", "speech", "answer"), start=1):
            if moment == "speech":
                card.speak(SPEECH / "cards_004.wav", block=False)
                call.until(lambda: bool(server.peers[0].loud_item))
            elif moment == "answer":
                server.answer_ms, server.deltas = 4_000, 20
                call.heard(card, 0.5)
            break_it(card)
            call.gone("microphone 'default'", times)
            call.gone("speaker 'default'", times)
            time.sleep(0.5)
            mend_it(card)
            call.back("microphone 'default'", times)
            call.back("speaker 'default'", times)
            call.printed(4 * times - 4)  # what was broken off has come to its end
            server.answer_ms, server.deltas = 600, 3
            call.turn(card)
        call.hang_up()
    assert not [line for line in call.err if "ALSA" in line or "Expression" in line]
    assert not server.violations
    roles = [role for role, _ in messages("last")]
    assert roles == ["user", "assistant"] * 5  # three turns, the broken sentence, the long answer


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("moment", ["idle", "speech", "answer"])
def test_leaving_takes_two_seconds_whatever_the_card_does(trouble: str, moment: str) -> None:
    break_it, _ = TROUBLES[trouble]
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url, "--no-log") as call,
    ):
        server.answer_ms, server.deltas = 20_000, 100
        call.listening(server)
        if moment == "speech":
            card.speak(SPEECH / "austen_0870.wav", block=False)
            call.until(lambda: bool(server.peers[0].loud_item))
        elif moment == "answer":
            call.heard(card, 0.3)
        break_it(card)
        time.sleep(0.3)
        call.hang_up()


def test_while_only_the_speaker_is_gone_the_conversation_goes_on_in_writing() -> None:
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url) as call,
    ):
        call.listening(server)
        card.unplug("speaker")
        call.gone("speaker 'default'")
        call.turn(card)
        call.turn(card)
        assert not call.said("microphone 'default' is gone")
        card.replug("speaker")
        call.back("speaker 'default'")
        recording = card.record()
        call.turn(card)
        call.hang_up()
        assert loud_seconds(recording.stop()) == pytest.approx(0.6, abs=0.1)
    assert [text for role, text in messages("last") if role == "user"] == ["hello there"] * 3


def test_while_only_the_microphone_is_gone_a_sentence_ends_and_answers_are_heard() -> None:
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url) as call,
    ):
        call.listening(server)
        recording = card.record()
        card.speak(SPEECH / "austen_0870.wav", block=False)
        call.until(lambda: bool(server.peers[0].loud_item))
        card.unplug("microphone")
        call.gone("microphone 'default'")
        call.until(lambda: len(call.out) == 2)
        assert loud_seconds(recording.stop()) == pytest.approx(0.6, abs=0.1)
        card.replug("microphone")
        call.back("microphone 'default'")
        call.turn(card)
        call.hang_up()


def test_a_headset_that_vanishes_gives_way_to_the_default_device() -> None:
    with (
        VirtualCard(microphones=["headset"], speakers=["headset"]) as card,
        StrictServer().running() as server,
        Call(
            card,
            *("talk", "--url", server.url),
            *("--input-device", "headset", "--output-device", "HEAD"),
        ) as call,
    ):
        call.listening(server)
        recording = card.record(device="headset")
        card.speak(SPEECH / "cards_001.wav", device="headset")
        call.until(lambda: len(call.out) == 2)
        assert loud_seconds(recording.stop()) == pytest.approx(0.6, abs=0.1)
        card.unplug(device="headset")
        call.gone("speaker 'headset'")
        call.back("microphone 'default'")
        call.back("speaker 'default'")
        call.turn(card)
        call.hang_up()


def test_after_a_sleep_streams_and_connection_are_fresh() -> None:
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url) as call,
    ):
        call.listening(server)
        call.turn(card)
        call.process.send_signal(signal.SIGSTOP)
        time.sleep(7)
        call.process.send_signal(signal.SIGCONT)
        call.until(
            lambda: bool(
                re.search(r"this computer slept, or was stopped, for \d+ s", "".join(call.err))
            )
        )
        call.until(lambda: call.said("1 of 1") + call.said("2 turns restored") > 0)
        call.back("microphone 'default'")
        call.turn(card)
        call.hang_up()
        assert len(server.received) == 2


def test_nothing_but_silence_from_the_microphone_gets_a_hint_once_whatever_follows() -> None:
    with (
        VirtualCard() as card,
        StrictServer().running() as server,
        Call(card, "talk", "--url", server.url, "--no-log") as call,
    ):
        call.listening(server)
        call.until(lambda: call.said("gives only silence") > 0, 20)
        call.turn(card)
        time.sleep(SILENT_MS / 1000 + 1)
        call.hang_up()
        assert call.said("gives only silence") == 1
