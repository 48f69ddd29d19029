"""Servers end a connection after an hour; before that, the conversation moves to another."""

from __future__ import annotations

from pathlib import Path

from tests.stage import Stage, conversation, numbers, side_by_side


def check_move(stage: Stage) -> None:
    """Both connections were there at once; the first was hung up, not lost."""
    first, second = stage.peers[:2]
    assert first.websocket.close_code == 1000
    assert second.received[0]["type"] == "session.update"
    assert stage.records("lost") == []
    heard = [number for peer in stage.peers for number in numbers(bytes(peer.heard))]
    assert heard == list(range(1, stage.tape.length + 1))


def test_a_conversation_moves_to_a_second_connection_and_no_frame_is_lost(tmp_path: Path) -> None:
    def story(name: str) -> None:
        with Stage(tmp_path / name, 0.3, 0.4, 4.2, 0.4, 0.2) as stage:
            options = []
            if name == "because the user wants it":
                options = ["--rotate-after", "0.05"]
            else:
                stage.server.expires_in = 6
            if name == "because it expires by a wrong clock":
                stage.server.clock_ahead = 86_400
            run = stage.talk(*options)
            assert stage.said(run) == conversation("turn 1", "turn 2")
            check_move(stage)
            assert "The line was lost" not in run.err
            frames = len(stage.peers[0].heard) // 960
            assert 2.5 < frames / 50 < 5.5

    expiries = ["because it expires", "because it expires by a wrong clock"]
    side_by_side(story, ["because the user wants it", *expiries])


def test_a_move_waits_for_silence_for_a_while_and_then_comes_anyway(tmp_path: Path) -> None:
    def story(name: str) -> None:
        length = 1.7 if name == "silence" else 12.0
        with Stage(tmp_path / name, 0.3, 0.4, 1.9, length, 1.6, 0.4, 0.2) as stage:
            stage.server.answer_ms = 100
            run = stage.talk("--rotate-after", "0.05")  # 3 s, or 13
            assert stage.said(run) == conversation("turn 1", "turn 2", "turn 3")
            assert "The line was lost" not in run.err
            frames = len(stage.peers[0].heard) // 960
            if name == "silence":
                check_move(stage)
                assert frames >= stage.tape.turns[1][-1]
            else:  # what was said of the sentence is said again to the second server
                stage.check_microphone()
                assert frames < stage.tape.turns[1][-1]
                assert numbers(bytes(stage.peers[1].heard))[0] <= stage.tape.turns[1][0]

    side_by_side(story, ["silence", "none"])
