"""The speaker's queue."""

from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicechat.audio.playback import PlaybackBuffer
from voicechat.pcm import SAMPLE_RATE

Heard = list[tuple[str, int]]
MS = 24  # samples


def sound(samples: int) -> bytes:
    return np.arange(1, samples + 1, dtype="<i2").tobytes()


def pull(buffer: PlaybackBuffer, samples: int) -> tuple[list[int], Heard]:
    out: NDArray[np.int16] = np.full(samples, -1, dtype=np.int16)
    finished = buffer.pull(out)
    return out.tolist(), finished


def with_latency(samples: int) -> PlaybackBuffer:
    buffer = PlaybackBuffer()
    buffer.connect(SAMPLE_RATE, samples / SAMPLE_RATE)
    return buffer


def test_what_is_pulled_is_what_was_pushed_then_silence() -> None:
    buffer = PlaybackBuffer()
    buffer.push("item_1", sound(3))
    buffer.push("item_1", sound(2))
    assert pull(buffer, 4) == ([1, 2, 3, 1], [])
    assert pull(buffer, 4) == ([2, 0, 0, 0], [])


def test_one_block_is_filled_from_as_many_items_as_it_takes() -> None:
    buffer = PlaybackBuffer()
    for item_id in ("item_1", "item_2", "item_3"):
        buffer.push(item_id, sound(2 * MS))
        buffer.end(item_id)
    out, finished = pull(buffer, 6 * MS)
    assert 0 not in out
    assert finished == [("item_1", 2), ("item_2", 2), ("item_3", 2)]


def test_samples_may_be_cut_in_the_middle_even_those_of_two_items_at_once() -> None:
    buffer = PlaybackBuffer()
    one, two = sound(3), (np.arange(3, dtype="<i2") + 300).tobytes()
    for at in range(6):
        buffer.push("item_1", one[at : at + 1])
        buffer.push("item_1", b"")
    buffer.push("item_2", two[:3])
    buffer.push("item_1", one[:5])
    buffer.push("item_2", two[3:])
    assert pull(buffer, 9)[0] == [1, 2, 3, 300, 1, 2, 301, 302, 0]


def test_samples_still_inside_the_card_were_not_heard() -> None:
    buffer = with_latency(20 * MS)
    buffer.push("item_1", sound(1000 * MS))
    pull(buffer, 100 * MS)
    assert buffer.stop() == (("item_1", 80),)


def test_nothing_was_heard_before_the_first_sample_left_the_card() -> None:
    buffer = with_latency(100 * MS)
    buffer.push("item_1", sound(1000 * MS))
    pull(buffer, 60 * MS)
    assert buffer.stop() == (("item_1", 0),)


def test_silence_before_after_and_within_an_item_is_not_part_of_it() -> None:
    buffer = PlaybackBuffer()
    pull(buffer, 50 * MS)
    buffer.push("item_1", sound(10 * MS))
    pull(buffer, 100 * MS)
    buffer.push("item_1", sound(10 * MS))
    pull(buffer, 100 * MS)
    assert buffer.stop() == (("item_1", 20),)


def test_the_silence_of_a_gap_that_is_still_inside_the_card_does_not_count_as_unheard() -> None:
    buffer = with_latency(30 * MS)
    buffer.push("item_1", sound(20 * MS))
    pull(buffer, 40 * MS)
    buffer.push("item_1", sound(20 * MS))
    pull(buffer, 20 * MS)  # the ear is at 30 of 60: 20 of sound, 10 of the gap
    assert buffer.stop() == (("item_1", 20),)


def test_an_item_has_finished_when_its_last_sample_has_left_the_card() -> None:
    buffer = with_latency(30 * MS)
    buffer.push("item_1", sound(30 * MS))
    buffer.end("item_1")
    assert pull(buffer, 59 * MS)[1] == []
    assert pull(buffer, 1 * MS)[1] == [("item_1", 30)]
    assert buffer.is_empty


def test_an_item_whose_end_is_known_only_after_it_was_heard_finishes_at_once() -> None:
    buffer = with_latency(30 * MS)
    buffer.push("item_1", sound(30 * MS))
    assert pull(buffer, 200 * MS)[1] == []
    buffer.end("item_1")
    assert pull(buffer, 0)[1] == [("item_1", 30)]


