"""What goes over the wire, both ways, beside the types of the official `openai` package."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

from tests.dialects import GA_EVENTS, check
from tests.scene import (
    Scene,
    answered,
    come_back,
    committed,
    done,
    lose,
    response_begins,
    response_ends,
    speak,
    user_starts,
    voice,
    words,
)
from tests.test_summaries import long_talk
from voicechat.pcm import silence
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.effects import Effect, Send
from voicechat.realtime.events import (
    CLIENT_EVENTS,
    SERVER_EVENTS,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    SessionCreated,
    SessionUpdated,
    UnknownEvent,
    decode,
    encode,
)
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    MicCaptured,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    TalkKeyPressed,
    TextTyped,
)
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import AZURE, OPENAI, Provider
from voicechat.transcript import Closed, Said, Transcript

CORE = Path(__file__).parent.parent / "voicechat" / "realtime"

# What the program says ---------------------------------------------------------------------------


class Heard(Scene):
    """A scene that keeps everything that is said to the server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        super().__init__(*arguments, **options)

    def play(self, *happened: Any) -> list[Effect]:
        effects = super().play(*happened)
        self.sent += [json.loads(encode(e.event)) for e in effects if isinstance(e, Send)]
        return effects


def live(provider: Provider, **configuration: Any) -> Heard:
    scene = Heard(configuration=Configuration(**configuration), provider=provider)
    scene.play(Connected(1), SessionCreated({}), SessionUpdated())
    return scene


def interrupted(provider: Provider) -> Heard:
    """Answers that are interrupted when some of them was heard, and when nothing was."""
    scene = live(provider, noise_reduction="far", language="en")
    for heard_ms in (100, 0):
        scene.play(TextTyped("Hello"), response_begins(), words("item_A", "One two three."))
        scene.play(voice("item_A", 300), TextTyped("Wait"))
        scene.play(PlaybackStopped((("item_A", heard_ms),)), response_ends(status="cancelled"))
        scene.play(response_begins("resp_2"), response_ends("resp_2"))
    return scene


def held(provider: Provider) -> Heard:
    """Turns by the talk key: one too short, one sent, one cut by hanging up."""
    scene = live(provider, vad="none", noise_reduction="off")
    scene.play(TalkKeyPressed(), TalkKeyPressed(), TalkKeyPressed())
    speak(scene, 0, 30)
    scene.play(TalkKeyPressed(), committed("U"), response_begins(), response_ends())
    scene.play(TalkKeyPressed())
    speak(scene, 30, 60)
    scene.play(QuitRequested())
    return scene


def lost(provider: Provider) -> Heard:
    """A line that is lost in a sentence, which is said again on the next."""
    scene = live(provider, vad="semantic")
    answered(scene)
    scene.play(user_starts("U", 0))
    speak(scene, 0, 30)
    lose(scene)
    scene.play(MicCaptured(silence(20)))
    come_back(scene, "h0001", "h0002")
    return scene


def resumed(provider: Provider) -> Heard:
    """A session that is too long, with a note in it, and an item that got lost on the way."""
    note = Said(item_id="note", role="system", text="The assistant called a tool.")
    scene = Heard(
        Transcript.of([*long_talk(), note, Closed()]),
        policy=Policy(replay_tokens=300),
        provider=provider,
    )
    scene.play(Connected(1), SessionCreated({}), SessionUpdated(), response_begins())
    scene.play(ResponseOutputTextDelta("S", "They counted.", "resp_1"), response_ends())
    scene.play(SessionUpdated(), done("summary"), done("restored"))
    scene.at(5.0).play(DeadlineReached())
    scene.at(20.0).play(DeadlineReached(), TextTyped("Hello"))
    return scene


def written(provider: Provider) -> Heard:
    """Answers that come in writing where speech was wanted, and a call of a tool."""
    scene = live(provider)
    scene.play(TextTyped("Hello"), response_begins())
    scene.play(ResponseOutputTextDelta("W", "Fine.", "resp_1"))
    item = {"id": "W", "type": "message", "role": "assistant", "status": "completed"}
    scene.play(ResponseOutputItemDone(item, "resp_1"), response_ends())
    call = {"id": "C", "type": "function_call", "name": "look", "call_id": "c1", "arguments": "{}"}
    scene.play(response_begins("resp_2"), ResponseOutputItemDone(call, "resp_2"))
    scene.play(response_ends("resp_2"), PlaybackFinished("item_A", 0))
    return scene


