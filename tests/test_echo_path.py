"""With headphones there is no echo, and nothing may be taken for one."""

import numpy as np
import pytest

from tests.rooms import ROOMS, TALKER_DB, Room, Samples, Sound, assistant, noise, pcm16, spoken
from tests.test_echo import CARD_MS, INTERRUPTIONS, SPEECH_HOPS, clean, frames, seconds, speech
from voicechat.audio.echo import Canceller
from voicechat.audio.echo_path import EchoPath
from voicechat.pcm import FRAME_MS, SAMPLE_RATE
from voicechat.server.contract import HOP_MS

SECONDS = 8
QUIET = [Room(f"so quiet that it is {db} dB", 120, db) for db in (-30, -40, -44)]


@pytest.fixture(scope="module")
def far() -> Samples:
    return assistant(SECONDS)


def looks(near: Samples, far: Samples) -> list[bool]:
    path = EchoPath()
    return [path.look(*pair) for pair in zip(frames(near), frames(far), strict=True)]


@pytest.mark.parametrize("room", [*ROOMS, *QUIET], ids=lambda room: room.name)
def test_an_echo_is_always_seen_even_in_the_noise_of_the_room(room: Room, far: Samples) -> None:
    assert all(looks(room.hears(far), far))


def test_without_one_that_is_known_within_two_seconds(far: Samples) -> None:
    seen = looks(pcm16(noise(len(far))), far)
    assert seen.index(False) * FRAME_MS < 2000
    assert not any(seen[seen.index(False) :])


def test_two_voices_at_once_are_no_echo_of_each_other(far: Samples) -> None:
    talker = np.concatenate([spoken(name, TALKER_DB) for name in INTERRUPTIONS])[: len(far)]
    near = pcm16(noise(len(far)) + np.pad(talker, (0, len(far) - len(talker))))
    seen = looks(near, far)
    assert np.mean(seen[2000 // FRAME_MS :]) < 0.2


def test_as_long_as_the_assistant_is_silent_nothing_is_concluded() -> None:
    near = pcm16(noise(4 * SAMPLE_RATE))
    assert all(looks(near, np.zeros_like(near)))


def test_headphones_that_are_taken_off_are_noticed_within_a_second(far: Samples) -> None:
    near = pcm16(noise(len(far)))
    change = 4 * SAMPLE_RATE
    near[change:] = ROOMS[1].hears(far)[change:]
    seen = looks(near, far)
    assert not seen[change // 480 - 1]
    assert all(seen[change // 480 + 1000 // FRAME_MS :])


@pytest.mark.local
@pytest.mark.parametrize("start", [2, 4])
def test_with_headphones_an_interruption_is_heard_at_once(start: int, far: Samples) -> None:
    counts = []
    for name in INTERRUPTIONS:
        talker: Sound = np.zeros(len(far))
        said = spoken(name, TALKER_DB)[: 3 * SAMPLE_RATE // 2]
        talker[start * SAMPLE_RATE :][: len(said)] = said
        cleaned = clean(Canceller(CARD_MS), pcm16(noise(len(far)) + talker), far)
        judged = speech(seconds(cleaned, start, start + 0.7))
        counts.append(np.count_nonzero(judged[: 700 // HOP_MS]))
    assert sum(count >= SPEECH_HOPS for count in counts) >= len(INTERRUPTIONS) - 1
