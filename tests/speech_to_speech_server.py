"""Hugging Face's ``speech-to-speech`` with ears, a mind and a voice that need no weights.

The server, its protocol, its sessions, its chat and what ties its pipeline together are theirs, as
installed; only what would load a model is replaced: speech is whatever is loud, it always means the
same, the answer says what the mind was told, and the voice is a tone.

Run as a program: ``python -m tests.speech_to_speech_server PORT NOTES``; it writes what the mind
was told, a JSON line for each answer, to the file NOTES.
"""

import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any

import numpy as np
from openai.types.realtime.realtime_conversation_item_assistant_message import (
    Content,
    RealtimeConversationItemAssistantMessage,
)
from speech_to_speech.api.openai_realtime.pipeline_unit import PipelineUnit
from speech_to_speech.api.openai_realtime.server import RealtimeServer
from speech_to_speech.api.openai_realtime.service import RealtimeService
from speech_to_speech.baseHandler import BaseHandler
from speech_to_speech.LLM.lm_output_processor import LMOutputProcessor
from speech_to_speech.pipeline.cancel_scope import CancelScope
from speech_to_speech.pipeline.events import SpeechStartedEvent, SpeechStoppedEvent
from speech_to_speech.pipeline.history import ResponseHistory
from speech_to_speech.pipeline.messages import (
    AUDIO_RESPONSE_DONE,
    EndOfResponse,
    GenerateResponseRequest,
    LLMResponseChunk,
    Transcription,
    TTSInput,
    VADAudio,
)
from speech_to_speech.STT.base_stt_handler import BaseSTTHandler
from speech_to_speech.STT.transcription_notifier import TranscriptionNotifier
from speech_to_speech.utils.thread_manager import ThreadManager

RATE = 16_000
LOUD = 1000
SILENCE_MS = 500
ANSWER_MS = 4000
BLOCK = 512


class Ears(BaseHandler[Any, Any]):
    """Where its voice detection would be."""

    def setup(self, events: Queue[Any]) -> None:
        self.events = events
        self.numbers = count()
        self.on_session_end()

    def on_session_end(self) -> None:
        self.heard = self.quiet = 0
        self.turn: str | None = None
        self.speech: list[np.ndarray[Any, Any]] = []

    def process(self, heard: Any) -> Iterator[VADAudio]:
        chunk, config = heard
        samples = np.frombuffer(chunk, np.int16)
        self.heard += len(samples)
        now_ms = self.heard * 1000 // RATE
        is_loud = np.abs(samples.astype(int)).max() > LOUD
        if is_loud and self.turn is None:
            self.turn = f"turn_{next(self.numbers)}"
            started = SpeechStartedEvent(audio_start_ms=now_ms, turn_id=self.turn, turn_revision=0)
            self.events.put(started)
        if self.turn is None:
            return
        self.speech.append(samples)
        self.quiet = 0 if is_loud else self.quiet + len(samples)
        if self.quiet * 1000 < SILENCE_MS * RATE:
            return
        audio, turn = np.concatenate(self.speech), self.turn
        self.turn, self.speech, self.quiet = None, [], 0
        stopped = SpeechStoppedEvent(
            duration_s=len(audio) / RATE, audio_end_ms=now_ms, turn_id=turn, turn_revision=0
        )
        self.events.put(stopped)
        yield VADAudio(
            audio=audio, runtime_config=config, mode="final", turn_id=turn, turn_revision=0
        )


class Words(BaseSTTHandler):
    """Where its speech recognition would be."""

    def process(self, speech: VADAudio) -> Iterator[Transcription]:
        yield Transcription(
            text="hello there", turn_id=speech.turn_id, turn_revision=speech.turn_revision
        )


class Mind(BaseHandler[Any, Any]):
    """Where its language model would be."""

    def setup(self, scope: CancelScope, notes: Path) -> None:
        self.cancel_scope, self.notes = scope, notes

    def process(self, request: GenerateResponseRequest) -> Iterator[Any]:
        chat = request.runtime_config.chat
        anchor, told = chat.history_anchor_id(), chat.to_transformers_chat()
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps([[each["role"], each["content"]] for each in told]) + "\n")
        text = f"You have told me {len(told)} things so far, and I remember all of them."
        ids: dict[str, Any] = {
            "turn_id": request.turn_id,
            "turn_revision": request.turn_revision,
            "cancel_generation": self.cancel_scope.generation,
            "response_key": request.response_key,
        }
        config = request.runtime_config
        yield LLMResponseChunk(text=text, runtime_config=config, response=request.response, **ids)
        said = RealtimeConversationItemAssistantMessage(
            type="message", role="assistant", content=[Content(type="output_text", text=text)]
        )
        history = ResponseHistory.capture(chat, [said], after_item_id=anchor, complete=True)
        yield EndOfResponse(history=history, **ids)


class Voice(BaseHandler[Any, Any]):
    """Where its speech synthesis would be."""

    def setup(self, scope: CancelScope) -> None:
        self.cancel_scope = scope

    def process(self, words: TTSInput | EndOfResponse) -> Iterator[Any]:
        if isinstance(words, EndOfResponse):
            yield AUDIO_RESPONSE_DONE
            return
        for start in range(0, ANSWER_MS * RATE // 1000, BLOCK):
            if self.cancel_scope.is_stale(words.cancel_generation):
                return
            time = np.arange(start, start + BLOCK) / RATE
            yield (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)


def serve(port: int, notes: Path) -> None:
    """Serve one client at a time, until killed."""
    stop, listening, scope = Event(), Event(), CancelScope()
    microphone, speech, words, prompts, thoughts, sentences, out, events = (
        Queue[Any]() for _ in range(8)
    )
    listening.set()
    handlers = [
        Ears(stop, microphone, speech, setup_args=(events,)),
        Words(stop, speech, words),
        TranscriptionNotifier(
            stop,
            words,
            prompts,
            setup_kwargs={"text_output_queue": events, "should_listen": listening},
        ),
        Mind(stop, prompts, thoughts, setup_args=(scope, notes)),
        LMOutputProcessor(stop, thoughts, sentences, setup_kwargs={"text_output_queue": events}),
        Voice(stop, sentences, out, setup_args=(scope,)),
    ]
    unit = PipelineUnit(
        index=0,
        service=RealtimeService(text_prompt_queue=prompts, should_listen=listening),
        cancel_scope=scope,
        should_listen=listening,
        response_playing=Event(),
        input_queue=microphone,
        output_queue=out,
        text_output_queue=events,
        text_prompt_queue=prompts,
        handlers=handlers,
    )
    for handler in handlers:
        handler.pipeline_index = 0
    manager = ThreadManager([*handlers, RealtimeServer(stop, [unit], "127.0.0.1", port)])
    manager.start()
    manager.wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