def test_an_item_finishes_when_it_was_heard_whatever_is_queued_behind_it() -> None:
    buffer = PlaybackBuffer()
    buffer.push("item_1", sound(10 * MS))
    buffer.push("item_2", sound(1000 * MS))
    buffer.end("item_1")
    assert pull(buffer, 10 * MS)[1] == [("item_1", 10)]


def test_an_item_without_sound_finishes_at_once_but_in_its_turn() -> None:
    buffer = with_latency(100 * MS)
    buffer.end("item_0")
    assert pull(buffer, MS)[1] == [("item_0", 0)]
    buffer.push("item_1", sound(10 * MS))
    buffer.end("item_1")
    buffer.end("item_2")
    assert pull(buffer, 50 * MS)[1] == []
    assert pull(buffer, 60 * MS)[1] == [("item_1", 10), ("item_2", 0)]


def test_after_a_stop_an_item_without_sound_waits_for_nothing() -> None:
    buffer = with_latency(100 * MS)
    buffer.push("item_1", sound(10 * MS))
    pull(buffer, 10 * MS)
    buffer.stop()
    buffer.end("item_2")
    assert pull(buffer, MS)[1] == [("item_2", 0)]


def test_stop_tells_of_every_item_and_drops_everything() -> None:
    buffer = with_latency(30 * MS)
    for item_id in ("item_1", "item_2", "item_3"):
        buffer.push(item_id, sound(40 * MS))
        buffer.end(item_id)
    pull(buffer, 65 * MS)  # the ear is at 35: item_1 is wholly taken, not wholly heard
    assert buffer.stop() == (("item_1", 35), ("item_2", 0), ("item_3", 0))
    assert buffer.waiting == 0
    assert pull(buffer, 100 * MS) == ([0] * (100 * MS), [])
    assert buffer.stop() == ()


def test_the_position_is_in_the_item_being_heard_not_in_those_before() -> None:
    buffer = with_latency(10 * MS)
    buffer.push("item_1", sound(20 * MS))
    buffer.end("item_1")
    buffer.push("item_2", sound(20 * MS))
    assert pull(buffer, 35 * MS)[1] == [("item_1", 20)]
    assert buffer.stop() == (("item_2", 5),)


def test_what_the_card_held_at_a_stop_is_not_counted_for_what_comes_next() -> None:
    buffer = with_latency(100 * MS)
    buffer.push("item_1", sound(200 * MS))
    pull(buffer, 150 * MS)
    buffer.stop()
    buffer.push("item_2", sound(10 * MS))
    pull(buffer, 105 * MS)
    assert buffer.stop() == (("item_2", 5),)


def test_sound_that_comes_after_its_end_is_heard_all_the_same() -> None:
    buffer = PlaybackBuffer()
    buffer.push("item_1", sound(2))
    buffer.end("item_1")
    buffer.push("item_1", sound(3))
    assert pull(buffer, 6)[0] == [1, 2, 1, 2, 3, 0]


def test_ten_minutes_at_once_are_all_heard() -> None:
    buffer = PlaybackBuffer()
    pcm = np.random.default_rng(0).integers(-9, 9, 600 * 1000 * MS, dtype="<i2").tobytes()
    buffer.push("item_1", pcm)
    out: NDArray[np.int16] = np.empty(480 * MS, dtype="<i2")
    heard = bytearray()
    while buffer.waiting:
        buffer.pull(out)
        heard += out.tobytes()
    assert heard == pcm


def test_a_card_that_pulls_while_the_loop_pushes_loses_nothing() -> None:
    buffer = PlaybackBuffer()
    heard: list[NDArray[np.int16]] = []
    finished: Heard = []

    def drain() -> None:
        while not finished:
            out: NDArray[np.int16] = np.empty(480, dtype="<i2")
            finished.extend(buffer.pull(out))
            heard.append(out[out != 0])

    card = Thread(target=drain)
    card.start()
    said = [sound(count) for count in np.random.default_rng(0).integers(1, 2000, 2000)]
    for piece in said:
        buffer.push("item_1", piece)
    buffer.end("item_1")
    card.join()
    assert np.concatenate(heard).tobytes() == b"".join(said)


