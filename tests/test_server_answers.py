"""Typed and spoken turns, and what becomes of the answers."""

from tests.server_scene import ServerScene, kinds
from voicechat.server import contract

SPOKEN = [
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.delta",
    "response.output_audio.delta",
]
BEGUN = [
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
ENDED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def test_the_first_frame_shows_the_whole_session() -> None:
    scene = ServerScene()
    [created] = scene.said
    session = created["session"]
    assert created["type"] == "session.created"
    assert session["expires_at"] == 1_800_003_600
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
    assert session["audio"]["input"]["transcription"] is None
    assert session["audio"]["output"]["voice"] == "alloy"


def test_a_typed_turn_is_answered_aloud_in_the_order_of_the_real_service() -> None:
    scene = ServerScene()
    assert kinds(scene.say("u1", "Hi")) == ["conversation.item.added", "conversation.item.done"]
    [created] = scene.send("response.create", response={"metadata": {"job": "a"}})
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["metadata"] == {"job": "a"}
    [job] = scene.jobs(contract.Generate)
    assert job.messages == (contract.Message("user", "Hi"),)
    events = scene.answer("Hello.", "How are you?")
    assert kinds(events) == [*BEGUN, *SPOKEN, *SPOKEN, *ENDED]
    done = events[-1]["response"]
    assert done["output"][0]["content"] == [
        {"type": "output_audio", "transcript": "Hello. How are you?"}
    ]
    assert done["metadata"] == {"job": "a"}
    assert done["usage"]["output_token_details"] == {"text_tokens": 5, "audio_tokens": 20}
    assert kinds(scene.wait(0.05)) == ["rate_limits.updated"]


def test_every_event_has_an_id_of_its_own() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    scene.send("response.create")
    scene.answer("Hello.")
    ids = [event["event_id"] for event in scene.said]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_an_answer_asked_for_as_text_is_text() -> None:
    scene = ServerScene()
    scene.update(output_modalities=["text"])
    scene.say("u1", "Hi")
    scene.send("response.create")
    events = scene.answer("Hello.")
    assert kinds(events) == [
        *BEGUN,
        "response.output_text.delta",
        "response.output_text.done",
        *ENDED[2:],
    ]
    assert events[2]["part"] == {"type": "text", "text": ""}
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Hello."}
    ]


def test_without_a_voice_answers_are_written_although_sound_was_asked_for() -> None:
    scene = ServerScene(can_speak=False)
    scene.say("u1", "Hi")
    scene.send("response.create")
    events = scene.answer("Hello.")
    assert "response.output_text.done" in kinds(events)
    assert "response.output_audio.done" not in kinds(events)
    assert events[-1]["response"]["output_modalities"] == ["audio"]