STORIES: list[Callable[[Provider], Heard]] = [interrupted, held, lost, resumed, written]


@pytest.mark.parametrize("provider", [OPENAI, AZURE], ids=lambda each: each.name)
@pytest.mark.parametrize("story", STORIES)
def test_the_official_types_know_everything_that_is_said(
    story: Callable[[Provider], Heard], provider: Provider
) -> None:
    sent = story(provider).sent
    assert sent
    assert [odd for event in sent for odd in check(GA_EVENTS, event)] == []


@pytest.mark.parametrize("provider", [OPENAI, AZURE], ids=lambda each: each.name)
@pytest.mark.parametrize("vad", ["server", "semantic", "none"])
@pytest.mark.parametrize("text_only", [True, False])
def test_the_official_types_know_every_setting(
    provider: Provider, vad: Any, text_only: bool
) -> None:
    for noise_reduction in (None, "near", "far", "off"):
        configuration = Configuration(
            vad=vad,
            text_only=text_only,
            noise_reduction=noise_reduction,
            language="en",
            speed=0.8 if text_only else None,
        )
        event = {"type": "session.update", "session": provider.session(provider, configuration)}
        assert check(GA_EVENTS, event) == []


def test_nothing_is_ever_said_that_the_stories_above_leave_out() -> None:
    """Every place in the core that makes an event of the client's makes one of these kinds."""
    classes = {event.__name__: kind for kind, event in CLIENT_EVENTS.items()}
    made = {
        classes[name]
        for path in CORE.glob("*.py")
        if path.name not in ("events.py", "connection.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func).removeprefix("wire.")) in classes
    }
    told = {event["type"] for story in STORIES for event in story(OPENAI).sent}
    assert made == told
    assert made == CLIENT_EVENTS.keys() - {"conversation.item.retrieve"}


def test_every_shape_of_the_larger_events_is_among_the_stories() -> None:
    sent = [event for story in STORIES for event in story(OPENAI).sent]
    items = [event["item"] for event in sent if event["type"] == "conversation.item.create"]
    assert {item.get("role") for item in items} == {"user", "assistant", "system", None}
    assert {"message", "function_call_output"} == {item["type"] for item in items}
    asked = [event.get("response") for event in sent if event["type"] == "response.create"]
    assert None in asked
    assert {"output_modalities": ["audio"]} in asked
    assert any(each and each.get("conversation") == "none" for each in asked)
    assert any("previous_item_id" in event for event in sent)


# What servers say --------------------------------------------------------------------------------


def models() -> list[type[BaseModel]]:
    """Every server event of the package, each once."""
    found, waiting = dict[type[BaseModel], None](), [RealtimeServerEvent]
    while waiting:
        kind: Any = waiting.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[kind] = None
        else:
            waiting += [each for each in get_args(kind) if not isinstance(each, str)]
    return [kind for kind in found if "type" in kind.model_fields]


def example(kind: Any, *, is_full: bool) -> Any:
    """Something of this type: with all of its fields, or with those that it must have."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return example(arguments[0], is_full=is_full)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, UnionType):
        return example(arguments[0], is_full=is_full)
    if origin is list:
        return [example(arguments[0], is_full=is_full)]
    if origin is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            field.alias or name: example(field.annotation, is_full=is_full)
            for name, field in kind.model_fields.items()
            if is_full or field.is_required()
        }
    return {str: "AAAA", int: 1, float: 0.5, bool: True, object: {}}[kind]


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("kind", models(), ids=lambda kind: kind.__name__)
def test_every_event_of_the_official_types_is_understood(
    kind: type[BaseModel], is_full: bool
) -> None:
    said = example(kind, is_full=is_full)
    kind.model_validate(said)  # it is one
    event = decode(json.dumps(said), SERVER_EVENTS)
    if said["type"] in SERVER_EVENTS:
        assert event.type == said["type"]
        assert encode(event)
    else:
        assert event == UnknownEvent(said)


def test_every_event_that_is_read_is_one_of_the_official_types() -> None:
    known = {each for kind in models() for each in literal_types(kind)}
    xai = {"conversation.item.input_audio_transcription.updated"}
    assert SERVER_EVENTS.keys() - known == xai
    assert len(known) > len(SERVER_EVENTS)


def literal_types(kind: type[BaseModel]) -> Iterator[str]:
    yield from get_args(kind.model_fields["type"].annotation)
