"""The benchmarks run, and tell what they measured; how fast it was is no matter here."""

import json

import pytest

import bench.replay
import bench.startup


def test_the_replay_benchmark_tells_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--turns", "4", "--round-trips", "0", "20", "--repetitions", "1"]
    code = bench.replay.main([*small, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["missed"] else 0)
    near, far = told["results"]
    assert near["turns"] == far["turns"] == 4
    assert near["server_ms"] > 0  # how much is for bench/ to say, not for a noisy moment
    # A burst pays for the distance once, one at a time for each item and for the settings.
    assert 20 <= far["voicechat_ms"] < far["single_ms"]
    assert far["single_ms"] >= 5 * 20


def test_the_table_names_every_target_that_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    slow = bench.replay.Result(500, 80, 400.0, 100.0, 30_000.0, 10.0, 4.0)
    assert len(slow.missed) == 3
    assert "500" in bench.replay.table([slow])
    fast = bench.replay.Result(500, 80, 130.0, 120.0, 40_000.0, 10.0, 1.1)
    assert fast.missed == []


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
