"""What the user chose about the conversation; `providers` makes a ``session.update`` of it."""

from dataclasses import dataclass
from typing import Literal

Vad = Literal["server", "semantic", "none"]
NoiseReduction = Literal["near", "far", "off"]

DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_VOICE = "marin"
DEFAULT_TRANSCRIPTION_MODEL = "gpt-live-transcribe"
DEFAULT_INSTRUCTIONS = (
    "You are a friendly companion in a spoken conversation. You are speaking, not writing: answer "
    "in a few short sentences, without lists or markup, in the language of the user."
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the user chose about the conversation, whoever serves it."""

    model: str = DEFAULT_MODEL
    voice: str = DEFAULT_VOICE
    instructions: str = DEFAULT_INSTRUCTIONS
    language: str | None = None
    """ISO 639-1 code of what the user speaks; None lets the server guess."""
    transcription_model: str = DEFAULT_TRANSCRIPTION_MODEL
    vad: Vad = "server"
    noise_reduction: NoiseReduction | None = None
    """By the server, before it listens: for a headset, a room, or none; None leaves it alone."""
    text_only: bool = False
    """Answers are written, not spoken."""
    speed: float | None = None
    """How fast answers are spoken; 1 is as usual, and None leaves it to the server."""
