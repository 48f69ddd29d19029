"""The whole job on real human speech, with real ears, mind and voice, as a user runs it."""

import ast
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.program import SPEECH, messages, voicechat

pytestmark = pytest.mark.local


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def heard(text: str, spoken: str) -> float:
    """Share of the spoken words that were understood."""
    return len(words(text) & words(spoken)) / len(words(spoken))


def seconds_of_speech(path: Path) -> float:
    """How much of a sound file is as loud as speech."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    frames = samples[: len(samples) // 480 * 480].reshape(-1, 480)
    return float((np.sqrt((frames**2).mean(axis=1)) > 300).sum() * 0.02)


def restored_on_the_server(verbose: str) -> list[tuple[str, str, str]]:
    """(role, part type, text) of each replayed item, as the server says it has it."""
    found = re.findall(r"← conversation.item.done item=(\{.*?\}) previous_item_id", verbose)
    items = [ast.literal_eval(item) for item in found]
    return [
        (item["role"], item["content"][0]["type"], item["content"][0]["text"])
        for item in items
        if item["id"].startswith("h0")
    ]


def test_talk_then_resume_in_a_new_process_then_list_and_export(tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"
    first = voicechat(
        "talk",
        *("--local", "--name", "the Dashwoods"),
        *("--input", SPEECH / "austen_0880.wav", "--input", SPEECH / "arctic_a0009.wav"),
        *("--output", answer),
    )
    assert first.code == 0, first.err
    asked, answered, asked_again, answered_again = first.lines
    assert asked.startswith("You: ")
    assert heard(asked, "he was not an ill disposed young man") > 0.7
    assert heard(asked_again, "he turned sharply and faced gregson across the table") > 0.7
    for line in (answered, answered_again):
        assert line.startswith("Assistant: ")
        assert words(line) - {"assistant"}
    assert seconds_of_speech(answer) > 0.5

    second_answer = tmp_path / "second.wav"
    second = voicechat(
        "resume",
        *("the dashwoods", "--verbose", "--input", SPEECH / "hb_02.wav"),
        *("--output", second_answer),
    )
    assert second.code == 0, second.err
    assert "4 turns restored." in second.err
    before = [line.split(": ", 1)[1] for line in first.lines]
    assert restored_on_the_server(second.err) == [
        ("user", "input_text", before[0]),
        ("assistant", "output_text", before[1]),
        ("user", "input_text", before[2]),
        ("assistant", "output_text", before[3]),
    ]
    assert heard(second.lines[0], "what is the capital of france") > 0.7
    assert seconds_of_speech(second_answer) > 0.3

    [listed] = json.loads(voicechat("history", "list", "--json").out)
    assert (listed["name"], listed["turns"]) == ("the Dashwoods", 6)
    said = [line.split(": ", 1)[1] for line in first.lines + second.lines]
    assert messages("last") == list(zip(["user", "assistant"] * 3, said, strict=True))
    markdown = voicechat("export", "the dashwoods", "--format", "md")
    assert markdown.out.index("young man") < markdown.out.index("France")


def test_a_typed_turn_is_answered_by_the_model_and_spoken(tmp_path: Path) -> None:
    run = voicechat(
        "talk", "--local", "--text", "What is two plus two?", "--output", tmp_path / "a.wav"
    )
    assert run.code == 0, run.err
    assert run.lines[0] == "You: What is two plus two?"
    assert len(run.lines[1]) > len("Assistant: ")
    assert seconds_of_speech(tmp_path / "a.wav") > 0.3


def test_speaking_over_the_answer_is_heard_by_the_local_server(tmp_path: Path) -> None:
    """Question, the beginning of the answer, then an interruption, in one file."""
    with wave.open(str(SPEECH / "hb_11.wav")) as file:
        question = file.readframes(file.getnframes())
    with wave.open(str(SPEECH / "hb_02.wav")) as file:
        interruption = file.readframes(file.getnframes())
    with wave.open(str(tmp_path / "over.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(question + bytes(2 * 24 * 2500) + interruption)
    run = voicechat("talk", "--local", "--input", tmp_path / "over.wav")
    assert run.code == 0, run.err
    spoken = [line for line in run.lines if line.startswith("You: ")]
    assert len(spoken) == 2
    assert "France" in spoken[1]
    assert run.lines[-1].startswith("Assistant: ")