# Beginning, gaps, and falling silent -----------------------------------------------------------


def test_sound_is_held_back_until_there_is_enough_of_it_or_all() -> None:
    buffer = PlaybackBuffer(start_up_ms=60)
    buffer.push("item_1", sound(59 * MS))
    assert not any(pull(buffer, 480)[0])
    buffer.push("item_1", sound(1 * MS))
    assert pull(buffer, 480)[0] == list(range(1, 481))
    assert buffer.stop() == (("item_1", 20),)
    buffer.push("item_2", sound(30 * MS))
    assert not any(pull(buffer, 480)[0])
    buffer.end("item_2")
    assert pull(buffer, 480)[0] == list(range(1, 481))
    out, finished = pull(buffer, 480)
    assert out == [*range(481, 721), *[0] * 240]
    assert finished == [("item_2", 30)]


def test_a_gap_fades_both_ways_is_counted_and_loses_nothing() -> None:
    buffer = PlaybackBuffer(start_up_ms=20, fade_ms=5)
    loud = np.full(30 * MS, 12_000, dtype="<i2").tobytes()
    buffer.push("item_1", loud)
    out = [*pull(buffer, 480)[0], *pull(buffer, 480)[0], *pull(buffer, 480)[0]]
    assert out[: 30 * MS] == [12_000] * 30 * MS
    fade = out[30 * MS : 35 * MS]
    assert fade == sorted(fade, reverse=True)
    assert 11_000 < fade[0] < 12_000
    assert not any(out[35 * MS :])
    assert buffer.gaps == 0  # it may have been the end
    buffer.push("item_1", loud)
    buffer.end("item_1")
    assert buffer.gaps == 1
    back, finished = pull(buffer, 30 * MS)
    assert back[: 5 * MS] == sorted(back[: 5 * MS])
    assert 0 <= back[0] < 200
    assert back[5 * MS :] == [12_000] * 25 * MS
    assert finished == [("item_1", 60)]
    assert max(abs(np.diff([*out, *back]))) < 200  # no click anywhere


def test_an_item_that_ends_where_it_broke_off_had_no_gap() -> None:
    buffer = PlaybackBuffer(fade_ms=5)
    buffer.push("item_1", sound(480))
    pull(buffer, 960)
    buffer.end("item_1")
    buffer.push("item_2", sound(480))
    buffer.end("item_2")
    assert pull(buffer, 480)[0] == list(range(1, 481))
    assert buffer.gaps == 0


def test_stop_fades_within_ten_ms_and_is_silent_then() -> None:
    buffer = PlaybackBuffer(fade_ms=5)
    time = np.arange(1000 * MS)
    wave = (12_000 * np.cos(2 * np.pi * time * 200 / SAMPLE_RATE)).astype("<i2")
    buffer.push("item_1", wave.tobytes())
    before, _ = pull(buffer, 480)
    assert buffer.stop() == (("item_1", 20),)
    after, _ = pull(buffer, 480)
    assert not any(after[10 * MS :])
    assert np.abs(np.diff([*before, *after])).max() < 1.5 * np.abs(np.diff(wave)).max()
    at_once, _ = pull(PlaybackBuffer(fade_ms=5), 480)
    assert not any(at_once)


def test_stop_right_after_the_last_sample_fades_too() -> None:
    buffer = PlaybackBuffer(fade_ms=5)
    buffer.push("item_1", np.full(480, 9_000, dtype="<i2").tobytes())
    pull(buffer, 480)
    buffer.stop()
    out, _ = pull(buffer, 480)
    assert out[0] > 8_000
    assert not any(out[5 * MS :])
    assert not any(pull(buffer, 480)[0])