def test_a_spoken_turn_is_heard_transcribed_and_answered() -> None:
    scene = ServerScene()
    scene.update(audio={"input": {"transcription": {"model": "any", "language": "en"}}})
    events = scene.hear((0.1, 640), (0.9, 960), (0.1, 640))
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert events[0]["audio_start_ms"] == 640 - 300
    assert events[1]["audio_end_ms"] == 640 + 960 + 224
    assert len({event["item_id"] for event in events[:3]}) == 1
    assert events[3]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    [heard] = scene.jobs(contract.Transcribe)
    assert len(heard.pcm) == 48 * (300 + 960 + 224)
    words = scene.transcribe("Hello there.")
    assert kinds(words) == [
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert words[1]["transcript"] == "Hello there."
    [job] = scene.jobs(contract.Generate)
    assert job.messages == (contract.Message("user", "Hello there."),)
    events = scene.answer("Hi.")
    assert events[1]["previous_item_id"] == heard.item_id


def test_words_are_worked_out_before_the_turn_is_over() -> None:
    scene = ServerScene()
    detection = {"type": "server_vad", "silence_duration_ms": 600}
    scene.update(audio={"input": {"turn_detection": detection}})
    scene.hear((0.9, 960), (0.1, 256))
    [guess] = scene.jobs(contract.Transcribe)
    assert scene.transcribe("Hello") == []
    events = scene.hear((0.1, 640))
    assert kinds(events)[-1] == "response.created"
    assert scene.jobs(contract.Transcribe) == [guess]
    assert scene.jobs(contract.Generate)[0].messages[0].text == "Hello"


def test_a_guess_is_void_when_the_speaker_goes_on() -> None:
    scene = ServerScene()
    detection = {"type": "server_vad", "silence_duration_ms": 600}
    scene.update(audio={"input": {"turn_detection": detection}})
    scene.hear((0.9, 960), (0.1, 256))
    scene.transcribe("Hello")
    scene.hear((0.9, 320), (0.1, 640))
    first, second = scene.jobs(contract.Transcribe)
    assert len(second.pcm) > len(first.pcm)
    assert scene.jobs(contract.Generate) == []
    scene.transcribe("Hello again")
    assert scene.jobs(contract.Generate)[0].messages[0].text == "Hello again"


def test_sound_without_words_is_not_answered() -> None:
    scene = ServerScene()
    scene.update(audio={"input": {"transcription": {"model": "any"}}})
    scene.hear((0.9, 640), (0.1, 640))
    events = scene.transcribe("")
    assert kinds(events) == [
        "conversation.item.input_audio_transcription.completed",
        "response.done",
    ]
    assert events[1]["response"]["status"] == "completed"
    assert events[1]["response"]["output"] == []
    assert scene.jobs(contract.Generate) == []


def test_without_ears_one_plain_sentence_answers_and_the_mind_never_reads_it() -> None:
    scene = ServerScene()
    scene.update(audio={"input": {"transcription": {"model": "any"}}})
    scene.hear((0.9, 640), (0.1, 640))
    [job] = scene.jobs(contract.Transcribe)
    events = scene.happen(contract.TranscriptionFailed(job.item_id, job.take, "I cannot hear."))
    assert kinds(events) == ["conversation.item.input_audio_transcription.failed"]
    assert events[0]["error"]["message"] == "I cannot hear."
    assert [utter.text for utter in scene.jobs(contract.Utter)] == ["I cannot hear."]
    scene.answer("I cannot hear.")
    scene.say("u2", "Hi")
    scene.send("response.create")
    assert scene.jobs(contract.Generate)[0].messages == (contract.Message("user", "Hi"),)


def test_speech_cuts_off_the_answer() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    scene.send("response.create")
    [job] = scene.jobs(contract.Generate)
    scene.happen(contract.SentenceReady(job.response_id, "Well,", bytes(48 * 500)))
    events = scene.hear((0.9, 640))
    assert kinds(events) == ["input_audio_buffer.speech_started", *ENDED]
    done = events[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    assert done["output"][0]["content"][0]["transcript"] == "Well,"
    assert scene.jobs(contract.Stop) == [contract.Stop(job.response_id)]
    late = contract.SentenceReady(job.response_id, "too late", bytes(96))
    assert scene.happen(late) == []


def test_speech_does_not_cut_off_the_answer_where_the_client_says_so() -> None:
    scene = ServerScene()
    detection = {"type": "server_vad", "interrupt_response": False, "create_response": False}
    scene.update(audio={"input": {"turn_detection": detection}})
    scene.say("u1", "Hi")
    scene.send("response.create")
    events = scene.hear((0.9, 640), (0.1, 640))
    assert "response.done" not in kinds(events)
    assert "response.created" not in kinds(events)
    assert "response.done" in kinds(scene.answer("Hello."))


def test_a_cancelled_answer_without_words_has_no_item() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    [created] = scene.send("response.create")
    [done] = scene.send("response.cancel", response_id=created["response"]["id"])
    assert done["response"]["status_details"]["reason"] == "client_cancelled"
    assert done["response"]["output"] == []


def test_a_failed_answer_says_why() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    scene.send("response.create")
    [job] = scene.jobs(contract.Generate)
    [done] = scene.happen(contract.AnswerFailed(job.response_id, "no memory"))
    assert done["response"]["status"] == "failed"
    assert done["response"]["status_details"]["error"]["message"] == "no memory"


def test_an_answer_cut_by_the_clients_limit_is_incomplete() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    scene.send("response.create", response={"max_output_tokens": 5})
    [job] = scene.jobs(contract.Generate)
    assert job.max_tokens == 5
    [done] = scene.happen(contract.AnswerEnded(job.response_id, was_cut=True))
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"]["reason"] == "max_output_tokens"


def test_an_answer_out_of_band_leaves_no_trace_in_the_conversation() -> None:
    scene = ServerScene()
    scene.say("u1", "Hi")
    scene.send("response.create")
    request = {
        "conversation": "none",
        "output_modalities": ["text"],
        "instructions": "Summarise.",
        "metadata": {"job": "summary"},
        "input": [
            {"type": "item_reference", "id": "u1"},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "More"}],
            },
        ],
    }
    [created] = scene.send("response.create", response=request)
    assert created["response"]["conversation_id"] is None
    _, job = scene.jobs(contract.Generate)
    assert [message.text for message in job.messages] == ["Hi", "More"]
    assert job.instructions == "Summarise."
    events = scene.answer("Short.")
    assert not any(kind.startswith("conversation.") for kind in kinds(events))
    assert events[-1]["response"]["metadata"] == {"job": "summary"}
    assert [item.item_id for item in scene.session.items] == ["u1"]


