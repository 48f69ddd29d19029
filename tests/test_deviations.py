"""What the conversation does where a server deviates from the API."""

import numpy as np

from tests.scene import (
    Scene,
    answered,
    come_back,
    committed,
    done,
    frame,
    lose,
    response_begins,
    response_ends,
    saying,
    sound,
    speak,
    user_starts,
    voice,
    words,
)
from tests.test_summaries import long_talk
from voicechat.pcm import silence
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Link
from voicechat.realtime.effects import Notice
from voicechat.realtime.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionUpdated,
    ConversationItemTruncate,
    Event,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    ResponseCreate,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    SessionCreated,
    SessionUpdated,
)
from voicechat.realtime.input_rate import InputRate
from voicechat.realtime.inputs import (
    Connected,
    MicCaptured,
    PlaybackStopped,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, PROVIDERS, Provider
from voicechat.realtime.replay import NOTE
from voicechat.transcript import Closed, Said, Transcript

QWEN, STEPFUN, XAI = (PROVIDERS[name] for name in ("qwen", "stepfun", "xai"))


def live(provider: Provider, **configuration: object) -> Scene:
    scene = Scene(configuration=Configuration(**configuration), provider=provider)  # type: ignore[arg-type]
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    assert scene.conversation.link is Link.LIVE
    return scene


def resumed(provider: Provider, *records: Said, budget: int | None = None) -> list[Event]:
    """What a server is told of these turns."""
    transcript = Transcript.of([*records, Closed()])
    scene = Scene(transcript, policy=Policy(replay_tokens=budget), provider=provider)
    return saying(scene.play(Connected(1), SessionCreated({})), ConversationItemCreate)


# Words -----------------------------------------------------------------------------------------


def test_words_that_xai_calls_text_are_those_of_its_voice() -> None:
    scene = live(XAI)
    scene.play(TextTyped("Hello"), response_begins())
    effects = scene.play(ResponseOutputTextDelta("item_A", "Hi there.", "resp_1"))
    effects += scene.play(voice("item_A", 1000))
    effects += scene.play(ResponseOutputTextDone("item_A", "Hi there.", "resp_1"), response_ends())
    assert not [effect for effect in effects if isinstance(effect, Notice)]
    scene.play(TextTyped("Wait"), PlaybackStopped((("item_A", 0),)))
    turns = scene.conversation.transcript.turns
    assert [turn.text for turn in turns if turn.role == "assistant"] == [""]  # it was not heard


def test_words_that_come_as_text_and_as_a_transcript_are_taken_once() -> None:
    for provider in (OPENAI, XAI):
        scene = live(provider)
        scene.play(TextTyped("Hello"), response_begins())
        for word in ("Hi ", "there."):
            both = (words("item_A", word), ResponseOutputTextDelta("item_A", word, "resp_1"))
            assert not [e for e in scene.play(*both) if isinstance(e, Notice)]
        assert scene.conversation.view.words["item_A"] == ("assistant", "Hi there.")


def test_words_are_seen_while_they_are_spoken_where_the_server_tells_them() -> None:
    scene = live(XAI)
    view = scene.conversation.view
    scene.play(user_starts("U"))
    for said in ("Tell", "Tell me", "Tell me more"):
        scene.play(ConversationItemInputAudioTranscriptionUpdated("U", said))
        assert view.words == {"U": ("user", said)}
    scene.play(committed("U"), ConversationItemInputAudioTranscriptionUpdated("U", "Tell me more."))
    assert view.words == {"U": ("user", "Tell me more.")}
    scene.play(ConversationItemInputAudioTranscriptionCompleted("U", 0, "Tell me more."))
    scene.play(ConversationItemInputAudioTranscriptionUpdated("U", "Late"))
    assert not view.words
    scene.play(user_starts("V"), ConversationItemInputAudioTranscriptionUpdated("V", "Hm"))
    scene.play(user_starts("W"))  # what was heard of V was no speech
    assert not view.words
    scene.play(ConversationItemInputAudioTranscriptionUpdated("W", "So"))
    lose(scene)
    assert not view.words


# Truncation --------------------------------------------------------------------------------------


def test_a_server_that_cannot_forget_is_not_asked_to() -> None:
    for heard_ms, text in ((500, "One two"), (0, "")):
        for provider, kinds in ((OPENAI, 1), (STEPFUN, 0)):
            scene = live(provider)
            scene.play(TextTyped("Hello"), response_begins())
            scene.play(words("item_A", "One two three four"), voice("item_A", 1000))
            effects = scene.play(TextTyped("Wait"), PlaybackStopped((("item_A", heard_ms),)))
            forgotten = saying(effects, ConversationItemTruncate)
            forgotten += saying(effects, ConversationItemDelete)
            assert len(forgotten) == kinds
            answers = [text for role, text, _ in scene.spoken if role == "assistant"]
            assert answers == ([text] if text else [])


def test_what_was_heard_is_all_that_the_next_connection_is_told() -> None:
    scene = live(STEPFUN)
    scene.play(TextTyped("Hello"), response_begins())
    scene.play(words("item_A", "One two three four"), voice("item_A", 1000))
    scene.play(TextTyped("Wait"), PlaybackStopped((("item_A", 500),)), response_ends())
    lose(scene)
    told = saying(come_back(scene), ConversationItemCreate)
    texts = [event.item["content"][0] for event in told]  # type: ignore[attr-defined]
    assert texts[1] == {"type": "text", "text": "One two"}


def test_an_answer_in_writing_that_cannot_be_deleted_is_not_told_again() -> None:
    scene = live(STEPFUN)
    scene.play(TextTyped("Hello"), response_begins())
    scene.play(ResponseOutputTextDelta("W", "Fine.", "resp_1"))
    effects = scene.play(response_ends())
    assert not saying(effects, ConversationItemDelete)
    [ask] = saying(effects, ResponseCreate)
    assert ask == ResponseCreate({"modalities": ["text", "audio"]}, event_id="respond")
    effects = scene.play(TextTyped("Well?"))  # the writing stands
    told = saying(effects, ConversationItemCreate)
    assert [e.item["content"][0]["text"] for e in told] == ["Well?"]  # type: ignore[attr-defined]


# Roles -------------------------------------------------------------------------------------------

TALK = (
    Said(item_id="a", role="user", text="Hello."),
    Said(item_id="b", role="assistant", text="Hi."),
    Said(item_id="c", role="system", text="A tool was called."),
)


def test_a_history_goes_into_one_message_where_no_other_is_taken() -> None:
    items = [event.item for event in resumed(QWEN, *TALK)]  # type: ignore[attr-defined]
    assert [item["role"] for item in items] == ["user", "user"]
    assert items[0]["content"][0]["text"] == (
        "This was said so far:\nUser: Hello.\nAssistant: Hi.\nNote: A tool was called."
    )
    assert items[1]["content"][0]["text"] == NOTE


def test_a_turn_that_is_told_late_says_whose_it_was() -> None:
    scene = live(QWEN)
    scene.play(TextTyped("Hello"), response_begins(), words("item_A", "One two three."))
    scene.play(voice("item_A", 1000), response_ends())
    lose(scene)
    come_back(scene)
    scene.play(done("history"), done("restored"))
    effects = scene.play(TextTyped("Wait"), PlaybackStopped((("item_A", 500),)))
    told = [e.item for e in saying(effects, ConversationItemCreate)]  # type: ignore[attr-defined]
    said = [(item["role"], item["content"][0]["text"]) for item in told]
    assert ("user", "(Assistant: One two)") in said


# Summaries and limits ----------------------------------------------------------------------------


def test_where_no_summary_can_be_made_older_turns_are_left_out_and_counted() -> None:
    transcript = Transcript.of([*long_talk(), Closed()])
    scene = Scene(transcript, policy=Policy(replay_tokens=300), provider=STEPFUN)
    effects = scene.play(Connected(1), SessionCreated({}))
    told = saying(effects, ConversationItemCreate)
    assert not saying(effects, ResponseCreate)
    effects = scene.play(SessionUpdated(), *(done(e.item["id"]) for e in told))  # type: ignore[attr-defined]
    assert Notice("11 turns restored, 29 older ones left out.") in effects


def test_a_limit_that_the_server_does_not_tell_is_known() -> None:
    assert live(OPENAI).conversation.deadline is None
    assert live(STEPFUN).conversation.deadline == 1800 - 300
    scene = Scene(provider=STEPFUN)
    scene.play(Connected(1, 1_800_000_000.0))
    scene.play(SessionCreated({"expires_at": 1_800_000_600}), SessionUpdated())
    assert scene.conversation.deadline == 600 - 150  # its own word is better


# Rates -------------------------------------------------------------------------------------------


def test_another_rate_loses_no_sample_and_does_not_depend_on_the_frames() -> None:
    rng = np.random.default_rng(0)
    pcm = rng.integers(-20_000, 20_000, 24_000).astype("<i2").tobytes()
    made = []
    for size in (960, 962, 48_000):
        rate = InputRate(16_000)
        pieces = [rate.push(pcm[start : start + size]) for start in range(0, len(pcm), size)]
        made.append(b"".join([*pieces, rate.flush()]))
        assert len(made[-1]) == 32_000
        again = np.frombuffer(rate.push(pcm)[:1000], "<i2").astype(int)  # it begins anew
        assert np.abs(again - np.frombuffer(made[-1][:1000], "<i2")).max() <= 1
    for other in made[1:]:  # but for how the last bit is rounded
        one, two = (np.frombuffer(each, "<i2").astype(int) for each in (made[0], other))
        assert np.abs(one - two).max() <= 1
    loud = np.full(24_000, 32_767, "<i2").tobytes()
    assert np.frombuffer(InputRate(16_000).push(loud), "<i2").min() >= 0  # no overflow


def test_a_turn_at_another_rate_is_whole_before_it_is_committed() -> None:
    scene = live(QWEN, vad="none")
    for _ in range(2):
        scene.play(TalkKeyPressed())
        effects = [each for n in range(40) for each in scene.play(MicCaptured(frame(n)))]
        effects += scene.play(TalkKeyPressed())
        assert len(sound(effects)) == 40 * 640
        kinds = [type(each.event) for each in effects if hasattr(each, "event")]
        assert kinds.index(InputAudioBufferCommit) > kinds.index(InputAudioBufferAppend)
        scene.play(committed("U"), response_begins(), response_ends())


def test_what_was_not_committed_does_not_leak_into_the_next_turn() -> None:
    scene = live(QWEN, vad="none")
    scene.play(TalkKeyPressed())
    speak(scene, 0, 5)
    scene.play(TalkKeyPressed())  # too short
    scene.play(TalkKeyPressed())
    effects = [each for _ in range(40) for each in scene.play(MicCaptured(silence(20)))]
    effects += scene.play(TalkKeyPressed())
    assert sound(effects) == bytes(40 * 640)


def test_the_utterance_that_a_lost_line_took_is_said_again_at_the_rate_of_the_server() -> None:
    scene = live(QWEN)
    answered(scene)
    scene.play(TextTyped("x"))
    lose(scene)
    speak(scene, 0, 50)
    effects = come_back(scene)
    effects += scene.at(scene.now + 0.1).play(done("history"), done("restored"))
    again = np.frombuffer(sound(effects), "<i2")
    assert 16_000 * 0.9 < len(again) < 16_000 * 1.4


def test_the_clock_of_the_microphone_is_right_at_any_rate() -> None:
    """A turn whose beginning the server tells by the sound that it got is kept from there on."""
    kept = []
    for provider in (OPENAI, QWEN):
        scene = live(provider)
        speak(scene, 0, 100)
        line = scene.conversation._state.lines.serving
        assert line is not None
        kept.append(line.sent_ms)
    assert kept == [2000, 2000]
