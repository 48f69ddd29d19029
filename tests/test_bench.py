"""The benchmarks run, and tell what they measured; how fast it was is no matter here."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import bench.audio
import bench.common
import bench.history
import bench.replay
import bench.resume
import bench.rotation
import bench.soak
import bench.startup
from bench.server import running
from voicechat.history.reading import add_up


def test_the_replay_benchmark_tells_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--turns", "4", "--round-trips", "0", "20", "--repetitions", "1"]
    code = bench.replay.main([*small, "--moves", "0", "--saved-turns", "100", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["missed"] else 0)
    near, far = told["results"]
    assert near["turns"] == far["turns"] == 4
    assert near["server_ms"] > 0  # how much is for bench/ to say, not for a noisy moment
    # A burst pays for the distance once, one at a time for each item and for the settings.
    assert 20 <= far["voicechat_ms"] < far["single_ms"]
    assert far["single_ms"] >= 6 * 20
    assert told["rotation"] == []
    (resumed,) = told["resume"]
    assert resumed["turns"] == 100
    steps = [resumed[f"{step}_ms"] for step in ("read", "plan", "first_byte")]
    assert min(steps) > 0
    assert resumed["total_ms"] == pytest.approx(sum(steps))


def test_the_rotation_benchmark_counts_the_frames_and_times_the_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.rotation, "ROTATE_AFTER", 2.0)
    with running(20) as server:
        result = bench.rotation.measure(server, 20, moves=1)
    assert result.moves >= 1
    assert result.frames > 2 * bench.rotation.UTTERANCE_FRAMES
    assert result.lost == 0
    # The silence that ends a turn, and the way to the server and back.
    assert min(result.ordinary_ms, result.after_a_move_ms) > 200


def test_the_table_names_every_target_that_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    slow = bench.replay.Result(500, 80, 400.0, 100.0, 30_000.0, 10.0, 4.0)
    assert len(slow.missed) == 3
    assert "500" in bench.replay.table([slow])
    fast = bench.replay.Result(500, 80, 130.0, 120.0, 40_000.0, 10.0, 1.1)
    assert fast.missed == []
    near = bench.replay.Result(2000, 80, 200.0, 190.0, None, 50.0, 1.1)
    assert near.missed == []
    assert "not run" in bench.replay.table([near])
    bumpy = bench.rotation.Result(100, 80, 10, 1500, 2, 0, 280.0, 350.0)
    assert len(bumpy.missed) == 2
    assert "+70.0 ms" in bench.rotation.table([bumpy])
    smooth = bench.rotation.Result(100, 80, 10, 1500, 0, 0, 280.0, 283.0)
    assert smooth.missed == []
    late = bench.resume.Result(20_000, 18.0, 15.0, 200.0, 400.0, 60.0, 50.0)
    assert len(late.missed) == 1
    assert "510 ms" in bench.resume.table([late])


def test_programs_are_timed_as_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VOICECHAT_MODEL", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "1")
    environment = bench.common.clean_environment(tmp_path)
    assert not {"VOICECHAT_MODEL", "PYTHONDONTWRITEBYTECODE"} & environment.keys()
    assert environment["VOICECHAT_HOME"] == str(tmp_path)


def test_the_startup_benchmark_tells_where_the_time_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = bench.startup.main(["--repetitions", "1", "--sessions", "2", "--json"])
    results = json.loads(capsys.readouterr().out)["results"]
    assert code == (0 if all(each["is_met"] for each in results) else 1)
    assert [each["name"] for each in results] == ["help", "history list", "session.update"]
    for each in results:
        assert each["total_ms"] > each["interpreter_ms"] > 0
    imported = [set(each["imports_ms"]) for each in results]
    assert all("voicechat" in packages for packages in imported)
    assert "websockets" in imported[2]
    assert not {"websockets", "numpy"} & (imported[0] | imported[1])


def test_the_history_benchmark_counts_what_is_found_and_changes_nothing_it_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--sessions", "7", "--repetitions", "1", "--no-llm", "--keep", str(tmp_path)]
    code = bench.history.main([*small, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["missed"] else 0)
    found = told["made"]["found"]
    assert [found["zephyr"], found["the"]] == [5, 7]
    assert 1 <= found["orchard"] < 7
    results = {each["command"]: each for each in told["results"]}
    listed = results["history list"], results[f"export {told['made']['session']}"]
    searched = [each for each in told["results"] if each["sessions"]]
    assert len(searched) == 6
    assert all(each["voicechat_ms"] > each["grep_ms"] > 0 for each in searched)
    assert all(each["voicechat_ms"] > 0 for each in listed)
    assert {each["wrong"] for each in told["results"]} == {""}
    assert {each["llm_ms"] for each in told["results"]} == {None}
    assert told["index"]["megabytes"] > 0
    assert 10 < told["index"]["peak_mb"] < 200
    # All is as it was made: the session that was changed, too.
    bench.history.save(tmp_path / "again", sessions=7, turns=20)
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "sessions").iterdir()} == again
    assert bench.history.main([*small, "--turns", "4"]) == 1
    assert "7 sessions of 20 turns" in capsys.readouterr().err


def test_a_session_made_for_the_history_benchmark_is_read_as_it_was_said(tmp_path: Path) -> None:
    bench.history.save(tmp_path, sessions=3, turns=5)
    talks = list(bench.history.conversations(3, 5))
    for talk, path in zip(talks, sorted(tmp_path.iterdir()), strict=True):
        added_up = add_up(path)
        turns = added_up.transcript.turns
        assert [turn.text for turn in turns] == [" ".join(sentences) for sentences in talk.turns]
        assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
        assert added_up.passed_over == 0
        assert added_up.transcript.name == talk.name
        assert added_up.started is not None
        assert abs(added_up.started - talk.started) < timedelta(milliseconds=1)
        assert path.name.endswith(f"-{talk.id}.jsonl")
    assert len({turn for talk in talks for turn in map(tuple, talk.turns)}) == 15


def test_a_slow_search_and_one_that_finds_too_little_miss_their_targets() -> None:
    slow = bench.history.Result("history list", None, 300.0, None, None, 300)
    assert slow.missed == ["history list takes 300 ms"]
    blind = bench.history.Result("history search a", 5, 20.0, None, None, 700, "4 found of 5")
    assert blind.missed == ["history search a: 4 found of 5"]
    common = bench.history.Result("history search the", 5, 900.0, 1.0, 1.0, None)
    assert common.missed == []
    told = bench.history.table([slow, blind, common], bench.history.Cost(1.0, 2.0, 3.0, 4.0, 5.0))
    assert told.count("MISSED") == 2


@pytest.mark.card
def test_the_audio_benchmark_tells_how_late_and_how_dear_sound_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--answers", "2", "--seconds", "3"]
    code = bench.audio.main(["--only", "latency", "cost", *small, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["missed"] else 0)
    assert [each["echo"] for each in told["latency"]] == ["cancel", "off"]
    for each in told["latency"]:
        assert each["frames"] > 50
        assert each["answers"] == 3
        assert 0 < each["queue_ms"][0] < each["start_ms"][0]
        assert 0 < each["halt_ms"][0] < each["stop_ms"][0]
        assert each["capture_ms"][0] > 0
    held_back = [each["canceller_ms"] for each in told["latency"]]
    assert held_back[0] > held_back[1] == 0
    for each in told["cost"]:
        assert each["cpu_seconds"] > 0
        assert each["peak_mb"] > 20
    assert told["interruptions"] == []


@pytest.mark.card
@pytest.mark.local
def test_the_audio_benchmark_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--tries", "1", "--alone", "1", "--levels", "-12"]
    code = bench.audio.main(["--only", "interruptions", *small])
    told = capsys.readouterr().out
    assert code == (1 if "MISSED" in told else 0)
    assert "-12 dB" in told
    assert "1/1" in told


@pytest.mark.card
def test_the_soak_compares_what_was_heard_with_what_was_played(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.soak.main(["--minutes", "0.1", "--echo", "off", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["whole"] + told["cut"] >= 1
    assert told["lost_ms"] == 0
    assert told["late"]["memory_mb"] > 20


def test_a_sound_is_found_in_another_and_silence_in_a_sound() -> None:
    read = bench.audio.reading(1)
    later = np.concatenate([np.zeros(1234, np.int16), read, np.zeros(9000, np.int16), read])
    assert bench.audio.find(read, later) in (1234, 1234 + len(read) + 9000)
    assert bench.audio.silence_in(later[1234:]) == len(read)
    assert bench.audio.silence_in(read) is None
    [first, second] = bench.soak.passages(later)
    assert np.array_equal(first, read)
    assert np.array_equal(second, read)


def test_callbacks_tell_when_sound_begins_and_ends() -> None:
    rendered = [(0.0, 0, 0), (0.02, 0, 480), (0.04, 0, 480), (0.08, 0, 120), (0.1, 0, 0)]
    begun, ended = bench.audio.turning_points(rendered)
    assert begun == [0.02]
    assert ended == [pytest.approx(0.085)]
    assert bench.audio.delays([0.01, 0.5], begun) == [pytest.approx(0.01)]
