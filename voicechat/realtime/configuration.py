"""How the server is asked to behave: the content of one ``session.update``."""

from dataclasses import dataclass
from typing import Any, Literal

from voicechat.pcm import SAMPLE_RATE

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

    def session(self) -> dict[str, Any]:
        """The ``session`` of a ``session.update``.

        Every field of the turn detection is sent, because servers' defaults differ from what
        their documentation says (200 ms of silence on the wire, 500 in the docs).
        """
        audio_format = {"type": "audio/pcm", "rate": SAMPLE_RATE}
        transcription = {"model": self.transcription_model}
        if self.language:
            transcription["language"] = self.language
        heard = {
            "format": audio_format,
            "transcription": transcription,
            "turn_detection": self._turn_detection(),
        }
        if self.noise_reduction is not None:
            is_off = self.noise_reduction == "off"
            kind = None if is_off else {"type": f"{self.noise_reduction}_field"}
            heard["noise_reduction"] = kind
        spoken: dict[str, Any] = {"format": audio_format, "voice": self.voice}
        if self.speed is not None:
            spoken["speed"] = self.speed
        return {
            "type": "realtime",
            "output_modalities": ["text" if self.text_only else "audio"],
            "instructions": self.instructions,
            "audio": {"input": heard, "output": spoken},
        }

    def _turn_detection(self) -> dict[str, Any] | None:
        match self.vad:
            case "server":
                return {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                }
            case "semantic":
                return {
                    "type": "semantic_vad",
                    "eagerness": "auto",
                    "create_response": True,
                    "interrupt_response": True,
                }
            case "none":
                return None