def test_push_to_talk_commits_by_hand_and_asks_by_hand() -> None:
    scene = ServerScene()
    scene.update(audio={"input": {"turn_detection": None}})
    assert scene.hear((0.9, 1280), (0.1, 1280)) == []
    events = scene.send("input_audio_buffer.commit")
    assert kinds(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert kinds(scene.send("response.create")) == ["response.created"]
    assert scene.jobs(contract.Generate) == []
    scene.transcribe("Hello")
    assert len(scene.jobs(contract.Generate)) == 1


def test_semantic_detection_waits_as_long_as_its_eagerness_says() -> None:
    for eagerness, silence_ms in (("low", 1216), ("auto", 704), ("high", 416)):
        scene = ServerScene()
        detection = {"type": "semantic_vad", "eagerness": eagerness}
        [updated] = scene.update(audio={"input": {"turn_detection": detection}})
        assert "threshold" not in updated["session"]["audio"]["input"]["turn_detection"]
        events = scene.hear((0.9, 640), (0.1, 1600))
        assert events[1]["audio_end_ms"] == 640 + silence_ms


def test_a_threshold_that_is_not_reached_starts_no_turn() -> None:
    scene = ServerScene()
    detection = {"type": "server_vad", "threshold": 0.8}
    scene.update(audio={"input": {"turn_detection": detection}})
    assert scene.hear((0.7, 640)) == []
    assert kinds(scene.hear((0.9, 64))) == ["input_audio_buffer.speech_started"]


def test_what_was_cleared_starts_no_turn_and_joins_none() -> None:
    scene = ServerScene()
    scene.append(640)
    assert kinds(scene.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    late = contract.VoiceHeard((0.9,) * 20)
    assert scene.happen(late) == []
    [started] = scene.hear((0.9, 320))
    assert started["audio_start_ms"] == 640


def test_one_append_may_hold_several_turns() -> None:
    scene = ServerScene()
    scene.append(3200)
    turn = (0.9,) * 20 + (0.1,) * 30
    events = scene.happen(contract.VoiceHeard(turn * 2))
    assert kinds(events).count("input_audio_buffer.committed") == 2
    first, second = scene.jobs(contract.Transcribe)
    assert len(first.pcm) == 48 * (640 + 224)
    assert len(second.pcm) == 48 * (300 + 640 + 224)


def test_the_session_ends_after_its_lifetime() -> None:
    scene = ServerScene(lifetime=3600.0)
    assert scene.wait(3599) == []
    [error] = scene.wait(1.1)
    assert error["error"]["code"] == "session_expired"
    assert error["error"]["message"] == "Your session hit the maximum duration of 60 minutes."
    assert scene.jobs(contract.Close) == [
        contract.Close(1001, "Your session hit the maximum duration of 60 minutes.")
    ]