@pytest.mark.parametrize("rate", [48_000, 44_100, 16_000])
def test_a_card_of_another_rate_hears_all_of_it_and_positions_stay_true(rate: int) -> None:
    buffer = PlaybackBuffer()
    buffer.connect(rate, 0.1)
    time = np.arange(1000 * MS)
    wave = (12_000 * np.sin(2 * np.pi * time * 440 / SAMPLE_RATE)).astype("<i2").tobytes()
    for at in range(0, len(wave), 7_001):
        buffer.push("item_1", wave[at : at + 7_001])
    buffer.end("item_1")
    out = [sample for _ in range(30) for sample in pull(buffer, rate // 50)[0]]
    ideal = 12_000 * np.sin(2 * np.pi * np.arange(len(out)) * 440 / rate)
    assert np.abs(np.array(out) - ideal)[rate // 100 :].max() < 120
    assert buffer.stop() == (("item_1", 500),)

    buffer.push("item_2", wave)
    buffer.end("item_2")
    pull(buffer, rate // 2)
    buffer.connect(32_000, 0.0)  # what is left is played by another card
    finished: Heard = []
    rest: list[int] = []
    while not finished:
        out, finished = pull(buffer, 640)
        rest += out
    assert finished == [("item_2", 1000)]
    assert np.flatnonzero(rest)[-1] == pytest.approx(16_000, abs=40)
    ideal = 12_000 * np.sin(2 * np.pi * (np.arange(15_000) / 32_000 + 0.5) * 440)
    assert np.abs(np.array(rest[:15_000]) - ideal)[320:].max() < 150


ITEMS = st.integers(0, 3)
ACTIONS = st.one_of(
    st.tuples(st.just("push"), ITEMS, st.integers(0, 200)),
    st.tuples(st.just("end"), ITEMS, st.just(0)),
    st.tuples(st.just("pull"), st.just(0), st.integers(0, 200)),
    st.tuples(st.just("stop"), st.just(0), st.just(0)),
)


@given(latency=st.integers(0, 300), actions=st.lists(ACTIONS, max_size=60))
def test_heard_is_what_was_pulled_less_what_is_inside(
    latency: int, actions: list[tuple[str, int, int]]
) -> None:
    """Against a whole memory of the card: of every millisecond, the item and the samples' value."""
    buffer = with_latency(latency * MS)
    queue: list[tuple[str, int]] = []
    card: list[tuple[str, int]] = []
    alive: list[str] = []
    ended: set[str] = set()
    names = ["item_0", "item_1", "item_2", "item_3"]

    def heard(item_id: str) -> int:
        return [name for name, _ in card[: max(0, len(card) - latency)]].count(item_id)

    def is_heard(item_id: str) -> bool:
        return item_id not in [name for name, _ in queue + card[max(0, len(card) - latency) :]]

    for number, (action, which, count) in enumerate(actions, start=1):
        item_id = names[which]
        if action == "push" and item_id not in ended:
            buffer.push(item_id, np.full(count * MS, number, "<i2").tobytes())
            queue += [(item_id, number)] * count
            alive += [item_id] * (item_id not in alive)
        elif action == "end" and item_id not in ended:
            buffer.end(item_id)
            ended.add(item_id)
            alive += [item_id] * (item_id not in alive)
        elif action == "pull":
            taken = queue[:count] + [("", 0)] * (count - len(queue))
            queue, card = queue[count:], card + taken
            out, finished = pull(buffer, count * MS)
            assert out == [value for _, value in taken for _ in range(MS)]
            for name, heard_ms in finished:
                assert name in ended
                assert is_heard(name)
                assert heard_ms == heard(name)
                alive.remove(name)
                names[names.index(name)] = f"{name}'"
            assert not [name for name in alive if name in ended and is_heard(name) and heard(name)]
        elif action == "stop":
            assert buffer.stop() == tuple((name, heard(name)) for name in alive)
            names = [f"{name}'" for name in names]
            queue, alive = [], []
        assert buffer.waiting == len(queue) * MS


@given(latency=st.integers(0, 300), actions=st.lists(ACTIONS, max_size=60))
def test_calls_in_an_order_that_no_server_should_cause_lose_nothing_either(
    latency: int, actions: list[tuple[str, int, int]]
) -> None:
    buffer = with_latency(latency)
    waiting = 0
    for action, which, count in actions:
        if action == "push":
            buffer.push(f"item_{which}", sound(count))
            waiting += count
        elif action == "end":
            buffer.end(f"item_{which}")
        elif action == "pull":
            out, _ = pull(buffer, count)
            assert np.count_nonzero(out) == min(count, waiting)
            waiting -= min(count, waiting)
        elif action == "stop":
            assert all(heard_ms >= 0 for _, heard_ms in buffer.stop())
            waiting = 0
        assert buffer.waiting == waiting
